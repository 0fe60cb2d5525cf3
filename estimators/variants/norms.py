"""Normalisation layers: exchanged for another kind, or taken out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import norm as timm_norm
from timm.layers.norm_act import BatchNormAct2d, GroupNormAct, LayerNormAct2d
from timm.models.convnext import ConvNeXtBlock
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.network.copying import private_copy
from .skips import PlainConvNeXtBlock

NORM_KINDS = ("batch", "group", "layer")


class Affine(nn.Module):
    """Per-channel gain and shift with no statistics: what a norm layer leaves behind when it is taken out.

    Parameters
    ----------
    channels : int
        Number of channels.
    channels_last : bool, default=False
        Whether the channel axis is the last (tokens) or the second (feature maps).
    """

    def __init__(self, channels: int, channels_last: bool = False) -> None:
        super().__init__()
        self.channels_last = channels_last
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.drop: nn.Module = nn.Identity()
        self.act: nn.Module = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scale and shift each channel of x, (N, C, ...) or (..., C)."""
        shape = (-1,) if self.channels_last else (-1, *(1,) * (x.dim() - 2))
        return self.act(self.drop(x * self.weight.view(shape) + self.bias.view(shape)))

    def extra_repr(self) -> str:
        """Show the width in the module's repr."""
        return f"{self.weight.numel()}, channels_last={self.channels_last}"


