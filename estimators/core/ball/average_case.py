"""How far the loss rises on average under random weight noise: average-case sharpness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..evidence.intervals import mean_interval
from ..planes.directions import filter_rows, is_filtered_out

Loss = Callable[[torch.Tensor], float]
NOISES = ("plain", "filter")


@dataclass(frozen=True)
class AverageRise:
    """Mean rise of the loss under Gaussian noise.

    Attributes
    ----------
    sigma : float
        Standard deviation of the noise *per element* (relative to the filter's RMS when filter-normalised).
    mean : float
        Mean of L(θ + ε) − L(θ), in nats for cross-entropy. It can be negative where θ is not a minimum.
    stderr : float
        Standard error of ``mean`` over independent draws (over pairs when antithetic).
    low, high : float
        95 % interval of ``mean`` that allows for the skewness of the rises, see `mean_interval`.
    rises : ndarray of shape (n_draws,)
        Rise of each draw; draws 2k and 2k + 1 are ±ε when antithetic.
    n_nonfinite : int
        Draws whose loss was not finite; they make ``mean`` not finite too, and are never dropped.
    """

    sigma: float
    mean: float
    stderr: float
    low: float
    high: float
    rises: np.ndarray
    n_nonfinite: int


def filter_scale(theta: torch.Tensor, shapes: Sequence[Sequence[int]], names: Sequence[str]) -> torch.Tensor:
    """Root mean square of the filter that each element belongs to; 0 for biases and norm parameters.

    Noise of standard deviation σ times this has, filter by filter, an expected squared length of
    σ²·‖filter‖² (the normalisation of Li et al. 2018 for Gaussian noise), so σ is relative.

    Parameters
    ----------
    theta : Tensor of shape (P,)
    shapes, names : sequences
        Shape and dotted name of each parameter, in the order of θ.

    Returns
    -------
    Tensor of shape (P,)
    """
    out = torch.zeros_like(theta)
    start = 0
    for shape, name in zip(shapes, names, strict=True):
        size = int(np.prod(shape, dtype=np.int64))
        if size and not is_filtered_out(shape, name):
            rows = theta[start : start + size].reshape(filter_rows(shape, name))
            rms = rows.pow(2).mean(dim=1, keepdim=True).sqrt()
            out[start : start + size] = rms.expand_as(rows).reshape(-1)
        start += size
    return out


def average_rise(
    loss: Loss,
    theta: torch.Tensor,
    sigma: float,
    *,
    n_draws: int = 32,
    scale: torch.Tensor | None = None,
    antithetic: bool = True,
    base: float | None = None,
    random_state: int = 0,
    on_step: Callable[[], None] | None = None,
) -> AverageRise:
    """Estimate the mean over ε ~ N(0, σ²·scale²) of L(θ + ε) − L(θ).

    For small σ and ``scale`` 1 this is σ²·tr(H)/2. Antithetic draws (ε and −ε together) cancel the
    gradient's share exactly, which at a point that is not quite stationary is most of the variance.

    Parameters
    ----------
    loss : callable
        ``loss(point (P,)) -> float``.
    theta : Tensor of shape (P,)
    sigma : float
        Standard deviation per element, > 0. This is not the radius ρ of the whole vector: ‖ε‖ ≈ σ·√P.
    n_draws : int, default=32
        Loss evaluations; with ``antithetic`` an odd number is rounded up. At least 2 independent draws.
    scale : Tensor of shape (P,), optional
        Elementwise factor of σ, e.g. `filter_scale`; 1 when left out.
    antithetic : bool, default=True
    base : float, optional
        L(θ) when it is known already.
    random_state : int, default=0
        Seed; equal seeds draw equal noise whatever σ is, so curves over σ are smooth.
    on_step : callable, optional
        Called before each evaluation; may raise to stop.

    Returns
    -------
    AverageRise

    Raises
    ------
    ValueError
        If σ ≤ 0, there are too few draws for a standard error, or the loss at θ is not finite.
    """
    if not sigma > 0 or not np.isfinite(sigma):
        raise ValueError(f"sigma must be a finite standard deviation > 0, got {sigma!r}. Use for example 0.01.")
    least = 3 if antithetic else 2
    if n_draws < least:
        raise ValueError(
            f"n_draws must be ≥ {least}{' with antithetic draws' if antithetic else ''}, got {n_draws!r}. "
            "A standard error needs two independent draws."
        )
    start = float(loss(theta)) if base is None else float(base)
    if not np.isfinite(start):
        raise ValueError(f"the loss at θ must be finite, got {start!r}. Check the weights and the precision.")
    generator = torch.Generator().manual_seed(int(random_state))
    n_independent = -(-n_draws // 2) if antithetic else n_draws
    rises = []
    for _ in range(n_independent):
        noise = torch.randn(theta.numel(), generator=generator, dtype=torch.float32).to(theta)
        noise = noise * sigma if scale is None else noise * (sigma * scale)
        for sign in (1.0, -1.0) if antithetic else (1.0,):
            if on_step is not None:
                on_step()
            rises.append(float(loss(theta + sign * noise)) - start)
    values = np.array(rises)
    with np.errstate(invalid="ignore"):
        independent = values.reshape(n_independent, -1).mean(axis=1)
        mean, spread = float(independent.mean()), float(independent.std(ddof=1))
    low, high = mean_interval(independent)
    return AverageRise(
        sigma=float(sigma),
        mean=mean,
        stderr=spread / float(np.sqrt(n_independent)),
        low=low,
        high=high,
        rises=values,
        n_nonfinite=int((~np.isfinite(values)).sum()),
    )


def noise_profile(loss: Loss, theta: torch.Tensor, sigmas: Sequence[float], **options: object) -> list[AverageRise]:
    """Mean rise at each σ, in increasing order, with the same noise stretched (see `average_rise`)."""
    options.setdefault("base", float(loss(theta)))
    return [average_rise(loss, theta, sigma, **options) for sigma in sorted(sigmas)]  # type: ignore[arg-type]
