"""Several points in one forward pass, by `vmap` over the parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from .evaluation import Batch, logits, sums
from .fields import Inputs
from .losses import Loss
from .products import double_backward
from .working_copy import Network


@torch.no_grad()
def totals_of_points(network: Network, points: Tensor, loss: Loss, data: Iterator[Batch]) -> Tensor:
    """Sum losses and hits over batches at k points at once.

    Parameters
    ----------
    network : Network
        Gives the forward pass; it stays where it is.
    points : Tensor of shape (k, P)
        In buffer layout.
    loss : callable
        `(outputs, targets)` → per-example losses.
    data : iterator of (inputs, targets)

    Returns
    -------
    Tensor of shape (k, 2)
        As :func:`estimators.core.evaluation.totals`.
    """
    parameters = network.parameters_at(points)
    total = torch.zeros(len(points), 2, dtype=torch.float64, device=points.device)

    def at_one(values: dict[str, Tensor], x: Inputs, y: Tensor) -> Tensor:
        output = functional_call(network.forward_module, values, (x,), tie_weights=False)
        return sums(logits(output), y, loss)

    for x, y in data:
        with network.precision(), double_backward():  # the fused attention has no rule for many points either
            total += vmap(at_one, in_dims=(0, None, None))(parameters, x, y)
    return total
