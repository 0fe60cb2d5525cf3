"""Racing optimisers away from a saddle and gathering what they did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.saddles.optimizers import OPTIMIZERS, Settings
from ..core.saddles.race import Race, leaving_steps, race
from ..core.saddles.saddles import linear_leaving_step
from ._mechanisms import judge_mechanisms
from ._result import EscapeResult
from ._start import Saddle

if TYPE_CHECKING:
    from ._escaper import SaddleEscaper

N_RECORDED = 200  # points kept of each path
GROWTH = 20.0  # lr="auto": gradient descent grows by e to this over the budget
PLANE_SIDE = 41


@dataclass(frozen=True)
class RaceOptions:
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

    @classmethod
    def of(cls, estimator: SaddleEscaper, saddle: Saddle) -> RaceOptions:
        """Read an estimator's settings, with lr="auto" decided."""
        lr = automatic_lr(saddle, estimator.max_steps) if estimator.lr == "auto" else float(estimator.lr)
        return cls(
            lr,
            float(estimator.adaptive_lr),
            float(estimator.threshold),
            tuple(float(r) for r in np.atleast_1d(estimator.radii)),
            estimator.n_seeds,
            estimator.max_steps,
            estimator.sgd_batch,
            estimator.random_state,
        )

    def key(self) -> dict[str, Any]:
        """Give what the cache must know; the threshold only reads a race and is left out."""
        return {k: v for k, v in asdict(self).items() if k != "threshold"}

    def settings(self) -> Settings:
        """Give the numbers of the rules."""
        return Settings(lr=self.lr, adaptive_lr=self.adaptive_lr)

    def directions(self, saddle: Saddle) -> Tensor:
        """Draw unit directions of the displaced starts, (n_seeds, P), the same for every radius."""
        generator = torch.Generator().manual_seed(self.random_state)
        draws = torch.randn(self.n_seeds, saddle.objective.size, generator=generator, dtype=torch.float64)
        return (draws / draws.norm(dim=1, keepdim=True)).to(saddle.centre)

    def race(self, saddle: Saddle, name: str, on_step: Callable[[int, int], None]) -> dict[str, np.ndarray]:
        """Run one optimiser from all radii and seeds at once and thin out its paths."""
        radii = torch.tensor(self.radii).to(saddle.centre)
        offsets = radii[:, None, None] * self.directions(saddle)
        starts = (saddle.centre + offsets).reshape(-1, saddle.objective.size)
        seeds = [1000 * self.random_state + s for _ in self.radii for s in range(self.n_seeds)]
        ran = race(
            saddle.objective,
            name,
            starts,
            settings=self.settings(),
            n_steps=self.max_steps,
            centre=saddle.centre,
            axes=saddle.axes,
            seeds=seeds,
            batch_size=self.sgd_batch,
            on_step=on_step,
        )
        return self._thin(ran, saddle)

    def recorded(self) -> np.ndarray:
        """Choose the steps at which paths are kept: all when there are few, evenly spread otherwise."""
        return np.unique(np.linspace(0, self.max_steps, min(N_RECORDED, self.max_steps) + 1).round().astype(int))

    def empty(self, result: EscapeResult) -> EscapeResult:
        """Give a result of the right shapes without any optimiser."""
        shape = (len(self.radii), self.n_seeds)
        kept = self.recorded()
        return replace(
            result,
            radii=np.array(self.radii),
            recorded_steps=kept,
            losses=np.empty((0, len(kept), *shape)),
            distances=np.empty((0, len(kept), *shape)),
            trajectories=np.empty((0, len(kept), *shape, 2)),
            escape_steps=np.empty((0, *shape)),
            alignment=np.empty((0, *shape)),
            diverged=np.empty((0, *shape), dtype=bool),
            moved=np.empty((0, *shape), dtype=bool),
            theory_steps=np.empty((0, *shape)),
            lr=self.lr,
            threshold=self.threshold,
            max_steps=self.max_steps,
        )

    def _thin(self, ran: Race, saddle: Saddle) -> dict[str, np.ndarray]:
        shape = (len(self.radii), self.n_seeds)
        kept = self.recorded()
        aligned = ran.first_moves if np.isfinite(saddle.curvature) else torch.full_like(ran.first_moves, torch.nan)
        return {
            "losses": ran.losses[kept].reshape(-1, *shape).numpy(),
            "distances": ran.distances[kept].reshape(-1, *shape).numpy(),
            "trajectories": ran.coordinates[kept].reshape(-1, *shape, 2).numpy(),
            "all_losses": ran.losses.numpy(),
            "alignment": aligned.reshape(shape).numpy(),
            "diverged": ran.diverged.reshape(shape).numpy(),
            "moved": ran.moved.reshape(shape).numpy(),
        }


