"""Dropout and stochastic depth with timm's meaning of `drop_rate` and `drop_path_rate`."""

from __future__ import annotations

from typing import Any, cast

from timm.layers import DropPath, calculate_drop_path_rates
from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

from ..core.network.copying import private_copy
from .skips import residual_sums


def _check_rate(name: str, rate: float) -> None:
    if not 0.0 <= rate < 1.0:
        raise ValueError(f"{name} must be a number in [0, 1), got {rate!r}. It is the share that is dropped.")


def _set_head_rate(model: Any, p: float) -> None:
    head_drops = [getattr(getattr(model, "head", None), "drop", None), getattr(model, "head_drop", None)]
    drops = [d for d in head_drops if isinstance(d, nn.Dropout)]
    if not drops and not hasattr(model, "drop_rate"):
        raise ValueError(
            f"with_dropout must be applied to a timm network with a drop_rate, got {type(model).__name__!r}. "
            "Choose a timm architecture."
        )
    for drop in drops:
        drop.p = p
    if hasattr(model, "drop_rate"):
        model.drop_rate = p


def _set_inner_rate(model: nn.Module, p: float) -> None:
    inner = [block for block in model.modules() if isinstance(block, BasicBlock | Bottleneck)]
    if p and not inner:
        raise ValueError(
            f"inside must be 0 for a network without blocks of a ResNet, got {p!r} for {type(model).__name__!r}. "
            "Choose a ResNet."
        )
    for block in inner:
        if p or isinstance(block.drop_block, nn.Dropout2d):
            block.drop_block = nn.Dropout2d(p).train(block.training) if p else nn.Identity()


def _path_rates(model: nn.Module, blocks: list[nn.Module], rate: float) -> list[float]:
    if type(model).__name__ == "EfficientNet":  # timm stops one step short of the full rate here
        return [rate * i / len(blocks) for i in range(len(blocks))]
    return cast(list[float], calculate_drop_path_rates(rate, len(blocks)))


def with_dropout(model: nn.Module, p: float = 0.3, drop_path: float = 0.0, inside: float = 0.0) -> nn.Module:
    """Drop features before the classifier, whole residual branches, and channels inside the blocks, while training.

    The first two are timm's `drop_rate=p, drop_path_rate=drop_path`. None acts when a landscape is measured.

    Parameters
    ----------
    model : nn.Module
        A timm network. Left untouched.
    p : float, default=0.3
        Share of the classifier's inputs that is dropped (Srivastava et al., 2014).
    drop_path : float, default=0.0
        Share of examples for which the last block's branch is dropped, rising linearly from 0 in the first
        block (stochastic depth, Huang et al., 2016). 0 switches stochastic depth off.
    inside : float, default=0.0
        Share of the channels that is dropped inside every block of a ResNet, after its first norm (Tompson et al.,
        2015).

    Returns
    -------
    nn.Module
        A new network with the same weights.

    Raises
    ------
    ValueError
        For a rate outside [0, 1), a network without timm's rates, `drop_path` without residual sums, or `inside`
        without blocks of a ResNet.
    """
    _check_rate("p", p)
    _check_rate("drop_path", drop_path)
    _check_rate("inside", inside)
    changed = private_copy(model)
    _set_head_rate(changed, p)
    _set_inner_rate(changed, inside)
    blocks = [m for m in changed.modules() if hasattr(m, "drop_path") or hasattr(m, "drop_path1")]
    if drop_path and not (blocks and residual_sums(model)):
        raise ValueError(
            f"drop_path must be 0 for a network without residual sums, got {drop_path!r} for "
            f"{type(model).__name__!r}. A dropped branch would leave nothing."
        )
    for block, rate in zip(blocks, _path_rates(changed, blocks, drop_path) if blocks else [], strict=True):
        off = None if isinstance(block, BasicBlock | Bottleneck) else nn.Identity()  # the family's "none"
        for name in ("drop_path", "drop_path1", "drop_path2"):
            if hasattr(block, name):
                setattr(block, name, DropPath(rate).train(block.training) if rate > 0 else off)
    return changed
