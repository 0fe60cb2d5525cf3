"""What each tensor operation says about the order of axes: the rules behind `graph.derive_symmetry`.

A rule gives the axis variables of an operation's output and unifies those that must agree. A new operation is
one function and one entry in `RULES`; elementwise operations need none, since PyTorch marks them, and an
unknown operation pins every axis it touches, which is always safe. Long because it is one flat list of short rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from .axes import AxisVariables
from .axis_stacks import Stack, follow, is_taken_apart, stacked_axes

_BATCH_NORMS = (
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
    "cudnn_batch_norm",
)


# elementwise, but not marked so by PyTorch
_UNMARKED_POINTWISE = (
    "hardswish",
    "hardsigmoid",
    "hardtanh",
    "zeros_like",
    "ones_like",
    "full_like",
    "relu6",
)


class Propagation:
    """Walks a recorded graph once and gives every axis of every tensor its variable."""

    def __init__(self, traced: GraphModule, parameters: list[str], buffers: list[str]) -> None:
        self.traced, self.parameters, self.buffers = traced, parameters, buffers
        self.vars = AxisVariables()
        self.axes: dict[Node, Any] = {}

    def run(self) -> dict[str, list[int]]:
        """Propagate; gives the variables of every parameter and buffer that is used."""
        statistics = {
            node.args[i]
            for node in self.traced.graph.nodes
            if _operation(node) in ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
            for i in (3, 4)
        }
        names = [*self.parameters, *self.buffers]
        by_name: dict[str, list[int]] = {}
        n_placeholders = 0
        for node in self.traced.graph.nodes:
            if node.op == "placeholder":
                reason = "model input"
                if n_placeholders < len(names):
                    is_fixed_buffer = n_placeholders >= len(self.parameters) and node not in statistics
                    reason = "fixed buffer" if is_fixed_buffer else ""
                self.axes[node] = self.fresh(node.meta["val"], reason) if "val" in node.meta else None
                if n_placeholders < len(names) and node.users:
                    by_name[names[n_placeholders]] = self.axes[node]
                n_placeholders += 1
            elif node.op == "get_attr":
                self.axes[node] = self.fresh(getattr(self.traced, str(node.target)), "constant")
            elif node.op == "call_function":
                self.axes[node] = self.apply(node)
            elif node.op == "output":
                for out in node.all_input_nodes:
                    self.pin(out, "model output")
        return by_name

    def fresh(self, value: Any, reason: str = "") -> Any:
        """Variables for a tensor, or for each tensor of a tuple."""
        if isinstance(value, (tuple, list)):
            return [self.fresh(v, reason) for v in value]
        return [self.vars.new(n, reason) for n in value.shape] if isinstance(value, Tensor) else None

    def pin(self, node: Node, reason: str) -> None:
        """Pin every axis of a recorded value."""
        axes = self.axes[node]
        for v in tree_leaves(axes.slices if isinstance(axes, Stack) else axes):
            if v is not None:
                self.vars.pin(v, reason)

    def apply(self, node: Node) -> Any:
        """Apply the rule of one recorded operation."""
        name = _operation(node)
        if name == "getitem":
            return self.axes[node.args[0]][node.args[1]]  # type: ignore[index]
        arguments = _arguments(node)
        source = arguments.get("self")
        if isinstance(source, Node) and isinstance(self.axes.get(source), Stack):
            return follow(self.axes[source], node, _read, self.vars.new)
        tensors = [a for a in arguments.values() if isinstance(a, Node) and self.axes.get(a) is not None]
        rule = RULES.get(name)
        if rule is None and _is_pointwise(node):
            return pointwise(self, node, tensors)
        if rule is None:
            reason = f"operation {name}"
            for source in node.all_input_nodes:
                self.pin(source, reason)
            return self.fresh(node.meta.get("val"), reason)
        return rule(self, node, arguments)

    def unify(self, a: int, b: int, node: Node) -> None:
        """Make two axes one because of an operation."""
        self.vars.unify(a, b, f"operation {_operation(node)}")

    def reshape(self, sources: Sequence[int], sizes: Sequence[int], node: Node) -> list[int] | Stack:
        """Reshape row-major to ``sizes``, cutting and joining variables only where sizes demand it."""
        groups = _row_major_groups([self.vars.size(v) for v in sources], sizes)
        for old, new in groups:
            apart = [d for d in new[:-1] if is_taken_apart(node, d, _read)] if len(old) == 1 else []
            if apart:
                return self._reshape_apart(sources, sizes, node, groups, apart[0])
        result = [self.vars.new(n) for n in sizes]
        for old, new in groups:
            self.unify(self.vars.product(sources[i] for i in old), self.vars.product(result[i] for i in new), node)
        return result

    def _reshape_apart(
        self,
        sources: Sequence[int],
        sizes: Sequence[int],
        node: Node,
        groups: Sequence[tuple[list[int], list[int]]],
        dim: int,
    ) -> Stack:
        """Reshape to what is only taken apart along `dim`: what lies behind it in one axis is laid end to end."""
        slices = stacked_axes(sizes, dim, self.vars.new)
        for old, new in groups:
            inside = [[axes[i - (i > dim)] for i in new if i != dim] for axes in slices]
            n_before = sum(i < dim for i in new)
            if dim in new:
                ends = self.vars.sum([self.vars.product(axes[n_before:]) for axes in inside])
                self.unify(sources[old[0]], self.vars.product([*inside[0][:n_before], ends]), node)
                continue
            for axes in inside:
                self.unify(self.vars.product(sources[i] for i in old), self.vars.product(axes), node)
        return Stack(dim, slices)


def _row_major_groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Pair the dimensions of a value with those of its reshape, in the smallest groups of equal size."""
    left = [i for i, n in enumerate(before) if n != 1][::-1]
    right = [i for i, n in enumerate(after) if n != 1][::-1]
    groups = []
    while left and right:
        a, b = [left.pop()], [right.pop()]
        while (n := math.prod(before[i] for i in a)) != (m := math.prod(after[i] for i in b)):
            a.append(left.pop()) if n < m else b.append(right.pop())
        groups.append((a, b))
    return groups


