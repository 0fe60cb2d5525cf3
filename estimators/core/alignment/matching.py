"""Coordinate descent over permutation groups: the search behind `alignment.match_weights`.

With all groups but one held fixed, the best order of that one is a linear assignment problem. Two kinds of
group need more than that and are handled here:

- a group on two axes of one tensor (a residual stream that a layer maps to itself) has a gain that is
  quadratic in its order: its step is taken only if the inner product really grows;
- a nested group (units inside each attention head, channels inside each group of a convolution) has its own
  order in each place of its outer group, and both are found together: putting head j in place i is worth what
  the best order of the units inside is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .graph import Symmetry

State = dict[str, Tensor]
#: Group → order: entry i says which unit of B goes to place i. A nested group has a row for each outer place.
Permutations = dict[int, Tensor]


def identity(symmetry: Symmetry) -> Permutations:
    """Orders that change nothing."""
    result = {}
    for g in symmetry.groups:
        order = torch.arange(symmetry.size(g))
        outer = symmetry.nested.get(g)
        result[g] = order if outer is None else order.repeat(symmetry.size(outer), 1)
    return result


def reorder(
    block: Tensor,
    groups: list[int],
    permutations: Permutations,
    symmetry: Symmetry,
    skip: tuple[int, ...] = (),
) -> Tensor:
    """Reorder a block (see `Symmetry.blocks`) along every dimension but those in ``skip``."""
    for dim, g in enumerate(groups):
        if dim not in skip and g in permutations and g not in symmetry.nested:
            block = block.index_select(dim, permutations[g].to(block.device))
    for dim, g in enumerate(groups):
        if dim not in skip and g in permutations and g in symmetry.nested:
            outer = groups.index(symmetry.nested[g])
            shape = [1] * block.ndim
            shape[outer], shape[dim] = permutations[g].shape
            index = permutations[g].to(block.device)
            index = (index if outer < dim else index.T).reshape(shape)
            block = block.gather(dim, index.expand(block.shape))
    return block


def inner_product(a: State, b: State, symmetry: Symmetry, permutations: Permutations, names: list[str]) -> float:
    """Inner product of A with the reordered B over the tensors named."""
    total = 0.0
    for name in names:
        for x, y, groups in _pairs(a, b, symmetry, name):
            total += float((x * reorder(y, groups, permutations, symmetry)).sum(dtype=torch.float64))
    return total


def descend(
    a: State,
    b: State,
    symmetry: Symmetry,
    permutations: Permutations,
    max_sweeps: int,
    rng: np.random.Generator,
    on_group: Callable[[], None] = lambda: None,
) -> tuple[Permutations, bool]:
    """Improve the orders group by group until a sweep changes nothing.

    Parameters
    ----------
    a, b : dict
        Parameters by name.
    symmetry : Symmetry
        Shared by both.
    permutations : dict
        Where to start.
    max_sweeps : int
        Sweeps at most.
    rng : numpy Generator
        Draws the order in which groups are visited.
    on_group : callable
        Called after each group; may raise to end the search.

    Returns
    -------
    (dict, bool)
        The orders, and whether the last sweep changed nothing.
    """
    permutations = dict(permutations)
    families: dict[int, list[int]] = {g: [] for g in symmetry.groups if g not in symmetry.nested}
    for inner, outer in symmetry.nested.items():
        families[outer].append(inner)
    names = {g: {n for member in (g, *inner) for n, _ in symmetry.groups[member]} for g, inner in families.items()}
    open_groups = set(families)  # a group can only gain once something it shares a tensor with has moved
    for _ in range(max_sweeps):
        changed = False
        for g in rng.permutation(list(families)).tolist():
            if g in open_groups:
                open_groups.remove(g)
                if _improve(a, b, symmetry, permutations, g, families[g], sorted(names[g])):
                    changed = True
                    open_groups.update(h for h in families if names[g] & names[h])
                on_group()
        if not changed:
            return permutations, True
    return permutations, False


def _improve(
    a: State,
    b: State,
    symmetry: Symmetry,
    permutations: Permutations,
    group: int,
    inner: list[int],
    names: list[str],
) -> bool:
    """Take the proposed orders of a group by which the inner product over its tensors really grows."""
    taken = False
    for proposal in _outer_step(a, b, symmetry, permutations, group, inner):
        if all(torch.equal(permutations[g], order) for g, order in proposal.items()):
            continue
        old = inner_product(a, b, symmetry, permutations, names)
        new = inner_product(a, b, symmetry, {**permutations, **proposal}, names)
        if new - old > 1e-6 * abs(old):
            permutations.update(proposal)
            taken = True
    return taken


def _outer_step(
    a: State, b: State, symmetry: Symmetry, permutations: Permutations, group: int, inner: list[int]
) -> Iterator[Permutations]:
    """Propose new orders for a group and for those nested in it, in turn."""
    gains = _gains(a, b, symmetry, permutations, group, set(inner))
    nested = {}
    for g in inner:
        values = _nested_gains(a, b, symmetry, permutations, group, g)
        nested[g] = np.array([[_assign(pair) for pair in row] for row in values])
        gains = gains + np.take_along_axis(values, nested[g][..., None], axis=-1).sum((-1, -2))
    order = _assign(gains)
    proposal = {group: torch.from_numpy(order)}
    for g in inner:
        proposal[g] = torch.from_numpy(nested[g][np.arange(len(order)), order])
    yield proposal
    for g in inner if _share_blocks(a, symmetry, inner) else []:
        # several nested groups share tensors: the joint proposal may fail where one at a time cannot
        values = _nested_gains(a, b, symmetry, permutations, group, g)
        best = [_assign(values[i, j]) for i, j in enumerate(permutations[group].tolist())]
        yield {g: torch.from_numpy(np.stack(best))}


def _share_blocks(state: State, symmetry: Symmetry, inner: list[int]) -> bool:
    """Tell whether the gain of one nested group depends on the order of another."""
    names = {name for g in inner for name, _ in symmetry.groups[g]}
    blocks = (groups for name in names for _, groups in symmetry.blocks(state[name], symmetry.axes[name]))
    return any(len(set(inner).intersection(groups)) > 1 for groups in blocks)


def _assign(gains: np.ndarray) -> np.ndarray:
    """Give each row (place of A) the column (unit of B) that makes the sum of gains largest."""
    return linear_sum_assignment(gains, maximize=True)[1]


def _gains(
    a: State, b: State, symmetry: Symmetry, permutations: Permutations, group: int, nested: set[int]
) -> np.ndarray:
    """Inner products of every unit of A with every unit of B, over the blocks without a nested group."""
    size = symmetry.size(group)
    gains = torch.zeros(size, size, dtype=torch.float64)
    for name in dict.fromkeys(name for name, _ in symmetry.groups[group]):
        for x, y, groups in _pairs(a, b, symmetry, name):
            if nested.intersection(groups):
                continue
            for dim in (d for d, g in enumerate(groups) if g == group):
                left = x.movedim(dim, 0).reshape(size, -1)
                right = reorder(y, groups, permutations, symmetry, skip=(dim,)).movedim(dim, 0).reshape(size, -1)
                gains += (left @ right.T).double().cpu()
    return gains.numpy()


def _nested_gains(
    a: State, b: State, symmetry: Symmetry, permutations: Permutations, outer: int, inner: int
) -> np.ndarray:
    """Gains (places, places, units, units) of a nested group for every pairing of its outer places."""
    places, size = symmetry.size(outer), symmetry.size(inner)
    gains = torch.zeros(places, places, size, size, dtype=torch.float64)
    for name in dict.fromkeys(name for name, _ in symmetry.groups[inner]):
        for x, y, groups in _pairs(a, b, symmetry, name):
            if inner not in groups:
                continue
            dims = groups.index(outer), groups.index(inner)
            left = x.movedim(dims, (0, 1)).reshape(places, size, -1)
            others = [g for g in groups if symmetry.nested.get(g) == outer and g != inner]
            for i in range(places):
                # other nested groups stay in the order they have in place i, whichever unit comes there
                here = {**permutations, **{g: permutations[g][i : i + 1].expand(places, -1) for g in others}}
                right = reorder(y, groups, here, symmetry, skip=dims).movedim(dims, (0, 1))
                right = right.reshape(places * size, -1)
                gains[i] += (left[i] @ right.T).reshape(size, places, size).movedim(1, 0).double().cpu()
                if not others:
                    products = left.reshape(places * size, -1) @ right.T
                    products = products.reshape(places, size, places, size).movedim(2, 1)
                    gains[i + 1 :] += products[i + 1 :].double().cpu()
                    break
    return gains.numpy()


def _pairs(a: State, b: State, symmetry: Symmetry, name: str) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    axes = symmetry.axes[name]
    blocks = zip(symmetry.blocks(a[name], axes), symmetry.blocks(b[name], axes), strict=True)
    for (x, groups), (y, _) in blocks:
        yield x, y, groups
