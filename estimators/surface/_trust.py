"""How much a slice says about the whole: what lies in its plane, how its curvature compares, how other draws look."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..core.planes.directions import inner_products, random_directions
from ..core.spectrum.lanczos import lanczos_eigenpairs
from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress, shares
from ..results import Result, Uncertainty
from ._result import SurfaceResult

_NAN = float("nan")
_AXES = ("x", "y", "z")


@dataclass(frozen=True, eq=False, kw_only=True)
class SliceTrust(Result):
    """What a map can say about the whole landscape around its origin.

    Shares are of squared lengths, in [0, 1]. A plane of k random directions holds k/P of anything on average
    (``chance``).

    Attributes
    ----------
    n_parameters, n_dims : int
        P, and directions of the slice.
    chance : float
        k/P.
    gradient_norm, gradient_share : float
        Of the gradient at the origin: its norm, and the share of it in the slice.
    eigenvalues, residuals, eigenvector_shares : ndarray of shape (m,)
        The largest Hessian eigenvalues, ‖Hv − λv‖, and the share of each eigenvector in the slice.
    space_share : float
        Share of the space of these eigenvectors in the slice, as far as it could be: Σ shares / min(m, k).
    trajectory_share : float
        Share of the trajectories' way from the origin that lies in the slice; NaN without a trajectory.
    slice_curvatures, hessian_curvatures : ndarray of shape (k,)
        Along each direction, for a unit step: the second difference of the loss over one step of the grid, and uᵀHu.
        They differ where the loss is not quadratic over one step.
    band_t : ndarray of shape (n,)
        Positions along the first axis, in lengths of its direction.
    band_own, band_losses : ndarray of shape (n,) and (n_draws, n)
        Loss along the first direction, and along other random directions of the same length, through the origin.
    band_normalization : str
        How those draws are scaled: as asked, or "none" where that leaves nothing of them (weights of 0, biases alone).
    sentence : str
        What the picture can't show.

    Examples
    --------
    >>> from estimators import SurfaceMapper, load_data, load_model
    >>> model, data = load_model("test_resnet", num_classes=10), load_data("digits", n_samples=16)
    >>> trust = SurfaceMapper(resolution=5).fit(model, data).trust(n_eigenvectors=1, n_draws=2)
    >>> trust.band_losses.shape, trust.gradient_share < 0.01
    ((2, 15), True)
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {"residuals": Uncertainty("residual", "eigenvalues")}

    kind: ClassVar[str] = "slice_trust"

    n_parameters: int = 0
    n_dims: int = 0
    chance: float = _NAN
    gradient_norm: float = _NAN
    gradient_share: float = _NAN
    eigenvalues: np.ndarray = field(default_factory=lambda: np.empty(0))
    residuals: np.ndarray = field(default_factory=lambda: np.empty(0))
    eigenvector_shares: np.ndarray = field(default_factory=lambda: np.empty(0))
    space_share: float = _NAN
    trajectory_share: float = _NAN
    slice_curvatures: np.ndarray = field(default_factory=lambda: np.empty(0))
    hessian_curvatures: np.ndarray = field(default_factory=lambda: np.empty(0))
    band_t: np.ndarray = field(default_factory=lambda: np.empty(0))
    band_own: np.ndarray = field(default_factory=lambda: np.empty(0))
    band_losses: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    band_normalization: str = "none"
    sentence: str = ""

    def table(self) -> list[dict[str, Any]]:
        """Give one row a number, for a CSV."""
        rows = [
            {"quantity": name, "value": float(getattr(self, name))}
            for name in ("chance", "gradient_norm", "gradient_share", "space_share", "trajectory_share")
        ]
        for k, (value, share) in enumerate(zip(self.eigenvalues, self.eigenvector_shares, strict=True)):
            rows += [{"quantity": f"eigenvalue {k + 1}", "value": float(value)}]
            rows += [{"quantity": f"eigenvector {k + 1} share", "value": float(share)}]
        for k, (seen, exact) in enumerate(zip(self.slice_curvatures, self.hessian_curvatures, strict=True)):
            rows += [{"quantity": f"slice curvature {k + 1}", "value": float(seen)}]
            rows += [{"quantity": f"Hessian curvature {k + 1}", "value": float(exact)}]
        return rows


