"""Loss and accuracy of one network on fixed examples, at one point or at many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .fields import Inputs

Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Inputs, Tensor]
PREDICTION_KEYS = ("logits", "out", "output")


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits against class indices or class probabilities, in nats, per example or per position.

    Logits are (N, C), or hold the classes on the axis that the targets lack (see :func:`class_axis`); class
    probabilities have the logits' shape.
    """
    targets = _without_axis_of_one(outputs, targets)
    if targets.is_floating_point():
        if targets.shape != outputs.shape or outputs.dim() in (1, 3):
            raise _unfit(
                outputs,
                targets,
                "class probabilities for 'cross_entropy' must have the shape of the outputs, (N, C) or (N, C, H, W)",
                "Give integer class indices, or a loss of your own that says which axis holds the classes.",
            )
        return F.cross_entropy(outputs, targets.to(outputs.dtype), reduction="none")
    axis = class_axis(outputs, targets)
    return F.cross_entropy(outputs if axis == 1 else outputs.movedim(axis, 1), targets, reduction="none")


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error averaged over the outputs of each example; class indices count as one-hot vectors.

    Shapes must be equal; the one exception is (N, 1) beside (N,), where only one reading is possible.
    """
    if not targets.is_floating_point():
        targets = _without_axis_of_one(outputs, targets)
        axis = class_axis(outputs, targets)
        targets = F.one_hot(targets, outputs.shape[axis]).movedim(-1, axis)
    shapes = (tuple(outputs.shape), tuple(targets.shape))
    if shapes[0] != shapes[1]:
        if {*shapes} != {(len(outputs),), (len(outputs), 1)}:
            raise _unfit(
                outputs, targets, "outputs and targets must have equal shapes for 'mse'", "Reshape one to the other."
            )
        targets = targets.reshape(outputs.shape)
    squares = (outputs - targets.to(outputs.dtype)).square()
    return squares.flatten(1).mean(1) if squares.dim() > 1 else squares


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "mse": mean_squared_error}


def class_axis(outputs: Tensor, targets: Tensor) -> int:
    """Find the axis of `outputs` that holds the classes: the one that class indices `targets` do not have.

    It is axis 1 for scores (N, C) and for images (N, C, H, W), as in PyTorch, and the last one where only that fits,
    as for tokens (N, T, V) with targets (N, T).

    Raises
    ------
    ValueError
        Where no axis fits, or where T = V makes both readings of (N, T, V) possible.
    """
    shape, wanted = tuple(outputs.shape), tuple(targets.shape)
    first, last = len(shape) > 1 and shape[:1] + shape[2:] == wanted, len(shape) > 1 and shape[:-1] == wanted
    if first and last and len(shape) == 3:
        raise _unfit(
            outputs,
            targets,
            "the axis of the classes must be clear, and axes 1 and 2 both fit",
            "Give a loss of your own that says which one holds the classes, or another length of the sequence.",
        )
    if not (first or last):
        raise _unfit(
            outputs,
            targets,
            "class indices must have the shape of the outputs without the axis of the classes",
            "For scores (N, C) give targets (N,), for floats give loss='mse' and equal shapes.",
        )
    return 1 if first else len(shape) - 1


def _without_axis_of_one(outputs: Tensor, targets: Tensor) -> Tensor:
    """Read class indices (N, 1, ...) beside scores (N, C, ...) as (N, ...)."""
    squeeze = not targets.is_floating_point() and targets.dim() == outputs.dim() > 1 and targets.shape[1] == 1
    return targets.squeeze(1) if squeeze else targets


def _unfit(outputs: Tensor, targets: Tensor, rule: str, cure: str) -> ValueError:
    return ValueError(
        f"Shapes must fit: {rule}, got outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}. {cure}"
    )


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


def per_example_losses(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Apply `loss` and insist on one value for each example; values of positions are averaged for each example."""
    values = loss(outputs, targets)
    if values.dim() == 0 and len(targets) == 1:
        values = values[None]  # a loss that squeezes, on a last batch of one example
    if values.dim() == 0 or values.shape[0] != targets.shape[0]:
        raise ValueError(
            f"loss must return one value per example, shape ({targets.shape[0]},), got {tuple(values.shape)}. "
            "Use reduction='none'."
        )
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def correct(outputs: Tensor, targets: Tensor) -> Tensor | None:
    """Which predictions hit their class; None where that has no meaning.

    It has one for scores (N, C) of two classes or more, against class indices or exact one-hot rows; rows that are
    not one-hot give NaN, without waiting for the device.
    """
    targets = _without_axis_of_one(outputs, targets)
    if outputs.dim() != 2 or outputs.shape[1] < 2 or targets.shape not in (outputs.shape, outputs.shape[:1]):
        return None
    if targets.dim() == 1:
        return None if targets.is_floating_point() else outputs.argmax(1) == targets
    one_hot = (((targets == 0) | (targets == 1)).all(1) & (targets.sum(1) == 1)).all()
    hits = (outputs.argmax(1) == targets.argmax(1)).to(torch.float32)
    return torch.where(one_hot, hits, float("nan"))


def batches(inputs: Inputs, targets: Tensor, size: int, device: torch.device) -> Iterator[Batch]:
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
