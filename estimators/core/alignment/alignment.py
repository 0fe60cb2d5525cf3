"""Weight matching: the reordering of one network's hidden units that brings it closest to another's.

Independently trained networks differ by, among other things, the order of their hidden units. Weight matching
looks for the order that maximises the inner product of the weights (`matching.descend`); the groups of units
come from the model itself (`graph.derive_symmetry`).

References
----------
Ainsworth et al. 2023, *Git Re-Basin: Merging Models modulo Permutation Symmetries* (weight matching);
Jordan et al. 2023, *REPAIR: REnormalizing Permuted Activations for Interpolation Repair* (statistics are
estimated anew after matching; here that is the batch-norm policy ``recompute``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

from ..network.copying import private_copy
from ..network.fields import spread_at_the_door
from .graph import Symmetry, derive_symmetry
from .matching import Permutations, State, descend, identity, inner_product, reorder


@dataclass(frozen=True)
class Alignment:
    """What weight matching found.

    Attributes
    ----------
    permutations : dict
        Group (axis variable) → order of B's units: entry i says which unit of B goes to place i.
    similarity_before, similarity_after : float
        Cosine of the two weight vectors, over the tensors that have a group.
    converged : bool
        Whether the last pass changed nothing.
    objectives : tuple of float
        Inner product reached from each start.
    groups : list of dict
        Of each group its units, the weight that makes it, how many tensors share it, the share that moved.
    """

    permutations: Permutations
    similarity_before: float
    similarity_after: float
    converged: bool
    objectives: tuple[float, ...]
    groups: list[dict[str, Any]] = field(default_factory=list)


def permute_state(state: State, symmetry: Symmetry, permutations: Permutations) -> State:
    """Reorder the units of a network, batch-norm statistics included.

    Parameters
    ----------
    state : dict
        Parameter and buffer tensors by name; left as it is.
    symmetry : Symmetry
        Of that network.
    permutations : dict
        Group → order, as in `Alignment`; groups left out keep their order.

    Returns
    -------
    dict
        New tensors for what moves, the same tensors for the rest.
    """
    result = dict(state)
    for name in [n for n in symmetry.axes if n in state]:
        axes = symmetry.axes[name]
        moved = torch.empty_like(state[name], memory_format=torch.contiguous_format)
        touched = False
        pairs = zip(symmetry.blocks(state[name], axes), symmetry.blocks(moved, axes), strict=True)
        for (source, groups), (target, _) in pairs:
            touched = touched or any(g in permutations for g in groups)
            target.copy_(reorder(source, groups, permutations, symmetry))
        if touched:
            result[name] = moved
    return result


def random_permutations(symmetry: Symmetry, random_state: int) -> Permutations:
    """Draw an order for each group, uniformly and independently."""
    generator = torch.Generator().manual_seed(random_state)
    result = {}
    for g in symmetry.groups:
        places = symmetry.size(symmetry.nested[g]) if g in symmetry.nested else 0
        orders = [torch.randperm(symmetry.size(g), generator=generator) for _ in range(max(places, 1))]
        result[g] = torch.stack(orders) if places else orders[0]
    return result


def match_weights(
    state_a: State,
    state_b: State,
    symmetry: Symmetry,
    *,
    n_restarts: int = 3,
    max_sweeps: int = 100,
    random_state: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> Alignment:
    """Find the reordering of B closest to A by coordinate descent over the groups.

    Parameters
    ----------
    state_a, state_b : dict
        Parameters of the two networks by name (buffers may be among them; they take no part).
    symmetry : Symmetry
        Shared by both.
    n_restarts : int, default=3
        Starts, at least 1; the first from the order as it is, the others from random orders. The best inner
        product wins.
    max_sweeps : int, default=100
        Passes over all groups a start may take; it ends earlier when a pass changes nothing.
    random_state : int, default=0
        Seed of the order of the groups in each pass and of the random starts.
    on_progress : callable, optional
        Called with (starts done, starts) after each group of units; may raise to end the search.

    Returns
    -------
    Alignment
    """
    rng = np.random.default_rng(random_state)
    names = sorted({name for places in symmetry.groups.values() for name, _ in places})
    a = {name: state_a[name].detach().float() for name in names}
    b = {name: state_b[name].detach().float() for name in names}
    results: list[tuple[float, Permutations, bool]] = []

    def tell() -> None:
        if on_progress is not None:
            on_progress(len(results), n_restarts)

    for start in range(n_restarts):
        seed = int(rng.integers(2**31))
        initial = random_permutations(symmetry, seed) if start else identity(symmetry)
        found, converged = descend(a, b, symmetry, initial, max_sweeps, rng, tell)
        results.append((inner_product(a, b, symmetry, found, names), found, converged))
        tell()
    value, found, converged = max(results, key=lambda r: r[0])
    scale = _norm(a) * _norm(b) or 1.0
    unmoved = identity(symmetry)
    groups = [
        {**entry, "moved": float((found[g] != unmoved[g]).double().mean())}
        for g, entry in zip(symmetry.groups, symmetry.describe(), strict=True)
    ]
    return Alignment(
        permutations=found,
        similarity_before=inner_product(a, b, symmetry, unmoved, names) / scale,
        similarity_after=value / scale,
        converged=converged,
        objectives=tuple(r[0] for r in results),
        groups=groups,
    )


def largest_change(module: nn.Module, before: State, after: State, inputs: Any, tolerance: float = 1e-4) -> float:
    """Largest relative change of a network's outputs when its weights are reordered.

    Parameters
    ----------
    module : nn.Module
        The architecture; it is run in evaluation mode and left as it is.
    before, after : dict
        Parameters and buffers by name.
    inputs : Tensor or tuple
        Examples.
    tolerance : float, default=1e-4
        What is allowed.

    Returns
    -------
    float
        Largest absolute difference over the largest absolute output (or 1, if that is larger).

    Raises
    ------
    ValueError
        When the change is larger: then the reordering is not a symmetry and must not be used.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    modes = {m: m.training for m in module.modules()}
    own = {name for name, _ in (*module.named_parameters(), *module.named_buffers())}
    try:
        module.eval()
        with torch.no_grad():
            first, second = (
                _tensors(functional_call(module, {k: v for k, v in state.items() if k in own}, arguments))
                for state in (before, after)
            )
    finally:
        for m, mode in modes.items():
            m.training = mode
    scale = max(1.0, *(float(t.abs().max()) for t in first))
    change = max(float((x - y).abs().max()) for x, y in zip(first, second, strict=True)) / scale
    if not change <= tolerance:
        raise ValueError(
            f"the reordered network must give the same outputs to {tolerance:g}, got a change of "
            f"{change:.3g} for {type(module).__name__}. Its units cannot be reordered so; use align=None."
        )
    return change


