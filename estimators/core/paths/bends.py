"""Training the bends of a path: stochastic gradient descent on the expected loss over t ~ U(0, 1).

The gradient of bend k at a point of the path is its coefficient there times the gradient of the loss, so one
backward pass gives all bends (Garipov et al. 2018, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .paths import Coefficients, initial_bends

LossAndGradient = Callable[[np.ndarray, Tensor], tuple[float, Tensor]]


@dataclass(frozen=True)
class TrainedBends:
    """Bends and how they were found.

    Attributes
    ----------
    bends : Tensor of shape (n_bends, P)
        The bends after the last finite step.
    losses : ndarray of shape (epochs run,)
        Mean over the epoch's steps of the minibatch loss at its random t.
    learning_rates : ndarray of shape (epochs run,)
        At the end of each epoch.
    diverged_at : int
        Epoch (from 1) in which a loss or gradient stopped being finite, where training ended; 0 if none did.
    """

    bends: Tensor
    losses: np.ndarray
    learning_rates: np.ndarray
    diverged_at: int


@dataclass(frozen=True)
class BendsSoFar:
    """Where the training of bends stands after an epoch: all that the next one needs.

    Attributes
    ----------
    bends, velocity : Tensor of shape (n_bends, P)
    losses, learning_rates : list of float
        Of the epochs done.
    random : dict
        State of the generator of positions and orders.
    """

    bends: Tensor
    velocity: Tensor
    losses: list[float]
    learning_rates: list[float]
    random: dict[str, Any]


def train_bends(
    loss_and_gradient: LossAndGradient,
    a: Tensor,
    b: Tensor,
    family: Coefficients,
    *,
    n_bends: int,
    n_examples: int,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float = 0.9,
    random_state: int = 0,
    on_epoch: Callable[[BendsSoFar], None] | None = None,
    start: BendsSoFar | None = None,
) -> TrainedBends:
    """Train the bends between two fixed end points.

    Parameters
    ----------
    loss_and_gradient : callable
        (indices of examples, point of shape (P,)) → loss and gradient of shape (P,).
    a, b : Tensor of shape (P,)
        The end points; they never move.
    family : callable
        One of `paths.PATHS`.
    n_bends : int
        Bends, started on the straight line.
    n_examples : int
        Examples to draw minibatches from, without replacement in each epoch.
    epochs : int
        Passes over the examples; 0 leaves the straight line.
    batch_size : int
        Examples a step; a last batch of one example is dropped, since batch statistics need two.
    lr : float
        First step size; it falls to 0 along a half cosine.
    momentum : float, default=0.9
        Heavy-ball momentum.
    random_state : int, default=0
        Seed of the positions t and of the order of examples.
    on_epoch : callable, optional
        Called after each epoch with where the training stands; the tensors change afterwards.
    start : BendsSoFar or None
        Where to go on, to the same bends bit for bit.

    Returns
    -------
    TrainedBends
    """
    rng = np.random.default_rng(random_state)
    bends = initial_bends(a, b, n_bends)
    velocity = torch.zeros_like(bends)
    losses: list[float] = []
    rates: list[float] = []
    if start is not None:
        bends.copy_(start.bends)
        velocity.copy_(start.velocity)
        losses, rates = list(start.losses), list(start.learning_rates)
        rng.bit_generator.state = start.random
    starts = [i for i in range(0, n_examples, batch_size) if n_examples - i > 1 or n_examples == 1]
    total, step = max(1, epochs * len(starts)), len(losses) * len(starts)
    for epoch in range(len(losses) + 1, epochs + 1):
        order, seen = rng.permutation(n_examples), 0.0
        for i in starts:
            weights = torch.from_numpy(family(rng.random(1), n_bends)[0]).to(a)
            point = weights[0] * a + weights[-1] * b + weights[1:-1] @ bends
            loss, gradient = loss_and_gradient(order[i : i + batch_size], point)
            if not (math.isfinite(loss) and bool(torch.isfinite(gradient).all())):
                return TrainedBends(bends, np.array(losses), np.array(rates), epoch)
            rate = 0.5 * lr * (1.0 + math.cos(math.pi * step / total))
            velocity.mul_(momentum).add_(weights[1:-1, None] * gradient)
            bends.sub_(velocity, alpha=rate)
            seen += loss
            step += 1
        losses.append(seen / len(starts))
        rates.append(rate)
        if on_epoch is not None:
            on_epoch(BendsSoFar(bends, velocity, list(losses), list(rates), dict(rng.bit_generator.state)))
    return TrainedBends(bends, np.array(losses), np.array(rates), 0)
