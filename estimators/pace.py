"""What a fit takes: counted in evaluations, gradients, products and epochs of training, and timed by one of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import count
from typing import Any

from torch import Tensor

from .budget import clock
from .landscape import Landscape
from .training import train

GRADIENT_PASSES, PRODUCT_PASSES = 3, 10  # what a gradient and a Hessian-vector product cost in evaluations, about
_FEWEST, _MOST = 16, 128  # examples on which a pass is timed ahead: an eighth of all between these
_PASSES = {"evaluations": 1, "gradients": GRADIENT_PASSES, "products": PRODUCT_PASSES, "epochs": 4}
_STEPS = 4  # of training, by which an epoch is timed
_APART = 1e-6  # of θ: how far apart the points are that are timed, since being at a point already costs less


@dataclass(frozen=True)
class Work:
    """Passes over all examples, or the seconds that one of each takes.

    Attributes
    ----------
    evaluations, gradients, products : float
        Values and gradients of the loss, each at another point, and Hessian-vector products at one point.
    epochs : float
        Passes of a training, in batches.

    Examples
    --------
    >>> from estimators import Work
    >>> Work(evaluations=100, products=20).seconds(Work(evaluations=0.01, products=0.1))
    3.0
    """

    evaluations: float = 0.0
    gradients: float = 0.0
    products: float = 0.0
    epochs: float = 0.0

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
    land: Landscape,
    work: Work,
    *,
    repeats: int = 2,
    train_batch_size: int = 64,
    on_step: Callable[[int, int], Any] = lambda done, total: None,
) -> Work:
    """Measure the seconds that one evaluation, gradient, product or epoch takes, of those that there are in `work`.

    Parameters
    ----------
    land : Landscape
    work : Work
    repeats : int, default=2
        The quickest counts, after a first pass whose checks and graphs are not made again.
    train_batch_size : int, default=64
        Examples in a step of training; a few steps stand for an epoch.
    on_step : callable
        ``on_step(done, total)`` before each pass.

    Returns
    -------
    Work
    """
    kinds, asked, pace = _kinds(land, train_batch_size), _asked(work), {}
    for k, name in enumerate(asked):
        times = []
        for i in range(1 + repeats):
            on_step((1 + repeats) * k + i, (1 + repeats) * len(asked))
            began = clock()
            kinds[name]()
            times.append(clock() - began)
        pace[name] = min(times[1:]) * (_epochs_timed(land, train_batch_size) if name == "epochs" else 1)
    return Work(**pace)


def pace_ahead(land: Landscape, work: Work) -> Work:
    """Measure what `pace_of` does on a few of the examples: for a fit that must not begin what it has no time for.

    A product makes its graph each time here, as where the memory does not suffice to keep it.
    """
    n = land.n_examples
    if not land.is_fixed_function:  # batch-norm statistics take all examples whatever comes
        began = clock()
        _kinds(land)["evaluations"]()
        seconds = clock() - began
        return Work(**{name: seconds * passes for name, passes in _PASSES.items()})
    part, pace = _first(land, max(_FEWEST, min(n // 8, _MOST))), {}
    before, timed = _kinds(_first(land, _FEWEST)), _kinds(part)
    for name in _asked(work):
        before[name]()  # what is checked once
        began = clock()
        timed[name]()
        pace[name] = (clock() - began) * n / part.n_examples
    return Work(**pace)


def _asked(work: Work) -> list[str]:
    return [name for name in _PASSES if getattr(work, name)]


def _kinds(land: Landscape, train_batch_size: int = 64) -> dict[str, Callable[[], Any]]:
    """Give what is timed by its name."""
    steps = count(1)

    def elsewhere() -> Tensor:
        return land.theta * (1 + _APART * next(steps))

    def training() -> None:
        part = _first(land, _STEPS * train_batch_size)
        train(land.model_at(), part.data, epochs=1, batch_size=train_batch_size, loss=land.loss_function)

    return {
        "evaluations": lambda: land.loss(elsewhere()),
        "gradients": lambda: land.gradient(elsewhere()),
        "products": lambda: land.hvp(land.theta),
        "epochs": training,
    }


def _epochs_timed(land: Landscape, train_batch_size: int) -> float:
    """Give how many times as long a whole epoch takes as the steps that are timed."""
    return max(land.n_examples / (_STEPS * train_batch_size), 1.0)


def _first(land: Landscape, n: int) -> Landscape:
    """Give the same network on the first n examples."""
    return land.on(land.data.take(slice(0, n)))