class ChannelsLast(nn.Module):
    """A channels-first norm used on (N, H, W, C) feature maps.

    Parameters
    ----------
    norm : nn.Module
        A norm of (N, C, H, W).
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise x of shape (N, H, W, C)."""
        return self.norm(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@dataclass(frozen=True)
class _Norm:
    kind: str
    channels: int
    channels_last: bool


def _describe(module: Any) -> _Norm | None:
    """Say what norm a module is; None for anything else."""
    name = type(module).__name__
    if isinstance(module, _BatchNorm):
        return _Norm("batch", module.num_features, False)
    if isinstance(module, nn.GroupNorm):
        return _Norm("group", module.num_channels, False)
    if isinstance(module, nn.LayerNorm) or name.startswith(("RmsNorm", "RMSNorm", "SimpleNorm")):
        shape = module.normalized_shape
        if len(shape) == 1:  # several axes mean a norm over whole maps, which has no channel-wise twin
            return _Norm("layer" if isinstance(module, nn.LayerNorm) else "rms", shape[0], "2d" not in name)
    return None


def norm_layers(model: nn.Module) -> dict[str, str]:
    """Map the name of each normalisation layer to its kind: "batch", "group", "layer" or "rms"."""
    found = ((name, _describe(module)) for name, module in model.named_modules())
    return {name: norm.kind for name, norm in found if norm is not None}


def _group_count(channels: int) -> int:
    """Give groups of eight channels as timm does, else the largest size below that divides; never one."""
    size = next((s for s in range(min(8, channels), 1, -1) if channels % s == 0), channels)
    return channels // size


def _new_norm(kind: str, old: nn.Module, channels: int, channels_last: bool) -> nn.Module:
    fused = hasattr(old, "act") and hasattr(old, "drop")  # timm's norm + activation in one layer
    if kind == "batch":
        return BatchNormAct2d(channels, apply_act=False) if fused else nn.BatchNorm2d(channels)
    if kind == "group":
        groups = _group_count(channels)
        return (
            GroupNormAct(channels, groups, apply_act=False)
            if fused
            else timm_norm.GroupNorm(channels, num_groups=groups)
        )
    if channels_last:
        return timm_norm.LayerNorm(channels)
    return LayerNormAct2d(channels, apply_act=False) if fused else timm_norm.LayerNorm2d(channels)


def _carry_over(old: nn.Module, new: nn.Module) -> None:
    """Give `new` the gain, shift, activation, device and mode of `old`."""
    for name in ("weight", "bias"):
        value = getattr(old, name, None)
        if isinstance(value, torch.Tensor) and getattr(new, name, None) is not None:
            with torch.no_grad():
                getattr(new, name).copy_(value)
            new.to(value)
    for name in ("drop", "act"):
        if isinstance(getattr(old, name, None), nn.Module):
            setattr(new, name, getattr(old, name))
    new.train(old.training)


def _is_unknown_norm(module: nn.Module) -> bool:
    name = type(module).__name__
    looks_like = "norm" in name.lower() and not any(module.children())
    return _describe(module) is None and (looks_like or name.startswith(("EvoNorm", "FilterResponse")))


def _exchange(model: nn.Module, change: str, make: Callable[[str, nn.Module, _Norm, nn.Module], nn.Module]):
    """Return a copy of `model` with `make(name, parent, norm, layer)` in place of each norm layer."""
    unknown = sorted({type(m).__name__ for m in model.modules() if _is_unknown_norm(m)})
    if unknown or not norm_layers(model):
        raise ValueError(
            f"{change} must be applied to a network with batch, group, layer or RMS norm, got "
            f"{type(model).__name__!r} with {', '.join(unknown) or 'no norm layer'}. "
            "Choose another architecture."
        )
    changed = private_copy(model)
    for parent_name, parent in list(changed.named_modules()):
        for name, child in list(parent.named_children()):
            norm = _describe(child)
            if norm is not None:
                setattr(parent, name, make(f"{parent_name}.{name}".lstrip("."), parent, norm, child))
    return changed


def without_norm(model: nn.Module) -> nn.Module:
    """Take normalisation out; the learned gain and shift of each channel stay.

    What is removed is the division by statistics, not the parameters, so that the two networks have the same
    number of them and start with the same (for a zero-initialised residual branch, the same zero) gains.

    Parameters
    ----------
    model : nn.Module
        A network with batch, group, layer or RMS norm layers. Left untouched.

    Returns
    -------
    nn.Module
        A new network for which `norm_layers` is empty.

    Raises
    ------
    ValueError
        If there is no norm layer, or one whose statistics and activation can't be told apart (EvoNorm, FRN).
    """

    def affine(_name: str, _parent: nn.Module, norm: _Norm, layer: nn.Module) -> nn.Module:
        new = Affine(norm.channels, norm.channels_last)
        _carry_over(layer, new)
        return new

    return _exchange(model, "without_norm", affine)


def with_norm(model: nn.Module, kind: str = "batch") -> nn.Module:
    """Exchange every norm layer for another kind with the same gains and shifts.

    The layers are those timm itself uses: `with_norm(test_efficientnet, "group")` is `test_efficientnet_gn`.
    Group norm takes groups of eight channels (Wu & He, 2018), layer norm the channels of one position
    (Ba et al., 2016), batch norm the examples and positions of one channel (Ioffe & Szegedy, 2015).

    Parameters
    ----------
    model : nn.Module
        Left untouched.
    kind : {"batch", "group", "layer"}, default="batch"
        What to use. Layers that are of this kind already stay.

    Returns
    -------
    nn.Module
        A new network with as many parameters, except where an RMS norm had no shift.

    Raises
    ------
    ValueError
        For another kind, for a network without norm layers, and for batch or group norm on tokens.
    """
    if kind not in NORM_KINDS:
        raise ValueError(f"kind must be one of {NORM_KINDS}, got {kind!r}. Choose one of these.")

    def other(name: str, parent: nn.Module, norm: _Norm, layer: nn.Module) -> nn.Module:
        if norm.kind == kind:
            return layer
        on_tokens = norm.channels_last and kind != "layer"
        if on_tokens and not isinstance(parent, ConvNeXtBlock | PlainConvNeXtBlock):
            raise ValueError(
                f"with_norm must be 'layer' for a network that normalises tokens, got {kind!r} for "
                f"{type(model).__name__!r} (layer {name!r}). Use 'layer', or a convolutional architecture."
            )
        new = _new_norm(kind, layer, norm.channels, norm.channels_last)
        _carry_over(layer, new)
        return ChannelsLast(new).train(layer.training) if on_tokens else new

    return _exchange(model, "with_norm", other)
