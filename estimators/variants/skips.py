"""Residual sums: how many a network holds, and the same network without them."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.vision_transformer import Block
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..core.network.copying import private_copy

_ADDITIONS = {torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor}


class _SumRecorder(TorchDispatchMode):
    """Records the module in which two tensors that both come from the input are added."""

    def __init__(self, source: torch.Tensor) -> None:
        super().__init__()
        # Tensors are kept alive while recording: a freed tensor's id could be given to a parameter.
        self._from_input = {id(source): source}
        self.where: list[str] = []
        self.stack: list[str] = []

    def enter(self, name: str, *_: Any) -> None:
        self.stack.append(name)

    def leave(self, *_: Any) -> None:
        self.stack.pop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        active = [x for x in tensors if id(x) in self._from_input]
        if func in _ADDITIONS and len(active) == 2:
            self.where.append(self.stack[-1] if self.stack else "")
        if active:
            for x in torch.utils._pytree.tree_leaves(out):
                if isinstance(x, torch.Tensor):
                    self._from_input[id(x)] = x
        return out


def example_input(model: nn.Module, n: int = 2) -> torch.Tensor:
    """Give a random batch that `model` accepts: (n, C, H, W), 32 px unless the network fixes its size."""
    channels = getattr(model, "in_chans", None)
    if channels is None:
        first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        channels = first.in_channels if first is not None else 3
    size = getattr(getattr(model, "patch_embed", None), "img_size", None) or (32, 32)
    first_parameter = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn((n, channels, *size), generator=generator).to(first_parameter)


def residual_sums(model: nn.Module, inputs: torch.Tensor | None = None) -> tuple[str, ...]:
    """Name the module of each sum of two activations, once for each sum.

    One forward pass is watched operation by operation, so control flow inside a block is no obstacle
    (torch.fx stops at timm's attention). A sum with a parameter, such as a position embedding, doesn't count.

    Parameters
    ----------
    model : nn.Module
        Left untouched; a copy is run in eval mode.
    inputs : tensor of shape (n, C, H, W), optional
        What to run. Default: random images of the size the network expects.

    Returns
    -------
    tuple of str
        Dotted module names, in the order of the forward pass; empty when no residual sum is left.
    """
    probe = private_copy(model).eval()
    inputs = example_input(probe) if inputs is None else inputs
    recorder = _SumRecorder(inputs)
    handles = []
    for name, module in probe.named_modules():
        handles.append(module.register_forward_pre_hook(partial(recorder.enter, name)))
        handles.append(module.register_forward_hook(recorder.leave))
    with torch.no_grad(), recorder:
        probe(inputs)
    for handle in handles:
        handle.remove()
    return tuple(recorder.where)


class PlainConvNeXtBlock(nn.Module):
    """A ConvNeXt block's own branch: depth-wise convolution, norm, MLP; no layer scale and no sum."""

    def __init__(self, block: ConvNeXtBlock) -> None:
        super().__init__()
        self.use_conv_mlp = block.use_conv_mlp
        self.conv_dw, self.norm, self.mlp = block.conv_dw, block.norm, block.mlp

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        x = self.conv_dw(x)
        if self.use_conv_mlp:
            return self.mlp(self.norm(x))
        return self.mlp(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class PlainViTBlock(nn.Module):
    """A transformer block's attention and MLP, one after the other, without the two sums."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp

    def forward(self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False):
        """Map tokens (N, T, C) to (N, T, C)."""
        x = self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)
        return self.mlp(self.norm2(x))


def _plain_resnet_block(block: BasicBlock | Bottleneck) -> nn.Sequential:
    # The stride sits in the block's own convolution, so the projection on the shortcut can go without
    # changing any spatial size. Names are kept so that a checkpoint's remaining keys still fit.
    if isinstance(block, BasicBlock):
        order, last = "conv1 bn1 drop_block act1 aa conv2 bn2 se act2", "bn2"
    else:
        order, last = "conv1 bn1 act1 conv2 bn2 drop_block act2 aa conv3 bn3 se act3", "bn3"
    last_norm = getattr(block, last)
    gain = getattr(last_norm, "weight", None)
    if gain is not None and not gain.any():
        # timm starts the last norm of a branch at zero so that a block begins as the identity;
        # without the identity the same zero would cut the network in two for good.
        nn.init.ones_(gain)
    layers = ((name, getattr(block, name)) for name in order.split())
    kept = ((name, layer) for name, layer in layers if layer is not None and type(layer) is not nn.Identity)
    return nn.Sequential(OrderedDict(kept))


_PLAIN: dict[type[nn.Module], Any] = {
    BasicBlock: _plain_resnet_block,
    Bottleneck: _plain_resnet_block,
    ConvNeXtBlock: PlainConvNeXtBlock,
    Block: PlainViTBlock,
}


def without_skips(model: nn.Module) -> nn.Module:
    """Remove every residual sum: each block becomes its own branch alone.

    ResNet blocks keep their strided convolution and lose the projection shortcut; ConvNeXt blocks lose their
    layer scale too, which only weighs the branch against the skip; transformer blocks run attention, then the
    MLP. EfficientNet blocks have their skip switched off. Stochastic depth goes, having nothing to fall back
    on. Weights are kept, except a last norm whose gain was initialised to zero: it starts at one.

    Parameters
    ----------
    model : nn.Module
        A timm ResNet, ConvNeXt, VisionTransformer or EfficientNet. Left untouched.

    Returns
    -------
    nn.Module
        A new network for which `residual_sums` is empty.

    Raises
    ------
    ValueError
        If the network has no residual sum, or has some in a block this function does not know.

    References
    ----------
    Li et al. (2018), "Visualizing the Loss Landscape of Neural Nets", compare the two kinds of network.
    """
    kind = type(model).__name__
    if not residual_sums(model):
        raise ValueError(
            f"without_skips must be applied to a network with residual sums, got {kind!r} without any. "
            "Leave this change out, or choose another architecture."
        )
    plain = private_copy(model)
    for parent in list(plain.modules()):
        for name, child in list(parent.named_children()):
            if type(child) in _PLAIN:
                setattr(parent, name, _PLAIN[type(child)](child).train(child.training))
            elif isinstance(getattr(child, "has_skip", None), bool):
                setattr(child, "has_skip", False)  # noqa: B010  (a module's attributes are opaque to mypy)
    left = residual_sums(plain)
    if left:
        blocks = sorted({f"{type(plain.get_submodule(name)).__name__} ({name or 'root'})" for name in left})
        raise ValueError(
            "without_skips must be applied to the ResNet, ConvNeXt, ViT or EfficientNet family, "
            f"got {kind!r} with residual sums in {', '.join(blocks[:6])}. "
            f"Choose an architecture made of {', '.join(block.__name__ for block in _PLAIN)}."
        )
    return plain
