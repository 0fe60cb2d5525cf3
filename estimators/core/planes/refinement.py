"""Adaptive surfaces: a whole map of losses from a tenth of its evaluations.

A coarse lattice is evaluated first. Three radial-basis interpolants of the log-loss (thin plate, cubic,
linear) are then fitted, in coordinates stretched along the direction in which the surface bends most. More
points go where the interpolants disagree, where leaving a neighbour out would have been wrong, and where the
surface bends strongly over the gap between evaluated points, until the estimated error is below the
tolerance and points added since, in the largest holes, have confirmed what was predicted for them. Nothing here is
random: two runs are equal bit for bit.

A surface that jumps from one lattice point to the next (rounded weights, noise) can't be interpolated: where leaving
points out says so, a few runs of neighbouring points are looked at, and the whole lattice is evaluated.

What lies between evaluated points and touches none of them isn't seen: features narrower than about five lattice steps
can be missed, and one narrower than a step by an exact map, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_cdt, maximum_filter

from estimators.core.planes.interpolation import bend_of, fit_lattice, lattice_coordinates, stretch_of

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

_COARSE = (3, 5)  # points per axis of the first pictures
_BASE = 9  # points per axis before refinement starts; on most lattices they contain the first ones
_PER_ROUND = 10
# The weights and margins were set on the maps in tests/data/maps and tests/data/maps/tuned and on analytic ones, and
# judged on others (tests/data/maps/judged, tests/benchmarks/judge_maps.py).
_LEFT_OUT_WEIGHT = 0.4  # of the leave-one-out errors of the nearest evaluated points
_LINEAR_TRUST = 1.0  # of |linear - smooth|, times how much worse the linear kernel is left-one-out
_BEND_WEIGHT = 0.25  # of |curvature| · distance²
_CONFIRMATIONS = 2  # rounds in a row whose points were predicted to within the tolerance
_STOP_MARGIN = 0.7  # stop at this share of the tolerance, since the estimate is uncertain itself
_REPORT_FACTOR = 1.5  # makes the reported error bound the true one in nine cells of ten
_NOISE = 1e-6  # in log-loss: what float32 sums leave even on a flat map
_SUSPECT_EARLY = 3.0  # tolerances: median leave-one-out error from which the base lattice is suspected of noise
_SUSPECT_LATE = 0.5  # the same later on, when a smooth map would be settled
_LATE = 150  # evaluations
_ROUGH = 0.3  # tolerances: standard deviation of the noise from which nothing can be interpolated
_PROBED = 6  # runs of four neighbouring points that tell it
_WORTH = 0.6  # share of the lattice from which the rest is evaluated without further ado
_N_BLOCKS = 8  # in which it is
_OPEN_BORDER = 0.6  # |indicator| below which it is open whether a cell is finite


@dataclass(frozen=True)
class Refinement:
    """A lattice of values after one round.

    Attributes
    ----------
    values : ndarray of shape (R1, R2)
        Exact where `evaluated`, interpolated elsewhere; NaN where the value is predicted not to be finite.
    evaluated : bool ndarray of shape (R1, R2)
    error_estimate : ndarray of shape (R1, R2)
        Estimated |error| of the log of each value (of the value itself where `scale` is "linear"): 0 where
        evaluated, infinite where it is open whether the value is finite. Meant to bound the true error in
        nine cells of ten.
    n_evaluated : int
    largest_error : float
        Largest estimate as a share of the range of the finite log-losses, without the factor of safety that
        `error_estimate` carries.
    scale : {"log", "linear"}
        "linear" once a negative value was met.
    converged : bool
        Whether the tolerance was reached, or every point evaluated.
    roughness : float
        Standard deviation of the jumps between neighbouring points as a share of the range of the log-losses; NaN
        unless they were suspected.
    rough : bool
        Whether they are too large for interpolation.
    exhaustive : bool
        Whether every point is being evaluated, because of that or because most are already.
    """

    values: Array
    evaluated: NDArray[np.bool_]
    error_estimate: Array
    n_evaluated: int
    largest_error: float
    scale: str
    converged: bool
    roughness: float = float("nan")
    rough: bool = False
    exhaustive: bool = False


def lattice_subset(size: int, count: int, keep: int) -> Indices:
    """Return about `count` indices spread evenly over range(size), both ends and `keep` included."""
    spread = np.round(np.linspace(0, size - 1, min(size, count))).astype(np.intp)
    return np.unique(np.append(spread, keep))


def scaled(values: Array) -> tuple[Array, float]:
    """Take logs: zeros count as the smallest positive value, a negative value ends the log scale.

    Returns
    -------
    scaled : ndarray
        NaN where a value is not finite.
    floor : float
        The smallest positive value; -inf where values are left as they are.
    """
    finite = values[np.isfinite(values)]
    if (finite < 0).any() or not (finite > 0).any():
        return np.where(np.isfinite(values), values, np.nan), -np.inf
    floor = float(finite[finite > 0].min())
    return np.log(np.where(np.isfinite(values), np.maximum(values, floor), np.nan)), floor


def refine(
    evaluate: Callable[[Indices], Array],
    shape: tuple[int, int],
    *,
    centre: tuple[int, int] | None = None,
    tolerance: float = 0.01,
    max_evaluations: int | None = None,
) -> Iterator[Refinement]:
    """Evaluate a lattice where it matters.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(indices (n, 2)) -> values (n,)``; asked at most once for each lattice point.
    shape : (R1, R2)
        An axis may have a single point.
    centre : (int, int), optional
        A lattice point that is evaluated in the first round; the middle by default.
    tolerance : float, default=0.01
        Largest error aimed at, as a share of the range of the finite log-losses.
    max_evaluations : int, optional
        Stop there even when the tolerance is not reached (`converged` is then False).

    Yields
    ------
    Refinement
        After each coarse picture, after the base lattice and after every further round; the last one is final.
    """
    n_total = shape[0] * shape[1]
    budget = n_total if max_evaluations is None else min(n_total, max_evaluations)
    middle = (shape[0] // 2, shape[1] // 2) if centre is None else centre
    lattice = _Lattice(shape)

    def ask(points: Indices) -> None:
        points = points[: budget - lattice.n_evaluated]
        if len(points):
            lattice.add(points, evaluate(np.stack(np.unravel_index(points, shape), axis=1)))

    for count in (*_COARSE, _BASE):
        rows, cols = (lattice_subset(r, count, m) for r, m in zip(shape, middle, strict=True))
        wanted = (rows[:, None] * shape[1] + cols[None, :]).reshape(-1)
        ask(wanted[~lattice.evaluated[wanted]])
        if count in _COARSE and lattice.n_evaluated < budget:
            yield lattice.report(converged=False)
    limit, confirmed = _STOP_MARGIN * tolerance, 0
    while True:
        settled = lattice.largest_error <= limit and not lattice.border.any()
        fresh = lattice.next_points(
            max(_PER_ROUND, lattice.n_evaluated // 20), in_holes=settled and lattice.span > _NOISE
        )
        converged = not len(fresh) or (settled and confirmed >= _CONFIRMATIONS)
        yield lattice.report(converged=converged)
        if converged or lattice.n_evaluated >= budget:
            return
        suspect = _SUSPECT_EARLY if lattice.n_evaluated < _LATE else _SUSPECT_LATE
        if np.isnan(lattice.roughness) and lattice.skill > suspect * tolerance * lattice.span:
            ask(lattice.neighbours_of_some())
            lattice.measure_roughness()
        if lattice.roughness > _ROUGH * tolerance or lattice.n_evaluated > _WORTH * n_total:
            break
        predicted = lattice.prediction[fresh].copy()
        ask(fresh)
        gap = np.abs(predicted - lattice.scaled[fresh])
        surprised = float(np.max(gap[np.isfinite(gap)], initial=0.0)) > limit * lattice.span
        confirmed = 0 if surprised else confirmed + 1
    rough = lattice.roughness > _ROUGH * tolerance
    lattice.fitting = False
    for block in np.array_split(np.flatnonzero(~lattice.evaluated), _N_BLOCKS):
        ask(block)
        done = lattice.n_evaluated >= budget
        yield lattice.report(converged=lattice.n_evaluated == n_total, rough=rough)
        if done:
            return


class _Lattice:
    """The evaluated points, the interpolants through them and the score that says where to look next."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.coordinates = lattice_coordinates(shape)
        self.known = np.full(shape[0] * shape[1], np.nan)
        self.evaluated = np.zeros(shape[0] * shape[1], dtype=bool)
        self.fitting = True
        self.skill, self.roughness, self.runs = 0.0, float("nan"), np.empty((0, 4), dtype=np.intp)
        self.stretch = np.eye(2)
        self.points = self.coordinates
        self.prediction = self.score = np.zeros(len(self.known))

    @property
    def n_evaluated(self) -> int:
        """How many points were asked for."""
        return int(self.evaluated.sum())

    def add(self, points: Indices, values: Array) -> None:
        """Take in exact values and fit again."""
        self.known[points], self.evaluated[points] = values, True
        scale = self.scale if not self.fitting else ""
        self._rescale()
        if not self.fitting:  # what is left keeps the last prediction
            if scale != self.scale:
                self.prediction = np.exp(self.prediction)
            self.score[points] = 0.0
            return
        finite = self.evaluated & np.isfinite(self.scaled)
        nodes = np.flatnonzero(finite)
        away = distance_transform_cdt(~self.evaluated.reshape(self.shape), "chessboard")
        self.gap = away.reshape(-1).astype(np.float64)
        self.span = max(float(np.ptp(self.scaled[nodes])), 0.0) if len(nodes) else 0.0
        self._find_border(finite)
        if len(nodes) < 4 or self.span <= _NOISE:
            level = float(np.mean(self.scaled[nodes])) if len(nodes) else np.nan
            self.prediction = np.where(finite, self.scaled, level)
            self.score = np.zeros_like(self.prediction)
        else:
            self.points = self.coordinates @ self.stretch.T
            fit = fit_lattice(self.points, nodes, self.scaled[nodes])
            self.prediction = fit.members[:2].mean(axis=0)
            surface = self.prediction.reshape(self.shape)
            self.stretch = stretch_of(surface)
            self.skill = fit.typical
            bend = bend_of(surface).reshape(-1) * np.square(fit.distance)
            # On a smooth surface the linear kernel is known to be the worse one: its disagreement says less
            # there.
            trust = min(1.0, _LINEAR_TRUST * float(fit.skill[:2].mean() / max(fit.skill[2], 1e-300)))
            apart = np.abs(fit.members[0] - fit.members[1])
            apart = np.maximum(apart, trust * np.abs(fit.members[2] - self.prediction))
            self.score = apart + _LEFT_OUT_WEIGHT * fit.left_out + _BEND_WEIGHT * bend
        self.score[self.evaluated | self.infinite] = 0.0

    def _rescale(self) -> None:
        self.scaled, self._floor = scaled(self.known)
        self.scale = "log" if np.isfinite(self._floor) else "linear"

    def _find_border(self, finite: NDArray[np.bool_]) -> None:
        """Predict which cells are not finite, from a ±1 indicator interpolated like the values."""
        nodes = np.flatnonzero(self.evaluated)
        self.infinite = np.zeros_like(self.evaluated)
        self.border = np.zeros_like(self.evaluated)
        self.uncertain = np.zeros_like(self.evaluated)
        if finite[nodes].all():
            return
        if not finite[nodes].any():
            self.infinite = np.ones_like(self.evaluated)
            return
        sign = np.where(finite[nodes], 1.0, -1.0)
        indicator = fit_lattice(self.coordinates, nodes, sign, ("linear",)).members[0]
        self.infinite = indicator < 0
        near_change = _spread(self.infinite, self.shape) & _spread(~self.infinite, self.shape)
        self.uncertain = ((np.abs(indicator) < _OPEN_BORDER) | near_change) & ~self.evaluated
        self.border = (np.abs(indicator) < _OPEN_BORDER) & (self.gap >= 2)

    @property
    def largest_error(self) -> float:
        """Largest score as a share of the range of the finite values."""
        return float(self.score.max()) / self.span if self.span > _NOISE else 0.0

    def neighbours_of_some(self) -> Indices:
        """Points that complete runs of four neighbours, spread over the lattice, along either axis."""
        rows, cols = self.shape
        runs = []
        for k in range(_PROBED):
            i, j = (1 + k % 2) * rows // 3, (1 + k // 2) * cols // (2 + _PROBED // 2)
            along_rows = rows >= 4 and (k % 3 != 1 or cols < 4)
            if along_rows:
                runs.append(min(i, rows - 4) * cols + j + cols * np.arange(4))
            elif cols >= 4:
                runs.append(i * cols + min(j, cols - 4) + np.arange(4))
        self.runs = np.unique(np.array(runs, dtype=np.intp).reshape(-1, 4), axis=0)
        wanted = np.unique(self.runs)
        return wanted[~self.evaluated[wanted]]

    def measure_roughness(self) -> None:
        """Estimate noise from third differences, which smooth surfaces don't have at this distance."""
        if not self.evaluated[self.runs].all():
            self.roughness = 0.0
            return
        third = np.abs(self.scaled[self.runs] @ np.array([-1.0, 3.0, -3.0, 1.0]))
        third = third[np.isfinite(third)]
        # of normal noise: a variance of 1 + 9 + 9 + 1, a median of 0.6745 standard deviations
        noise = float(np.median(third)) / (np.sqrt(20.0) * 0.6745) if len(third) else 0.0
        self.roughness = noise / self.span if self.span > _NOISE else 0.0

    def next_points(self, count: int, *, in_holes: bool) -> Indices:
        """Points of the next round: along the edge of a non-finite region, in the largest holes if asked, by score."""
        chosen: list[int] = []
        holes = np.where((self.gap >= 2) & ~self.infinite, self.gap + self.score / max(self.span, _NOISE), 0.0)
        for priority, share in (
            (np.where(self.border, self.gap, 0.0), count // 2),
            (holes, count if in_holes else 0),
            (self.score.copy(), count),
        ):
            while len(chosen) < share:
                j = int(priority.argmax())
                if not priority[j] > 0:
                    break
                chosen.append(j)
                for k in chosen:  # keep a round spread out: no two points closer than the gap they fill
                    self._clear(priority, k)
        return np.array(chosen, dtype=np.intp)

    def _clear(self, priority: Array, j: int) -> None:
        steps = np.abs(self.points - self.points[j]).max(axis=1) * (max(self.shape) - 1)
        priority[steps <= min(max(self.gap[j], 2.0), 3.0) + 1e-9] = 0.0

    def report(self, *, converged: bool, rough: bool = False) -> Refinement:
        """Freeze what is known now."""
        estimate = maximum_filter(self.score.reshape(self.shape), 3).reshape(-1) * _REPORT_FACTOR
        estimate[self.uncertain] = np.inf
        estimate[self.evaluated] = 0.0
        values = np.exp(self.prediction) if self.scale == "log" else self.prediction.copy()
        values[self.infinite] = np.nan
        values[self.evaluated] = self.known[self.evaluated]
        return Refinement(
            values=values.reshape(self.shape),
            evaluated=self.evaluated.reshape(self.shape).copy(),
            error_estimate=estimate.reshape(self.shape),
            n_evaluated=self.n_evaluated,
            largest_error=self.largest_error,
            scale=self.scale,
            converged=converged,
            roughness=self.roughness,
            rough=rough,
            exhaustive=not self.fitting,
        )


def _spread(cells: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Add the neighbours of the marked cells."""
    return np.asarray(maximum_filter(cells.reshape(shape), 3)).reshape(-1)
