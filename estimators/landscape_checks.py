"""What a network and its examples must fulfil before hours are spent on them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .core.evaluation import LOSSES, Loss, logits, totals
from .core.network import Network


def check_outputs(network: Network, inputs: Tensor, targets: Tensor, loss: Loss) -> int:
    """Run two examples, so that a wrong shape or label is said at once; give the number of outputs.

    Raises
    ------
    ValueError
        If the model does not take the inputs, or targets are not classes of the model.
    """
    try:
        with torch.no_grad():
            outputs = logits(network.module(inputs[:2].to(network.device)))
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise ValueError(
            f"The model must accept inputs of shape {tuple(inputs.shape[1:])}, got an error: {error}. "
            "Check image_size and channels of the data, and img_size of the model."
        ) from error
    n_classes = outputs.shape[-1] if outputs.dim() > 1 else 1
    if loss is LOSSES["cross_entropy"] and not targets.is_floating_point():
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= n_classes:
            raise ValueError(
                f"targets must be classes 0 to {n_classes - 1} (the model has {n_classes} outputs), "
                f"got values from {low} to {high}. Load the model with num_classes={max(high + 1, 2)} "
                "or fix the labels."
            )
    return n_classes


def check_repeatable(network: Network, loss: Loss, x: Tensor, y: Tensor) -> None:
    """Insist on the same loss twice at the same weights.

    Raises
    ------
    ValueError
        If two evaluations disagree.
    """
    first, second = _loss(network, loss, x, y), _loss(network, loss, x, y)
    if math.isfinite(first) and math.isfinite(second) and abs(first - second) > 1e-5 * max(1.0, abs(first)):
        raise ValueError(
            f"The model must give the same loss twice at the same weights, got {first:.6g} and {second:.6g}. "
            "It draws random numbers in eval mode: switch that off."
        )


def deviation_from_float32(network: Network, loss: Loss, x: Tensor, y: Tensor) -> float:
    """Relative difference that bfloat16 makes to the loss of these examples, where the network stands."""
    mixed = _loss(network, loss, x, y)
    network.mixed = False
    exact = _loss(network, loss, x, y)
    network.mixed = True
    return abs(mixed / exact - 1) if exact else abs(mixed)


def _loss(network: Network, loss: Loss, x: Tensor, y: Tensor) -> float:
    with network.policy():
        return float(totals(network.forward, loss, iter([(x, y)]), network.device)[0])
