"""What a fit takes: counted in evaluations, gradients and products, and timed by one of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from .budget import clock
from .landscape import Landscape

GRADIENT_PASSES, PRODUCT_PASSES = 3, 10  # what a gradient and a Hessian-vector product cost in evaluations, about
_PASSES = {"evaluations": 1, "gradients": GRADIENT_PASSES, "products": PRODUCT_PASSES}


@dataclass(frozen=True)
class Work:
    """Evaluations, gradients and Hessian-vector products over all examples; or the seconds that one of each takes.

    Examples
    --------
    >>> from estimators import Work
    >>> Work(evaluations=100, products=20).seconds(Work(evaluations=0.01, products=0.1))
    3.0
    """

    evaluations: float = 0.0
    gradients: float = 0.0
    products: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, factor: float) -> Work:
        """Give so many times as much."""
        return Work(*(factor * getattr(self, f.name) for f in fields(self)))

    def seconds(self, pace: Work) -> float:
        """Give the time it takes at a pace (seconds of one of each)."""
        return sum(getattr(self, name) * getattr(pace, name) for name in _PASSES)

    @property
    def passes(self) -> float:
        """About how many evaluations would take as long, where no pace is known."""
        return sum(getattr(self, name) * passes for name, passes in _PASSES.items())


def pace_of(
    land: Landscape, work: Work, *, repeats: int = 2, on_step: Callable[[int, int], Any] = lambda done, total: None
) -> Work:
    """Measure the seconds that one evaluation, gradient or product takes, of those that there are in `work`.

    Parameters
    ----------
    land : Landscape
    work : Work
    repeats : int, default=2
        The quickest counts, after a first pass whose checks and graphs are not made again.
    on_step : callable
        ``on_step(done, total)`` before each pass.

    Returns
    -------
    Work
    """
    kinds: dict[str, Callable[[], Any]] = {
        "evaluations": land.loss,
        "gradients": land.gradient,
        "products": lambda: land.hvp(land.theta),
    }
    asked = [name for name in kinds if getattr(work, name)]
    pace = {}
    for k, name in enumerate(asked):
        times = []
        for i in range(1 + repeats):
            on_step((1 + repeats) * k + i, (1 + repeats) * len(asked))
            began = clock()
            kinds[name]()
            times.append(clock() - began)
        pace[name] = min(times[1:])
    return Work(**pace)
