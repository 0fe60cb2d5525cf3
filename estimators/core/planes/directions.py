"""Directions through weight space: random, principal, and planes through models.

Every function works on flat vectors of length P in the order of
``torch.nn.utils.parameters_to_vector``; the split into parameters comes in as ``shapes`` and ``names``.
Nothing here knows a network.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# A norm's weight may have two or more axes (LayerNorm over an image); only its name tells it apart.
_NORM_WEIGHT = re.compile(r"(^|[._])(norm|bn|ln)\d*\.weight$")
_BLOCK = 1 << 17  # columns turned into float64 at a time, so that long vectors need no second copy


def is_filtered_out(shape: Sequence[int], name: str) -> bool:
    """Tell whether filter normalisation leaves this parameter still: biases, norm and scale parameters."""
    scale_only = len(shape) == 3 and tuple(shape[1:]) == (1, 1)
    return len(shape) <= 1 or scale_only or name.endswith("bias") or bool(_NORM_WEIGHT.search(name))


def filter_rows(shape: Sequence[int], name: str) -> tuple[int, int]:
    """Split one parameter into filters.

    A filter is one slice along the first axis of a weight with two or more axes. Tables of tokens of shape
    (1, ..., D) that are not called ``weight`` (position embeddings, class tokens) are split token by token.

    Returns
    -------
    (n_filters, filter_size)
        A reshape of the parameter to this shape has one filter in a row.
    """
    numel = math.prod(shape)
    if len(shape) >= 3 and shape[0] == 1 and not name.endswith("weight"):
        return numel // shape[-1], shape[-1]
    return (shape[0], numel // shape[0]) if numel else (0, 0)


Split = Callable[[Sequence[int], str], tuple[int, int]]
# name -> (how one parameter is split into blocks, or None for the whole vector; whether a block takes the norm of the
# same block of θ)
NORMALIZATIONS: dict[str, tuple[Split | None, bool]] = {
    "filter": (filter_rows, True),
    "layer": (lambda shape, name: (1, math.prod(shape)), True),
    "model": (None, True),
    "none": (None, False),
}


def random_directions(
    theta: Tensor,
    shapes: Sequence[Sequence[int]],
    names: Sequence[str],
    generator: torch.Generator,
    n_directions: int = 2,
    normalization: str | None = "filter",
) -> Tensor:
    """Draw Gaussian directions that are orthogonal to one another and scaled like the weights.

    Parameters
    ----------
    theta : Tensor of shape (P,)
        The point whose norms are copied.
    shapes, names : sequences
        Shape and dotted name of each parameter, in the order of `theta`.
    generator : torch.Generator
        On the CPU; drawn in float64, so that draws are the same for every dtype and device of `theta`.
    n_directions : int, default=2
    normalization : {"filter", "layer", "model", "none"} or None, default="filter"
        The blocks whose norms are copied from `theta`. "filter" and "layer" give biases, norm and scale
        parameters zero; "model" scales the whole vector to ‖θ‖; "none" (or None) to length 1, so that an
        axis reads as a distance.

    Returns
    -------
    Tensor of shape (n_directions, P), of the dtype and on the device of `theta`
        Later directions are made orthogonal to earlier ones *inside each block* and then scaled, which keeps
        them orthogonal as a whole. A filter with fewer elements than directions has no room left: its part
        is zero.

    References
    ----------
    Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018, section 4.
    """
    key = "none" if normalization is None else normalization
    if key not in NORMALIZATIONS:
        raise ValueError(
            f"normalization must be one of {', '.join(NORMALIZATIONS)} or None, got {normalization!r}. "
            "Choose one of these."
        )
    split, copies_norm = NORMALIZATIONS[key]
    if split is None:
        blocks: list[tuple[int, tuple[int, int] | None]] = [(theta.numel(), (1, theta.numel()))]
    else:
        named = zip(shapes, names, strict=True)
        blocks = [(math.prod(s), None if is_filtered_out(s, n) else split(s, n)) for s, n in named]
    out = torch.zeros((n_directions, theta.numel()), dtype=theta.dtype, device=theta.device)
    draws = _independent_draws(theta.numel(), n_directions, generator)
    start = 0
    for size, block in blocks:
        stop = start + size
        if block is not None and size:
            together = max(1, _BLOCK // 8 // block[1])  # filters, which are independent of each other
            for row in range(0, block[0], together):
                rows = (min(together, block[0] - row), block[1])
                where = slice(start + row * block[1], start + (row + rows[0]) * block[1])
                reference = theta[where].detach().to("cpu", torch.float64).reshape(rows)
                target = reference.norm(dim=1, keepdim=True) if copies_norm else torch.ones((1, 1)).double()
                basis: list[Tensor] = []
                for k, draw in enumerate(draws):
                    unit = _orthogonal_rows(draw.take(math.prod(rows)).reshape(rows), basis)
                    basis.append(unit)
                    out[k, where] = (unit * target).reshape(-1).to(out)
        elif size:
            for draw in draws:
                draw.skip(size)
        start = stop
    return out


class _Draw:
    """`torch.randn(n, dtype=float64, generator=...)` a piece at a time, number for number."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.left, self.generator = n, generator
        self.ready, self.at = torch.empty(0, dtype=torch.float64), 0

    def take(self, size: int) -> Tensor:
        """Give the next `size` numbers."""
        if self.at + size > len(self.ready):
            pieces = [self.ready[self.at :]]
            while sum(map(len, pieces)) < size:
                pieces.append(self.piece())
            self.ready, self.at = torch.cat(pieces), 0
        self.at += size
        return self.ready[self.at - size : self.at]

    def skip(self, size: int) -> None:
        """Leave the next `size` numbers out."""
        while size:
            size -= len(self.take(min(size, _BLOCK)))

    def piece(self) -> Tensor:
        """Draw on."""
        # torch draws in groups of 16, and the last 16 anew where the end is no whole group: that end stays whole
        count = self.left if self.left < _BLOCK + 32 else _BLOCK
        self.left -= count
        return torch.randn(count, dtype=torch.float64, generator=self.generator)


