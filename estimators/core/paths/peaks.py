"""The highest point between samples of a function of one variable, with the error of saying so.

Between two samples a concave function stays below the secants that continue from both sides, and a convex one below
its samples: that bounds the interval. What a sample was off from the others (leave-one-out) is added, since a
function that surprised there may do so again. New samples go where the bound exceeds the highest value found.

Slopes were considered and left out: at a trained end the slope is close to 0 whatever follows, and a difference
quotient costs as much as a value between two samples, which says more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .paths import chord

Array = NDArray[np.float64]
_INSIDE = 0.15  # of an interval: a new sample keeps this distance from both its ends
_FINEST = 1e-6  # an interval of this width is not divided again
_ROUNDING = 1e-6  # of the largest value: what float32 sums leave
WIDEST = 1 / 100  # steps of t wider than this are looked into
_PIECE = 1 / 40  # and cut into pieces no wider than this, so that a coarse grid misses no more than a fine one
MAX_ADDED = 32  # evaluations around the highest points, at most
_NEAR_ENDS = (1 / 8, 1 / 4, 3 / 4)  # of the first and the last step: the way out of an end is looked at more closely
_HALVINGS = 0.5 ** np.arange(6, 11)  # and at these distances from it, whatever the grid


@dataclass(frozen=True)
class Peaks:
    """Samples of a function with its highest values bracketed.

    Attributes
    ----------
    t, values : ndarray of shape (n,)
        All samples, in order of `t`.
    errors : ndarray of shape (n_references,)
        By how much the maximum of ``values − reference`` may exceed the highest sample, for each reference; at
        least the tolerance.
    places : ndarray of shape (n_references, 2)
        Where the highest point lies: from the first to the last interval whose bound reaches the highest value found.
    n_added : int
        Samples added to those given.
    """

    t: Array
    values: Array
    errors: Array
    places: Array
    n_added: int


def probes(t: Array, widest: float) -> Array:
    """Positions that look between samples: into each interval wider than `widest`, and near both ends.

    Such an interval is cut into equal pieces, two at least and none wider than 1/40. The first and the last step (or
    1/20 of the way, where they are wider) are looked into at 1/8, 1/4 and 3/4, and both ends at distances that halve
    from 1/64 to 1/1024.
    """
    pieces = [np.linspace(a, b, max(2, int(np.ceil((b - a) / _PIECE - 1e-9))) + 1) for a, b in pairwise(t)]
    between = [piece[1:-1] for piece in pieces if piece[-1] - piece[0] > widest]
    near = np.multiply.outer(_NEAR_ENDS, np.minimum([t[1] - t[0], t[-1] - t[-2]], 2 * _PIECE))
    near = np.append(near, np.stack([_HALVINGS, _HALVINGS], axis=1) * (t[-1] - t[0]), axis=0)
    return np.setdiff1d(np.concatenate([*between, t[0] + near[:, 0], t[-1] - near[:, 1]]), t)


def refine_maxima(
    evaluate: Callable[[Array], Array],
    t: Array,
    values: Array,
    references: Callable[[Array, Array], Array],
    *,
    tolerance: float = 2e-3,
    max_added: int = MAX_ADDED,
) -> Peaks:
    """Sample a function of one variable where its maximum may be higher than the highest sample.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(t (k,)) -> values (k,)``.
    t, values : ndarray of shape (n,)
        Samples, increasing in `t`, at least 3.
    references : callable
        ``references(t, values) -> (n_references, n)``: what is subtracted before the maximum is taken.
    tolerance : float, default=2e-3
        Of the bracket, as a share of the range of the values.
    max_added : int, default=32
        Stop there even when the bracket is wider; it is reported as it is.

    Returns
    -------
    Peaks
        Errors are NaN when a value is not finite.
    """
    start = len(t)
    while np.isfinite(values).all():
        heights = values - references(t, values)
        floor = _ROUNDING * float(np.abs(values).max())
        limit = max(tolerance * float(np.ptp(values)), floor)
        errors, places, wanted = [], [], []
        for height in heights:
            bound, where = bounds(t, height)
            excess = bound - height.max()
            reached = np.flatnonzero(excess >= -floor)
            places.append((t[reached[0]], t[reached[-1] + 1]))
            excess[np.diff(t) < _FINEST] = 0.0
            k = int(excess.argmax())
            errors.append(max(float(excess[k]), limit))
            if excess[k] > limit:
                wanted.append(where[k])
        if not wanted or len(t) - start >= max_added:
            return Peaks(t, values, np.array(errors), np.array(places), len(t) - start)
        new = np.setdiff1d(wanted, t)
        t, values = merge(t, values, new, evaluate(new))
    unknown = np.full((len(references(t, values)), 2), np.nan)
    return Peaks(t, values, unknown[:, 0], unknown, len(t) - start)


def find_highest(evaluate: Callable[[Array], Array], t: Array, losses: Array, *, look_between: bool = True) -> Peaks:
    """Look for the highest points of a path between the positions of its grid.

    Parameters
    ----------
    evaluate : callable
        t → losses.
    t, losses : ndarray of shape (n,)
        The grid, at least 3 positions.
    look_between : bool, default=True
        Also evaluate what `probes` says, which finds rises that no value of the grid hints at, for about as many
        evaluations as the grid has and some 50 at least; without it the search follows the grid alone.

    Returns
    -------
    Peaks
        All positions and losses, those of the grid included; errors of the rise over the straight interpolation
        and over the worse end. A rise narrower than the gaps between evaluated positions can be missed.
    """
    between = probes(t, WIDEST) if look_between else np.empty(0)

    def references(t: Array, values: Array) -> Array:
        return np.stack([chord(t, values), np.full(len(t), max(values[0], values[-1]))])

    t, losses = merge(t, losses, between, evaluate(between)) if len(between) else (t, losses)
    peaks = refine_maxima(evaluate, t, losses, references)
    return replace(peaks, n_added=peaks.n_added + len(between))


def merge(t: Array, values: Array, new_t: Array, new_values: Array) -> tuple[Array, Array]:
    """Put further samples among sorted ones."""
    t, values = np.append(t, new_t), np.append(values, new_values)
    order = np.argsort(t, kind="stable")
    return t[order], values[order]


def bounds(t: Array, values: Array) -> tuple[Array, Array]:
    """Bound a function from above between its samples, and say where it may be highest.

    Parameters
    ----------
    t, values : ndarray of shape (n,)

    Returns
    -------
    bound, where : ndarray of shape (n - 1,)
        One for each interval.
    """
    steps = np.diff(t)
    slopes = np.diff(values) / steps
    steep = 4.0 * np.abs(slopes).max()  # beyond an end nothing is known: next to any slope may come before it
    before, after = np.append(steep, slopes[:-1]), np.append(slopes[1:], -steep)
    # where one side alone bends down (an inflection on the other), the other is taken to bend as much
    before, after = (
        np.where((before <= slopes) & (slopes > after), 2.0 * slopes - after, before),
        np.where((before > slopes) & (slopes <= after), 2.0 * slopes - before, after),
    )
    concave = (before > slopes) & (slopes > after)
    low, high = values[:-1], values[1:]
    share = np.divide(slopes - after, before - after, out=np.full(len(steps), 0.5), where=concave)
    bound = np.maximum(low, high)
    bound = np.where(concave, np.maximum(bound, low + before * share * steps), bound)
    surprise = _left_out(t, values)
    bound = bound + np.maximum(surprise[:-1], surprise[1:])
    return bound, t[:-1] + np.clip(share, _INSIDE, 1.0 - _INSIDE) * steps


def _left_out(t: Array, values: Array) -> Array:
    """How far each sample is from a line and from a cubic through its neighbours, whichever is nearer; 0 at ends."""
    n = len(t)
    off, inner = np.zeros(n), np.arange(1, n - 1)
    start = np.clip(inner - 2, 0, max(n - 5, 0))
    window = start[:, None] + np.arange(min(5, n))
    others = window[window != inner[:, None]].reshape(len(inner), -1)
    line = np.stack([inner - 1, inner + 1], axis=1)
    missed = [np.abs(_lagrange(t[js], values[js], t[inner]) - values[inner]) for js in (line, others)]
    off[inner] = np.minimum(*missed)
    return off


def _lagrange(t: Array, values: Array, at: Array) -> Array:
    """Values at `at` (n,) of the polynomials through the samples in each row of `t` and `values` (n, k)."""
    total = np.zeros(len(at))
    for j in range(t.shape[1]):
        others = np.delete(t, j, axis=1)
        total += values[:, j] * np.prod((at[:, None] - others) / (t[:, j : j + 1] - others), axis=1)
    return total