def trust_of_slice(
    result: SurfaceResult,
    land: Landscape,
    directions: Tensor,
    *,
    n_eigenvectors: int = 3,
    n_draws: int = 8,
    n_points: int = 15,
    normalization: str | None = "filter",
    random_state: int = 0,
    losses: Callable[[Tensor, np.ndarray], np.ndarray] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> SliceTrust:
    """Measure how much a map says about the landscape around its origin.

    Parameters
    ----------
    result : SurfaceResult
        The map; its axes give the steps, its trajectories what the way is.
    land : Landscape
        With the map's origin as its own point.
    directions : Tensor of shape (k, P)
        The map's.
    n_eigenvectors : int, default=3
        Largest Hessian eigenvalues whose eigenvectors are looked for, at some ten products each; 0 looks for none.
    n_draws, n_points : int, default=8, 15
        Other random directions, and positions on each.
    normalization : str or None, default="filter"
        How those are scaled, before they get the length of the first direction.
    random_state : int, default=0
        Seed of the draws, none of which is the map's own, and of the search.
    losses : callable, optional
        ``losses(anchors (K, P), coefficients (n, K)) -> (n,)``; by default `land.evaluate`.
    on_progress : callable, optional

    Returns
    -------
    SliceTrust
    """
    evaluate = losses or (lambda anchors, weights: land.evaluate(anchors, weights).losses)
    on_gradient, on_search, on_products, on_band = shares(on_progress, [3, 30 * n_eigenvectors, 30, n_draws * n_points])
    basis = torch.linalg.qr(directions.double().T).Q.T  # (k, P), orthonormal
    lengths = directions.double().norm(dim=1)
    gradient = land.gradient()
    on_gradient(1, 1, "gradient")
    fields: dict[str, Any] = {
        "n_parameters": land.n_parameters,
        "n_dims": len(basis),
        "chance": min(1.0, len(basis) / land.n_parameters),
        "gradient_norm": float(gradient.double().norm()),
        "gradient_share": float(_share(basis, gradient[None])[0]),
        "trajectory_share": _trajectory_share(result, directions),
    }
    if n_eigenvectors:
        wanted = min(n_eigenvectors, land.n_parameters)
        pairs = lanczos_eigenpairs(
            land.hvp,
            land.n_parameters,
            wanted,
            ends="largest",
            tol=1e-3,
            random_state=random_state,
            like=land.theta,
            on_step=lambda done, total: on_search(done, total, "Hessian eigenvectors"),
        )
        held = _share(basis, pairs.vectors)
        fields |= {
            "eigenvalues": np.asarray(pairs.values),
            "residuals": np.asarray(pairs.residuals),
            "eigenvector_shares": held,
            "space_share": float(held.sum() / min(len(held), len(basis))),
        }
    units = (directions.double() / lengths[:, None]).to(land.theta)
    products = land.hvp(units.T.contiguous()).T
    steps = np.array([float(np.median(np.diff(axis))) for axis in result.axes])
    anchors = torch.cat([land.theta[None], directions.to(land.theta)])
    ends = np.concatenate([np.ones((1, 1)), np.ones((2 * len(steps), 1))])
    ends = np.hstack([ends, np.concatenate([np.zeros((1, len(steps))), np.diag(steps), -np.diag(steps)])])
    found = evaluate(anchors, ends)
    reach = steps * lengths.cpu().numpy()
    fields["slice_curvatures"] = (found[1 : len(steps) + 1] + found[len(steps) + 1 :] - 2 * found[0]) / reach**2
    fields["hessian_curvatures"] = (units.double() * products.double()).sum(dim=1).cpu().numpy()
    on_products(1, 1, "curvature of the slice")
    fields |= _band(result, land, directions, n_draws, n_points, normalization, random_state, evaluate, on_band)
    settings = {**result.settings, "n_draws": n_draws, "n_eigenvectors": n_eigenvectors, "trust_seed": random_state}
    return SliceTrust(settings=settings, sentence=_sentence(fields), **fields)


def _share(basis: Tensor, vectors: Tensor) -> np.ndarray:
    """Share of the squared length of each vector (n, P) that lies in the span of an orthonormal basis (k, P)."""
    rows = vectors.double()
    whole = rows.square().sum(dim=1)
    inside = (rows @ basis.T.to(rows.device)).square().sum(dim=1)
    return torch.where(whole > 0, inside / whole, torch.nan).clamp_max(1.0).cpu().numpy()


def _trajectory_share(result: SurfaceResult, directions: Tensor) -> float:
    """Share of the trajectories' squared distances from the origin that lies in the slice."""
    inner = inner_products(directions).cpu().numpy()
    inside = outside = 0.0
    for path in result.trajectories:
        at = np.stack([np.asarray(path[name], float) for name in _AXES[: len(inner)]], axis=1)
        inside += float(np.einsum("nk,kl,nl->", at, inner, at))
        outside += float(np.square(np.asarray(path["distance"], float)).sum())
    return inside / (inside + outside) if inside + outside > 0 else _NAN


def _band(
    result: SurfaceResult,
    land: Landscape,
    directions: Tensor,
    n_draws: int,
    n_points: int,
    normalization: str | None,
    random_state: int,
    evaluate: Callable[[Tensor, np.ndarray], np.ndarray],
    report: OnProgress,
) -> dict[str, Any]:
    """Profiles along the first direction and along other draws of its length."""
    first, axis = directions[0].to(land.theta), np.asarray(result.axes[0])
    t = np.linspace(axis[0], axis[-1], n_points)
    generator = torch.Generator().manual_seed(random_state + 0x51CE)

    def draw(scaling: str | None) -> Tensor:
        return random_directions(land.theta, land.shapes, land.names, generator, 1, scaling)[0]

    if not draw(normalization).any():
        normalization = None
    profiles = []
    for k in range(n_draws + 1):
        drawn = first
        if k:
            drawn = draw(normalization)
            drawn = drawn * (first.norm() / drawn.norm())
        weights = np.stack([np.ones(n_points), t], axis=1)
        profiles.append(evaluate(torch.stack([land.theta, drawn]), weights))
        report(k + 1, n_draws + 1, "other draws")
    return {
        "band_t": t,
        "band_own": profiles[0],
        "band_losses": np.array(profiles[1:]).reshape(n_draws, n_points),
        "band_normalization": normalization or "none",
    }


def _sentence(fields: dict[str, Any]) -> str:
    """Say in one sentence what the picture can't show."""
    held = [f"{_percent(fields['gradient_share'])} of the gradient"]
    eigenvalues = fields.get("eigenvalues", np.empty(0))
    if len(eigenvalues):
        many = f"the {len(eigenvalues)} sharpest eigenvectors" if len(eigenvalues) > 1 else "the sharpest eigenvector"
        held.append(f"{_percent(fields['space_share'])} of the room it has for {many}")
    if np.isfinite(fields["trajectory_share"]):
        held.append(f"{_percent(fields['trajectory_share'])} of the way of the training")
    listed = held[0] if len(held) == 1 else ", ".join(held[:-1]) + " and " + held[-1]
    steepest = float(np.max(fields["hessian_curvatures"]))
    top = ""
    if len(eigenvalues) and eigenvalues[0] > 0:
        top = f", and curves at most {_percent(max(steepest, 0.0) / float(eigenvalues[0]))} as much as the sharpest one"
    return (
        f"Of {fields['n_parameters']:,} directions the picture shows {fields['n_dims']}, holds {listed}{top}: a way "
        "down, a wall or another basin outside them does not show in it."
    )


def _percent(share: float) -> str:
    if not np.isfinite(share):
        return "an unknown share"
    return "less than 0.01 %" if 0 <= share < 1e-4 else f"{100 * share:.3g} %"
