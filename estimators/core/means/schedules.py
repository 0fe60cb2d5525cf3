"""Learning rates as pure functions of training progress: what the runs that feed an average need."""

from __future__ import annotations

import math
from collections.abc import Callable


def annealed(epoch: float, before: float, swa_lr: float, anneal_epochs: float, shape: str = "cosine") -> float:
    """Give the learning rate `epoch` epochs after the switch to a constant one (torch's `SWALR`).

    Parameters
    ----------
    epoch : float
        Epochs since the switch, from 0; may be a fraction.
    before : float
        Learning rate at the switch.
    swa_lr : float
        Constant learning rate to arrive at.
    anneal_epochs : float
        How long the way there takes; 0 jumps.
    shape : {"cosine", "linear"}, default="cosine"
        The way there.
    """
    t = min(1.0, max(0.0, epoch / anneal_epochs)) if anneal_epochs > 0 else 1.0
    weight = (1 - math.cos(math.pi * t)) / 2 if shape == "cosine" else t
    return swa_lr * weight + before * (1 - weight)


def cyclic(epoch: float, high: float, low: float, period: float) -> float:
    """Give the sawtooth of Izmailov et al. 2018, section 3.1: from `high` down to `low` in each cycle.

    Parameters
    ----------
    epoch : float
        Epochs since the first cycle began, from 0; may be a fraction. At whole multiples of `period` a new
        cycle begins at `high`; just before, the rate is at `low`, which is where weights are collected.
    high, low : float
        The two ends.
    period : float
        Length of a cycle in epochs, > 0.
    """
    t = (epoch % period) / period
    return (1 - t) * high + t * low


def half_cosine(progress: float) -> float:
    """Fall from 1 to 0 along half a cosine."""
    return (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2


def swa_learning_rate(
    progress: float,
    *,
    lr: float,
    swa_lr: float,
    epochs: int,
    start: float = 0.75,
    schedule: str = "constant",
    anneal_epochs: float = 1.0,
    period: float = 1.0,
    base: Callable[[float], float] = half_cosine,
) -> float:
    """Give the learning rate of a run that collects an average in its last part.

    Until `start` it follows `base`, so that the run is step for step the one it is compared with; from there it
    goes to `swa_lr` (``"constant"``) or through cycles from `swa_lr` to a tenth of it (``"cyclic"``).

    Parameters
    ----------
    progress : float
        Share of training done, in [0, 1].
    lr, swa_lr : float
        Learning rate at the beginning, and after the switch.
    epochs : int
        Length of the run.
    start : float, default=0.75
        Share of training at which the switch is made.
    schedule : {"constant", "cyclic"}, default="constant"
        What follows.
    anneal_epochs : float, default=1.0
        Length of the way to a constant rate, in epochs.
    period : float, default=1.0
        Length of a cycle, in epochs.
    base : callable, default=half_cosine
        Factor on `lr` before the switch, as a function of progress.

    Returns
    -------
    float
    """
    if progress < start:
        return lr * base(progress)
    return AFTER_THE_SWITCH[schedule]((progress - start) * epochs, lr * base(start), swa_lr, anneal_epochs, period)


AFTER_THE_SWITCH = {
    "constant": lambda since, before, swa_lr, anneal, period: annealed(since, before, swa_lr, anneal),
    "cyclic": lambda since, before, swa_lr, anneal, period: cyclic(since, swa_lr, swa_lr / 10, period),
}
