"""Basins of a loss map: connected parts of its sublevel sets, and how deep each one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Basin:
    """One basin of the sublevel sets {L ≤ c}.

    Attributes
    ----------
    row, column : int
        Lattice position of its lowest point.
    birth : float
        Value of the lowest point, where the basin appears as c grows.
    death : float
        Value of the pass over which it joins a lower basin; infinite for the lowest basin of all.
    """

    row: int
    column: int
    birth: float
    death: float

    @property
    def persistence(self) -> float:
        """Depth of the basin below the pass that leads out of it, in the unit of the values."""
        return self.death - self.birth


def basins(values: Array, *, min_persistence: float = 0.0) -> list[Basin]:
    """Find the basins of a map and how long each one lives as the level rises.

    Parameters
    ----------
    values : ndarray of shape (R1, R2)
        Losses, or their logs to measure depth in decades; cells that are not finite count as walls.
    min_persistence : float, default=0
        Basins that are no deeper than this are left out; use it to ignore noise.

    Returns
    -------
    list of Basin
        Deepest first. Cells that share an edge or a corner are neighbours.

    Raises
    ------
    ImportError
        When the extra ``topology`` is not installed.

    References
    ----------
    Edelsbrunner and Harer, "Computational Topology", 2010, chapter VII.
    """
    walls = np.where(np.isfinite(values), values, np.inf)
    complex_ = _gudhi().CubicalComplex(top_dimensional_cells=walls)
    complex_.compute_persistence(min_persistence=min_persistence)
    finite, essential = complex_.cofaces_of_persistence_pairs()
    found = []
    for born, died in finite[0] if finite else []:
        found.append(_basin(walls, int(born), float(walls.reshape(-1, order="F")[int(died)])))
    for born in essential[0] if essential else []:
        found.append(_basin(walls, int(born), np.inf))
    alive = [b for b in found if np.isfinite(b.birth)]
    return sorted(alive, key=lambda b: (-b.persistence, b.birth, b.row, b.column))


def _basin(values: Array, cell: int, death: float) -> Basin:
    row, column = np.unravel_index(cell, values.shape, order="F")  # gudhi counts cells column by column
    return Basin(int(row), int(column), float(values[row, column]), death)


def _gudhi() -> Any:
    try:
        import gudhi
    except ImportError as error:
        raise ImportError(
            "Counting basins needs the library gudhi. Install it with: pip install 'loss-atlas[topology]'"
        ) from error
    return gudhi