def _independent_draws(n: int, count: int, generator: torch.Generator) -> list[_Draw]:
    """Give `count` draws of n numbers one after the other in the stream, to be read side by side."""
    draws = []
    for _ in range(count):
        draws.append(_Draw(n, generator.clone_state()))
        ahead = _Draw(n, generator)
        while ahead.left:
            ahead.piece()
    return draws


def _orthogonal_rows(rows: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """Return `rows` orthogonal to the unit rows of `basis` and of length 1; rows without room become zero."""
    before = rows.norm(dim=1, keepdim=True)
    for _ in range(2 if basis else 0):  # the second pass removes what rounding left of the first
        for unit in basis:
            rows = rows - (rows * unit).sum(dim=1, keepdim=True) * unit
    after = rows.norm(dim=1, keepdim=True)
    has_room = after > 1e-9 * before
    return torch.where(has_room, rows / after.clamp_min(torch.finfo(rows.dtype).tiny), torch.zeros_like(rows))


def inner_products(rows: Tensor, others: Tensor | None = None) -> Tensor:
    """Inner products of rows in float64, (n, m), accumulated over blocks of columns."""
    others = rows if others is None else others
    total = torch.zeros((len(rows), len(others)), dtype=torch.float64)
    for a in range(0, rows.shape[1], _BLOCK):
        left, right = rows[:, a : a + _BLOCK].double(), others[:, a : a + _BLOCK].double()
        total += (left @ right.T).cpu()
    return total


def largest_cosine(directions: Tensor) -> float:
    """Return the largest absolute cosine between two of the directions; 0 for a single one."""
    if len(directions) < 2:
        return 0.0
    inner = inner_products(directions)
    norms = inner.diagonal().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    cosines = (inner / norms[:, None] / norms[None, :]).abs()
    cosines.fill_diagonal_(0.0)
    return float(cosines.max())


def principal_directions(points: Tensor, n_directions: int = 2) -> tuple[Tensor, Tensor]:
    """Principal components of the points of a trajectory.

    Parameters
    ----------
    points : Tensor of shape (n, P)
    n_directions : int, default=2
        At most n - 1, and at most as many as the points span.

    Returns
    -------
    directions : Tensor of shape (n_directions, P)
        Orthonormal; the largest component of each is positive, so that the sign is not the solver's.
    explained_variance_ratio : Tensor of shape (n_directions,), float64
        Share of the variance about the mean of the points, as in ``sklearn.decomposition.PCA``.

    Raises
    ------
    ValueError
        When the points span fewer directions than asked for.
    """
    centred = points - points.mean(dim=0, keepdim=True)
    values, vectors = torch.linalg.eigh(inner_products(centred))
    values, vectors = values.flip(0).clamp_min(0.0), vectors.flip(1)
    rank = int((values > 1e-10 * values[:1].clamp_min(torch.finfo(torch.float64).tiny)).sum())
    if rank < n_directions:
        raise ValueError(
            f"the checkpoints must span at least {n_directions} directions, got {len(points)} that span "
            f"{rank}. Give more checkpoints that differ, or lower n_dims."
        )
    scaled = vectors[:, :n_directions] / values[:n_directions].sqrt()
    directions = scaled.T.to(points) @ centred
    directions = directions / directions.norm(dim=1, keepdim=True)
    peak = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return directions * peak.sign(), values[:n_directions] / values.sum()


def random_walk_ratio(n_points: int, n_directions: int = 2) -> Tensor:
    """Share of variance that principal components of a random walk explain, without any preferred direction.

    The covariance of a centred walk with independent steps of equal size is the pseudo-inverse of the Laplacian of a
    path, in the limit of many dimensions (Antognini & Sohl-Dickstein, "PCA of high dimensional random walks with
    comparison to neural network training", NeurIPS 2018): the shares fall like 1 / sin²(πk / 2n), to 61 % and 15 %
    for long walks.

    Parameters
    ----------
    n_points : int
        Points of the walk, its start included.
    n_directions : int, default=2

    Returns
    -------
    Tensor of shape (n_directions,), float64
    """
    k = torch.arange(1, n_points, dtype=torch.float64)
    values = torch.sin(torch.pi * k / (2 * n_points)) ** -2
    return values[:n_directions] / values.sum()


def spanning_directions(points: Tensor) -> Tensor:
    """Orthonormal directions from the first point through the others: (n - 1, P) for n points.

    With three points, the plane of Garipov et al. 2018: u = B − A, v = C − A made orthogonal to u.
    """
    basis: list[Tensor] = []
    for k in range(1, len(points)):
        step = points[k] - points[0]
        length = float(step.norm())
        for _ in range(2):
            for unit in basis:
                step = step - (step @ unit) * unit
        if not float(step.norm()) > 1e-5 * length:
            raise ValueError(
                f"the models must lie in general position, got a model {k + 1} that is a copy of another "
                "one or on a line with the others. Give models that differ."
            )
        basis.append(step / step.norm())
    return torch.stack(basis)


class Frame:
    """Coordinates in the affine plane (line, volume) through `origin` along `directions`.

    Parameters
    ----------
    origin : Tensor of shape (P,)
    directions : Tensor of shape (k, P)
        Need not be orthogonal nor of length 1: coordinates are the least-squares solution.
    """

    def __init__(self, origin: Tensor, directions: Tensor) -> None:
        self.origin, self.directions = origin, directions
        inner = inner_products(directions)
        self._scale = inner.diagonal().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
        self._inverse = torch.linalg.pinv(inner / self._scale[:, None] / self._scale[None, :], hermitian=True)

    def project(self, points: Tensor) -> Tensor:
        """Coordinates of the nearest points of the plane, float64 (n, k), in lengths of the directions."""
        right = inner_products(points - self.origin, self.directions)
        return (right / self._scale) @ self._inverse / self._scale

    def residual(self, points: Tensor) -> Tensor:
        """Euclidean distances (n,) of the points from the plane, float64."""
        coordinates = self.project(points)
        out = torch.zeros(len(points), dtype=torch.float64)
        for a in range(0, self.origin.numel(), _BLOCK):
            columns = slice(a, a + _BLOCK)
            gap = points[:, columns].double() - self.origin[columns].double()
            inside = coordinates.to(gap.device) @ self.directions[:, columns].double()
            out += (gap - inside).square().sum(dim=1).cpu()
        return out.sqrt()

    def point(self, coordinates: Tensor) -> Tensor:
        """Return the points (n, P) at the coordinates (n, k)."""
        return self.origin + coordinates.to(self.directions) @ self.directions