def automatic_lr(saddle: Saddle, max_steps: int) -> float:
    """η with which gradient descent grows by e²⁰ over the budget, at most 1/λ₊; 0.05 where nothing curves down."""
    largest = float(np.max(saddle.info["eigenvalues"]))
    stable = 1.0 / largest if largest > 0 else np.inf
    if not np.isfinite(saddle.curvature):
        return min(0.05, stable)
    return min(GROWTH / (max_steps * abs(saddle.curvature)), stable)


def rest_radius(saddle: Saddle) -> float:
    """Distance on the negative mode from the numerical point to where its gradient would vanish: |g·v/λ|."""
    if not np.isfinite(saddle.curvature):
        return 0.0
    _, gradient = saddle.objective.values_and_gradients(saddle.centre[None])
    return abs(float(gradient[0] @ saddle.axes[0]) / saddle.curvature)


def theory(saddle: Saddle, options: RaceOptions, name: str) -> np.ndarray:
    """Leaving steps of the linear theory from each start, (n_radii, n_seeds)."""
    shape = (len(options.radii), options.n_seeds)
    growth = OPTIMIZERS[name].growth
    if growth is None or not np.isfinite(saddle.curvature):
        return np.full(shape, np.nan)
    matrix = growth(options.settings(), saddle.curvature)
    radius = float(np.sqrt(2 * options.threshold / abs(saddle.curvature)))
    along = (options.directions(saddle) @ saddle.axes[0]).abs().cpu().numpy()
    rest = rest_radius(saddle)
    return np.array([[linear_leaving_step(matrix, r * a if r else rest, radius) for a in along] for r in options.radii])


def add_race(
    result: EscapeResult, saddle: Saddle, options: RaceOptions, name: str, ran: dict[str, np.ndarray]
) -> EscapeResult:
    """Append one optimiser's race to a result and judge the mechanisms anew."""
    shape = (len(options.radii), options.n_seeds)
    diverged = torch.as_tensor(ran["diverged"]).flatten()
    losses = torch.as_tensor(ran["all_losses"])
    steps = leaving_steps(losses, float(saddle.info["loss"]), options.threshold, diverged)
    fresh = {
        **{k: ran[k] for k in ("losses", "distances", "trajectories", "alignment", "diverged", "moved")},
        "escape_steps": steps.reshape(shape).numpy(),
        "theory_steps": theory(saddle, options, name),
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
        growth_per_step=1 - options.lr * saddle.curvature,
        rest_radius=rest_radius(saddle),
        **grown,
    )


def with_plane(result: EscapeResult, saddle: Saddle) -> EscapeResult:
    """Add the objective on the plane of the two modes, wide enough to see where paths leave."""
    reach = _reach(result)
    x, y = (np.linspace(-r, r, PLANE_SIDE) for r in reach)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    points = saddle.centre + torch.as_tensor(grid).to(saddle.centre) @ saddle.axes
    losses = torch.cat([saddle.objective.values(rows) for rows in points.split(64)])
    return replace(result, plane={"x": x, "y": y, "losses": losses.cpu().numpy().reshape(len(y), len(x))})


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
