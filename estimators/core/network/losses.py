"""Losses: one value for each example, by name or by one's own function, and how outputs and targets must fit."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    outputs: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, ignore_index: int = -100
) -> Tensor:
    """Cross-entropy of logits against class indices or class probabilities, in nats, per example or per position.

    Logits are (N, C), or hold the classes on the axis that the targets lack (see :func:`class_axis`); class
    probabilities, one-hot rows of integers too, have the logits' shape. Positions whose target is `ignore_index` do not
    count: the values of an example's others are scaled, so that their mean over all positions is that over these.
    """
    targets = without_axis_of_one(outputs, targets)
    if targets.is_floating_point() or targets.shape == outputs.shape:
        if targets.shape != outputs.shape or outputs.dim() in (1, 3):
            raise _unfit(
                outputs,
                targets,
                "class probabilities for 'cross_entropy' must have the shape of the outputs, (N, C) or (N, C, H, W)",
                "Give integer class indices, or a loss of your own that says which axis holds the classes.",
            )
        soft = targets.to(outputs.dtype)
        return F.cross_entropy(outputs, soft, reduction="none", label_smoothing=label_smoothing)
    axis = class_axis(outputs, targets)
    scores = outputs if axis == 1 else outputs.movedim(axis, 1)
    options: dict[str, Any] = {"label_smoothing": label_smoothing, "ignore_index": ignore_index}
    values = F.cross_entropy(scores, targets, reduction="none", **options)
    return values if values.dim() == 1 else values * _share_that_counts(targets != ignore_index, values.dtype)


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Squared error averaged over the outputs of each example; class indices count as one-hot vectors.

    Shapes must be equal; the one exception is (N, 1) beside (N,), where only one reading is possible. Integers beside
    a single output are numbers.
    """
    return _mean_of_each((outputs - _numbers(outputs, targets, "mse")).square())


def huber(outputs: Tensor, targets: Tensor, *, delta: float = 1.0) -> Tensor:
    """Huber's loss averaged over the outputs of each example: half the square up to `delta`, linear beyond.

    Shapes as for :func:`mean_squared_error` (Huber 1964, *Robust estimation of a location parameter*).
    """
    numbers = _numbers(outputs, targets, "huber")
    return _mean_of_each(F.huber_loss(outputs, numbers, reduction="none", delta=delta))


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of logits against labels in [0, 1], in nats, averaged over the outputs of each example.

    Labels have the outputs' shape, as for several labels an example; or are one for each single output; or are class
    indices, which count as one-hot vectors.
    """
    if targets.shape != outputs.shape:
        if _one_output_for_each(outputs, targets):
            targets = targets.reshape(outputs.shape)
        elif not targets.is_floating_point():
            targets = _one_hot(outputs, targets)
    if targets.shape != outputs.shape:
        raise _unequal(outputs, targets, "bce")
    labels = targets.to(outputs.dtype)
    return _mean_of_each(F.binary_cross_entropy_with_logits(outputs, labels, reduction="none"))


#: Named losses; what they take besides is written as in "cross_entropy(label_smoothing=0.1)" or "huber(delta=0.5)".
LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "mse": mean_squared_error,
    "huber": huber,
    "bce": binary_cross_entropy,
}
_ALLOWED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "label_smoothing": ("a number in [0, 1)", lambda v: isinstance(v, int | float) and 0 <= v < 1),
    "ignore_index": ("an integer", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    "delta": ("a positive number", lambda v: isinstance(v, int | float) and 0 < v < math.inf),
}


def named_loss(text: str) -> Loss:
    """Find a loss by its name, with settings in parentheses where it takes some.

    Raises
    ------
    ValueError
        For another name, another setting, or a value out of its range.
    """
    try:
        call = ast.parse(text, mode="eval").body
        name = call.func if isinstance(call, ast.Call) else call
        function = LOSSES[name.id]  # type: ignore[attr-defined]
        keywords = call.keywords if isinstance(call, ast.Call) else []
        settings = {str(k.arg): ast.literal_eval(k.value) for k in keywords}
        if isinstance(call, ast.Call) and call.args:
            raise ValueError
    except (SyntaxError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(
            f"loss must be one of {sorted(LOSSES)}, with settings as in 'cross_entropy(label_smoothing=0.1)', or a "
            f"callable, got {text!r}. Choose one of these."
        ) from error
    takes = inspect.signature(function).parameters
    for key, value in settings.items():
        if key not in takes:
            known = [k for k in takes if k in _ALLOWED]
            raise ValueError(
                f"{text.split('(')[0]!r} must be given settings it takes, {known}, got {key!r}. Leave it out."
            )
        allowed, fits = _ALLOWED[key]
        if not fits(value):
            raise ValueError(f"{key} of a loss must be {allowed}, got {value!r}. Change it in {text!r}.")
    return partial(function, **settings) if settings else function


def plain_loss(loss: Loss) -> Loss:
    """Give the function behind a loss with settings; a loss of one's own stands for itself."""
    return loss.func if isinstance(loss, partial) and loss.func in LOSSES.values() else loss


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


