"""A PAC-Bayes bound on the error of a network whose weights are blurred by Gaussian noise.

With prior N(θ₀, σ²I), fixed before the data are seen, and posterior N(θ, σ²I), with probability at least
1 − δ over the draw of n examples the expected error of the blurred network is at most

    ê(σ) + √((KL + ln(2√n / δ')) / (2n)),   KL = ‖θ − θ₀‖² / (2σ²)

(McAllester 1999, with Maurer's 2004 constant), ê(σ) being its error on those examples. A flat minimum keeps
ê(σ) small for a large σ and so pays little KL: this is the link between flatness and generalisation.

σ is chosen on a grid fixed in advance, which costs ln(grid size) by the union bound; ê is estimated from
draws, which costs a Chernoff term; both are inside the reported bound, which therefore holds as stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import brentq

Error = Callable[[torch.Tensor], float]
# Fixed here, before any data: the union bound over σ needs a grid that does not depend on them.
SIGMA_GRID: tuple[float, ...] = tuple(float(s) for s in np.geomspace(1e-4, 1.0, 17))


@dataclass(frozen=True)
class PacBayes:
    """A bound and what it is made of.

    Attributes
    ----------
    bound : float
        Bound on the expected 0–1 error of the blurred network, McAllester's form; may exceed 1.
    bound_kl : float
        The same statement through the inverse of the binary KL (Seeger 2002), never above 1 and tighter.
    vacuous : bool
        Whether ``bound`` is at least 1, the value every error has.
    sigma : float
        Noise per element that gives the lowest bound on the grid.
    kl : float
        KL divergence from prior to posterior at ``sigma``, in nats.
    error, error_upper : float
        Error of the blurred network on the examples at ``sigma``: mean over draws, and its upper limit that
        holds with probability 1 − δ/2.
    delta, n_examples, n_draws, distance
        Confidence, examples, draws behind ``error``, and ‖θ − θ₀‖.
    sigma_tolerated : float
        Largest grid σ up to which the error rises by at most ``tolerated`` (Jiang et al. 2020 compare
        networks by 1/σ² of this kind); 0 where even the smallest σ does more.
    grid, grid_errors, grid_bounds : ndarray of shape (n_sigmas,)
        The search: σ, error and bound without the Chernoff term.
    """

    bound: float
    bound_kl: float
    vacuous: bool
    sigma: float
    kl: float
    error: float
    error_upper: float
    delta: float
    n_examples: int
    n_draws: int
    distance: float
    sigma_tolerated: float
    tolerated: float
    grid: np.ndarray
    grid_errors: np.ndarray
    grid_bounds: np.ndarray


def gaussian_kl(distance: float, sigma: float) -> float:
    """KL(N(θ, σ²I) ‖ N(θ₀, σ²I)) in nats, for ‖θ − θ₀‖ = ``distance``."""
    return distance**2 / (2.0 * sigma**2)


def kl_inverse(share: float, budget: float) -> float:
    """Return the largest p ≥ ``share`` whose binary KL from ``share`` is at most ``budget`` (nats)."""

    def excess(p: float) -> float:
        left = share * np.log(share / p) if share > 0 else 0.0
        right = (1 - share) * np.log((1 - share) / (1 - p)) if share < 1 else 0.0
        return float(left + right) - budget

    if share >= 1.0:
        return 1.0
    top = 1.0 - 1e-15
    return 1.0 if excess(top) <= 0 else float(brentq(excess, share, top, xtol=1e-12))


def mcallester(error: float, kl: float, n_examples: int, delta: float) -> float:
    """McAllester's bound with Maurer's constant: error + √((KL + ln(2√n/δ)) / 2n)."""
    return error + float(np.sqrt(_budget(kl, n_examples, delta) / 2.0))


def doubt_prior(accuracy: float, targets: torch.Tensor) -> str:
    """Say why the mean of a prior can't be free of the examples; empty where nothing speaks against it.

    The bound needs a prior that is fixed before the examples are seen. Weights that were trained on them classify
    them far better than chance: then ‖θ − θ₀‖ and with it the KL is small because θ₀ has already learnt them.

    Parameters
    ----------
    accuracy : float
        Share of the examples that the network at the prior's mean gets right.
    targets : Tensor of shape (n,)
        Their classes.

    Returns
    -------
    str
        Accuracy is called far above chance beyond the share of the largest class plus a tenth and four standard
        errors: a network of random weights may lean towards one class, but not follow the labels.
    """
    _, counts = torch.unique(targets, return_counts=True)
    n = int(counts.sum())
    chance = float(counts.max()) / n
    if accuracy <= chance + max(0.1, 4 * float(np.sqrt(chance * (1 - chance) / n))):
        return ""
    return f"it classifies {accuracy:.1%} of the examples correctly, where chance is {chance:.1%}: it has seen them"


def _budget(kl: float, n_examples: int, delta: float) -> float:
    return (kl + float(np.log(2.0 * np.sqrt(n_examples) / delta))) / n_examples


def pac_bayes_bound(
    error: Error,
    theta: torch.Tensor,
    prior: torch.Tensor | None,
    n_examples: int,
    *,
    sigmas: Sequence[float] = SIGMA_GRID,
    delta: float = 0.05,
    n_search: int = 4,
    n_draws: int = 64,
    tolerated: float = 0.1,
    random_state: int = 0,
    on_step: Callable[[], None] | None = None,
) -> PacBayes:
    """Search σ and state the bound.

    Parameters
    ----------
    error : callable
        ``error(point (P,)) -> `` share of the n examples that network gets wrong.
    theta : Tensor of shape (P,)
        Mean of the posterior.
    prior : Tensor of shape (P,) or None
        Mean of the prior: the weights training started from, or None for 0. It must not depend on the
        examples, see `doubt_prior`.
    n_examples : int
        Examples ``error`` is taken over.
    sigmas : sequence of float, default=SIGMA_GRID
        The grid, fixed in advance.
    delta : float, default=0.05
        The bound holds with probability 1 − δ; half goes to the PAC-Bayes step (split evenly over the grid),
        half to the estimate of the error.
    n_search, n_draws : int, default=4, 64
        Draws a grid point, and fresh draws at the chosen σ.
    tolerated : float, default=0.1
        Rise of the error allowed by ``sigma_tolerated``.
    random_state : int, default=0
    on_step : callable, optional
        Called before each evaluation; may raise to stop.

    Returns
    -------
    PacBayes

    References
    ----------
    McAllester (1999); Langford & Caruana (2001), for the draws; Dziugaite & Roy (2017); Jiang et al. (2020).
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must be between 0 and 1, got {delta!r}. Use for example 0.05.")
    for name, count in (("n_examples", n_examples), ("n_search", n_search), ("n_draws", n_draws)):
        if count < 1:
            raise ValueError(f"{name} must be ≥ 1, got {count!r}. Use 1 or more.")
    grid = np.array(sorted(float(s) for s in sigmas))
    if grid.size == 0 or not np.all(np.isfinite(grid)) or grid[0] <= 0:
        raise ValueError(f"sigmas must be finite numbers > 0, got {tuple(sigmas)!r}. Leave it out for the default.")
    if prior is not None and prior.shape != theta.shape:
        raise ValueError(
            f"prior must have the shape of θ {tuple(theta.shape)}, got {tuple(prior.shape)!r}. "
            "Pass the initial weights of the same model."
        )
    distance = float((theta if prior is None else theta - prior.to(theta)).double().norm())
    generator = torch.Generator().manual_seed(int(random_state))

    def blurred(sigma: float, n: int) -> float:
        total = 0.0
        for _ in range(n):
            if on_step is not None:
                on_step()
            noise = torch.randn(theta.numel(), generator=generator, dtype=torch.float32).to(theta)
            wrong = float(error(theta + sigma * noise))
            # A network that overflows to NaN classifies nothing right.
            total += wrong if np.isfinite(wrong) else 1.0
        return total / n

    share = delta / 2.0 / len(grid)
    base = float(error(theta))
    errors = np.array([blurred(sigma, n_search) for sigma in grid])
    bounds = np.array(
        [mcallester(e, gaussian_kl(distance, s), n_examples, share) for e, s in zip(errors, grid, strict=True)]
    )
    chosen = int(np.argmin(bounds))
    sigma = float(grid[chosen])
    # Fresh draws: those of the search chose σ, so they would flatter it.
    mean_error = blurred(sigma, n_draws)
    upper = kl_inverse(mean_error, float(np.log(2.0 / delta)) / n_draws)
    kl = gaussian_kl(distance, sigma)
    bound = mcallester(upper, kl, n_examples, share)
    steady = np.cumprod(errors - base <= tolerated).astype(bool)
    return PacBayes(
        bound=bound,
        bound_kl=kl_inverse(upper, _budget(kl, n_examples, share)),
        vacuous=bound >= 1.0,
        sigma=sigma,
        kl=kl,
        error=mean_error,
        error_upper=upper,
        delta=float(delta),
        n_examples=int(n_examples),
        n_draws=int(n_draws),
        distance=distance,
        sigma_tolerated=float(grid[steady][-1]) if steady.any() else 0.0,
        tolerated=float(tolerated),
        grid=grid,
        grid_errors=errors,
        grid_bounds=bounds,
    )
