"""Running several measures on one landscape: cached one by one, with progress over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..cache import cached_call, fingerprint
from ..landscape import Landscape
from ..progress import OnProgress
from ._measures import MEASURES, Probe


class Run:
    """Answers of one landscape, each from the cache where it is known, with progress over all of them."""

    def __init__(
        self,
        land: Landscape,
        options: Mapping[str, Any],
        prior: Any,
        memory: Any,
        chosen: list[str],
        report: OnProgress,
        prior_doubt: str = "",
    ):
        self.prior_doubt = prior_doubt
        self.land, self.options, self.prior, self.memory, self.report = land, options, prior, memory, report
        self.answers: dict[str, dict[str, Any]] = {}
        self.costs = {name: MEASURES[name].cost(options) for name in chosen}
        self.total = sum(self.costs.values())
        self.before, self.spent = 0, 0

    def answer(self, name: str) -> dict[str, Any]:
        """Give the fields of one measure, computed at most once."""
        if name not in self.answers:
            measure = MEASURES[name]
            budget = self.costs.get(name, 0)
            self.spent = 0

            def spend(passes: int) -> None:
                # Budgets are estimates: a measure that needs more waits at its end for the next.
                self.spent = min(self.spent + passes, budget)
                self.report(self.before + self.spent, self.total, name)

            self.report(self.before, self.total, name)
            # a measure sees the options of its key and no others
            options = {option: self.options[option] for option in measure.options}
            prior, doubt = (self.prior, self.prior_doubt) if name == "pac_bayes" else (None, "")
            probe = Probe(self.land, options, prior, spend, self.answer, doubt)
            key = fingerprint(self.land.fingerprint, options, prior, doubt)
            self.answers[name] = cached_call(self.memory, measure.compute, key, probe)
            self.before += budget
            self.report(self.before, self.total, name)
        return self.answers[name]


def described(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the parameters that change a number, for a result's settings."""
    names = {option for measure in MEASURES.values() for option in measure.options} | {"prior", "parameters"}
    return {name: options[name] for name in sorted(names) if options[name] is not None}