def _operation(node: Node) -> str:
    """Name of an operation without namespace, overload and the mark of in-place ones."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.split("::")[-1] if schema is not None else getattr(node.target, "__name__", "")
    return name[:-1] if name.endswith("_") and not name.startswith("__") else name


def _arguments(node: Node) -> dict[str, Any]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): a for i, a in enumerate(node.args)}
    named = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    named.update(zip((a.name for a in schema.arguments), node.args, strict=False))
    return {**named, **node.kwargs}


def _read(node: Node) -> tuple[str, dict[str, Any]]:
    return _operation(node), _arguments(node)


def _is_pointwise(node: Node) -> bool:
    if _operation(node) in _UNMARKED_POINTWISE or torch.Tag.pointwise in getattr(node.target, "tags", ()):
        return True
    functional = getattr(torch.ops.aten, _operation(node), None)
    overloads = functional.overloads() if functional is not None else []
    return any(torch.Tag.pointwise in getattr(functional, name).tags for name in overloads)


def pointwise(p: Propagation, node: Node, tensors: Sequence[Node]) -> list[int]:
    """Sum, scale or activate: broadcast axes agree."""
    result = p.fresh(node.meta["val"])
    for source in tensors:
        for mine, theirs in zip(result[::-1], p.axes[source][::-1], strict=False):
            if p.vars.size(theirs) == p.vars.size(mine):
                p.unify(theirs, mine, node)
    return result


def _same(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    return list(p.axes[node.all_input_nodes[0]])


def _copy(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    return pointwise(p, node, [a["self"], a["src"]])


def _transpose(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    axes = list(p.axes[a["self"]])
    i, j = (a["dim0"], a["dim1"]) if "dim0" in a else (0, len(axes) - 1)
    axes[i], axes[j] = axes[j], axes[i]
    return axes


def _permute(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    return [p.axes[a["self"]][i] for i in a["dims"]]


def _view(p: Propagation, node: Node, a: dict[str, Any]) -> list[int] | Stack:
    return p.reshape(p.axes[a["self"]], node.meta["val"].shape, node)


def _expand(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    # an axis that repeats one entry may be reordered freely: it starts as a free variable
    return pointwise(p, node, [a["self"]])


def _reduce(p: Propagation, node: Node, a: dict[str, Any]) -> Any:
    source = p.axes[a["self"]]
    dims = a.get("dim")
    dims = [dims] if isinstance(dims, int) else list(dims or range(len(source)))
    gone = {d % len(source) for d in dims} if source else set()
    axes = [p.vars.new(1) if i in gone else v for i, v in enumerate(source) if i not in gone or a.get("keepdim")]
    return [axes, axes] if isinstance(node.meta["val"], (tuple, list)) else axes


def _convolution(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    x, w = p.axes[a["input"]], p.axes[a["weight"]]
    result = p.fresh(node.meta["val"], "pixels")
    groups = a["groups"]
    # groups are permuted as blocks, and the channels inside all of them alike
    group = p.vars.new(groups)
    fan_in, fan_out = (w[0], w[1]) if a["transposed"] else (w[1], w[0])
    inside_in = p.vars.new(p.vars.size(x[1]) // groups)
    inside_out = p.vars.new(node.meta["val"].shape[1] // groups)
    channels = p.vars.product([group, inside_out])
    p.unify(x[1], p.vars.product([group, inside_in]), node)
    if a["transposed"]:
        p.unify(fan_in, x[1], node)
        p.unify(fan_out, inside_out, node)
    else:
        p.unify(fan_in, inside_in, node)
        p.unify(fan_out, channels, node)
    if isinstance(a.get("bias"), Node):
        p.unify(p.axes[a["bias"]][0], channels, node)
    for v in (*x[2:], *w[2:]):
        p.vars.pin(v, "pixels")
    return [x[0], channels, *result[2:]]


def _batch_norm(p: Propagation, node: Node, a: dict[str, Any]) -> Any:
    x = p.axes[a["input"]]
    for key in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(a.get(key), Node):
            p.unify(p.axes[a[key]][0], x[1], node)
    return [list(x), *p.fresh(node.meta["val"][1:], "unused")]


def _layer_norm(p: Propagation, node: Node, a: dict[str, Any]) -> Any:
    x = p.axes[a["input"]]
    for key in ("weight", "bias"):
        if isinstance(a.get(key), Node):
            for mine, theirs in zip(x[::-1], p.axes[a[key]][::-1], strict=False):
                p.unify(theirs, mine, node)
    return [list(x), *p.fresh(node.meta["val"][1:], "unused")]


def _group_norm(p: Propagation, node: Node, a: dict[str, Any]) -> Any:
    x = p.axes[a["input"]]
    size = p.vars.size(x[1])
    p.unify(x[1], p.vars.product([p.vars.new(a["group"]), p.vars.new(size // a["group"])]), node)
    for key in ("weight", "bias"):
        if isinstance(a.get(key), Node):
            p.unify(p.axes[a[key]][0], x[1], node)
    return [list(x), *p.fresh(node.meta["val"][1:], "unused")]


def _matmul(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    names = [n for n in ("mat1", "batch1", "self") if isinstance(a.get(n), Node)]
    left = p.axes[a[names[0]]]
    right = p.axes[next(a[n] for n in ("mat2", "batch2", "vec", "tensor") if isinstance(a.get(n), Node))]
    p.unify(left[-1], right[max(len(right) - 2, 0)], node)
    for mine, theirs in zip(left[:-2], right[:-2], strict=False):
        p.unify(mine, theirs, node)
    axes = list(left[:-1]) + ([right[-1]] if len(right) > 1 else [])
    if "beta" in a:  # addmm, baddbmm: `self` is added with broadcasting
        for mine, theirs in zip(axes[::-1], p.axes[a["self"]][::-1], strict=False):
            if p.vars.size(theirs) == p.vars.size(mine):
                p.unify(theirs, mine, node)
    return axes


def _cat(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    sources = [p.axes[n] for n in a["tensors"] if math.prod(n.meta["val"].shape) or n.meta["val"].dim() > 1]
    dim = a.get("dim", 0) % len(sources[0])
    axes = list(sources[0])
    for other in sources[1:]:
        for i, v in enumerate(other):
            if i != dim:
                p.unify(axes[i], v, node)
    axes[dim] = p.vars.sum([s[dim] for s in sources])
    return axes


def _pad(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    axes = list(p.axes[a["self"]])
    pads = list(a["pad"])
    for k in range(len(pads) // 2):
        before, after, dim = pads[2 * k], pads[2 * k + 1], len(axes) - 1 - k
        if before < 0 or after < 0:
            p.vars.pin(axes[dim], "cropping")
            axes[dim] = p.vars.new(node.meta["val"].shape[dim], "cropping")
        elif before or after:
            ends = [p.vars.new(before, "padding"), p.vars.new(after, "padding")]
            axes[dim] = p.vars.sum([ends[0], axes[dim], ends[1]])
    return axes


def _split(p: Propagation, node: Node, a: dict[str, Any]) -> list[list[int]]:
    axes = p.axes[a["self"]]
    dim = a.get("dim", 0) % len(axes)
    pieces = [p.vars.new(value.shape[dim]) for value in node.meta["val"]]
    p.unify(axes[dim], p.vars.sum(pieces), node)
    return [[*axes[:dim], piece, *axes[dim + 1 :]] for piece in pieces]


def _glu(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    axes = list(p.axes[a["self"]])
    dim = a.get("dim", -1) % len(axes)
    half = p.vars.new(p.vars.size(axes[dim]) // 2)
    p.unify(axes[dim], p.vars.sum([half, half]), node)
    axes[dim] = half
    return axes


def _slice(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    axes = list(p.axes[a["self"]])
    dim = a.get("dim", 0) % len(axes)
    size, kept = p.vars.size(axes[dim]), node.meta["val"].shape[dim]
    if kept == size:
        return axes
    if a.get("step", 1) != 1:
        p.vars.pin(axes[dim], "strided slice")
        axes[dim] = p.vars.new(kept, "strided slice")
        return axes
    start = a.get("start") or 0
    start = min(start + size if start < 0 else start, size)
    pieces = [p.vars.new(n) for n in (start, kept, size - start - kept)]
    p.unify(axes[dim], p.vars.sum(pieces), node)
    axes[dim] = pieces[1]
    return axes


def _select(p: Propagation, node: Node, a: dict[str, Any]) -> Any:
    axes = list(p.axes[a["self"]])
    dim = a.get("dim", 0) % len(axes)
    p.vars.pin(axes.pop(dim), "selection of one entry")
    many = isinstance(node.meta["val"], (tuple, list))
    return [list(axes) for _ in node.meta["val"]] if many else axes


def _reorder(p: Propagation, node: Node, a: dict[str, Any]) -> list[int]:
    axes = p.axes[a["self"]]
    for d in a["dims"]:
        p.vars.pin(axes[d], f"operation {_operation(node)}")
    return list(axes)


def _pool(p: Propagation, node: Node, a: dict[str, Any]) -> Any:
    source = p.axes[a["self"]]
    value = node.meta["val"]
    shapes = value if isinstance(value, (tuple, list)) else [value]
    for v in source[2:]:
        p.vars.pin(v, "pixels")
    outputs = [[*source[:2], *(p.vars.new(n, "pixels") for n in s.shape[2:])] for s in shapes]
    return outputs if isinstance(value, (tuple, list)) else outputs[0]


Rule = Callable[[Propagation, Node, dict[str, Any]], Any]
#: Operation → rule. Elementwise operations need no entry; an unknown operation pins everything it touches.
RULES: dict[str, Rule] = {
    **dict.fromkeys(("clone", "contiguous", "_to_copy", "alias", "detach", "lift_fresh_copy"), _same),
    **dict.fromkeys(("_softmax", "_log_softmax", "_safe_softmax"), _same),
    **dict.fromkeys(("t", "transpose"), _transpose),
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"), _view),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "var", "std", "var_mean", "logsumexp"), _reduce),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _reduce),
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "mv", "dot"), _matmul),
    **dict.fromkeys(_BATCH_NORMS, _batch_norm),
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _split),
    **dict.fromkeys(("select", "unbind"), _select),
    **dict.fromkeys(("roll", "flip"), _reorder),
    **dict.fromkeys(("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d"), _pool),
    **dict.fromkeys(("adaptive_max_pool2d", "upsample_nearest2d", "upsample_bilinear2d"), _pool),
    "convolution": _convolution,
    "copy": _copy,
    "permute": _permute,
    "expand": _expand,
    "glu": _glu,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "cat": _cat,
    "constant_pad_nd": _pad,
    "slice": _slice,
}
