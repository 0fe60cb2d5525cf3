"""Random critical points: how often a random symmetric matrix is positive definite, as a result that can be kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

from ..checks import check_seed
from ..core.spectrum.random_matrix import MinimumProbability, minimum_probability
from ..progress import OnProgress, ignore_progress
from ._result import MinimumProbabilityResult


def random_critical_points(
    dimensions: Sequence[int] = (1, 2, 3, 4, 5, 6, 7),
    *,
    n_samples: int = 20_000,
    shift: float = 0.0,
    random_state: int | None = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[MinimumProbabilityResult], None] | None = None,
) -> MinimumProbabilityResult:
    """Draw random symmetric matrices and count the positive definite ones.

    Parameters
    ----------
    dimensions, n_samples, shift, random_state
        See :func:`estimators.core.spectrum.random_matrix.minimum_probability`.
    on_progress, on_partial : callable
        As in every ``fit``.

    Returns
    -------
    MinimumProbabilityResult
    """
    random_state = check_seed(random_state)
    settings = {
        "dimensions": [int(d) for d in dimensions],
        "n_samples": n_samples,
        "shift": shift,
        "random_state": random_state,
    }

    def pack(found: MinimumProbability) -> MinimumProbabilityResult:
        values = {f.name: getattr(found, f.name) for f in fields(found)}
        return MinimumProbabilityResult(settings=settings, **values)

    found = minimum_probability(
        dimensions,
        n_samples=n_samples,
        shift=shift,
        random_state=random_state,
        on_step=lambda done, total: on_progress(done, total, "matrices"),
        on_partial=None if on_partial is None else lambda partial: on_partial(pack(partial)),
    )
    return pack(found)
