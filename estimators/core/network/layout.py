"""The memory layout of images and convolution weights."""

from __future__ import annotations

import torch
from torch import nn


def image_layout(module: nn.Module) -> torch.memory_format:
    """Choose channels-last, which the fast convolutions want, where it is safe.

    oneDNN writes outside its memory (torch 2.14, CPU: "corrupted double-linked list", or a crash later) in the weight
    gradient of a channels-last 1 × 1 convolution with stride 2 and fewer than 8 input channels: the shortcut of a very
    narrow ResNet. A network that has one keeps the contiguous layout throughout.
    """
    unsafe = any(isinstance(m, nn.Conv2d) and _overflows(m) for m in module.modules())
    return torch.contiguous_format if unsafe else torch.channels_last


def _overflows(conv: nn.Conv2d) -> bool:
    strided_point = max(conv.kernel_size) == 1 and max(conv.stride) > 1
    return strided_point and conv.groups == 1 and conv.in_channels < 8
