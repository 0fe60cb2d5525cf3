"""Critical points of a chosen index by eigenvector following.

A critical point has ∇f = 0; its index is the number of negative eigenvalues of the Hessian. Written in the
Hessian's eigenvectors, the step goes up along the k softest modes and down along all others, each divided by
|λ|: near a critical point of index k this is Newton's step, far from it the signs keep the walk from falling
to another index (Cerjan & Miller 1981; Banerjee et al. 1985; for losses see Dauphin et al. 2014).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .objectives import Objective

OnStep = Callable[[int, int], None]

TRUST, SMALLEST_TRUST, LARGEST_TRUST = 0.5, 0.01, 1.0
ALMOST_THERE = 1e-5  # gradient norm below which the quadratic model is trusted as it is
FLAT = 1e-8  # eigenvalues below this fraction of the largest magnitude count as zero
# Operations with a jump in their first derivative: no Hessian exists at the kink, and none of the theory
# holds.
KINKS = (
    "relu",
    "threshold",
    "leaky_relu",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "prelu",
    "rrelu",
    "clamp",
    "abs",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "adaptive_max_pool2d",
    "maximum",
    "minimum",
    "amax",
    "floor",
    "round",
)


@dataclass(frozen=True)
class CriticalPoint:
    """Where one search ended.

    Attributes
    ----------
    theta : Tensor of shape (P,)
        The point.
    loss : float
        Objective there (with its L2 term, if it has one).
    gradient_norm : float
        ‖∇f‖.
    eigenvalues : Tensor of shape (P,) or (n_modes,)
        Ascending; all of them for a dense search, the extreme ones for a Lanczos search.
    modes : Tensor of shape (2, P)
        Unit eigenvectors of the most negative and of the most positive eigenvalue.
    index, n_zero : int
        Eigenvalues below, and within, ±1e-8 of the largest magnitude.
    asked : int
        Index the search was for.
    steps : int
        Steps taken.
    tolerance : float
        Gradient norm that was asked for.
    """

    theta: Tensor
    loss: float
    gradient_norm: float
    eigenvalues: Tensor
    modes: Tensor
    index: int
    n_zero: int
    asked: int
    steps: int
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether the gradient is as small as asked: otherwise the point is not a critical point."""
        return self.gradient_norm <= self.tolerance

    @property
    def found(self) -> bool:
        """Whether it is a critical point of exactly the index asked, with no zero eigenvalue."""
        return self.converged and self.index == self.asked and self.n_zero == 0


def signature(eigenvalues: Tensor) -> tuple[int, int]:
    """Count negative and zero eigenvalues; zero is within ±1e-8 of the largest magnitude."""
    band = FLAT * float(eigenvalues.abs().max())
    return int((eigenvalues < -band).sum()), int((eigenvalues.abs() <= band).sum())


def find_critical_points(
    objective: Objective,
    starts: Tensor,
    index: int,
    *,
    tol: float = 1e-9,
    max_steps: int = 200,
    on_step: OnStep | None = None,
) -> list[CriticalPoint]:
    """Search for critical points of one index from many starts, with dense Hessians in float64.

    Parameters
    ----------
    objective : Objective
        Smooth; P up to a few hundred.
    starts : Tensor of shape (S, P)
        Where to begin.
    index : int
        Number of negative eigenvalues wanted, 0 ≤ index < P.
    tol : float, default=1e-9
        Gradient norm at which a search has converged.
    max_steps : int, default=200
        Steps after which a search is given up as it stands.
    on_step : callable, default=None
        `on_step(done, total)` after each step of all searches; what it raises ends them.

    Returns
    -------
    list of CriticalPoint
        One for each start, in order, converged or not.
    """
    thetas = starts.detach().clone()
    trust = torch.full((len(thetas),), TRUST, dtype=thetas.dtype, device=thetas.device)
    steps = torch.zeros(len(thetas), dtype=torch.long)
    values, gradients = objective.values_and_gradients(thetas)
    for done in range(max_steps):
        # a loss that left the finite numbers has no step to take
        active = torch.nonzero((gradients.norm(dim=1) > tol) & values.isfinite()).flatten()
        if not len(active):
            break
        move, predicted = _following_steps(objective, thetas[active], gradients[active], index, trust[active])
        before = gradients[active].norm(dim=1)
        thetas[active] += move
        new_values, new_gradients = objective.values_and_gradients(thetas[active])
        error = ((new_values - values[active] - predicted) / predicted).abs()
        trust[active] = torch.where(before < ALMOST_THERE, trust[active], next_trust(trust[active], error))
        values[active], gradients[active] = new_values, new_gradients
        steps[active.cpu()] += 1
        if on_step is not None:
            on_step(done + 1, max_steps)
    thetas, values, gradients = _polish(objective, thetas, values, gradients, tol)
    return [
        _dense_point(objective, t, float(v), float(g.norm()), index, int(n), tol)
        for t, v, g, n in zip(thetas, values, gradients, steps, strict=True)
    ]


