"""Several points in one forward pass, by `vmap` over the parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

    try:
        return _summed(network, at_one, parameters, data, total)
    except (RuntimeError, NotImplementedError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise ValueError(
            f"points_per_pass must be 1 for a network that several points can't pass at once, got {len(points)}: "
            f"{str(error).splitlines()[0]} Use one point in a pass."
        ) from error


def _summed(
    network: Network, at_one: Callable, parameters: dict[str, Tensor], data: Iterator[Batch], total: Tensor
) -> Tensor:
    for x, y in data:
        with network.precision(), double_backward():  # the fused attention has no rule for many points either
            total += vmap(at_one, in_dims=(0, None, None))(parameters, x, y)
    return total
