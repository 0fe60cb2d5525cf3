"""How far a number may be off because its examples are a sample: standard errors and intervals over examples.

A landscape is a mean over N examples drawn from a population. Every number at a point is a smooth function of such
means, and moves, to first order, by the mean of the examples' influences: the spread of these over √N is its standard
error, whatever the error of the method that computed it (van der Vaart 1998, *Asymptotic Statistics*, chapter 20). The
unit is the example, however many positions or tokens it has.

Norms and maxima are convex functions of the means, so that on few examples they come out too large on average. That
excess is of second order, var/(2N·curvature) for every direction in which the maximum may still turn (Danskin 1967;
Kato 1966 for an eigenvalue). It is stated apart as ``bias``, and taken off the interval.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from .intervals import mean_interval, wilson_interval

_SMALL_BIAS = 0.5  # of a standard error: the interval of a number with a larger excess is not promised to cover
_LARGE_SHARE = 0.5  # of the variance: nor that of one to which a single example gives more


class SamplingError(NamedTuple):
    """How far a number may lie from its value over the whole population of examples.

    Attributes
    ----------
    stderr : float
        Standard error over examples.
    low, high : float
        95 % interval for the value over the population: around the number less its bias.
    bias : float
        By how much the number exceeds that value on average, to second order: 0 for a mean, NaN where no formula holds.
    n_examples : int
        N.
    largest_share : float
        Share of the variance that the most influential example makes up; 1/N where all have equal parts.
    given : str
        What was estimated from the same examples and is taken as known; "" is nothing.

    Examples
    --------
    >>> from torch import nn
    >>> from estimators import CurvatureEstimator, load_data
    >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
    >>> estimator = CurvatureEstimator(n_eigenvalues=1, compare_traces=False, sampling=True)
    >>> result = estimator.fit(model, load_data("digits", image_size=8, n_samples=64)).result_
    >>> kind, error = result.uncertainty_of("trace", "sampling")
    >>> kind, error.low < result.trace < error.high, error.n_to_halve
    ('sampling', True, 256)
    """

    stderr: float
    low: float
    high: float
    bias: float
    n_examples: int
    largest_share: float
    given: str = ""

    @property
    def n_to_halve(self) -> int:
        """Examples, in all, with which the standard error would be half as large; the bias would be a quarter."""
        return 4 * self.n_examples

    @property
    def promised(self) -> bool:
        """Whether theory promises the coverage: nothing taken as known, a small bias, no example that is most of it."""
        return not (self.given or self.rests_on_one) and abs(self.bias) <= _SMALL_BIAS * self.stderr

    @property
    def rests_on_one(self) -> bool:
        """Whether a single example makes up most of the variance."""
        return self.largest_share > _LARGE_SHARE


def sampling_error(value: float, influences: np.ndarray, *, bias: float = 0.0, given: str = "") -> SamplingError:
    """Give the error over examples of a number from the influence of each example on it.

    Parameters
    ----------
    value : float
        The number.
    influences : ndarray of shape (N,)
        Up to a constant: of a mean, its terms.
    bias, given
        See :class:`SamplingError`.

    Returns
    -------
    SamplingError
        With an interval that allows for skewed influences, see `mean_interval`.
    """
    n, influences = len(influences), np.asarray(influences, dtype=np.float64)
    low, high = mean_interval(influences)
    with np.errstate(invalid="ignore"):  # where one is not finite, nothing is known
        shift = value - float(influences.mean()) - (bias if np.isfinite(bias) else 0.0)
        squares = np.square(influences - influences.mean())
        stderr = float(stats.sem(influences))
    share = float(squares.max() / squares.sum()) if stderr > 0 else 1 / n
    return SamplingError(stderr, low + shift, high + shift, float(bias), n, share, given)


def share_error(hits: np.ndarray, *, given: str = "") -> SamplingError:
    """Give the error over examples of a share: Wilson's interval where each example hits or misses."""
    found = sampling_error(float(np.mean(hits)), hits, given=given)
    if np.isin(hits, (0, 1)).all():
        low, high = wilson_interval(int(np.sum(hits)), len(hits))
        found = found._replace(low=low, high=high)
    return found


def part_of_examples(table: np.ndarray) -> np.ndarray:
    """Give each example's mean over random probes with the spread of the examples alone, (N, K) → (N,).

    The spread of the means holds 1/K of the variance that probes add within an example, which is the method's error;
    the two-way analysis of variance takes it off.
    """
    n, k = table.shape
    means = table.mean(axis=1)
    centred = means - means.mean()
    rest = table - means[:, None] - table.mean(axis=0) + means.mean()
    within = float(np.square(rest).sum()) / max((n - 1) * (k - 1), 1)
    spread = float(np.square(centred).sum()) / max(n - 1, 1)
    kept = np.sqrt(max(1 - within / (k * spread), 0.0)) if spread > 0 else 1.0
    return means.mean() + kept * centred


def variance_across(along: np.ndarray, probed: np.ndarray) -> float:
    """Sum of the variances of vectors rᵢ over all directions but one, from rᵢ·v along it and rᵢ·z for random signs z.

    Parameters
    ----------
    along : ndarray of shape (N,) or (N, m)
        Along the direction left out, or several orthonormal ones.
    probed : ndarray of shape (N, K)

    Returns
    -------
    float
        tr Cov(r) − Var(r·v) ≥ 0.
    """
    return max(float(probed.var(axis=0).mean()) - float(np.sum(along.var(axis=0))), 0.0)


def excess_of_norm(norm: float, across: float, n: int) -> float:
    """By how much the norm of a mean of n vectors exceeds the mean's norm, of variances `across` the mean."""
    return norm - float(np.sqrt(max(norm**2 - across / n, 0.0)))


def excess_of_eigenvalue(values: np.ndarray, curvatures: np.ndarray, probed: np.ndarray) -> float:
    """By how much an eigenvalue of a mean of matrices Hᵢ lies beyond that of the population's mean.

    A direction v' of eigenvalue λ' pushes λ away by Var(vᵀHᵢv')/(N(λ − λ')) (Kato 1966), here solved for the gap that
    the population has, since the sample's is widened by as much. Two values that lie closer than sampling pushes them
    apart are as good as equal, and the push is √(Var/N).

    Parameters
    ----------
    values : ndarray of shape (m,)
        The eigenvalue, then others that are known.
    curvatures : ndarray of shape (N, m)
        vᵀHᵢvⱼ with v its eigenvector, vⱼ those of `values`.
    probed : ndarray of shape (N, K)
        vᵀHᵢz for random signs z.

    Returns
    -------
    float
        Summed over directions, with λ' = 0 in those that are not known. Negative for a smallest eigenvalue.
    """
    pushes = np.append(curvatures[:, 1:].var(axis=0), variance_across(curvatures, probed)) / len(curvatures)
    gaps = values[0] - np.append(values[1:], 0.0)
    away = (np.abs(gaps) - np.sqrt(np.maximum(gaps**2 - 4 * pushes, 0.0))) / 2
    return float(np.sum(np.copysign(np.where(gaps**2 <= 4 * pushes, np.sqrt(pushes), away), gaps)))
