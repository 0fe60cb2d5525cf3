"""Loss and accuracy of one network on fixed examples, at one point or at many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .fields import Inputs
from .losses import Loss, correct, per_example_losses

Batch = tuple[Inputs, Tensor]
PREDICTION_KEYS = ("logits", "out", "output")


def logits(output: object) -> Tensor:
    """Find the prediction in what a model returns.

    A tensor is the prediction. A dict or an object says it by the name "logits" (a dict also by "out" or "output").
    A tuple or a list has it first, as is the custom. Where that does not hold (other keys; a scalar, integers or
    nothing in first place), the prediction is the one floating-point tensor with axes that there is.

    Raises
    ------
    ValueError
        Where more than one entry, or none, may be the prediction.
    TypeError
        For an output of another kind.
    """
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        named = [key for key in PREDICTION_KEYS if key in output]
        return logits(output[named[0]]) if named else _only_one(list(output.values()), f"keys {list(output)}")
    if hasattr(output, "logits"):
        return logits(output.logits)
    if isinstance(output, tuple | list) and len(output):
        if _may_be_scores(output[0]) or not isinstance(output[0], Tensor | None | int | float):
            return logits(output[0])
        return _only_one(output, f"entries {[_kind(value) for value in output]}")
    raise TypeError(
        "The model must return a tensor, a tuple, a dict or an object with `.logits`, got "
        f"{type(output).__name__}. Wrap it in a module that returns its class scores."
    )


def _may_be_scores(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 0


def _kind(value: object) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _only_one(values: Sequence[object], found: str) -> Tensor:
    candidates = [value for value in values if isinstance(value, Tensor) and _may_be_scores(value)]
    if len(candidates) == 1:
        return candidates[0]
    raise ValueError(
        f"The model's output must say which entry is the prediction, got {found}, of which {len(candidates)} may be "
        f"it. Name it 'logits', or wrap the model in a module that returns its class scores alone."
    )


def batches(inputs: Inputs, targets: Tensor, size: int, device: torch.device) -> Iterator[Batch]:
    """Walk the examples in their order; what does not lie on `device` is streamed to it."""
    for start in range(0, len(targets), size):
        x, y = inputs[start : start + size], targets[start : start + size]
        yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def sums(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Sum of the per-example losses and number of hits (NaN without classes), (2,) in float64."""
    losses = per_example_losses(loss, outputs.float() if outputs.dtype == torch.bfloat16 else outputs, targets)
    hits = correct(outputs, targets, loss)
    n_hits = losses.new_full((), float("nan"), dtype=torch.float64) if hits is None else hits.sum().double()
    return torch.stack([losses.sum(dtype=torch.float64), n_hits])


@torch.no_grad()
def totals(
    forward: Callable[[Any], object],
    loss: Loss,
    data: Iterator[Batch],
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
