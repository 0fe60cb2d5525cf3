"""Loss and accuracy of one network on fixed examples, at one point or at many."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits (N, C) against class indices (N,), in nats, per example."""
    return F.cross_entropy(outputs, targets, reduction="none")


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error averaged over the outputs of each example; class indices count as one-hot vectors."""
    if not targets.is_floating_point():
        targets = F.one_hot(targets, outputs.shape[-1]).to(outputs.dtype)
    return (outputs - targets.to(outputs.dtype)).square().flatten(1).mean(1)


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mean_squared_error}


def logits(output: object) -> Tensor:
    """Find the prediction in what a model returns: a tensor, a tuple, a dict or an object with `.logits`."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        return logits(
            next((output[k] for k in ("logits", "out", "output") if k in output), next(iter(output.values())))
        )
    if hasattr(output, "logits"):
        return logits(output.logits)
    if isinstance(output, tuple | list) and len(output):
        return logits(output[0])
    raise TypeError(
        "The model must return a tensor, a tuple, a dict or an object with `.logits`, got "
        f"{type(output).__name__}. Wrap it in a module that returns its class scores."
    )


def per_example_losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Apply `loss` and insist on one value for each example."""
    values = loss(outputs, targets)
    if values.dim() == 0 or values.shape[0] != targets.shape[0]:
        raise ValueError(
            f"loss must return one value per example, shape ({targets.shape[0]},), got {tuple(values.shape)}. "
            "Use reduction='none'."
        )
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def correct(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Which predictions hit their class; None where the targets are not classes."""
    if targets.is_floating_point() or targets.dim() != 1 or outputs.dim() != 2:
        return None
    return outputs.argmax(1) == targets


def batches(inputs: Tensor, targets: Tensor, size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Walk the examples in their order; what does not lie on `device` is streamed to it."""
    for start in range(0, len(targets), size):
        x, y = inputs[start : start + size], targets[start : start + size]
        yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def sums(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Sum of the per-example losses and number of hits (NaN without classes), (2,) in float64."""
    losses = per_example_losses(loss, outputs.float() if outputs.dtype == torch.bfloat16 else outputs, targets)
    hits = correct(outputs, targets)
    n_hits = losses.new_full((), float("nan"), dtype=torch.float64) if hits is None else hits.sum().double()
    return torch.stack([losses.sum(dtype=torch.float64), n_hits])


@torch.no_grad()
def totals(
    forward: Callable[[Tensor], object],
    loss: Loss,
    data: Iterator[tuple[Tensor, Tensor]],
    device: torch.device,
) -> Tensor:
    """Sum losses and hits over batches, in float64 on the device, without a synchronisation.

    Returns
    -------
    Tensor of shape (2,)
        Sum of the per-example losses and number of correct predictions (NaN without classes).
    """
    total = torch.zeros(2, dtype=torch.float64, device=device)
    for x, y in data:
        total += sums(logits(forward(x)), y, loss)
    return total