def without_axis_of_one(outputs: Tensor, targets: Tensor) -> Tensor:
    """Read class indices (N, 1, ...) beside scores (N, C, ...) as (N, ...)."""
    squeeze = not targets.is_floating_point() and targets.dim() == outputs.dim() > 1 and targets.shape[1] == 1
    return targets.squeeze(1) if squeeze else targets


def has_single_outputs(outputs: Tensor) -> bool:
    """Whether an example has one output, (N,) or (N, 1), so that it can't name a class by the largest."""
    return outputs.dim() == 1 or (outputs.dim() == 2 and outputs.shape[1] == 1)


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
    return _mean_of_each(values)


def correct(outputs: Tensor, targets: Tensor, loss: Loss | None = None) -> Tensor | None:
    """Which predictions hit their class, as a share in [0, 1] for each example; None where that has no meaning.

    It has one for scores (N, C) of two classes or more against class indices or exact one-hot rows; for class indices
    of positions under a named loss, over those that count; and for single outputs under "bce", against 0 and 1. Rows
    that are not one-hot, and labels between 0 and 1, give NaN, without waiting for the device.
    """
    named = None if loss is None else plain_loss(loss)
    if named is binary_cross_entropy and _one_output_for_each(outputs, targets):
        labels = targets.reshape(len(outputs), -1)
        hits = ((outputs.reshape(labels.shape) > 0) == (labels > 0.5)).double().mean(1)
        return torch.where(((labels == 0) | (labels == 1)).all(), hits, float("nan"))
    targets = without_axis_of_one(outputs, targets)
    if outputs.dim() > 2 and not targets.is_floating_point() and targets.dim() == outputs.dim() - 1:
        if named not in LOSSES.values():
            return None
        counts = targets != _ignored(loss)
        hits = (outputs.argmax(class_axis(outputs, targets)) == targets) & counts
        return (hits * _share_that_counts(counts, torch.float64)).flatten(1).mean(1)
    if outputs.dim() != 2 or outputs.shape[1] < 2 or targets.shape not in (outputs.shape, outputs.shape[:1]):
        return None
    if targets.dim() == 1:
        return None if targets.is_floating_point() else outputs.argmax(1) == targets
    one_hot = (((targets == 0) | (targets == 1)).all(1) & (targets.sum(1) == 1)).all()
    hits = (outputs.argmax(1) == targets.argmax(1)).to(torch.float32)
    return torch.where(one_hot, hits, float("nan"))


