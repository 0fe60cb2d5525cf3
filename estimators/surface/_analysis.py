"""Numbers read off a map: how convex it is, how wide its basin, its basins, one point of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import sampling
from ..core.planes.directions import random_directions
from ..core.planes.eigenvalue_ratio import eigenvalue_ratio, radii_to_level
from ..core.planes.topology import basins
from ..landscape import Landscape
from ..progress import OnProgress
from ._planes import MapPlane
from ._result import SurfaceResult


def eigenvalue_ratios(
    land: Landscape,
    plane: MapPlane,
    axes: Sequence[np.ndarray],
    *,
    tol: float,
    random_state: int,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Measure |λ_min / λ_max| of the whole Hessian at the nodes of two axes; see `SurfaceMapper.convexity`."""
    shape = (len(axes[0]), len(axes[1]))
    names = ("ratio", "lambda_min", "lambda_max", "residual")
    out: dict[str, Any] = {name: np.full(shape, np.nan) for name in names}
    for number, (i, j) in enumerate(np.ndindex(*shape)):
        (theta,) = plane.points(np.array([[axes[0][i], axes[1][j]]]))
        if np.isfinite(land.loss(theta)):
            found = eigenvalue_ratio(
                lambda v, at=theta: land.hvp(v, at),  # type: ignore[misc]
                land.n_parameters,
                tol=tol,
                random_state=random_state,
                like=land.theta,
            )
            for name, value in asdict(found).items():
                out[name][i, j] = value
        on_progress(number + 1, shape[0] * shape[1], "curvature")
    return {"axes": list(axes), **out}


def basin_radii(
    land: Landscape,
    losses: Callable[[Tensor, np.ndarray], np.ndarray],
    level: float,
    *,
    n_rays: int,
    random_state: int,
    normalization: str | None = "filter",
    start: float | None = None,
    largest: float | None = None,
) -> np.ndarray:
    """Find how far the loss stays below a level along random rays; see `SurfaceMapper.basin_width`.

    Parameters
    ----------
    land : Landscape
    losses : callable
        Losses (n,) at the combinations (n, K) of the rows of a matrix (K, P).
    level, n_rays, random_state, normalization, largest
        See `SurfaceMapper`.
    start : float, optional
        First radius looked at; 0.01 for rays on the scale of the weights by default, 0.01 ‖θ‖ otherwise.
    """
    generator = torch.Generator().manual_seed(random_state)
    drawn = [random_directions(land.theta, land.shapes, land.names, generator, 1, normalization) for _ in range(n_rays)]
    anchors = torch.cat([land.theta[None], *drawn])
    scale = 1.0 if normalization not in (None, "none") else float(land.theta.norm())

    def on_rays(which: np.ndarray, radii: np.ndarray) -> np.ndarray:
        weights = np.zeros((len(which), len(anchors)))
        weights[:, 0] = 1.0
        weights[np.arange(len(which)), 1 + which] = radii
        return losses(anchors, weights)

    start, largest = start or 0.01 * scale, 10.0 * scale if largest is None else largest
    return radii_to_level(on_rays, n_rays, level, start=start, largest=largest)


def basins_of(result: SurfaceResult, *, min_persistence: float = 0.05, log: bool = True) -> list[dict[str, Any]]:
    """Basins of the sublevel sets of a map, fitted or saved, deepest first (extra ``topology``).

    Parameters
    ----------
    result : SurfaceResult
        A plane.
    min_persistence : float, default=0.05
        Depth below the pass that leads out, in log-loss (or in the loss, with ``log=False``), under
        which a basin counts as noise.
    log : bool, default=True
        Measure depth in log-loss.

    Returns
    -------
    list of dict
        `x`, `y`, `loss` of the lowest point, `pass_loss` where it joins a deeper basin (infinite for the
        deepest), `persistence`.
    """
    losses = np.asarray(result.losses)
    if losses.ndim != 2 or len(result.axes) != 2:
        raise ValueError(f"result must be a plane to count basins, got shape {losses.shape}. Fit with n_dims=2.")
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.log(losses) if log else losses
    return [
        {
            "x": float(result.axes[0][b.row]),
            "y": float(result.axes[1][b.column]),
            "loss": float(losses[b.row, b.column]),
            "pass_loss": float(np.exp(b.death)) if log else b.death,
            "persistence": b.persistence,
        }
        for b in basins(values, min_persistence=min_persistence)
    ]


def probe(land: Landscape, plane: MapPlane, coordinates: np.ndarray) -> dict[str, Any]:
    """Measure one point, coordinates (1, k), exactly; see `SurfaceMapper.probe`."""
    (theta,) = plane.points(coordinates)
    loss, gradient = land.loss_and_gradient(theta)
    inside = plane.frame.project(land.theta + gradient[None]).to(plane.directions) @ plane.directions
    found: dict[str, Any] = {
        "loss": loss,
        "accuracy": land.accuracy(theta),
        "gradient_norm": float(gradient.norm()),
        "slope": float(inside.norm()),
        "rise": loss - land.loss(),
        "sampling": {},
    }
    if not sampling.why_not(land):
        errors = sampling.value_errors(land, loss, found["accuracy"], theta)
        found["sampling"] = sampling.told(**errors, rise=sampling.rise_error(land, found["rise"], theta))
    return found


def errors_at(land: Landscape, plane: MapPlane, coordinates: np.ndarray) -> dict[str, dict[str, Any]]:
    """Find how much loss and accuracy at one point, coordinates (1, k), would change with other examples."""
    (theta,) = plane.points(coordinates)
    return sampling.told(**sampling.value_errors(land, land.loss(theta), land.accuracy(theta), theta))
