"""Width and depth: networks built anew through timm's own arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn


def _resnet_arguments(model: Any) -> dict[str, Any]:
    stages = [getattr(model, f"layer{i + 1}") for i in range(len(model.feature_info) - 1)]
    channels = tuple(
        info["num_chs"] // stage[0].expansion for info, stage in zip(model.feature_info[1:], stages, strict=True)
    )
    arguments: dict[str, Any] = {"layers": tuple(len(stage) for stage in stages), "channels": channels}
    if isinstance(model.conv1, nn.Sequential):  # timm fixes the plain 7×7 stem at 64 channels
        arguments["stem_width"] = model.conv1[3].out_channels
    return arguments


def _convnext_arguments(model: Any) -> dict[str, Any]:
    return {
        "depths": tuple(len(stage.blocks) for stage in model.stages),
        "dims": tuple(info["num_chs"] for info in model.feature_info),
    }


def _vit_arguments(model: Any) -> dict[str, Any]:
    attention = model.blocks[0].attn
    return {
        "depth": len(model.blocks),
        "embed_dim": model.embed_dim,
        "num_heads": attention.num_heads,
        "img_size": model.patch_embed.img_size,
        "patch_size": model.patch_embed.patch_size,
    }


_ARGUMENTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "ResNet": _resnet_arguments,
    "ConvNeXt": _convnext_arguments,
    "VisionTransformer": _vit_arguments,
    "EfficientNet": lambda model: {},
}


def _refuse_altered(change: str, kind: str) -> ValueError:
    return ValueError(
        f"{change} must be the first change to a network as timm builds it, got an altered {kind!r}. "
        f"Apply {change} once and before the other changes."
    )


def _current_arguments(model: nn.Module, change: str) -> dict[str, Any]:
    """Read the sizes of `model` in timm's own argument names; empty for a family that is not known."""
    kind = type(model).__name__
    if kind not in _ARGUMENTS:
        return {}
    try:
        return _ARGUMENTS[kind](model)
    except (AttributeError, IndexError) as error:
        raise _refuse_altered(change, kind) from error


def _signature(model: nn.Module) -> list[tuple[str, str, tuple[tuple[int, ...], ...]]]:
    return [
        (name, type(module).__name__, tuple(tuple(p.shape) for p in module.parameters(recurse=False)))
        for name, module in model.named_modules()
    ]


def _rebuild(model: Any, change: str, random_state: int, **new: Any) -> nn.Module:
    """Build the architecture of `model` again with some arguments changed, after checking that it can be.

    The check builds it unchanged first: a network that differs was altered after timm built it, and would
    lose that without a word.
    """
    kind = type(model).__name__
    cfg = getattr(model, "pretrained_cfg", None) or {}
    architecture = cfg.get("architecture") if isinstance(cfg, dict) else cfg.architecture
    if kind not in _ARGUMENTS or not architecture:
        raise ValueError(
            f"{change} must be applied to a timm {', '.join(_ARGUMENTS)}, got {kind!r}. "
            "Choose one of these families, or build the other size yourself."
        )
    common: dict[str, Any] = {"num_classes": model.num_classes}
    if kind == "EfficientNet":
        common["in_chans"] = model.conv_stem.in_channels
    else:
        common["in_chans"] = model.in_chans
    common |= _current_arguments(model, change)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_state)
        same = timm.create_model(architecture, **common)
        if _signature(same) != _signature(model):
            raise _refuse_altered(change, architecture)
        torch.manual_seed(random_state)
        try:
            built = timm.create_model(architecture, **(common | new))
        except TypeError as error:
            raise ValueError(
                f"{change} must be applied to an architecture that takes {sorted(new)}, got {architecture!r} "
                f"({error}). Choose another architecture of the family."
            ) from error
    reference = next(model.parameters())
    return built.to(device=reference.device, dtype=reference.dtype).train(model.training)


def with_width(model: nn.Module, factor: float = 2.0, random_state: int = 0) -> nn.Module:
    """Multiply the channels of every stage, with fresh weights.

    The depth, the head's size and (for transformers) the number of heads stay; widths are rounded to what the
    family allows. A ResNet with timm's plain 7×7 stem keeps its 64 stem channels, which timm fixes.

    Parameters
    ----------
    model : nn.Module
        A timm ResNet, ConvNeXt, VisionTransformer or EfficientNet as timm built it. Left untouched.
    factor : float, default=2.0
        What to multiply by, > 0.
    random_state : int, default=0
        Seed of the new weights; the global generator is left alone.

    Returns
    -------
    nn.Module
        A new network.

    Raises
    ------
    ValueError
        For a factor that is not positive, another family, or a network changed after it was built.
    """
    if not factor > 0:
        raise ValueError(f"factor must be a number above 0, got {factor!r}. Use 0.5 for half the channels.")
    current = _current_arguments(model, "with_width")
    new: dict[str, Any] = {}
    for name in ("channels", "dims"):
        if name in current:
            new[name] = tuple(max(1, round(c * factor)) for c in current[name])
    if "stem_width" in current:
        new["stem_width"] = max(1, round(current["stem_width"] * factor))
    if "embed_dim" in current:
        heads = current["num_heads"]
        # Attention in timm wants whole heads; an even head size keeps rotary and fused kernels available.
        new["embed_dim"] = heads * max(2, 2 * round(current["embed_dim"] * factor / heads / 2))
    if type(model).__name__ == "EfficientNet":
        new["channel_multiplier"] = factor
    return _rebuild(model, "with_width", random_state, **new)


def with_depth(model: nn.Module, blocks: int | tuple[int, ...] = 2, random_state: int = 0) -> nn.Module:
    """Set the number of blocks, with fresh weights.

    Parameters
    ----------
    model : nn.Module
        A timm ResNet, ConvNeXt or VisionTransformer as timm built it. Left untouched.
    blocks : int or tuple of int, default=2
        Blocks in each stage (a number stands for all stages); for a VisionTransformer the number of blocks.
    random_state : int, default=0
        Seed of the new weights.

    Returns
    -------
    nn.Module
        A new network.

    Raises
    ------
    ValueError
        For block counts that are not positive or don't match the stages, another family, or a changed
        network.
    """
    kind = type(model).__name__
    current = _current_arguments(model, "with_depth")
    name = next((n for n in ("layers", "depths", "depth") if n in current), None)
    if name is None:
        raise ValueError(
            f"with_depth must be applied to a timm ResNet, ConvNeXt or VisionTransformer, got {kind!r}. "
            "timm builds the other families from fixed block lists."
        )
    stages = 1 if name == "depth" else len(current[name])
    counts = (blocks,) * stages if isinstance(blocks, int) else tuple(blocks)
    if len(counts) != stages or any(not isinstance(c, int) or c < 1 for c in counts):
        raise ValueError(
            f"blocks must be a whole number above 0 or {stages} of them, got {blocks!r}. "
            f"{kind} has {stages} stage(s) of {current[name]} blocks."
        )
    return _rebuild(model, "with_depth", random_state, **{name: counts[0] if name == "depth" else counts})
