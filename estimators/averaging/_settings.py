"""The methods of averaging, what their settings may be, and what is said about their outcome."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..core.means.averages import warmed_decay
from ..core.means.schedules import SCHEDULES
from ._evaluation import GAP

if TYPE_CHECKING:
    from ._averager import SWAAverager

METHODS = {
    "swa": "running mean of the points of one trajectory (Izmailov et al. 2018)",
    "ema": "exponential moving average of the points of one trajectory",
    "uniform_soup": "equal mean of separately trained or fine-tuned networks (Wortsman et al. 2022)",
    "greedy_soup": "mean of those networks that do not make it worse, best first (Wortsman et al. 2022)",
}
SOUPS = ("uniform_soup", "greedy_soup")
SCORES = ("accuracy", "loss")


def check_settings(estimator: SWAAverager) -> None:
    """Say what is wrong with the settings before any work is done."""

    def require(ok: bool, name: str, allowed: str, hint: str) -> None:
        if not ok:
            raise ValueError(f"{name} must be {allowed}, got {getattr(estimator, name)!r}. {hint}")

    def number(name: str, low: float, high: float) -> bool:
        value = getattr(estimator, name)
        ok = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        return bool(ok and low <= value < high)

    def whole(name: str, low: int) -> bool:
        value = getattr(estimator, name)
        return bool(isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= low)

    inf = float("inf")
    require(estimator.method in METHODS, "method", f"one of {', '.join(METHODS)}", "Choose one of these.")
    require(estimator.schedule in SCHEDULES, "schedule", f"one of {', '.join(SCHEDULES)}", "Choose one of these.")
    require(estimator.score in SCORES, "score", f"one of {', '.join(SCORES)}", "Choose one of these.")
    require(number("start", 0, 1), "start", "in [0, 1)", "0.75 collects during the last quarter.")
    require(whole("every", 1), "every", "a whole number from 1", "1 collects after every epoch.")
    require(number("swa_lr", 1e-12, inf), "swa_lr", "a positive number", "0.01 to 0.05 is usual.")
    require(number("anneal_epochs", 0, inf), "anneal_epochs", "0 or more", "It is a length in epochs.")
    require(number("decay", 0, 1), "decay", "in [0, 1)", "0.999 is usual.")
    points = estimator.barrier_points
    require(points == 0 or whole("barrier_points", 3), "barrier_points", "0 or a whole number from 3", "Use 7.")


def buffer_names(module: nn.Module) -> frozenset[str]:
    """Name every buffer of a module."""
    return frozenset(name for name, _ in module.named_buffers(remove_duplicate=False))


def write_shares(rows: list[dict[str, Any]], method: str, mean: Any, decay: float, warmup: bool) -> None:
    """Write into the rows how much of the average each member makes up."""
    shares = [1 / len(rows)] * len(rows)
    if method == "ema":
        shares = [1.0]
        for n in range(1, mean.n):
            d = warmed_decay(decay, n) if warmup else decay
            shares = [s * d for s in shares] + [1 - d]
    for row, share in zip(rows, shares, strict=True):
        row["share"] = share


def remark(notes: list[str], gap: float, barriers: np.ndarray | None, names: Sequence[str], method: str) -> None:
    """Point out an average that is worse than its members, and why it may be."""
    if gap > GAP:
        notes.append(
            f"The exponential mean's loss is {gap:.2g} above that of the last iterate: it still holds early weights. "
            "Train longer, lower decay or leave the warm-up on."
        )
    if barriers is None or not barriers.size:
        return
    high = barriers.copy()
    high[~np.isfinite(high)] = np.inf
    i, j = divmod(int(high.argmax()), len(high))
    if high[i, j] > GAP:
        apart = "" if method == "uniform_soup" else " Greedy choice leaves such members out."
        notes.append(
            f"A barrier of {high[i, j]:.2g} lies between {names[i]} and {names[j]}: the mean of such members lies "
            f"on it.{apart}"
        )
