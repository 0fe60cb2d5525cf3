"""Convolutions whose second derivatives are convolutions of the usual kind.

PyTorch's own double backward takes the examples for channels and the outputs for filters, and goes group by group; no
library has fast kernels for such shapes. But y = x ∗ w + b is linear in x and in w: for a cotangent g of y, what it
gives for x and for w is linear in g too, and the derivatives of these products are the same three products again. So
every derivative takes the kernels of a forward and a backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Geometry(NamedTuple):
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class Convolution(torch.autograd.Function):
    """y = x ∗ w + b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, geometry: _Geometry) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(x, w)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        stride, padding, dilation, groups = geometry
        return torch.convolution(x, w, b, stride, padding, dilation, False, [0] * len(stride), groups)

    @staticmethod
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        """Pull a cotangent of y back."""
        if g is None:
            return None, None, None, None
        return *Pullback.apply(g, *ctx.saved_tensors, ctx.geometry, ctx.needs_input_grad[:3]), None


class Pullback(torch.autograd.Function):
    """What a cotangent g of y gives for x, w and b, each where it is wanted."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, w: Tensor, geometry: _Geometry, wanted: tuple[bool, ...]) -> Any:
        """Pull back."""
        ctx.save_for_backward(g, x, w)
        ctx.geometry = geometry
        ctx.set_materialize_grads(False)
        stride, padding, dilation, groups = geometry
        return torch.ops.aten.convolution_backward(
            g, x, w, [w.shape[0]], stride, padding, dilation, False, [0] * len(stride), groups, wanted
        )

    @staticmethod
    def backward(ctx: Any, u: Tensor | None, v: Tensor | None, c: Tensor | None) -> tuple[Tensor | None, ...]:
        """Pull cotangents u, v, c of what was given for x, w and b back: of ⟨u ∗ w + x ∗ v + c, g⟩."""
        (g, x, w), geometry = ctx.saved_tensors, ctx.geometry
        need_g, need_x, need_w = ctx.needs_input_grad[:3]
        for_g = for_x = for_w = None
        if need_g:
            for_g = _sum(u, w, x, v, c, g, geometry)
        if need_x and v is not None:
            for_x = Pullback.apply(g, x, v, geometry, (True, False, False))[0]
        if need_w and u is not None:
            for_w = Pullback.apply(g, u, w, geometry, (False, True, False))[1]
        return for_g, for_x, for_w, None, None


def _sum(
    u: Tensor | None, w: Tensor, x: Tensor, v: Tensor | None, c: Tensor | None, g: Tensor, geometry: _Geometry
) -> Tensor | None:
    """Give u ∗ w + x ∗ v + c of those that are there; the last rides along with the first convolution."""
    if u is not None and v is not None:
        return Convolution.apply(u, w, c, geometry) + Convolution.apply(x, v, None, geometry)
    if u is not None:
        return Convolution.apply(u, w, c, geometry)
    if v is not None:
        return Convolution.apply(x, v, c, geometry)
    return None if c is None else c.view(-1, *[1] * (g.dim() - 2)).expand_as(g)


class TwiceDifferentiable(TorchFunctionMode):
    """Context in which convolutions are those above, in this thread; what is unusual goes the usual way."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if function in _CONVOLUTIONS:
            return _convolve(function, *args, **kwargs)
        return function(*args, **kwargs)


_CONVOLUTIONS = {torch.conv1d, torch.conv2d, torch.conv3d}
_Sizes = int | tuple[int, ...] | str


def _convolve(
    function: Callable,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _Sizes = 1,
    padding: _Sizes = 0,
    dilation: _Sizes = 1,
    groups: int = 1,
) -> Tensor:
    n = weight.dim() - 2
    mixed = torch.is_autocast_enabled(input.device.type)  # casts what it knows of, which this is not
    if isinstance(padding, str) or input.dim() != n + 2 or input.is_complex() or mixed:
        return function(input, weight, bias, stride, padding, dilation, groups)
    geometry = _Geometry(_each(stride, n), _each(padding, n), _each(dilation, n), groups)
    return Convolution.apply(input, weight, bias, geometry)


def _each(size: Any, n: int) -> tuple[int, ...]:
    """Give a size for each of n axes."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    return sizes * n if len(sizes) == 1 else sizes