def average_outputs(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """Average the predictions of several networks, (n, N, ...) → (N, ...): outputs that any loss can be applied to.

    Probabilities are averaged where the loss reads outputs as logits, the outputs themselves elsewhere.
    """
    named = plain_loss(loss)
    if named is binary_cross_entropy:
        yes, no = (torch.logsumexp(F.logsigmoid(z), 0) for z in (outputs, -outputs))
        return yes - no
    if targets.is_floating_point() or named in (mean_squared_error, huber):
        return outputs.mean(0)
    labels = without_axis_of_one(outputs[0], targets)
    axis = 1 if labels.shape == outputs[0].shape else class_axis(outputs[0], labels)
    return torch.logsumexp(outputs.log_softmax(axis + 1), 0) - math.log(len(outputs))


def check_targets(loss: Loss, outputs: Tensor, some: Tensor, targets: Tensor) -> int:
    """Insist on targets that the loss has values for; give the number of classes or outputs.

    Parameters
    ----------
    loss : callable
    outputs, some : Tensor
        Of a few examples: the network's outputs and the targets.
    targets : Tensor of shape (N, ...)
        Of all examples.

    Raises
    ------
    ValueError
        If class indices are not classes of the model, labels for "bce" lie outside [0, 1], or an example has no
        position that counts.
    """
    named = plain_loss(loss)
    width = outputs.shape[1 if outputs.dim() > 3 else -1] if outputs.dim() > 1 else 1
    labels = without_axis_of_one(outputs, some)
    low, high = (f(targets).item() for f in (torch.min, torch.max))
    if named not in LOSSES.values() or (labels.shape == outputs.shape and named is not binary_cross_entropy):
        return width
    if named is binary_cross_entropy and (some.shape == outputs.shape or _one_output_for_each(outputs, some)):
        if low < 0 or high > 1:
            raise ValueError(f"targets must lie in [0, 1] for 'bce', got values from {low} to {high}. Scale them.")
        return width
    if targets.is_floating_point() or (named is not cross_entropy and has_single_outputs(outputs)):
        return width
    n_classes = outputs.shape[class_axis(outputs, labels)]
    hint = f"Load the model with num_classes={max(high + 1, 2)} or fix the labels."
    if named is cross_entropy and labels.dim() > 1:
        ignored = _ignored(loss)
        counts = targets != ignored
        if not counts.flatten(1).any(1).all():
            example = int((~counts.flatten(1).any(1)).nonzero()[0])
            raise ValueError(
                f"Every example must have a target that counts, got {ignored} (ignore_index) alone in example "
                f"{example}. Leave such examples out."
            )
        low, high = targets[counts].min().item(), targets[counts].max().item()
        hint = f"{hint[:-1]}; if {high if high >= n_classes else low} marks what does not count, say " + (
            f"loss='cross_entropy(ignore_index={high if high >= n_classes else low})'."
        )
    if low < 0 or high >= n_classes:
        raise ValueError(
            f"targets must be classes 0 to {n_classes - 1} (the model has {n_classes} outputs), "
            f"got values from {low} to {high}. {hint}"
        )
    return n_classes


def _ignored(loss: Loss | None) -> int:
    """Give the target that does not count under a named loss: torch's own where nothing else is said."""
    return int(loss.keywords.get("ignore_index", -100)) if isinstance(loss, partial) else -100


def _share_that_counts(counts: Tensor, dtype: torch.dtype) -> Tensor:
    """Give what scales values at the positions that count so that their mean over all positions is that over these."""
    number = counts.flatten(1).sum(1).clamp_min(1).to(dtype)
    return (counts[0].numel() / number).view(-1, *(1 for _ in counts.shape[1:]))


def _mean_of_each(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1) if values.dim() > 1 else values


def _one_output_for_each(outputs: Tensor, targets: Tensor) -> bool:
    """Whether outputs and targets are (N, 1, ...) and (N, ...), either way or alike: one output for each target."""
    without = [t.shape[:1] + t.shape[2:] if t.dim() > 1 and t.shape[1] == 1 else t.shape for t in (outputs, targets)]
    single = outputs.dim() == 1 or outputs.shape[1] == 1
    return single and without[0] == without[1]


def _one_hot(outputs: Tensor, targets: Tensor) -> Tensor:
    """Class indices as one-hot vectors along the axis of the classes."""
    targets = without_axis_of_one(outputs, targets)
    axis = class_axis(outputs, targets)
    return F.one_hot(targets, outputs.shape[axis]).movedim(-1, axis)


def _numbers(outputs: Tensor, targets: Tensor, name: str) -> Tensor:
    """Targets of a regression, in the outputs' shape and type."""
    if not targets.is_floating_point() and not has_single_outputs(outputs) and targets.shape != outputs.shape:
        targets = _one_hot(outputs, targets)
    shapes = (tuple(outputs.shape), tuple(targets.shape))
    if shapes[0] != shapes[1]:
        if {*shapes} != {(len(outputs),), (len(outputs), 1)}:
            raise _unequal(outputs, targets, name)
        targets = targets.reshape(outputs.shape)
    return targets.to(outputs.dtype)


def _unequal(outputs: Tensor, targets: Tensor, name: str) -> ValueError:
    rule = f"outputs and targets must have equal shapes for {name!r}"
    return _unfit(outputs, targets, rule, "Reshape one to the other.")


def _unfit(outputs: Tensor, targets: Tensor, rule: str, cure: str) -> ValueError:
    return ValueError(
        f"Shapes must fit: {rule}, got outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}. {cure}"
    )