def kinks(function: Callable[[], object]) -> tuple[str, ...]:
    """Name the non-smooth operations that calling `function` runs (ReLU, max pooling, clamp, ...)."""
    seen: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__.rstrip("_")
            base = name.removesuffix("_with_indices").removesuffix("_min").removesuffix("_max")
            if name in KINKS or base in KINKS:
                seen.add(base)
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        function()
    return tuple(sorted(seen))


def _following_steps(
    objective: Objective, thetas: Tensor, gradients: Tensor, index: int, trust: Tensor
) -> tuple[Tensor, Tensor]:
    """Give steps (S, P) inside the trust radii, and the change of f that the model predicts for them."""
    eigenvalues, vectors = torch.linalg.eigh(objective.hessians(thetas))
    slopes = (vectors.transpose(1, 2) @ gradients.unsqueeze(-1)).squeeze(-1)
    signs = torch.ones_like(eigenvalues)
    signs[:, :index] = -1.0
    amounts = -signs * slopes / eigenvalues.abs().clamp_min(1e-6)
    amounts *= (trust / amounts.norm(dim=1)).clamp_max(1.0).unsqueeze(1)
    predicted = (slopes * amounts + 0.5 * eigenvalues * amounts.square()).sum(1)
    return (vectors @ amounts.unsqueeze(-1)).squeeze(-1), predicted


def next_trust(trust: Tensor, error: Tensor) -> Tensor:
    """Halve the radius where the quadratic model was wrong by 75 %, widen it where it was right to 25 %."""
    shrunk = torch.where(error > 0.75, trust * 0.5, trust)
    return torch.where(error < 0.25, trust * 1.3, shrunk).clamp(SMALLEST_TRUST, LARGEST_TRUST)


def _polish(
    objective: Objective, thetas: Tensor, values: Tensor, gradients: Tensor, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Take two more Newton steps where the search converged: quadratic convergence then reaches rounding."""
    for _ in range(2):
        close = torch.nonzero(gradients.norm(dim=1) <= tol).flatten()
        if not len(close):
            break
        trial = thetas[close] - torch.linalg.lstsq(
            objective.hessians(thetas[close]), gradients[close].unsqueeze(-1)
        ).solution.squeeze(-1)
        new_values, new_gradients = objective.values_and_gradients(trial)
        better = new_gradients.norm(dim=1) < gradients[close].norm(dim=1)
        rows = close[better]
        thetas[rows], values[rows], gradients[rows] = trial[better], new_values[better], new_gradients[better]
    return thetas, values, gradients


def _dense_point(
    objective: Objective,
    theta: Tensor,
    value: float,
    gradient_norm: float,
    asked: int,
    steps: int,
    tol: float,
) -> CriticalPoint:
    hessian = objective.hessians(theta[None])[0]
    if not hessian.isfinite().all():
        empty = torch.full((len(theta),), torch.nan, dtype=theta.dtype)
        return CriticalPoint(
            theta, value, float("inf"), empty, torch.zeros(2, len(theta)).to(theta), 0, 0, asked, steps, tol
        )
    eigenvalues, vectors = torch.linalg.eigh(hessian)
    negative, zero = signature(eigenvalues)
    modes = torch.stack([vectors[:, 0], vectors[:, -1]])
    return CriticalPoint(theta, value, gradient_norm, eigenvalues, modes, negative, zero, asked, steps, tol)
