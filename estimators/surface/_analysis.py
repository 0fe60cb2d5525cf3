"""Numbers read off a fitted surface: convexity, basin width, basins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ..core.planes.directions import random_directions
from ..core.planes.eigenvalue_ratio import convexity, radii_to_level
from ..core.planes.topology import basins
from ._result import SurfaceResult
from ._work import SurfaceWork


class SurfaceAnalysis(SurfaceWork):
    """Measurements of `SurfaceMapper`. Not used on its own."""

    losses_: np.ndarray
    axes_: tuple[np.ndarray, ...]
    loss_: float
    result_: SurfaceResult

    def convexity(self, resolution: int = 5, *, tol: float = 0.02, on_progress: Any = None) -> dict[str, Any]:
        """Map |λ_min / λ_max| of the whole Hessian over the plane.

        Parameters
        ----------
        resolution : int, default=5
            Points along each axis, spread over the map; each costs up to 120 Hessian-vector products.
        tol : float, default=0.02
            Relative accuracy of the eigenvalues.

        Returns
        -------
        dict
            `axes` (two arrays), `ratio`, `lambda_min`, `lambda_max`, `residual`, each (resolution,
            resolution). The ratio is 0 where the loss is convex; NaN where it is not finite.

        References
        ----------
        Li et al. 2018, section 6.1.
        """
        check_is_fitted(self, "result_")
        if self.n_dims != 2:
            raise ValueError(f"n_dims must be 2 for a map of convexity, got {self.n_dims}. Fit a plane.")
        progress = self._progress(on_progress, "convexity")
        plane, land = self._planes[0], self._land
        picked = [a[np.unique(np.round(np.linspace(0, len(a) - 1, resolution)).astype(int))] for a in self.axes_]
        shape = (len(picked[0]), len(picked[1]))
        out: dict[str, Any] = {
            name: np.full(shape, np.nan) for name in ("ratio", "lambda_min", "lambda_max", "residual")
        }
        anchors = plane.anchors()
        for number, (i, j) in enumerate(np.ndindex(*shape)):
            row = torch.as_tensor(plane.coefficients(np.array([[picked[0][i], picked[1][j]]]))[0])
            theta = row.to(anchors) @ anchors
            if np.isfinite(land.loss(theta)):
                found = convexity(
                    lambda v, at=theta: land.hvp(v, at),  # type: ignore[misc]
                    land.n_parameters,
                    tol=tol,
                    random_state=self.random_state,
                    like=land.theta,
                )
                for name, value in asdict(found).items():
                    out[name][i, j] = value
            progress(number + 1, shape[0] * shape[1], "curvature")
        return {"axes": picked, **out}

    def basin_width(
        self,
        level: float | None = None,
        *,
        n_rays: int = 16,
        largest: float | None = None,
        on_progress: Any = None,
    ) -> dict[str, Any]:
        """How far the loss stays below a level along random rays from the centre.

        Parameters
        ----------
        level : float, optional
            Above the loss at the centre; default: the loss at the centre plus 1.
        n_rays : int, default=16
            Random rays on this estimator's normalization.
        largest : float, optional
            Farthest radius looked at, in the unit of the rays; rays that stay below the level have an
            infinite radius. By default 10 for rays on the scale of the weights, 10 ‖θ‖ otherwise.

        Returns
        -------
        dict
            `radii` (n_rays,), their `median`, and `level`.
        """
        check_is_fitted(self, "result_")
        land = self._land
        level = self.loss_ + 1.0 if level is None else float(level)
        if not level > self.loss_:
            raise ValueError(
                f"level must lie above the loss at the centre ({self.loss_:.4g}), got {level!r}. Raise it."
            )
        generator = torch.Generator().manual_seed(self.random_state)
        rays = torch.cat(
            [
                random_directions(land.theta, land.shapes, land.names, generator, 1, self.normalization)
                for _ in range(n_rays)
            ]
        )
        scale = 1.0 if self.normalization not in (None, "none") else float(land.theta.norm())
        progress = self._progress(on_progress, "rays")
        anchors = torch.cat([land.theta[None], rays])

        def losses(which: np.ndarray, radii: np.ndarray) -> np.ndarray:
            weights = np.zeros((len(which), len(anchors)))
            weights[:, 0] = 1.0
            weights[np.arange(len(which)), 1 + which] = radii
            return np.asarray(self._evaluate(land, anchors, weights, progress).losses)

        found = radii_to_level(
            losses, n_rays, level, start=0.01 * scale, largest=10.0 * scale if largest is None else largest
        )
        return {"radii": found, "median": float(np.median(found)), "level": level}

    def basins(self, *, min_persistence: float = 0.05, log: bool = True) -> list[dict[str, Any]]:
        """Basins of the map's sublevel sets, deepest first (extra ``topology``).

        Parameters
        ----------
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
        check_is_fitted(self, "result_")
        return basins_of(self.result_, min_persistence=min_persistence, log=log)

    def probe(self, at: Sequence[float]) -> dict[str, float]:
        """Measure one point of the plane exactly.

        Parameters
        ----------
        at : sequence of n_dims floats
            Coordinates.

        Returns
        -------
        dict
            `loss`, `accuracy`, `gradient_norm` (of the whole gradient) and `slope` (its part in the plane).
        """
        check_is_fitted(self, "result_")
        plane, land = self._planes[0], self._land
        row = torch.as_tensor(plane.coefficients(np.asarray(at, dtype=float).reshape(1, -1))[0])
        anchors = plane.anchors()
        theta = row.to(anchors) @ anchors
        loss, gradient = land.loss_and_gradient(theta)
        inside = plane.frame.project(land.theta + gradient[None]).to(plane.directions) @ plane.directions
        return {
            "loss": loss,
            "accuracy": land.accuracy(theta),
            "gradient_norm": float(gradient.norm()),
            "slope": float(inside.norm()),
        }


def basins_of(result: SurfaceResult, *, min_persistence: float = 0.05, log: bool = True) -> list[dict[str, Any]]:
    """Find the basins of a saved map, see :meth:`SurfaceAnalysis.basins`."""
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
