"""Which weights of a model can be permuted together, derived from the model itself.

The model is run once on a small example while torch.fx records every tensor operation it performs, with
shapes (`make_fx`, so Python control flow on shapes is no obstacle). Each operation then says which axes of
its inputs and output must keep the same order (`axis_rules.RULES`). What is left free is the permutation
symmetry of the network: hidden units of a multilayer perceptron, channels of a convolution tied by residual
sums, blocks of features behind a flatten, attention heads. No list of architectures is involved.

Reference: Ainsworth et al. 2023, *Git Re-Basin*, where such groups are written by hand for each network.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from ..network.copying import private_copy
from ..network.fields import Fields, spread_at_the_door
from .axes import AxisVariables
from .axis_rules import Propagation

#: What `derive_symmetry` understands, in words, for messages.
HANDLED = (
    "linear layers, convolutions (grouped and depthwise too), batch, layer and group norm, sums, "
    "concatenations, flattening, pooling and attention heads"
)


class SymmetryError(ValueError):
    """The model's permutation symmetry cannot be derived."""


class Symmetry:
    """Permutation symmetry of a model.

    Attributes
    ----------
    variables : AxisVariables
        The axis variables.
    axes : dict
        Parameter or buffer name → the variable of each of its dimensions.
    groups : dict
        Free variable → the (tensor name, dimension) pairs where it occurs, parameters only.
    nested : dict
        Group → the group it lies inside. Units of an attention head, or channels of one group of a
        convolution, have an order of their own in each place of the outer group.
    pinned_by : dict
        Reason → how many parameter axes it pins; what the derivation could not see through.
    """

    def __init__(self, variables: AxisVariables, axes: dict[str, list[int]], parameters: Sequence[str]) -> None:
        self.variables = variables
        self.axes = axes
        self.groups: dict[int, list[tuple[str, int]]] = {}
        reasons: Counter[str] = Counter()
        for name in parameters:
            for dim, axis in enumerate(axes.get(name, [])):
                for leaf in self._leaves(axis):
                    if variables.kind(leaf) == "free":
                        places = self.groups.setdefault(leaf, [])
                        if (name, dim) not in places:
                            places.append((name, dim))
                    elif variables.size(leaf) > 1:
                        reasons[variables.reason(leaf)] += 1
        self.pinned_by = dict(reasons.most_common())
        self.nested = self._nested()

    def _nested(self) -> dict[int, int]:
        """Find the groups that share an axis with another one that is there wherever they are."""
        inside: set[tuple[int, int]] = set()
        companions: dict[int, set[int]] = {}
        for axes in self.axes.values():
            for axis in axes:
                inside.update(self._neighbours(axis))
            shape = [self.variables.size(v) for v in axes]
            for _, groups in self.blocks(torch.empty(shape, device="meta"), axes):
                once = {g for g in groups if g in self.groups and groups.count(g) == 1}
                for g in self.groups.keys() & set(groups):
                    companions[g] = companions.get(g, once) & once if g in once else set()
        found = {
            inner: outer
            for outer, inner in sorted(inside)
            if inner in self.groups and outer in self.groups and outer in companions[inner] - {inner}
        }
        return {inner: outer for inner, outer in found.items() if outer not in found}

    def _neighbours(self, v: int) -> Iterator[tuple[int, int]]:
        """Give the (outer, inner) pairs of factors that lie side by side, also inside segments laid end to end."""
        factors = self.variables.parts(v, "product")
        for factor in factors if len(factors) > 1 else self.variables.parts(v, "sum"):
            if factor != self.variables.find(v):
                yield from self._neighbours(factor)
        for outer, inner in pairwise(factors):
            for segment in self.variables.parts(inner, "sum"):
                yield self.variables.find(outer), self.variables.find(self.variables.parts(segment, "product")[0])

    def _leaves(self, v: int) -> list[int]:
        for kind in ("product", "sum"):
            if self.variables.kind(v) == kind:
                return [leaf for part in self.variables.parts(v, kind) for leaf in self._leaves(part)]
        return [self.variables.find(v)]

    def size(self, group: int) -> int:
        """Units of a group."""
        return self.variables.size(group)

    def blocks(self, tensor: Tensor, axes: Sequence[int]) -> Iterator[tuple[Tensor, list[int]]]:
        """Cut a tensor into views with one variable a dimension (see `AxisVariables.blocks`)."""
        return self.variables.blocks(tensor, axes)

    def describe(self) -> list[dict[str, Any]]:
        """One entry a group: its number of units, the weight that makes it and how many tensors share it."""
        return [
            {"units": self.variables.size(v), "made_by": places[0][0], "tensors": len({n for n, _ in places})}
            for v, places in self.groups.items()
        ]


def derive_symmetry(module: nn.Module, example: Any) -> Symmetry:
    """Derive the permutation symmetry of a model from one traced forward pass in evaluation mode.

    Parameters
    ----------
    module : nn.Module
        Any model; a copy is run, it stays untouched.
    example : Tensor or Fields
        Inputs of one or more examples.

    Returns
    -------
    Symmetry

    Raises
    ------
    SymmetryError
        When the forward pass cannot be recorded, or nothing is left that may be permuted; the message names
        the model and says what is handled.
    """
    # parameters and buffers are traced as inputs, so that each has its axes
    working = private_copy(module).eval()
    spread_at_the_door(working)
    parameters = {name: p.detach() for name, p in working.named_parameters()}
    buffers = {name: b.detach() for name, b in working.named_buffers()}
    arguments = (example.parts,) if isinstance(example, Fields) else (example,)

    def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], arguments: tuple) -> list[Tensor]:
        given = (Fields(arguments[0]),) if isinstance(arguments[0], dict) else arguments
        output = functional_call(working, (parameters, buffers), given)
        output = getattr(output, "logits", output)
        return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]

    kind = type(module).__name__
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            traced = make_fx(forward)(parameters, buffers, arguments)
    except Exception as error:  # foreign code runs here: whatever it raises is the reason given
        raise SymmetryError(
            f"model must be traceable for align='weights', got {kind}, whose forward pass fails under "
            f"torch.fx ({type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}). "
            "Use align=None."
        ) from error
    propagation = Propagation(traced, list(parameters), list(buffers))
    symmetry = Symmetry(propagation.vars, propagation.run(), list(parameters))
    if not symmetry.groups:
        reasons = "; ".join(symmetry.pinned_by) or "it has no hidden units"
        raise SymmetryError(
            f"model must have hidden units that may be reordered for align='weights', got {kind}, where all "
            f"are fixed by: {reasons}. Handled are {HANDLED}; use align=None."
        )
    return symmetry
