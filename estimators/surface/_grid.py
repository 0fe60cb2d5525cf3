"""The grid of a map: its nodes, what is known of them, how they are filled, what a picture shows meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.planes.interpolation import fill
from ..core.planes.lattice import coarse_to_fine
from ..core.planes.refinement import Refinement, lattice_subset, refine, scaled
from ._planes import MapPlane

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

Arrived = Callable[[Any, dict[str, Array]], None]  # (which of the points, their values of some quantities)
Measure = Callable[[MapPlane, Array, Arrived], None]  # (plane, coordinates (n, k), what to call with their values)

FIRST_BLOCK = 9  # points of the first picture of an exact map, which should be there at once
EXPECTED_ADAPTIVE = 220  # evaluations an adaptive map usually needs, for the progress bar
_LARGEST_FILL = 700  # nodes up to which a picture in progress is interpolated; more would hold the work up
LARGEST_LAST_FILL = 3000  # the same for the last picture of a map that was cut


@dataclass(frozen=True)
class Panel:
    """A two-dimensional lattice inside the grid: the grid itself, a slice of a volume, a seed's profile.

    Attributes
    ----------
    plane : MapPlane
        What its coordinates refer to.
    shape : (int, int)
    centre : (int, int)
        Node that the map is centred on.
    nodes : ndarray of shape (R1·R2,)
        Positions in the flattened grid.
    coordinates : ndarray of shape (R1·R2, k)
    """

    plane: MapPlane
    shape: tuple[int, int]
    centre: tuple[int, int]
    nodes: Indices
    coordinates: Array

    def order(self) -> Indices:
        """Nodes of the panel from coarse to fine."""
        return coarse_to_fine(self.shape, self.centre)


def panels_of(
    planes: Sequence[MapPlane], axes: Sequence[Array], centre: Sequence[float]
) -> tuple[tuple[int, ...], list[Panel]]:
    """Lay the axes out as panels about `centre`, a node; give the grid's shape and the panels."""
    sizes = tuple(len(a) for a in axes)
    zero = [int(np.abs(a - c).argmin()) for a, c in zip(axes, centre, strict=True)]
    mesh = np.stack([m.reshape(-1) for m in np.meshgrid(*axes, indexing="ij")], axis=1)
    if len(sizes) == 1:
        shape = (len(planes), *sizes) if len(planes) > 1 else sizes
        panels = [
            Panel(plane, (sizes[0], 1), (zero[0], 0), np.arange(sizes[0]) + k * sizes[0], mesh)
            for k, plane in enumerate(planes)
        ]
        return shape, panels
    lattice, middle = (sizes[0], sizes[1]), (zero[0], zero[1])
    if len(sizes) == 2:
        return sizes, [Panel(planes[0], lattice, middle, np.arange(len(mesh)), mesh)]
    every = np.arange(len(mesh)).reshape(-1, sizes[2])
    slices = sorted(range(sizes[2]), key=lambda k: (abs(k - zero[2]), k))  # the slice of the centre comes first
    return sizes, [Panel(planes[0], lattice, middle, every[:, k], mesh[every[:, k]]) for k in slices]


