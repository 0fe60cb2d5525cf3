"""Weight normalisation in plain operations, for a double backward that is right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import ParametrizationList


class PlainWeightNorm(nn.Module):
    """`weight_norm` in plain operations: the fused one has a wrong double backward on the CPU (torch 2.14)."""

    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """Give g · v / ‖v‖, the norm over all axes but `dim`."""
        return weight_v * (weight_g / torch.norm_except_dim(weight_v, 2, self.dim))


def plain_weight_norm(module: nn.Module) -> nn.Module:
    """Put plain operations in the place of fused weight normalisation, in place; names and values stay."""
    for part in list(module.modules()):
        if isinstance(part, ParametrizationList):
            for i, step in enumerate(part):
                if type(step) is parametrizations._WeightNorm:
                    part[i] = PlainWeightNorm(step.dim)
    return module
