"""A race away from a saddle: what every optimiser shares, and what they did, gathered in one result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.planes.refinement import refine
from ..core.saddles.optimizers import OPTIMIZERS, Settings
from ..core.saddles.race import leaving_steps, race
from ..core.saddles.saddles import linear_leaving_step
from ._mechanisms import judge_mechanisms
from ._result import EscapeResult
from ._start import DENSE_LIMIT, Saddle

N_RECORDED = 200  # points kept of each path
GROWTH = 20.0  # lr="auto": gradient descent grows by e to this over the budget
PLANE_SIDE = 41


@dataclass(frozen=True)
class RaceSettings:
    """Everything that fixes a race, apart from the saddle.

    Attributes
    ----------
    lr, adaptive_lr, threshold : float
    radii : tuple of float
    n_seeds, max_steps, sgd_batch, random_state : int
    """

    lr: float
    adaptive_lr: float
    threshold: float
    radii: tuple[float, ...]
    n_seeds: int
    max_steps: int
    sgd_batch: int
    random_state: int

    def key(self) -> dict[str, Any]:
        """Give what the cache must know; the threshold only reads a race and is left out."""
        return {k: v for k, v in asdict(self).items() if k != "threshold"}


class SaddleRace:
    """The races of several optimisers from the same starts around one saddle.

    Parameters
    ----------
    saddle : Saddle
        What is left.
    settings : RaceSettings
    """

    def __init__(self, saddle: Saddle, settings: RaceSettings) -> None:
        self.saddle, self.settings = saddle, settings
        self.shape = (len(settings.radii), settings.n_seeds)
        self.rule_settings = Settings(lr=settings.lr, adaptive_lr=settings.adaptive_lr)
        # the steps at which paths are kept: all when there are few, evenly spread otherwise
        steps = settings.max_steps
        self.recorded = np.unique(np.linspace(0, steps, min(N_RECORDED, steps) + 1).round().astype(int))

    @cached_property
    def directions(self) -> Tensor:
        """Unit directions of the displaced starts, (n_seeds, P), the same for every radius."""
        generator = torch.Generator().manual_seed(self.settings.random_state)
        size = self.saddle.objective.size
        draws = torch.randn(self.settings.n_seeds, size, generator=generator, dtype=torch.float64)
        return (draws / draws.norm(dim=1, keepdim=True)).to(self.saddle.centre)

    @cached_property
    def rest_radius(self) -> float:
        """Distance on the negative mode from the numerical point to where its gradient would vanish: |g·v/λ|."""
        saddle = self.saddle
        if not np.isfinite(saddle.curvature):
            return 0.0
        _, gradient = saddle.objective.values_and_gradients(saddle.centre[None])
        return abs(float(gradient[0] @ saddle.axes[0]) / saddle.curvature)

    def empty(self, settings: dict[str, Any]) -> EscapeResult:
        """Give a result of the right shapes without any optimiser."""
        many, kept = self.shape, self.recorded
        return EscapeResult(
            settings=settings,
            saddle=self.saddle.info,
            radii=np.array(self.settings.radii),
            recorded_steps=kept,
            losses=np.empty((0, len(kept), *many)),
            distances=np.empty((0, len(kept), *many)),
            trajectories=np.empty((0, len(kept), *many, 2)),
            escape_steps=np.empty((0, *many)),
            alignment=np.empty((0, *many)),
            diverged=np.empty((0, *many), dtype=bool),
            moved=np.empty((0, *many), dtype=bool),
            theory_steps=np.empty((0, *many)),
            lr=self.settings.lr,
            threshold=self.settings.threshold,
            max_steps=self.settings.max_steps,
        )

    def run(self, name: str, on_step: Callable[[int, int], None]) -> dict[str, np.ndarray]:
        """Run one optimiser from all radii and seeds at once and thin out its paths."""
        saddle, settings, kept = self.saddle, self.settings, self.recorded
        radii = torch.tensor(settings.radii).to(saddle.centre)
        starts = (saddle.centre + radii[:, None, None] * self.directions).reshape(-1, saddle.objective.size)
        ran = race(
            saddle.objective,
            name,
            starts,
            settings=self.rule_settings,
            n_steps=settings.max_steps,
            centre=saddle.centre,
            axes=saddle.axes,
            seeds=[1000 * settings.random_state + s for _ in settings.radii for s in range(settings.n_seeds)],
            batch_size=settings.sgd_batch,
            on_step=on_step,
        )
        aligned = ran.first_moves if np.isfinite(saddle.curvature) else torch.full_like(ran.first_moves, torch.nan)
        return {
            "losses": ran.losses[kept].reshape(-1, *self.shape).numpy(),
            "distances": ran.distances[kept].reshape(-1, *self.shape).numpy(),
            "trajectories": ran.coordinates[kept].reshape(-1, *self.shape, 2).numpy(),
            "all_losses": ran.losses.numpy(),
            "alignment": aligned.reshape(self.shape).numpy(),
            "diverged": ran.diverged.reshape(self.shape).numpy(),
            "moved": ran.moved.reshape(self.shape).numpy(),
        }

    def theory(self, name: str) -> np.ndarray:
        """Leaving steps of the linear theory from each start, (n_radii, n_seeds)."""
        curvature, growth = self.saddle.curvature, OPTIMIZERS[name].growth
        if growth is None or not np.isfinite(curvature):
            return np.full(self.shape, np.nan)
        matrix = growth(self.rule_settings, curvature)
        left = float(np.sqrt(2 * self.settings.threshold / abs(curvature)))
        along = (self.directions @ self.saddle.axes[0]).abs().cpu().numpy()
        return np.array(
            [
                [linear_leaving_step(matrix, r * a if r else self.rest_radius, left) for a in along]
                for r in self.settings.radii
            ]
        )

    def add(self, result: EscapeResult, name: str, ran: dict[str, np.ndarray]) -> EscapeResult:
        """Append what `run` gave to a result and judge the mechanisms anew."""
        diverged = torch.as_tensor(ran["diverged"]).flatten()
        reference = float(self.saddle.info["loss"])
        steps = leaving_steps(torch.as_tensor(ran["all_losses"]), reference, self.settings.threshold, diverged)
        fresh = {
            **{k: value for k, value in ran.items() if k != "all_losses"},
            "escape_steps": steps.reshape(self.shape).numpy(),
            "theory_steps": self.theory(name),
        }
        names = (*result.optimizers, name)
        grown: dict[str, Any] = {k: np.concatenate([getattr(result, k), value[None]]) for k, value in fresh.items()}
        judged = judge_mechanisms(
            dict(zip(names, grown["escape_steps"], strict=True)),
            dict(zip(names, grown["diverged"], strict=True)),
            result.radii,
        )
        return replace(
            result,
            optimizers=names,
            mechanisms=judged,
            growth_per_step=1 - self.settings.lr * self.saddle.curvature,
            rest_radius=self.rest_radius,
            **grown,
        )

    def with_plane(self, result: EscapeResult) -> EscapeResult:
        """Add the objective on the plane of the two modes, wide enough to see where paths leave."""
        x, y = (np.linspace(-r, r, PLANE_SIDE) for r in _reach(result))

        def values(places: np.ndarray) -> np.ndarray:
            spots = np.stack([x[places[:, 0]], y[places[:, 1]]], 1)
            points = self.saddle.centre + torch.as_tensor(spots).to(self.saddle.centre) @ self.saddle.axes
            return torch.cat([self.saddle.objective.values(rows) for rows in points.split(64)]).cpu().numpy()

        shape = len(x), len(y)
        if self.saddle.objective.size <= DENSE_LIMIT:  # cheap
            losses = values(np.indices(shape).reshape(2, -1).T).reshape(shape)
            measured: dict[str, Any] = {"losses": losses, "n_evaluated": losses.size, "largest_error": 0.0}
        else:
            *_, last = refine(values, shape)
            measured = {
                "losses": last.values, "n_evaluated": last.n_evaluated, "largest_error": last.largest_error,
            }  # fmt: skip
        return replace(result, plane={"x": x, "y": y, **measured})


def automatic_lr(saddle: Saddle, max_steps: int) -> float:
    """η with which gradient descent grows by e²⁰ over the budget, at most 1/λ₊; 0.05 where nothing curves down."""
    largest = float(np.max(saddle.info["eigenvalues"]))
    stable = 1.0 / largest if largest > 0 else np.inf
    if not np.isfinite(saddle.curvature):
        return min(0.05, stable)
    return min(GROWTH / (max_steps * abs(saddle.curvature)), stable)


def _reach(result: EscapeResult) -> tuple[float, float]:
    """Half-widths: 1.5 times where the paths that left were when they left, at least 1e-2."""
    spots = []
    for i, j, k in np.argwhere(np.isfinite(result.escape_steps)):
        at = int(np.searchsorted(result.recorded_steps, result.escape_steps[i, j, k]))
        spots.append(np.abs(result.trajectories[i, min(at, len(result.recorded_steps) - 1), j, k]))
    if not spots:
        return 0.5, 0.5
    wide = 1.5 * np.quantile(np.array(spots), 0.9, axis=0)
    return float(max(wide[0], 1e-2)), float(max(wide[1], 0.5 * wide[0], 1e-2))
