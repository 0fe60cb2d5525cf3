"""Races: one optimiser from many starts at once, recorded on two axes, and when each trajectory left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .objectives import Objective
from .optimizers import OPTIMIZERS, Settings

OnStep = Callable[[int, int], None]
DIVERGED = 10.0  # a loss this many times max(1, |start loss|) above the start counts as diverged


@dataclass(frozen=True)
class Race:
    """What one optimiser did from S starts, at steps 0 … T.

    Attributes
    ----------
    losses : Tensor of shape (T + 1, S)
        Full objective; after a row diverged its last value is repeated.
    coordinates : Tensor of shape (T + 1, S, 2)
        Position minus centre on the two axes.
    distances : Tensor of shape (T + 1, S)
        ‖θ − centre‖.
    first_moves : Tensor of shape (S,)
        |cosine| between the displacement over the first moves and the first axis; NaN where nothing moved.
    moved : Tensor of shape (S,), bool
        Whether any bit of θ ever changed.
    diverged : Tensor of shape (S,), bool
        Whether the loss left the finite numbers or rose far above the start.
    final : Tensor of shape (S, P)
        Points at the end.
    """

    losses: Tensor
    coordinates: Tensor
    distances: Tensor
    first_moves: Tensor
    moved: Tensor
    diverged: Tensor
    final: Tensor


def race(
    objective: Objective,
    name: str,
    starts: Tensor,
    *,
    settings: Settings,
    n_steps: int,
    centre: Tensor,
    axes: Tensor,
    seeds: list[int],
    batch_size: int = 32,
    n_first: int = 10,
    on_step: OnStep | None = None,
) -> Race:
    """Run one optimiser from many starts.

    Parameters
    ----------
    objective : Objective
    name : str
        A key of `OPTIMIZERS`.
    starts : Tensor of shape (S, P)
    settings : Settings
    n_steps : int
        T.
    centre : Tensor of shape (P,)
        The saddle.
    axes : Tensor of shape (2, P)
        Unit directions to project on: most negative and most positive mode.
    seeds : list of int, length S
        Rows with equal seeds see the same minibatches and the same noise, whatever the optimiser.
    batch_size : int, default=32
        Examples in a minibatch.
    n_first : int, default=10
        How many steps count as the first moves.
    on_step : callable, default=None
        `on_step(done, total)`; what it raises ends the race.

    Returns
    -------
    Race
    """
    rule = OPTIMIZERS[name]
    draws = _Draws(seeds, objective, batch_size, starts)
    theta = starts.clone()
    state = {key: torch.zeros_like(theta) for key in rule.state}
    if "last" in state:
        state["last"] -= settings.noise_wait + 1
    n_rows = len(theta)
    losses = torch.zeros(n_steps + 1, n_rows, dtype=theta.dtype)
    coordinates = torch.zeros(n_steps + 1, n_rows, 2, dtype=theta.dtype)
    distances = torch.zeros(n_steps + 1, n_rows, dtype=theta.dtype)
    first_moves = torch.full((n_rows,), torch.nan, dtype=theta.dtype)
    alive = torch.ones(n_rows, dtype=torch.bool, device=theta.device)
    moved = torch.zeros_like(alive)
    limit = None
    for t in range(n_steps + 1):
        offset = theta - centre
        coordinates[t], distances[t] = (offset @ axes.T).cpu(), offset.norm(dim=1).cpu()
        if t == min(n_first, n_steps):
            first_moves = _alignment(theta - starts, axes[0]).cpu()
        values, full = _look(objective, theta, rule.minibatch or t == n_steps)
        if limit is None:
            limit = values + DIVERGED * values.abs().clamp_min(1.0)
        losses[t] = torch.where(alive, values, losses[t - 1].to(values)).cpu()
        alive &= values.isfinite() & (values <= limit)
        if t == n_steps:
            break
        indices = draws.minibatches() if rule.minibatch else None
        gradient = _Once(objective, theta, full, indices)
        new = rule.step(theta, gradient, state, settings, t + 1, draws.ball)
        # a row that diverged stays where it is: going on would only spread non-finite numbers
        new = torch.where(alive[:, None], new, theta)
        moved |= (new != theta).any(1)
        theta = new
        if on_step is not None:
            on_step(t + 1, n_steps)
    return Race(losses, coordinates, distances, first_moves, moved.cpu(), ~alive.cpu(), theta)


def leaving_steps(losses: Tensor, reference: float, drop: float, diverged: Tensor) -> Tensor:
    """First step at which each trajectory's loss is lower than the saddle's by `drop`.

    Parameters
    ----------
    losses : Tensor of shape (T + 1, S)
    reference : float
        The saddle's loss.
    drop : float
        How much lower counts as having left, in loss units.
    diverged : Tensor of shape (S,), bool
        Rows that count as never having left.

    Returns
    -------
    Tensor of shape (S,), float64
        Steps; inf for those still there at the end, and for those that diverged.
    """
    below = losses <= reference - drop
    steps = below.to(torch.uint8).argmax(0).to(torch.float64)
    return torch.where(below.any(0) & ~diverged, steps, torch.inf)


def _look(objective: Objective, theta: Tensor, value_only: bool) -> tuple[Tensor, Tensor | None]:
    """Full loss, with the full gradient when the rule uses it anyway."""
    if value_only:
        return objective.values(theta), None
    return objective.values_and_gradients(theta)


def _alignment(move: Tensor, axis: Tensor) -> Tensor:
    length = move.norm(dim=1)
    return torch.where(length > 0, (move @ axis).abs() / length, torch.nan)


class _Once:
    """The gradient of this step's examples; the one at the present point is already known."""

    def __init__(self, objective: Objective, theta: Tensor, known: Tensor | None, indices: Tensor | None) -> None:
        self.objective, self.theta, self.known, self.indices = objective, theta, known, indices

    def __call__(self, at: Tensor) -> Tensor:
        if at is self.theta and self.known is not None:
            return self.known
        return self.objective.values_and_gradients(at, self.indices)[1]


class _Draws:
    """Minibatches and noise, one stream a seed, shared by the rows of that seed."""

    def __init__(self, seeds: list[int], objective: Objective, batch_size: int, like: Tensor) -> None:
        unique = sorted(set(seeds))
        self.rows = torch.tensor([unique.index(seed) for seed in seeds])
        self.generators = [torch.Generator().manual_seed(seed) for seed in unique]
        self.n, self.batch_size, self.like = objective.n_examples, min(batch_size, objective.n_examples), like

    def minibatches(self) -> Tensor:
        """Draw indices (S, B) with replacement."""
        drawn = [torch.randint(self.n, (self.batch_size,), generator=g) for g in self.generators]
        return torch.stack(drawn)[self.rows].to(self.like.device)

    def ball(self) -> Tensor:
        """Draw points (S, P) uniform in the unit ball."""
        size = self.like.shape[1]
        points = []
        for generator in self.generators:
            v = torch.randn(size, generator=generator, dtype=torch.float64)
            radius = float(torch.rand(1, generator=generator, dtype=torch.float64)) ** (1.0 / size)
            points.append(radius * v / v.norm())
        return torch.stack(points)[self.rows].to(self.like)
