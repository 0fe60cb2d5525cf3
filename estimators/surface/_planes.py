"""Where a map lies: the directions of a line, plane or volume, how far it reaches, and what its axes mean.

A new kind of direction is one function here and one entry in :data:`DIRECTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.planes.directions import (
    Frame,
    principal_directions,
    random_directions,
    random_walk_ratio,
    spanning_directions,
)
from ..core.planes.lattice import axis_through_zero, axis_through_zero_and_one, window
from ..core.spectrum.lanczos import lanczos_eigenpairs
from ..landscape import Landscape
from ..progress import OnProgress

MARGIN = 0.2  # share of the box around the models that is added on each side
_LINE_MARGIN = 0.25  # of a straight line beyond its two models
_AFFINE = {1: "line", 2: "plane", 3: "volume"}


@dataclass(frozen=True)
class MapPlane:
    """The line, plane or volume through a point that a map lies in.

    Attributes
    ----------
    origin : Tensor of shape (P,)
    directions : Tensor of shape (k, P)
    framed : ndarray of shape (n, k), or None
        Coordinates of the models it has to show; None where `span` decides.
    titles : list of str
    explained_variance_ratio, random_walk_variance_ratio, eigenvalues : ndarray
    end : Tensor or None
        The second model of a straight line, whose own bits are used at 1.
    notes : list of str
    """

    origin: Tensor
    directions: Tensor
    titles: list[str]
    framed: NDArray[np.float64] | None = None
    explained_variance_ratio: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    random_walk_variance_ratio: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    eigenvalues: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    end: Tensor | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_free(self) -> bool:
        """Whether nothing in it says how far it should reach."""
        return self.framed is None and self.end is None

    @property
    def frame(self) -> Frame:
        """Coordinates in it."""
        return Frame(self.origin, self.directions)

    def anchors(self) -> list[Tensor]:
        """Vectors whose combinations are its points, 1 + k of shape (P,); not copied."""
        return [self.origin, *(self.directions if self.end is None else [self.end])]

    def coefficients(self, coordinates: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights (n, 1 + k) of the anchors at coordinates (n, k)."""
        first = np.ones((len(coordinates), 1)) if self.end is None else 1.0 - coordinates
        return np.hstack([first, coordinates])

    def points(self, coordinates: NDArray[np.float64]) -> Tensor:
        """Return its points (n, P) at coordinates (n, k)."""
        anchors = torch.stack(self.anchors())
        return torch.as_tensor(self.coefficients(coordinates)).to(anchors) @ anchors


@dataclass(frozen=True)
class Request:
    """What a kind of direction may look at."""

    land: Landscape
    points: Tensor  # (n, P): the models given to fit, the one the map is centred on included
    one_path: bool  # whether they are one sequence of checkpoints
    n_dims: int
    normalization: str | None
    eigenvectors: str
    random_state: int
    on_progress: OnProgress
    enough: Callable[[int], bool]  # whether so many more products are too many


def random_plane(request: Request) -> MapPlane:
    """Draw Gaussian directions on the scale of the weights."""
    land = request.land
    generator = torch.Generator().manual_seed(request.random_state)
    directions = random_directions(
        land.theta, land.shapes, land.names, generator, request.n_dims, request.normalization
    )
    unit = {
        "filter": "filter norms",
        "layer": "layer norms",
        "model": "norm of θ",
    }.get(request.normalization or "none", "distance")
    ordinal = ("First", "Second", "Third")
    titles = [f"{ordinal[k]} random direction ({unit})" for k in range(request.n_dims)]
    if request.n_dims == 1:
        titles = [f"Random direction ({unit})"]
    return MapPlane(land.theta, directions, titles)


def hessian_plane(request: Request) -> MapPlane:
    """Find unit eigenvectors of the Hessian: the largest ones, or the largest and the most negative."""
    land, n = request.land, request.n_dims
    both = request.eigenvectors == "extremes"
    count = (n + 1) // 2 if both else n
    pairs = lanczos_eigenpairs(
        land.hvp,
        land.n_parameters,
        count,
        ends="both" if both and n > 1 else "largest",
        tol=1e-3,
        random_state=request.random_state,
        like=land.theta,
        on_step=lambda done, total: request.on_progress(done, total, "Hessian eigenvectors"),
        enough=request.enough,
    )
    chosen = [0, len(pairs.values) - 1, 1][:n] if both and n > 1 else list(range(n))
    values = pairs.values[chosen]
    notes = [
        f"Eigenvector {k + 1} has not converged: ‖Hv − λv‖ = {pairs.residuals[c]:.3g}."
        for k, c in enumerate(chosen)
        if not pairs.converged[c]
    ]
    titles = [f"Eigenvector of λ = {value:.4g} (distance)" for value in values]
    return MapPlane(land.theta, pairs.vectors[chosen], titles, eigenvalues=values, notes=notes)