def align_states(
    module: nn.Module,
    state_a: State,
    state_b: State,
    inputs: Tensor,
    *,
    n_restarts: int = 3,
    random_state: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[State, Alignment, float]:
    """Reorder B's units to match A's: derive the symmetry, match, check that B computes the same as before.

    Parameters
    ----------
    module : nn.Module
        The architecture of both.
    state_a, state_b : dict
        Parameters and buffers by name, in float32 on the CPU.
    inputs : Tensor of shape (N, ...)
        Examples; two are traced, all are used for the check.
    n_restarts, random_state, on_progress
        As in `match_weights`.

    Returns
    -------
    (dict, Alignment, float)
        B reordered, how, and the largest relative change of its outputs.

    Raises
    ------
    SymmetryError
        When the model's symmetry cannot be derived.
    ValueError
        When the outputs change by more than 1e-4.
    """
    symmetry, working = derive_symmetry(module, inputs[:2]), private_copy(module)
    spread_at_the_door(working)

    def match() -> tuple[State, Alignment, float]:
        alignment = match_weights(
            state_a, state_b, symmetry, n_restarts=n_restarts, random_state=random_state, on_progress=on_progress
        )
        moved = permute_state(state_b, symmetry, alignment.permutations)
        return moved, alignment, largest_change(working, state_b, moved, inputs)

    if not symmetry.nested:
        return match()
    try:
        return match()
    except ValueError:
        # an order of its own in each outer place was too much (places are mixed before the units are used):
        # one order for all of them is what the graph guarantees
        symmetry.nested = {}
        return match()


def _tensors(output: Any) -> list[Tensor]:
    return [t for t in tree_leaves(getattr(output, "logits", output)) if isinstance(t, Tensor)]


def _norm(state: State) -> float:
    return math.sqrt(sum(float(v.square().sum(dtype=torch.float64)) for v in state.values()))
