"""What a known landscape is: a network, its formulas, and the numbers the engine has to find."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..data import Examples

ROUNDING = 1e-9  # what float64 sums, eigenvalues and differences of losses may be off by, relative to max(1, |value|)
STANDARD_ERRORS = 3.0  # a right engine is further off once in 370 times; seeds are fixed, so the rows are too


class Problem(NamedTuple):
    """A network at a point, its examples and the loss: what every estimator's ``fit`` and ``loss`` take.

    Examples
    --------
    >>> from estimators import KNOWN_LANDSCAPES, Landscape
    >>> model, data, loss = KNOWN_LANDSCAPES["softmax_linear"].make()
    >>> round(Landscape(model, data, loss=loss).loss(), 4)  # the logarithm of the number of classes
    1.3863
    """

    model: nn.Module
    data: Examples
    loss: Any


class Row(NamedTuple):
    """One number: what the formula says, what the engine measured, and how far apart they may be.

    Attributes
    ----------
    quantity : str
    expected, measured : float
    error : float
        What the engine states as its own error there, or what rounding leaves.
    error_of : str
        What that is.
    engine : str
        The class that measured it.
    rung : int
        Index of the critical point on the autoencoder's ladder; −1 elsewhere.
    """

    quantity: str
    expected: float
    measured: float
    error: float
    error_of: str
    engine: str
    rung: int = -1

    @property
    def right(self) -> bool:
        """Whether they agree within the error; a number that is missing doesn't."""
        return abs(self.measured - self.expected) <= self.error


@dataclass(frozen=True)
class KnownLandscape:
    """A landscape whose answers are known.

    Attributes
    ----------
    title, formula, answer, source : str
        What it is called, L, what is known of it, and where that is shown.
    make : callable
        ``make() -> Problem``.
    measure : callable
        ``measure(problem) -> rows``, each from the estimators as anyone calls them.

    Examples
    --------
    >>> from estimators import KNOWN_LANDSCAPES
    >>> known = KNOWN_LANDSCAPES["softmax_linear"]
    >>> rows = list(known.measure(known.make()))
    >>> all(row.right for row in rows)
    True
    """

    title: str
    formula: str
    answer: str
    source: str
    make: Callable[[], Problem]
    measure: Callable[[Problem], Iterable[Row]]


def exactly(quantity: str, expected: float, measured: float, engine: str, rung: int = -1) -> Row:
    """Give a row of a number that only rounding may change."""
    error = ROUNDING * max(1.0, abs(expected))
    return Row(quantity, float(expected), float(measured), error, "float64 rounding", engine, rung)


def drawn(quantity: str, expected: float, measured: float, stderr: float, engine: str) -> Row:
    """Give a row of a mean over random draws."""
    error = STANDARD_ERRORS * float(stderr) + ROUNDING * max(1.0, abs(expected))
    return Row(quantity, float(expected), float(measured), error, "3 standard errors", engine)


def within(quantity: str, expected: float, measured: float, error: float, error_of: str, engine: str) -> Row:
    """Give a row of a number with an error of its own kind."""
    rounding = ROUNDING * max(1.0, abs(expected))
    return Row(quantity, float(expected), float(measured), float(error) + rounding, error_of, engine)


def farthest(expected: float, values: Iterable[float]) -> float:
    """Give the value farthest from what is expected; NaN where there is none."""
    return max(values, key=lambda value: abs(value - expected), default=math.nan)


def output_is_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Take the network's own output as the loss of an example."""
    return outputs[:, 0]


def half_square(outputs: Tensor, targets: Tensor) -> Tensor:
    """Half the squared length of the network's output: ½‖r‖² of residuals."""
    return 0.5 * outputs.square().sum(1)


class Formula(nn.Module):
    """A network that is a formula of its weights: every example has the output f(point).

    Parameters
    ----------
    point : array-like of shape (P,)
        Where it stands.
    """

    def __init__(self, point: Any) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.as_tensor(point, dtype=torch.float64).clone())

    def value(self, point: Tensor) -> Tensor:
        """Give f at a point (P,)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Give f once for each example."""
        return self.value(self.point).expand(len(x), 1)

    def at(self, point: Any) -> Formula:
        """Give the same formula at another point."""
        other = copy.deepcopy(self)
        with torch.no_grad():
            other.point.copy_(torch.as_tensor(point))
        return other


def no_examples(n: int = 8) -> Examples:
    """Give examples that a formula doesn't look at."""
    return Examples(torch.zeros(n, 1, dtype=torch.float64), torch.zeros(n, dtype=torch.float64), name="none")
