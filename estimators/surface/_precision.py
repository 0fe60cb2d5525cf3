"""Which precision an adaptive map is measured in where that is left to it: bfloat16 where it is faster and near enough.

A few nodes of the map are evaluated in both, in turn, so that a slow moment of the machine falls on both. The answer
hangs on the clock; whoever asks keeps it, since a map that goes on in another precision would be another map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..budget import clock
from ..checks import why
from ..core.planes.refinement import scaled
from ..landscape import Landscape

AUTO, EXACT, MIXED = "auto", "float32", "bfloat16"
FOR_CHOICE = 0.1  # share of what is left of a budget that comparing may take
_FASTER = 0.9  # of the time in float32: what saves less does not pay for the comparison
_HOPELESS = 2.0  # times the time in float32 from which no further node is compared
_ROOM = 0.3  # of the tolerance: with more, rounding looks like a loss that jumps, which can't be interpolated


@dataclass(frozen=True)
class PrecisionChoice:
    """A precision, why it was taken, and the figures behind it.

    Attributes
    ----------
    precision : {"float32", "bfloat16"}
    why : str
        A sentence.
    float32_seconds, bfloat16_seconds : float
        What a point takes, at its quickest; NaN where that was not compared.
    difference, share : float
        Largest |difference| of the losses at the nodes compared, in the unit of error estimates, and as a share of
        their range; NaN where that was not compared.
    """

    precision: str
    why: str
    float32_seconds: float = math.nan
    bfloat16_seconds: float = math.nan
    difference: float = math.nan
    share: float = math.nan

    @property
    def figures(self) -> dict[str, float]:
        """The numbers that are known, by name."""
        return {name: v for name, v in vars(self).items() if isinstance(v, float) and not math.isnan(v)}

    def withdrawn(self, difference: float, share: float) -> PrecisionChoice:
        """Go back to float32, where the whole map showed a larger difference than the nodes compared before it."""
        return replace(_too_far_off(self, share), difference=difference, share=share)


NOT_ADAPTIVE = PrecisionChoice(EXACT, "float32 was chosen: bfloat16 is considered for adaptive maps alone.")
TOO_SHORT = PrecisionChoice(EXACT, "float32 was chosen: the time budget is too short to compare bfloat16 with it.")


def choose_precision(
    exact: Landscape,
    mixed: Callable[[], Landscape],
    anchors: Sequence[Tensor],
    weights: NDArray[np.float64],
    tolerance: float,
    tell: Callable[[int, int], Any],
    enough: Callable[[], bool],
) -> PrecisionChoice:
    """Compare bfloat16 with float32 at a few nodes.

    Parameters
    ----------
    exact, mixed : Landscape, callable that gives one
        In float32 and in bfloat16.
    anchors, weights : sequence of K tensors, ndarray of shape (n, K)
        The nodes, see :meth:`Landscape.evaluate`.
    tolerance : float
        Of the map.
    tell : callable
        ``tell(done, total)`` before each node.
    enough : callable
        Whether comparing has to end, asked after each node.
    """
    try:
        pair = exact, mixed()
    except Exception as error:  # foreign code runs here: whatever it raises is said, and float32 stays
        return PrecisionChoice(EXACT, f"float32 was chosen: the network can't be run in bfloat16 ({why(error)}).")
    ready = [land.anchored(anchors) for land in pair]
    losses, seconds = np.full((2, len(weights)), np.nan), np.full((2, len(weights)), np.inf)
    for k in range(len(weights)):
        tell(k, len(weights))
        for i, land in enumerate(pair):
            began = clock()
            losses[i, k] = land.evaluate(ready[i], weights[k : k + 1]).losses[0]
            seconds[i, k] = clock() - began
        seconds[:, 0] = np.inf  # there kernels and buffers are made
        quickest = seconds.min(axis=1)
        if k and quickest[1] > _HOPELESS * quickest[0]:
            break
        if enough():
            return TOO_SHORT
    slow, fast = (f"{1000 * seconds:.4g}" for seconds in quickest)
    found = PrecisionChoice(MIXED, "", float(quickest[0]), float(quickest[1]))
    if quickest[1] > _FASTER * quickest[0]:
        why_not = f"float32 was chosen: a point takes {fast} ms in bfloat16 and {slow} ms in float32."
        return replace(found, precision=EXACT, why=why_not)
    difference, span = apart(losses)
    share = difference / span if span > 0 else math.inf
    found = replace(found, difference=difference, share=share)
    if not share <= _ROOM * tolerance:
        return _too_far_off(found, share)
    return replace(
        found,
        why=f"bfloat16 was chosen: a point takes {fast} ms instead of {slow}, and at {len(weights)} points it is off "
        f"by at most {share:.2%} of the range of the log-loss, which every error estimate holds.",
    )


def _too_far_off(choice: PrecisionChoice, share: float) -> PrecisionChoice:
    off = f"bfloat16 is off by {share:.2%} of the range of the log-loss, too much for the tolerance."
    if not math.isfinite(share):
        off = "how far bfloat16 is off can't be told, since values are not finite or all equal."
    return replace(choice, precision=EXACT, why=f"float32 was chosen: {off}")


def apart(losses: NDArray[np.float64], linear: bool = False) -> tuple[float, float]:
    """Tell how far losses in two precisions, (2, n), lie apart, and the range of the first, in logs unless `linear`.

    Infinite where one of them alone is not finite, or none is.
    """
    finite = np.isfinite(losses)
    if not finite.any() or (finite[0] != finite[1]).any():
        return math.inf, math.nan
    values = losses if linear else scaled(losses)[0]
    exact, mixed = values[:, finite[0]]
    return float(np.abs(mixed - exact).max()), float(np.ptp(exact))
