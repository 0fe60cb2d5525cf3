"""The measures of one landscape: each taken at most once, through the cache, with progress over all of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import joblib
from torch import Tensor

from ..cache import cached_call, fingerprint
from ..landscape import Landscape
from ..progress import OnProgress
from ._measures import MEASURES, Fields, SharpnessSettings


class Answers:
    """The measures of one landscape, each computed at most once, from the cache where it is known.

    Parameters
    ----------
    land : Landscape
    settings : SharpnessSettings
    chosen : list of str
        Keys of `MEASURES` that share the progress bar.
    memory : joblib.Memory
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
        report: OnProgress,
        prior: Tensor | None = None,
        prior_doubt: str = "",
    ):
        self.land, self.settings, self.memory, self.report = land, settings, memory, report
        self.bound = {"prior": prior, "prior_doubt": prior_doubt}
        self.known: dict[str, Fields] = {}
        self.costs = {name: MEASURES[name].cost(settings) for name in chosen}
        self.before = 0

    def __getitem__(self, name: str) -> Fields:
        if name not in self.known:
            measure, budget, total = MEASURES[name], self.costs.get(name, 0), sum(self.costs.values())
            spent = 0.0

            def spend(passes: float) -> None:
                # Budgets are estimates: a measure that needs more waits at its end for the next.
                nonlocal spent
                spent = min(spent + passes, budget)
                self.report(self.before + int(spent), total, name)

            spend(0)
            own = self.settings.only(measure.settings)
            named: dict[str, Any] = self.bound if name == "pac_bayes" else {}
            key = fingerprint(self.land.fingerprint, asdict(own), *named.values())
            if name == "profile":
                named = {"at_rho": lambda: self["sharpness"]}
            self.known[name] = cached_call(self.memory, measure.compute, key, self.land, own, spend, **named)
            self.before += budget
            self.report(self.before, total, name)
        return self.known[name]
