"""The work behind `SurfaceMapper.fit`: checking settings, choosing windows, filling the grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..base import CHUNK, LandscapeEstimator
from ..core.planes.directions import NORMALIZATIONS
from ..core.planes.lattice import axis_through_zero, axis_through_zero_and_one
from ..core.planes.refinement import refine
from ..landscape import Landscape
from ..progress import Cancelled, OnProgress, ignore_progress
from ._grid import Canvas, Panel, panels_of
from ._inputs import Group, colours_under, entry_of, own_losses, place
from ._planes import DIRECTIONS, EIGENVECTORS, Plane, Request
from ._result import SurfaceResult

MODES = ("exact", "adaptive")
OnPartial = Callable[[SurfaceResult], None]
_FIRST_BLOCK = 9  # points of the first picture of an exact map, which should be there at once
_N_BLOCKS = 32  # pictures of an exact map on the way
_EXPECTED_ADAPTIVE = 220  # evaluations an adaptive map usually needs, for the progress bar
_LINE_MARGIN = 0.25  # of a straight line beyond its two models
_CHECKED_NODES = 9  # of a bfloat16 map, evaluated in float32 as well
SAME_COLOUR = 0.05  # of the range of log-losses: what a mark's own loss may differ by from the colour under it
_LOWEST_RISE_FROM = 0.1  # a loss below this counts as this when "auto" looks for a rise


class SurfaceWork(LandscapeEstimator):
    """Steps of `SurfaceMapper.fit`. Not used on its own."""

    directions: str
    normalization: str | None
    span: float | tuple | str
    rise: float
    resolution: int | tuple
    mode: str
    tolerance: float
    n_dims: int
    n_seeds: int
    eigenvectors: str
    max_points: int
    random_state: int
    n_jobs: int | None
    parameters: str | tuple | None
    _land: Landscape
    _held_out: Landscape | None
    _planes: list[Plane]
    _panels: list[Panel]
    _canvas: Canvas
    _groups: list[Group]
    _columns: list[dict[str, list[Any]]]
    _mark_notes: list[str]
    _template: Any
    _centre: tuple[float, ...]
    _axis_values: list[NDArray[np.float64]]
    _tick: OnProgress
    _sketched: Panel | None
    _largest_error: float
    _roughness: float
    _converged: bool
    _deviation: float | None
    _cosine: float

    def _check(self) -> tuple[int, ...]:
        """Check the settings; give the points along each direction."""
        _one_of("directions", self.directions, DIRECTIONS)
        _one_of("mode", self.mode, MODES)
        _one_of("normalization", self.normalization, [*NORMALIZATIONS, None])
        _one_of("eigenvectors", self.eigenvectors, EIGENVECTORS)
        _one_of("n_dims", self.n_dims, (1, 2, 3))
        if self.n_seeds < 1 or (self.n_seeds > 1 and (self.n_dims > 1 or self.directions != "random")):
            raise ValueError(
                "n_seeds must be 1, or more with directions='random' and n_dims=1, got "
                f"{self.n_seeds!r}. Fit one map for each random_state instead."
            )
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must lie between 0 and 1, got {self.tolerance!r}. Use 0.01 for 1 %.")
        if isinstance(self.span, str) and self.span != "auto":
            raise ValueError(f"span must be a number, one for each direction or 'auto', got {self.span!r}. Use 1.0.")
        if self.span != "auto" and min(self._per_axis("span", self.span)) <= 0:
            raise ValueError(f"span must be positive, got {self.span!r}. Use 1.0 or 'auto'.")
        sizes = tuple(self._per_axis("resolution", self.resolution))
        if any(int(n) != n or n < 3 for n in sizes):
            raise ValueError(f"resolution must be whole numbers from 3, got {self.resolution!r}. Use 21 or (31, 11).")
        return tuple(int(n) for n in sizes)

    def _per_axis(self, name: str, value: Any) -> list[float]:
        values = list(value) if isinstance(value, tuple | list | np.ndarray) else [value] * self.n_dims
        if len(values) != self.n_dims or not all(isinstance(v, int | float | np.number) for v in values):
            raise ValueError(
                f"{name} must be one number or {self.n_dims} (one for each direction), got {value!r}. "
                f"Give {self.n_dims} or change n_dims."
            )
        return values

    def _refuse_costly(self, sizes: tuple[int, ...]) -> None:
        """Say what a grid costs before anything of its size is made."""
        total = int(np.prod([float(n) for n in sizes])) * self.n_seeds
        if total <= self.max_points:
            return
        started = time.perf_counter()
        self._land.loss()
        hours = total * (time.perf_counter() - started) / 3600
        raise ValueError(
            f"resolution must give at most max_points = {self.max_points:,} points, got {self.resolution!r}: "
            f"{total:,} points, about {hours:,.1f} hours here. Lower resolution, or raise max_points."
        )

    def _request(self, points: Tensor, one_path: bool, seed: int, progress: OnProgress) -> Request:
        return Request(
            land=self._land,
            points=points,
            one_path=one_path,
            n_dims=self.n_dims,
            normalization=self.normalization,
            eigenvectors=self.eigenvectors,
            random_state=self.random_state + seed,
            on_progress=progress,
        )

    def _axes(self, sizes: tuple[int, ...], progress: OnProgress) -> list[NDArray[np.float64]]:
        plane = self._planes[0]
        auto = isinstance(self.span, str)
        spans = [1.0] * self.n_dims if auto else self._per_axis("span", self.span)
        if plane.end is not None:
            return [axis_through_zero_and_one(_LINE_MARGIN * spans[0], sizes[0])]
        if plane.window is not None:
            axes = []
            for (low, high), scale, n in zip(plane.window, spans, sizes, strict=True):
                middle, half = (low + high) / 2, scale * (high - low) / 2
                axes.append(axis_through_zero(min(middle - half, 0.0), max(middle + half, 0.0), n))
            return axes
        if auto:
            spans = [self._grown_span(k, progress) for k in range(self.n_dims)]
        return [axis_through_zero(-s, s, n) for s, n in zip(spans, sizes, strict=True)]

    def _grown_span(self, k: int, progress: OnProgress) -> float:
        """Smallest half-width, to a tenth, at whose ends the loss has risen as asked (of the first seed)."""
        plane = self._planes[0]
        level = self.rise * max(self._land.loss(), _LOWEST_RISE_FROM)

        def ends_above(span: float) -> bool:
            ends = np.zeros((2, self.n_dims))
            ends[:, k] = -span, span
            losses = self._evaluate(self._land, plane.anchors(), plane.coefficients(ends), progress).losses
            return not bool((losses < level).all())  # a loss that is not finite has risen, too

        length = float(plane.directions[k].norm())
        high = 0.01 * max(float(self._land.theta.norm()), 1e-3) / (length or 1.0)
        for _ in range(16):
            if ends_above(high):
                break
            high *= 2.0
        low = high / 2.0
        for _ in range(3):
            middle = (low + high) / 2
            low, high = (low, middle) if ends_above(middle) else (middle, high)
        return high

    def _place(self) -> None:
        """Find where the models lie; their own losses follow when the map is there."""
        frame = self._planes[0].frame
        self._columns = [place(group, self._land, frame) for group in self._groups]
        self._mark_notes = []

    def _measure_models(self, progress: OnProgress) -> None:
        """Measure the models on the map, each with its own buffers, and publish the map once more."""
        for k, group in enumerate(self._groups):
            progress(k, len(self._groups), "models on the map")
            self._columns[k] = self._columns[k] | own_losses(
                group,
                self._land,
                self._template,
                lambda module: self._landscape(
                    module, self._land.data, parameters=self.parameters, batch_norm="frozen"
                ),
            )
        if self._groups:
            self._compare_marks()
            progress(len(self._groups), len(self._groups), "models on the map")
            self._publish(self._freeze())

    def _compare_marks(self) -> None:
        """Set each mark's own loss beside the colour under it, and note where they differ and why."""
        losses = self._canvas.shown["losses"].reshape(self._canvas.shape)
        first = losses[0] if losses.ndim > self.n_dims else losses
        tolerance = max(self.tolerance, SAME_COLOUR)
        self._columns = [c | colours_under(c, self._axis_values, first, tolerance) for c in self._columns]
        self._mark_notes = [
            self._difference(group, columns)
            for group, columns in zip(self._groups, self._columns, strict=True)
            if any(columns["differs"])
        ]

    def _difference(self, group: Group, columns: dict[str, list[Any]]) -> str:
        """Say by how much a group's worst mark differs, and whether grid, distance or statistics are the reason."""
        marks = np.flatnonzero(columns["differs"])
        own, under = (np.array(columns[name]) for name in ("loss", "map_loss"))
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.nan_to_num(np.abs(np.log(own / under)), nan=np.inf)
            worst = int(marks[apart[marks].argmax()])
            plane = self._planes[0]
            where = np.array([[columns[name][worst] for name in ("x", "y", "z")[: self.n_dims]]])
            exact = float(self._evaluate(self._land, plane.anchors(), plane.coefficients(where)).losses[0])
            near = bool(np.abs(np.log(own[worst] / exact)) < 0.5 * apart[worst])
        distance = columns["distance"][worst]
        if near:
            why = f"the grid steps over it, the loss of the plane at its place is {exact:.3g}"
        elif distance > 1e-3 * float(self._land.theta.norm()):
            why = f"it lies {distance:.3g} off the plane"
        elif self._land.has_batch_norm:
            why = f"its own batch-norm statistics are not the map's ({self._land.batch_norm})"
        else:
            why = "it differs in weights that the map does not move"
        several = f"{len(marks)} of {len(own)} checkpoints of " if group.is_trajectory else ""
        return f"{several}{group.label}: own loss {own[worst]:.3g}, colour under it {under[worst]:.3g}: {why}."

    def _entries(self, trajectories: bool) -> list[dict[str, Any]]:
        pairs = zip(self._groups, self._columns, strict=True)
        return [entry_of(group, columns) for group, columns in pairs if group.is_trajectory == trajectories]

    def _lay_out(self) -> None:
        """Make an empty grid over the axes."""
        shape, self._panels = panels_of(self._planes, self._axis_values, self._centre)
        names = ["losses", "accuracies"]
        if self._held_out is not None:
            names += ["held_out_losses", "held_out_accuracies"]
        self._canvas = Canvas(shape, names)
        self._largest_error, self._converged, self._deviation = float("nan"), False, None
        self._roughness = float("nan")

    def _fill(self, progress: OnProgress, on_partial: OnPartial | None) -> None:
        work = self._evaluate_all if self.mode == "exact" else self._evaluate_adaptively
        self._run(work(), progress, on_partial)

    # -- filling the grid -------------------------------------------------------------------------------

    def _ask(self, panel: Panel, local: NDArray[np.intp]) -> NDArray[np.float64]:
        """Evaluate those nodes of a panel that are not known yet; give the losses of all asked for."""
        nodes = panel.nodes[local]
        new = ~self._canvas.evaluated[nodes]
        if new.any():
            weights = panel.plane.coefficients(panel.coordinates[local[new]])
            anchors = panel.plane.anchors()
            found = self._evaluate(self._land, anchors, weights, self._tick)
            values = {"losses": found.losses, "accuracies": found.accuracies}
            if self._held_out is not None:
                other = self._evaluate(self._held_out, anchors, weights, self._tick)
                values |= {"held_out_losses": other.losses, "held_out_accuracies": other.accuracies}
            self._canvas.add(nodes[new], values)
        return self._canvas.exact["losses"][nodes]

    def _evaluate_all(self) -> Iterator[int]:
        """Evaluate every node, coarse to fine; yields the expected number of nodes after each picture."""
        total = int(self._canvas.evaluated.size)
        whole_chunks = -(-total // (_N_BLOCKS * CHUNK))
        block = CHUNK * max(2, whole_chunks) * max(1, abs(int(self.n_jobs or 1)))
        for panel in self._panels:
            order = panel.order()
            cuts = [0, *range(min(_FIRST_BLOCK, len(order)), len(order), block), len(order)]
            for start, stop in pairwise(cuts):
                local = order[start:stop]
                if not self._canvas.evaluated[panel.nodes[local]].all():
                    self._ask(panel, local)
                    self._sketched = panel
                    yield total
        self._largest_error, self._converged = 0.0, True

    def _evaluate_adaptively(self) -> Iterator[int]:
        errors: list[float] = []
        converged = True
        for number, panel in enumerate(self._panels):
            rounds = refine(
                lambda indices, p=panel: self._ask(p, indices[:, 0] * p.shape[1] + indices[:, 1]),  # type: ignore[misc]
                panel.shape,
                centre=panel.centre,
                tolerance=self.tolerance,
            )
            state = None
            for state in rounds:
                self._canvas.refine(panel, state)
                self._largest_error = max([*errors, state.largest_error])
                if state.rough:
                    self._roughness = float(np.nanmax([self._roughness, state.roughness]))
                left = (len(self._panels) - number - 1) * min(len(panel.nodes), _EXPECTED_ADAPTIVE)
                here = len(panel.nodes) if state.exhaustive else max(_EXPECTED_ADAPTIVE, state.n_evaluated + 10)
                here = min(len(panel.nodes), here)
                yield self._canvas.n_evaluated + left + (0 if state.converged else here - state.n_evaluated)
            assert state is not None
            errors.append(state.largest_error)
            converged &= state.converged
        self._converged = converged

    def _run(self, work: Iterator[int], progress: OnProgress, on_partial: OnPartial | None) -> None:
        """Drive the work, hand on pictures, and publish the last one even when cancelled."""
        total = int(self._canvas.evaluated.size)
        if self.mode == "adaptive":
            total = min(total, _EXPECTED_ADAPTIVE * len(self._panels))

        def tick(done: int, out_of: int, message: str) -> None:
            progress(min(self._canvas.n_evaluated + done, total), total, "points")

        self._tick = tick
        self._sketched = None
        try:
            for total in work:
                progress(min(self._canvas.n_evaluated, total), max(total, 1), "points")
                if on_partial is not None:
                    on_partial(self._picture())
        except Cancelled:
            self._publish(self._picture())
            raise
        finally:
            self._tick = ignore_progress
        if self._land.precision == "bfloat16":
            self._deviation = self._deviation_from_float32()
        self._publish(self._freeze())

    def _deviation_from_float32(self) -> float:
        """Largest relative difference from the float32 loss at nodes spread over the first panel."""
        panel = self._panels[0]
        losses = self._canvas.exact["losses"][panel.nodes]
        known = np.flatnonzero(self._canvas.evaluated[panel.nodes] & np.isfinite(losses))
        local = known[np.linspace(0, len(known) - 1, min(_CHECKED_NODES, len(known))).round().astype(int)]
        exact = self._landscape(
            self._land.model_at(), self._land.data, precision="float32", batch_norm=self._land.batch_norm
        )
        anchors, weights = panel.plane.anchors(), panel.plane.coefficients(panel.coordinates[local])
        found = self._evaluate(exact, anchors, weights).losses
        return float(np.max(np.abs(losses[local] - found) / np.abs(found), initial=0.0))

    def _picture(self) -> SurfaceResult:
        """Freeze the map as it is, the rest of the panel in work interpolated."""
        if self._sketched is not None:
            self._canvas.sketch(self._sketched)
        return self._freeze()

    def _freeze(self) -> SurfaceResult:
        canvas, plane = self._canvas, self._planes[0]
        shaped = {name: values.reshape(canvas.shape).copy() for name, values in canvas.shown.items()}
        everywhere = canvas.evaluated | np.isfinite(canvas.error)
        lost = ~np.isfinite(canvas.shown["losses"]) & everywhere
        centre = self._panels[0]
        node = centre.nodes[centre.centre[0] * centre.shape[1] + centre.centre[1]]
        settings = {**self._land.settings, **self._described(), "points": int(canvas.evaluated.size)}
        if self._deviation is not None:
            settings["bfloat16_deviation"] = self._deviation
        notes = list(plane.notes)
        if np.isfinite(self._roughness):
            settings["fallback"] = "exact"
            notes.append(
                "The loss jumps from one point to the next, by "
                f"{self._roughness:.2%} of the range of its logarithm: interpolation cannot reach the tolerance, and "
                "every point was evaluated instead of an adaptive choice."
            )
        if any(self._centre):
            settings["centre"] = list(self._centre)
        if self._held_out is not None:
            settings["held_out"] = f"{self._held_out.data.name}, {self._held_out.data.split}"
        return SurfaceResult(
            settings=settings,
            axes=tuple(self._axis_values),
            **shaped,
            evaluated=canvas.evaluated.reshape(canvas.shape).copy(),
            error_estimate=canvas.error.reshape(canvas.shape).copy(),
            largest_error=float(self._largest_error),
            converged=bool(self._converged),
            n_evaluated=canvas.n_evaluated,
            n_not_finite=int(lost.sum()),
            loss=float(canvas.exact["losses"][node]),
            accuracy=float(canvas.exact["accuracies"][node]),
            chosen=self.directions,
            axis_titles=list(plane.titles),
            cosine=self._cosine,
            explained_variance_ratio=plane.explained_variance_ratio,
            random_walk_variance_ratio=plane.random_walk_variance_ratio,
            eigenvalues=plane.eigenvalues,
            markers=self._entries(trajectories=False),
            trajectories=self._entries(trajectories=True),
            notes=[*notes, *self._mark_notes],
        )

    def _described(self) -> dict[str, Any]:
        """Describe the map itself, for its provenance."""
        names = (
            "directions",
            "normalization",
            "span",
            "resolution",
            "mode",
            "tolerance",
            "n_dims",
            "n_seeds",
        )
        own = {name: getattr(self, name) for name in (*names, "eigenvectors", "random_state")}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}


def _one_of(name: str, value: object, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {list(allowed)}, got {value!r}. Choose one of these.")
