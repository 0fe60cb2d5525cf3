"""The numbers a comparison puts into one row: what the landscape looks like around one trained network.

Each measure is one function of a landscape and the settings, entered in `MEASUREMENTS`; it returns named numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress, subprogress
from ..sharpness import SharpnessSettings, average_case, lambda_max, trace, worst_case
from ..surface import basin_radii

Numbers = dict[str, float]
# enough to tell variants apart; noise is filter-normalised, so that networks of any scale compare
QUICK = SharpnessSettings(
    n_steps=20, n_restarts=5, sigma=0.1, noise="filter", n_lanczos=120, tol=1e-2, n_probes=4, random_state=0
)


@dataclass(frozen=True)
class MeasureSettings:
    """How the measures are taken.

    Attributes
    ----------
    names : tuple of str
        Which of `MEASUREMENTS` to take; loss, accuracy and gap always are.
    sharpness : SharpnessSettings
        Of the measures that `SharpnessEstimator` takes too; its `random_state` is the seed of all draws.
    n_rays : int
        Random filter-normalised rays for the basin width.
    rise : float
        Level of the basin's rim above the centre, in the loss's unit.
    reach : float
        Largest radius looked at, in filter-normalised steps.
    """

    names: tuple[str, ...] = ("largest_eigenvalue", "trace", "worst_case", "average_case", "basin")
    sharpness: SharpnessSettings = QUICK
    n_rays: int = 8
    rise: float = 0.5
    reach: float = 2.0


Take = Callable[[Landscape, MeasureSettings, Callable[[], None]], Numbers]


def _sharpness(measure: Callable[..., dict[str, Any]], *columns: str) -> Take:
    """Take columns of a measure of the sharpness room."""

    def take(land: Landscape, settings: MeasureSettings, on_step: Callable[[], None]) -> Numbers:
        found = measure(land, settings.sharpness, lambda _: on_step())
        return {name: float(found[name]) for name in columns}

    return take


def basin(land: Landscape, settings: MeasureSettings, on_step: Callable[[], None]) -> Numbers:
    """Median radius at which the loss along random filter-normalised rays has risen by `rise`.

    Rays that stay below the level up to `reach` count as `reach`; `basin_open` is their share.
    """

    def losses(anchors: Tensor, weights: np.ndarray) -> np.ndarray:
        on_step()
        return land.evaluate(anchors, weights).losses

    crossed = basin_radii(
        land,
        losses,
        land.loss() + settings.rise,
        n_rays=settings.n_rays,
        random_state=settings.sharpness.random_state + 1,
        start=settings.reach / 16,
        largest=settings.reach,
    )
    return {
        "basin_width": float(np.median(np.minimum(crossed, settings.reach))),
        "basin_open": float(np.isinf(crossed).mean()),
    }


MEASUREMENTS: dict[str, Take] = {
    "largest_eigenvalue": _sharpness(lambda_max, "lambda_max", "lambda_max_residual"),
    "trace": _sharpness(trace, "trace", "trace_stderr"),
    "worst_case": _sharpness(worst_case, "sharpness"),
    "average_case": _sharpness(average_case, "average_sharpness", "average_sharpness_stderr"),
    "basin": basin,
}


def fit_and_gap(land: Landscape, held_out: Any) -> Numbers:
    """Loss and accuracy on the training and the held-out examples, and the two generalisation gaps."""
    other = land.on(held_out)
    train_loss, train_accuracy = land.loss(), land.accuracy()
    held_out_loss, held_out_accuracy = other.loss(), other.accuracy()
    return {
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "held_out_loss": held_out_loss,
        "held_out_accuracy": held_out_accuracy,
        "gap": held_out_loss - train_loss,
        "accuracy_gap": train_accuracy - held_out_accuracy,
    }


def measure(
    land: Landscape,
    held_out: Any,
    settings: MeasureSettings | None = None,
    on_progress: OnProgress = ignore_progress,
) -> Numbers:
    """Take the measures at the landscape's own point.

    Parameters
    ----------
    land : Landscape
        On the examples the network was trained on.
    held_out : Examples
        Examples it was not trained on.
    settings : MeasureSettings, optional
        How.
    on_progress : callable, optional
        `(done, total, message)`; one that raises stops the work.

    Returns
    -------
    dict of str to float
        All named numbers, in order.

    Raises
    ------
    ValueError
        If the loss at the point is not finite.
    """
    settings = settings or MeasureSettings()
    numbers = fit_and_gap(land, held_out)
    if not np.isfinite(numbers["train_loss"]):
        raise ValueError(
            f"the loss at θ must be finite to be measured, got {numbers['train_loss']!r}. Check the weights."
        )
    for index, name in enumerate(settings.names):
        step = subprogress(on_progress, index / len(settings.names), (index + 1) / len(settings.names))
        numbers |= MEASUREMENTS[name](land, settings, partial(step, 0, 1, name.replace("_", " ")))
    return numbers