def trajectory_plane(request: Request) -> MapPlane:
    """Take the principal components of the checkpoints, through the last one (Li et al. 2018, section 7).

    Beside their share of the variance stands that of a random walk with as many steps, where it is one sequence.
    """
    directions, ratio = principal_directions(request.points, request.n_dims)
    walk = random_walk_ratio(len(request.points), request.n_dims) if request.one_path else torch.empty(0)
    notes = []
    if len(walk) and float(ratio.sum()) <= float(walk.sum()):
        notes.append(
            f"The components hold {100 * float(ratio.sum()):.1f} % of the variance; those of a random walk with as "
            f"many steps hold {100 * float(walk.sum()):.1f} %: the share and the shape of the path in this plane are "
            "no sign of preferred directions (Antognini & Sohl-Dickstein 2018)."
        )
    return MapPlane(
        request.land.theta,
        directions,
        [f"Component {k + 1}: {100 * float(r):.1f} % of variance (distance)" for k, r in enumerate(ratio)],
        explained_variance_ratio=ratio.numpy(),
        random_walk_variance_ratio=walk.numpy(),
        framed=_coordinates(request.land.theta, directions, request.points),
        notes=notes,
    )


def model_plane(request: Request) -> MapPlane:
    """Span the plane through three models (line through two, volume through four)."""
    needed = request.n_dims + 1
    if len(request.points) != needed:
        raise ValueError(
            f"models must be {needed} models for a {_AFFINE[request.n_dims]} through them, got "
            f"{len(request.points)}. Give {needed} models, or change n_dims."
        )
    origin = request.land.theta
    others = [p for p in request.points if not torch.equal(p, origin)]
    directions = spanning_directions(torch.stack([origin, *others]))
    titles = ["Toward the second model (distance)"]
    titles += [f"Across, toward model {k + 3} (distance)" for k in range(request.n_dims - 1)]
    return MapPlane(origin, directions, titles, framed=_coordinates(origin, directions, request.points))


def straight_line(request: Request) -> MapPlane:
    """Take the straight line between two models: 0 is the first, 1 the second (Goodfellow et al. 2015)."""
    if request.n_dims != 1 or len(request.points) != 2:
        raise ValueError(
            f"directions='linear' must have n_dims=1 and two models, got n_dims={request.n_dims} and "
            f"{len(request.points)} models. Use directions='models' for a plane."
        )
    end = request.points[1]
    step = end - request.land.theta
    if not step.any():
        raise ValueError("models must differ, got the same weights twice. Give two models.")
    return MapPlane(request.land.theta, step[None], ["Position (0 = first model, 1 = second)"], end=end)


def _coordinates(origin: Tensor, directions: Tensor, points: Tensor) -> NDArray[np.float64]:
    return np.asarray(Frame(origin, directions).project(points))


DIRECTIONS: dict[str, Callable[[Request], MapPlane]] = {
    "random": random_plane,
    "hessian": hessian_plane,
    "trajectory": trajectory_plane,
    "models": model_plane,
    "linear": straight_line,
}
EIGENVECTORS = ("largest", "extremes")


def axes_of(plane: MapPlane, sizes: Sequence[int], spans: Sequence[float]) -> list[NDArray[np.float64]]:
    """Lay coordinates along each direction: half-widths `spans`, or that many times what its models ask for."""
    if plane.end is not None:
        return [axis_through_zero_and_one(_LINE_MARGIN * spans[0], sizes[0])]
    ends = [(-s, s) for s in spans] if plane.framed is None else window(plane.framed, MARGIN, spans)
    return [axis_through_zero(*end, n) for end, n in zip(ends, sizes, strict=True)]


def grown_spans(
    plane: MapPlane, level: float, losses: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> list[float]:
    """Find the smallest half-width along each direction, to a tenth, at whose ends the loss has risen to a level.

    Parameters
    ----------
    plane : MapPlane
    level : float
    losses : callable
        Losses (n,) at coordinates (n, k); one that is not finite has risen, too.
    """
    smallest = 0.01 * max(float(plane.origin.norm()), 1e-3)
    found = []
    for k, direction in enumerate(plane.directions):
        ends = np.zeros((2, len(plane.directions)))
        ends[:, k] = -1.0, 1.0
        found.append(_grown(ends, level, losses, smallest / (float(direction.norm()) or 1.0)))
    return found


def _grown(
    ends: NDArray[np.float64],
    level: float,
    losses: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    high: float,
) -> float:
    def has_risen(span: float) -> bool:
        return not bool((losses(span * ends) < level).all())

    for _ in range(16):
        if has_risen(high):
            break
        high *= 2.0
    low = high / 2.0
    for _ in range(3):
        middle = (low + high) / 2
        low, high = (low, middle) if has_risen(middle) else (middle, high)
    return high