class Grid:
    """What is known of a map so far, and the two ways to fill it.

    Parameters
    ----------
    planes : sequence of MapPlane
        One; several for the profiles of several seeds.
    axes : sequence of ndarray
        Coordinates along each direction.
    centre : sequence of float
        Coordinates the map is centred on, a node.
    quantities : sequence of str
        What is measured at a node; "losses" and "accuracies" are among them.

    Attributes
    ----------
    exact, shown : dict of ndarray of shape (n_nodes,)
        Values of each quantity: evaluated ones, and those completed by interpolation.
    evaluated, error : ndarray of shape (n_nodes,)
        Where values are exact; the estimated |error| of the log-losses, NaN before it is known.
    largest_error, converged, roughness
        Of the whole map by interpolation alone, see :class:`SurfaceResult` and :class:`Refinement`.
    rounding : float
        |error| of every log-loss (loss, where one is negative) that the precision brings along.
    expected : int
        Nodes that will probably have been evaluated in the end.
    """

    def __init__(
        self, planes: Sequence[MapPlane], axes: Sequence[Array], centre: Sequence[float], quantities: Sequence[str]
    ) -> None:
        self.axes, self.centre = tuple(axes), tuple(centre)
        self.shape, self.panels = panels_of(planes, axes, centre)
        size = int(np.prod(self.shape))
        self.exact = {name: np.full(size, np.nan) for name in quantities}
        self.shown = {name: np.full(size, np.nan) for name in quantities}
        self.evaluated = np.zeros(size, dtype=bool)
        self.error = np.full(size, np.nan)
        self.largest_error, self.converged, self.roughness = float("nan"), False, float("nan")
        self.expected, self.rounding = size, 0.0
        self._unfinished: Panel | None = None  # the panel whose rest a picture has to interpolate

    @property
    def n_evaluated(self) -> int:
        """Nodes evaluated."""
        return int(self.evaluated.sum())

    # -- filling it -------------------------------------------------------------------------------------

    def fill_exactly(self, measure: Measure, block: int | None) -> Iterator[None]:
        """Evaluate every node, coarse to fine, in blocks (None: a panel as a whole); pauses after each.

        Blocks begin and end where chunks of the cache do: `FIRST_BLOCK` nodes, then `block` at a time.
        """
        self.expected = self.evaluated.size
        for panel in self.panels:
            order = panel.order()
            first = min(FIRST_BLOCK, len(order))
            cuts = [0, len(order)] if block is None else [0, *range(first, len(order), block), len(order)]
            for start, stop in pairwise(cuts):
                local = order[start:stop]
                if not self.evaluated[panel.nodes[local]].all():
                    self._unfinished = panel
                    self._ask(panel, local, measure)
                    yield
        self.largest_error, self.converged = 0.0, True

    def fill_adaptively(self, measure: Measure, tolerance: float) -> Iterator[None]:
        """Evaluate where interpolants disagree; pauses where a new picture is there."""
        self.expected = min(self.evaluated.size, EXPECTED_ADAPTIVE * len(self.panels))
        errors: list[float] = []
        converged = True
        for number, panel in enumerate(self.panels):
            rounds = refine(
                lambda indices, p=panel: self._ask(p, np.ravel_multi_index(indices.T, p.shape), measure),  # type: ignore[misc]
                panel.shape,
                centre=panel.centre,
                tolerance=tolerance,
            )
            state = None
            for state in rounds:
                self._take_over(panel, state)
                self.largest_error = max([*errors, state.largest_error])
                if state.rough:
                    self.roughness = float(np.nanmax([self.roughness, state.roughness]))
                left = (len(self.panels) - number - 1) * min(len(panel.nodes), EXPECTED_ADAPTIVE)
                here = len(panel.nodes) if state.exhaustive else max(EXPECTED_ADAPTIVE, state.n_evaluated + 10)
                here = min(len(panel.nodes), here)
                self.expected = self.n_evaluated + left + (0 if state.converged else here - state.n_evaluated)
                yield
            assert state is not None
            errors.append(state.largest_error)
            converged &= state.converged
        self.converged = converged

    def _ask(self, panel: Panel, local: Indices, measure: Measure) -> Array:
        """Evaluate those nodes of a panel that are not known yet; give the losses of all asked for."""
        nodes = panel.nodes[local]
        new = ~self.evaluated[nodes]
        if new.any():
            asked = nodes[new]
            lacking = np.full(len(asked), len(self.exact))

            def arrived(which: Any, values: dict[str, Array]) -> None:
                for name, column in values.items():
                    self.exact[name][asked[which]] = self.shown[name][asked[which]] = column
                lacking[which] -= len(values)
                whole = asked[which][lacking[which] == 0]
                self.evaluated[whole] = True
                self.error[whole] = 0.0

            measure(panel.plane, panel.coordinates[local[new]], arrived)
        return self.exact["losses"][nodes]

    def _take_over(self, panel: Panel, state: Refinement) -> None:
        """Take over one round of refinement: its values, its errors and the other quantities filled in."""
        self._show(panel, "losses", state.values)
        self.error[panel.nodes] = state.error_estimate.reshape(-1)
        lost = ~np.isfinite(state.values) & ~state.evaluated
        if state.exhaustive:
            return  # the rest follows exactly, and fits through this many points would hold it up
        for name in self.exact:
            if name != "losses":
                self._show(panel, name, np.where(lost, np.nan, self._completed(panel, name)))

    def coarse_nodes(self) -> tuple[MapPlane, Array]:
        """Pick the nodes of the first picture of an adaptive map (nine of a profile): plane and coordinates (n, k)."""
        panel = self.panels[0]
        count = 9 if min(panel.shape) == 1 else 3
        rows, cols = (lattice_subset(r, count, m) for r, m in zip(panel.shape, panel.centre, strict=True))
        return panel.plane, panel.coordinates[(rows[:, None] * panel.shape[1] + cols).reshape(-1)]

    # -- showing it -------------------------------------------------------------------------------------

    def sketch(self, largest: int = _LARGEST_FILL) -> None:
        """Interpolate what a picture of an exact map in progress shows of the rest of its panel."""
        panel = self._unfinished
        if panel is None:
            return
        known = self.evaluated[panel.nodes]
        if not known.all() and 9 <= known.sum() <= largest:
            for name in self.exact:
                self._show(panel, name, self._completed(panel, name))

    def spread_nodes(self, count: int) -> tuple[MapPlane, Array, Array]:
        """Pick evaluated nodes spread over the first panel: its plane, their coordinates (n, k) and losses (n,)."""
        panel = self.panels[0]
        losses = self.exact["losses"][panel.nodes]
        known = np.flatnonzero(self.evaluated[panel.nodes] & np.isfinite(losses))
        local = known[np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)]
        return panel.plane, panel.coordinates[local], losses[local]

    @property
    def is_linear(self) -> bool:
        """Whether errors are of the losses themselves, since one is negative."""
        return not np.isfinite(scaled(self.exact["losses"])[1])

    def share(self, difference: float) -> float:
        """Give a difference of log-losses as a share of the range of those evaluated."""
        values = scaled(self.exact["losses"])[0]
        span = float(np.ptp(values[np.isfinite(values)])) if np.isfinite(values).any() else 0.0
        return difference / span if span > 0 else float("inf")

    def first_losses(self) -> Array:
        """Losses as shown, over the axes: of the first seed where there are several."""
        losses = self.shown["losses"].reshape(self.shape)
        return losses[0] if losses.ndim > len(self.axes) else losses

    def as_fields(self) -> dict[str, Any]:
        """Give what a `SurfaceResult` says of the grid, in arrays of its own."""
        first = self.panels[0]
        centre = first.nodes[np.ravel_multi_index(first.centre, first.shape)]
        known = self.evaluated | np.isfinite(self.error)
        return {
            "axes": self.axes,
            **{name: values.reshape(self.shape).copy() for name, values in self.shown.items()},
            "evaluated": self.evaluated.reshape(self.shape).copy(),
            "error_estimate": (self.error + self.rounding).reshape(self.shape),
            "largest_error": float(self.largest_error) + (self.share(self.rounding) if self.rounding else 0.0),
            "converged": bool(self.converged),
            "n_evaluated": self.n_evaluated,
            "n_not_finite": int((~np.isfinite(self.shown["losses"]) & known).sum()),
            "loss": float(self.exact["losses"][centre]),
            "accuracy": float(self.exact["accuracies"][centre]),
        }

    def _show(self, panel: Panel, name: str, grid: Array) -> None:
        missing = ~self.evaluated[panel.nodes]
        self.shown[name][panel.nodes[missing]] = grid.reshape(-1)[missing]

    def _completed(self, panel: Panel, name: str) -> Array:
        """Interpolate the log of losses, and accuracies without overshooting [0, 1]."""
        values = self.exact[name][panel.nodes].reshape(panel.shape)
        known = self.evaluated[panel.nodes].reshape(panel.shape)
        if name.endswith("accuracies"):
            return np.clip(fill(values, known, smooth=False), 0.0, 1.0)
        usable = known & np.isfinite(values)
        if not usable.any() or values[usable].min() <= 0:
            return fill(values, known)
        logs = np.log(values, where=usable, out=np.full(values.shape, np.nan))
        return np.where(known, values, np.exp(np.minimum(fill(logs, known), 700.0)))
