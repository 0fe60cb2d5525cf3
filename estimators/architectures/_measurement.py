"""The numbers a comparison puts into one row: what the landscape looks like around one trained network.

Each measure is one function of a landscape and the settings, entered in `MEASURES`; it returns named numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..checks import check_sketch_fits
from ..core.ball.ascent import ascend
from ..core.ball.average_case import average_rise, filter_scale
from ..core.planes.directions import random_directions
from ..core.planes.eigenvalue_ratio import radii_to_level
from ..core.spectrum.lanczos import lanczos_eigenpairs
from ..core.spectrum.trace import hutchpp
from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress, part

Numbers = dict[str, float]


@dataclass(frozen=True)
class MeasureSettings:
    """How the measures are taken.

    Attributes
    ----------
    rho : float
        Radius of worst-case sharpness, of the whole weight vector.
    n_steps, n_restarts : int
        Gradients of the ascent's last climb, and starts.
    sigma : float
        Average-case noise per element, relative to the filter's root mean square.
    n_draws : int
        Noise draws.
    n_probes : int
        Probes (and columns of the sketch) of the trace.
    n_rays : int
        Random filter-normalised rays for the basin width.
    rise : float
        Level of the basin's rim above the centre, in the loss's unit.
    reach : float
        Largest radius looked at, in filter-normalised steps.
    random_state : int
        Seed of all draws.
    names : tuple of str
        Which of `MEASURES` to take; loss, accuracy and gap always are.
    """

    rho: float = 0.05
    n_steps: int = 20
    n_restarts: int = 5
    sigma: float = 0.1
    n_draws: int = 32
    n_probes: int = 4
    n_rays: int = 8
    rise: float = 0.5
    reach: float = 2.0
    random_state: int = 0
    names: tuple[str, ...] = ("largest_eigenvalue", "trace", "worst_case", "average_case", "basin")


def largest_eigenvalue(land: Landscape, settings: MeasureSettings, on_progress: OnProgress) -> Numbers:
    """Largest eigenvalue of the Hessian, by Lanczos, with its residual."""
    largest = lanczos_eigenpairs(
        land.hvp,
        land.n_parameters,
        1,
        ends="largest",
        tol=1e-2,
        max_products=120,
        random_state=settings.random_state,
        like=land.theta,
        on_step=lambda *_: on_progress(0, 1, "largest eigenvalue"),
    )
    return {"lambda_max": float(largest.values[0]), "lambda_max_residual": float(largest.residuals[0])}


def trace(land: Landscape, settings: MeasureSettings, on_progress: OnProgress) -> Numbers:
    """Trace of the Hessian, by Hutch++, with its standard error."""
    check_sketch_fits(land.theta, settings.n_probes)
    estimate = hutchpp(
        land.hvp,
        land.n_parameters,
        n_probes=settings.n_probes,
        random_state=settings.random_state,
        like=land.theta,
        on_step=lambda done, total: on_progress(done, total, "trace"),
    )
    return {"trace": float(estimate.value), "trace_stderr": float(estimate.stderr)}


def worst_case(land: Landscape, settings: MeasureSettings, on_progress: OnProgress) -> Numbers:
    """Largest rise found within ‖ε‖ ≤ ρ: a lower bound on the sharpness of Foret et al. (2021)."""
    found = ascend(
        land.loss_and_gradient,
        land.theta,
        settings.rho,
        n_steps=settings.n_steps,
        n_restarts=settings.n_restarts,
        random_state=settings.random_state,
        on_step=lambda: on_progress(0, 1, "worst-case sharpness"),
    )
    return {"sharpness": float(found.rise)}


def average_case(land: Landscape, settings: MeasureSettings, on_progress: OnProgress) -> Numbers:
    """Mean rise under filter-normalised Gaussian noise, with its standard error."""
    rise = average_rise(
        land.loss,
        land.theta,
        settings.sigma,
        n_draws=settings.n_draws,
        scale=filter_scale(land.theta, land.shapes, land.names),
        random_state=settings.random_state,
        on_step=lambda: on_progress(0, 1, "average sharpness"),
    )
    return {"average_sharpness": rise.mean, "average_sharpness_stderr": rise.stderr}


def basin(land: Landscape, settings: MeasureSettings, on_progress: OnProgress) -> Numbers:
    """Median radius at which the loss along random filter-normalised rays has risen by `rise`.

    Rays that stay below the level up to `reach` count as `reach`; `basin_open` is their share.
    """
    generator = torch.Generator().manual_seed(settings.random_state + 1)
    rays = [
        random_directions(land.theta, land.shapes, land.names, generator, n_directions=1)[0]
        for _ in range(settings.n_rays)
    ]
    anchors = torch.stack([land.theta, *rays])

    def losses(chosen: np.ndarray, radii: np.ndarray) -> np.ndarray:
        on_progress(0, 1, "basin width")
        coefficients = np.zeros((len(chosen), len(anchors)))
        coefficients[:, 0] = 1.0
        coefficients[np.arange(len(chosen)), 1 + chosen] = radii
        return land.evaluate(anchors, coefficients).losses

    crossed = radii_to_level(
        losses,
        settings.n_rays,
        land.loss() + settings.rise,
        start=settings.reach / 16,
        largest=settings.reach,
    )
    return {
        "basin_width": float(np.median(np.minimum(crossed, settings.reach))),
        "basin_open": float(np.isinf(crossed).mean()),
    }


MEASURES: dict[str, Callable[[Landscape, MeasureSettings, OnProgress], Numbers]] = {
    "largest_eigenvalue": largest_eigenvalue,
    "trace": trace,
    "worst_case": worst_case,
    "average_case": average_case,
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
        share = index / len(settings.names), (index + 1) / len(settings.names)
        numbers |= MEASURES[name](land, settings, part(on_progress, *share))
    return numbers
