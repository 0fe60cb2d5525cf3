"""The grid of a map while it fills up: its nodes, what is known of them, what a picture shows meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..core.planes.interpolation import fill
from ..core.planes.lattice import coarse_to_fine
from ..core.planes.refinement import Refinement
from ._planes import Plane

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

LOSSES = ("losses", "held_out_losses")
ACCURACIES = ("accuracies", "held_out_accuracies")
_LARGEST_FILL = 700  # nodes up to which a picture in progress is interpolated; more would hold the work up


@dataclass(frozen=True)
class Panel:
    """A two-dimensional lattice inside the grid: the grid itself, a slice of a volume, a seed's profile.

    Attributes
    ----------
    plane : Plane
        What its coordinates refer to.
    shape : (int, int)
    centre : (int, int)
        Node that the map is centred on.
    nodes : ndarray of shape (R1·R2,)
        Positions in the flattened grid.
    coordinates : ndarray of shape (R1·R2, k)
    """

    plane: Plane
    shape: tuple[int, int]
    centre: tuple[int, int]
    nodes: Indices
    coordinates: Array

    def order(self) -> Indices:
        """Nodes of the panel from coarse to fine."""
        return coarse_to_fine(self.shape, self.centre)


def panels_of(
    planes: Sequence[Plane], axes: Sequence[Array], centre: Sequence[float]
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


class Canvas:
    """What is known of a grid so far."""

    def __init__(self, shape: tuple[int, ...], quantities: Sequence[str]) -> None:
        size = int(np.prod(shape))
        self.shape = shape
        self.exact = {name: np.full(size, np.nan) for name in quantities}
        self.shown = {name: np.full(size, np.nan) for name in quantities}
        self.evaluated = np.zeros(size, dtype=bool)
        self.error = np.full(size, np.nan)

    @property
    def n_evaluated(self) -> int:
        """Nodes evaluated."""
        return int(self.evaluated.sum())

    def add(self, nodes: Indices, values: dict[str, Array]) -> None:
        """Take in exact values."""
        for name, column in values.items():
            self.exact[name][nodes] = column
            self.shown[name][nodes] = column
        self.evaluated[nodes] = True
        self.error[nodes] = 0.0

    def sketch(self, panel: Panel) -> None:
        """Interpolate what a picture in progress shows of the rest of a panel."""
        known = self.evaluated[panel.nodes].reshape(panel.shape)
        if known.all() or not 9 <= known.sum() <= _LARGEST_FILL:
            return
        for name in self.exact:
            self._show(panel, name, _complete(name, self.exact[name][panel.nodes].reshape(panel.shape), known))

    def refine(self, panel: Panel, state: Refinement) -> None:
        """Take over one round of refinement: its values, its errors and the other quantities filled in."""
        self._show(panel, "losses", state.values)
        self.error[panel.nodes] = state.error_estimate.reshape(-1)
        lost = ~np.isfinite(state.values) & ~state.evaluated
        if state.exhaustive:
            return  # the rest follows exactly, and fits through this many points would hold it up
        for name in self.exact:
            if name != "losses":
                grid = _complete(name, self.exact[name][panel.nodes].reshape(panel.shape), state.evaluated)
                self._show(panel, name, np.where(lost, np.nan, grid))

    def _show(self, panel: Panel, name: str, grid: Array) -> None:
        missing = ~self.evaluated[panel.nodes]
        self.shown[name][panel.nodes[missing]] = grid.reshape(-1)[missing]


def _complete(name: str, values: Array, known: NDArray[np.bool_]) -> Array:
    """Interpolate the log of losses, and accuracies without overshooting [0, 1]."""
    if name in ACCURACIES:
        return np.clip(fill(values, known, smooth=False), 0.0, 1.0)
    usable = known & np.isfinite(values)
    if not usable.any() or values[usable].min() <= 0:
        return fill(values, known)
    logs = np.log(values, where=usable, out=np.full(values.shape, np.nan))
    return np.where(known, values, np.exp(np.minimum(fill(logs, known), 700.0)))
