"""The measures of one landscape: each taken at most once, through the cache, in the time there is."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import Any

import joblib
from torch import Tensor

from ..budget import Brake, Budget, TimeUp
from ..cache import MISSING, fingerprint, is_cached, keep, recall
from ..core.spectrum.lanczos import tells_ends
from ..landscape import Landscape
from ..pace import Work, pace_ahead
from ..progress import OnProgress
from ._measures import MEASURES, Fields, SharpnessSettings, fewest, lowered, taken_for

_USED = 0.8  # share of the time left that is given out: the time of a pass is known that well


class Answers:
    """The measures of one landscape, each computed at most once, from the cache where it is known.

    A budget is shared among them in proportion to what they cost. A measure that does not fit takes fewer draws,
    probes, starts or steps, and is kept as the answer to those; one that does not fit with the fewest has no fields.

    Parameters
    ----------
    land : Landscape
    settings : SharpnessSettings
    chosen : list of str
        Keys of `MEASURES` that share the progress bar.
    memory : joblib.Memory
    budget : Budget
    report : callable
        ``report(done, total, name)`` over all of them; may raise `Cancelled`.
    prior : Tensor of shape (P,) or None
        Mean of the PAC-Bayes prior; None is 0.
    prior_doubt : str
        Why the weights of the prior are not free of the examples, where their history says so.
    """

    def __init__(
        self,
        land: Landscape,
        settings: SharpnessSettings,
        chosen: list[str],
        *,
        memory: joblib.Memory,
        budget: Budget,
        report: OnProgress,
        prior: Tensor | None = None,
        prior_doubt: str = "",
    ):
        self.land, self.settings, self.memory, self.report = land, settings, memory, report
        self.budget = budget
        self.bound = {"prior": prior, "prior_doubt": prior_doubt}
        self.known: dict[str, Fields] = {}
        self.costs = {name: MEASURES[name].cost(settings) for name in taken_for(chosen)}
        self.total = round(sum(cost.passes for cost in self.costs.values()))
        self.before = 0.0
        self.cut: set[str] = set()  # measures that the time did not suffice for

    def __getitem__(self, name: str) -> Fields:
        if name not in self.known:
            found = recall(self.memory, MEASURES[name].compute, self._key(name, self.settings))
            self.known[name] = self._taken(name) if found is MISSING else found
            self.before += self.costs[name].passes
            self.report(round(self.before), self.total, name)
        return self.known[name]

    def _key(self, name: str, settings: SharpnessSettings) -> str:
        own = asdict(settings.only(MEASURES[name].settings))
        return fingerprint(self.land.fingerprint, own, *(self.bound.values() if name == "pac_bayes" else ()))

    def _taken(self, name: str) -> Fields:
        """Take a measure; keep it under the settings it was taken with, unless the clock has ended it."""
        named: dict[str, Any] = self.bound if name == "pac_bayes" else {}
        brake: Brake | None = None
        if name == "profile":
            at_rho = self["sharpness"]  # which it starts from
            named = {"at_rho": lambda: at_rho}
        if name == "lambda_max":
            named = {"enough": (brake := self._brake())}
        settings = self._affordable(name)
        if settings is None or (name == "profile" and not at_rho):
            return self._without(name)
        cost, watch, spent = self.costs[name].passes, self.budget.watch(), 0.0

        def spend(passes: float) -> None:
            # Costs are estimates: a measure that needs more waits at its end for the next.
            nonlocal spent
            spent = min(spent + passes, cost)
            self.report(round(self.before + spent), self.total, name)
            if brake is None:
                watch()

        spend(0)
        compute = MEASURES[name].compute
        try:
            found = compute(self.land, settings.only(MEASURES[name].settings), spend, **named)
        except TimeUp:
            return self._without(name)
        if brake is not None and brake.used:
            self.cut.add(name)
            if not found["lambda_max_converged"]:
                if not tells_ends(found["n_products"], 1):
                    return self._without(name)
                self._note(name, f"ended after {found['n_products']} products")
        elif name != "profile" or "sharpness" not in self.cut:
            keep(self.memory, compute, self._key(name, settings), found)
        return found

    # -- the time there is ------------------------------------------------------------------------------

    @cached_property
    def pace(self) -> Work:
        """Seconds of an evaluation and a gradient over all examples, and of what else the measures to come need."""
        return pace_ahead(self.land, sum((self.costs[name] for name in self._ahead), Work(evaluations=1, gradients=1)))

    @property
    def _ahead(self) -> list[str]:
        """Measures that are still to be computed."""
        unknown = [name for name in self.costs if name not in self.known]
        return [n for n in unknown if not is_cached(self.memory, MEASURES[n].compute, self._key(n, self.settings))]

    def _share(self, name: str) -> float:
        """Seconds for a measure: as many as it needs, or its share of what is left, or what it needs at least."""
        needed, left = {n: self.costs[n].seconds(self.pace) for n in self._ahead}, _USED * max(self.budget.left, 0.0)
        fair = needed[name] * min(1.0, left / sum(needed.values()))
        least = MEASURES[name].cost(fewest(self.settings)).seconds(self.pace)
        return max(fair, least) if least <= left else fair

    def _affordable(self, name: str) -> SharpnessSettings | None:
        """Give settings whose counts are low enough for the time there is; None where even the fewest are too many."""
        if self.budget.seconds is None:
            return self.settings
        if name == "lambda_max":  # whose search is ended by the clock
            fits = tells_ends(int(self._share(name) / self.pace.products), 1)
            return self.settings if fits else None
        fewer = lowered(MEASURES[name], self.settings, self.pace, self._share(name))
        if fewer is not None and fewer != self.settings:
            counts = {n: (v, asdict(self.settings)[n]) for n, v in asdict(fewer.only(MEASURES[name].settings)).items()}
            told = [f"{own} of {asked} {n}" for n, (own, asked) in counts.items() if own is not None and own != asked]
            self._note(name, ", ".join(told))
        return fewer

    def _brake(self) -> Brake:
        if self.budget.seconds is None:
            return self.budget.brake()
        return self.budget.brake(reserved=self.budget.left - self._share("lambda_max"))

    def _without(self, name: str) -> Fields:
        self._note(name)
        return {}

    def _note(self, name: str, how: str = "") -> None:
        self.cut.add(name)
        self.budget.unfinished.append(f"{name} ({how})" if how else name)
