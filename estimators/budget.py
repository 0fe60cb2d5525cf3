"""A budget of time: a fit gives the best answer that fits into it, and says what it lacks.

What improves step by step (a search, a map) is stopped in time; what is a mean over draws takes fewer of them; what
does not fit is left out. An answer cut by the clock is kept by no cache, and one of fewer draws as the answer to that
many. The points of a map and the steps of a measurement that were finished are there for the next fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .results import Result

clock = time.perf_counter  # what seconds are counted by


class TimeUp(Exception):
    """Raised between two pieces of work where the next would not fit; the fit that has the budget catches it."""


class Budget:
    """The seconds a fit may take, counted from here on.

    Parameters
    ----------
    seconds : float or None
        None sets no end.

    Attributes
    ----------
    unfinished : list of str
        What was cut short, made smaller or left out so far, in words.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.unfinished: list[str] = []
        self._began = clock()

    @property
    def used(self) -> float:
        """Seconds since it began."""
        return clock() - self._began

    @property
    def left(self) -> float:
        """Seconds until its end."""
        return math.inf if self.seconds is None else self.seconds - self.used

    def most(self, wanted: int, seconds: float, least: int = 1) -> int:
        """How many of `wanted` pieces that take so many seconds each still fit; 0 where not even `least` do."""
        if wanted * seconds <= self.left:
            return wanted
        fitting = int(max(self.left, 0.0) / seconds)
        return fitting if fitting >= least else 0

    def watch(self, *, reserved: float = 0.0) -> Callable[[], None]:
        """Give what is called between pieces of work: it raises `TimeUp` where another like the last would not fit.

        `reserved` seconds at the end of the budget are left to other work.
        """
        brake = self.brake(reserved=reserved)

        def watching() -> None:
            if brake():
                raise TimeUp

        return watching

    def brake(self, *, reserved: float = 0.0) -> Brake:
        """Give what a search asks between its steps; see `Brake`."""
        return Brake(self, reserved)

    def said(self) -> dict[str, Any]:
        """Give the fields of a `BudgetedResult`."""
        return {
            "seconds": math.nan if self.seconds is None else self.used,
            "unfinished": list(self.unfinished),
        }


class Brake:
    """What a search asks after each of its steps: whether it has to end now.

    Parameters
    ----------
    budget : Budget
    reserved : float
        Seconds at the end of the budget that are for other work.

    Attributes
    ----------
    used : bool
        Whether it has ended the search.
    """

    def __init__(self, budget: Budget, reserved: float) -> None:
        self.budget, self.reserved = budget, reserved
        self.used = False
        self._last, self._step = clock(), 0.0

    def __call__(self, steps: int = 1) -> bool:
        """Say whether so many steps more, like the last, are too many; one is asked for after each step."""
        if steps == 1:
            self._step, self._last = clock() - self._last, clock()
        self.used |= self.budget.left - self.reserved < steps * self._step
        return self.used


@dataclass(kw_only=True, eq=False, repr=False)
class Budgeted:
    """Gives an estimator a budget of time.

    Parameters
    ----------
    time_budget : float or None, default=None
        Seconds that a fit may take: it then gives the best answer that fits, and says what is missing.
    """

    time_budget: float | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class BudgetedResult(Result):
    """What an estimator measured that may have had a budget of time.

    Attributes
    ----------
    seconds : float
        What a fit with a budget took; NaN without one.
    unfinished : list of str
        What the budget was too short for: cut short, taken from fewer draws, or left out. Empty where everything that
        was asked for was done.
    """

    seconds: float = math.nan
    unfinished: list[str] = field(default_factory=list)

    @property
    def shortfall(self) -> list[str]:
        """The sentence about it, where there is something to say."""
        if not self.unfinished:
            return []
        asked = self.settings.get("time_budget")
        return [
            f"The time budget of {asked:g} s was too short for: {'; '.join(self.unfinished)} ({self.seconds:.3g} s "
            "used). Raise time_budget to go on."
        ]
