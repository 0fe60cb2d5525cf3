"""One curvature measurement: its steps in order, each through the cache, with progress over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import torch

from .. import sampling
from ..budget import Budget, TimeUp
from ..cache import MISSING, cached_call, fingerprint, is_cached, keep, recall
from ..checks import check_memory_fits, check_sketch_fits
from ..landscape import Landscape
from ..pace import Work, pace_ahead
from ..progress import OnProgress
from . import _steps as work
from ._ends import ends_in_time
from ._point_kind import decided
from ._result import CurvatureResult

_CACHED_VECTORS = 2**28  # eigenvectors above this many bytes are not kept in the cache
_AFTER_ENDS = 0.3  # share of a budget that the search for the ends leaves to the rest
_LEAST_AFTER = 6  # products of the least that may follow, a trace of two probes


@dataclass(frozen=True)
class CurvatureSettings:
    """How curvature is measured; `CurvatureEstimator` says what each setting means."""

    kind: str
    search: work.Search
    n_probes: int
    n_lanczos: int
    exact_below: int
    gradient_tol: float
    per_layer: bool
    compare_traces: bool
    sampling: bool


class Measurement:
    """The measurement of one point; `result` grows step by step.

    Parameters
    ----------
    land : Landscape
        In float64 where the matrix is made explicitly.
    settings : CurvatureSettings
    result : CurvatureResult
        What is known of the point before.
    memory : joblib.Memory
    budget : Budget
    report : callable
        ``report(done, total, message)``; may raise `Cancelled`.
    on_partial : callable or None
        Takes the result after each step.
    """

    def __init__(
        self,
        land: Landscape,
        settings: CurvatureSettings,
        result: CurvatureResult,
        *,
        memory: joblib.Memory,
        budget: Budget,
        report: OnProgress,
        on_partial: Callable[[CurvatureResult], None] | None = None,
    ):
        self.land, self.settings, self.result = land, settings, result
        self.memory, self.budget, self.report, self.on_partial = memory, budget, report, on_partial
        self.kind, self.search, self.probes = settings.kind, settings.search, settings.n_probes
        self.before, self.doing = 0, ""
        self.pace = 0.0  # seconds a product takes
        self.cut = False  # whether the search for the ends was ended by the clock
        self.small = land.n_parameters <= settings.exact_below
        others = len(work.KINDS) - 1 if settings.compare_traces else 0
        if self.small:
            self.total = land.n_parameters + 3 * self.probes * others
        else:
            layers = len(work.groups_of(land)) if settings.per_layer else 0
            lanczos = self.probes * min(settings.n_lanczos, land.n_parameters)
            ends = 10 * self.search.n_eigenvalues
            self.total = ends + 3 * self.probes * (1 + others) + self.probes + lanczos + 20 * layers
        self.total += work.SAMPLING_PRODUCTS * self.probes * settings.sampling

    def take(self) -> CurvatureResult:
        """Take all steps."""
        why_not = ""
        try:
            self.differentiate()
            self.measure()
            why_not = self.over_examples() if self.settings.sampling else ""
        except TimeUp:
            self.budget.unfinished.append(self.doing)
        self.update(**self.budget.said())
        self.show()
        if why_not:
            self.update(notes=[*self.result.notes, why_not])
        self.report(self.total, self.total, "done")
        return self.result

    def differentiate(self) -> None:
        """Take the gradient, where there is time; nothing that takes longer is begun without asking either."""
        if self.budget.seconds is not None:
            pace = pace_ahead(self.land, Work(gradients=1, products=1))
            self.pace = pace.products
            if not self.budget.most(1, pace.gradients):
                self.doing = "everything beyond the loss"
                raise TimeUp
        self.gradient = self.land.gradient()
        self.update(gradient_norm=float(self.gradient.double().norm()))

    def measure(self) -> None:
        """Take the steps after the gradient."""
        if self.small:
            if self.budget.most(1, self.pace):
                self.look_along_gradient()
            if not self.fits_explicitly():
                self.small = False
                self.budget.unfinished.append("explicit matrix (products instead)")
        own = self.exact() if self.small else self.iterative()
        self.compare(own)
        if self.settings.per_layer and not self.small:
            self.layer_eigenvalues()

    def look_along_gradient(self) -> None:
        """Find the fall of the loss that a step along the gradient promises."""
        began, norm = self.budget.used, self.result.gradient_norm
        along = float(self.gradient.double() @ self.land.hvp(self.gradient).double())
        self.pace = self.budget.used - began
        if along > 0:
            self.update(gradient_step_drop=norm**4 / (2 * along))

    def update(self, **fields: Any) -> None:
        """Replace fields of the result so far."""
        self.result = replace(self.result, **fields)

    def step(self, message: str, cost: int) -> Callable[[int, int], None]:
        """Give a step its share of the bar; a step that needs more than expected waits at its end."""
        start, self.before, self.doing = self.before, self.before + cost, message
        self.report(min(start, self.total), self.total, message)
        return lambda done, total: self.report(min(start + min(done, cost), self.total), self.total, message)

    def watched(self, message: str, cost: int) -> Callable[[int, int], None]:
        """Give a step its share of the bar, and let it end with `TimeUp` where the next product would not fit."""
        step, watch = self.step(message, cost), self.budget.watch()

        def watching(done: int, total: int) -> None:
            step(done, total)
            if done < total:  # what is done is not thrown away
                watch()

        return watching

    def cached(self, function: Callable, message: str, cost: int, *arguments: Any) -> Any:
        """Run one step, or load its answer; its arguments and the landscape are its key."""
        step = self.watched(message, cost)
        return cached_call(self.memory, function, self.key(function, *arguments), self.land, *arguments, step)

    def key(self, function: Callable, *arguments: Any) -> str:
        """Name the answer of one step."""
        return fingerprint(self.land.fingerprint, function.__name__, *arguments)

    def sampled(self, function: Callable, message: str, each: int, kind: str) -> Any:
        """Run a step over random probes of `each` products, over as many as there is time for; None for too little."""
        seed, n = self.search.random_state, self.probes
        if not is_cached(self.memory, function, self.key(function, kind, n, seed)):
            n = self.fewer(message, self.budget.most(n, each * self.pace, least=2))
        found = self.cached(function, message, each * self.probes, kind, n, seed) if n else None
        self.update(n_products=self.result.n_products + getattr(found, "n_products", each * n))
        return found

    def fewer(self, message: str, n: int) -> int:
        """Note that time suffices for `n` probes only, where that is so."""
        if n < self.probes:
            self.budget.unfinished.append(f"{message} ({n} of {self.probes} probes)" if n else message)
        return n

    def fits_explicitly(self) -> bool:
        """Whether there is time for the explicit matrix, or its answer is known."""
        n = self.land.n_parameters
        known = is_cached(self.memory, work.exact, self.key(work.exact, *self.explicitly))
        return known or self.budget.most(n, self.pace, least=n) > 0

    @property
    def explicitly(self) -> tuple[Any, ...]:
        """What an explicit matrix is asked for."""
        return self.kind, self.search.n_eigenvalues, self.search.ends, self.search.tol

    def show(self) -> None:
        """Bring the verdict up to date and hand the partial result on."""
        self.result = decided(self.result, self.search.ends)
        if self.on_partial is not None:
            self.on_partial(self.result)

    def exact(self) -> dict[str, float]:
        """Measure from an explicit matrix; give the trace."""
        n = self.land.n_parameters
        cure = "Lower exact_below so that products are used instead."
        check_memory_fits(5.0 * n * n * 8, self.land.device, "The explicit matrix", cure)
        found = dict(self.cached(work.exact, "explicit matrix", n, *self.explicitly))
        self.vectors = torch.from_numpy(found.pop("vectors"))
        self.update(**found)
        self.show()
        return {"value": self.result.trace, "stderr": 0.0}

    def iterative(self) -> dict[str, float]:
        """Measure from products; give the trace."""
        land, search, n_lanczos = self.land, self.search, self.settings.n_lanczos
        needed = work.basis_bytes(land, search.n_eigenvalues, search.ends, n_lanczos)
        cure = "Lower n_lanczos or n_eigenvalues, or choose fewer parameters."
        check_memory_fits(needed, land.device, "The Lanczos vectors", cure)
        check_sketch_fits(land.theta, self.probes)
        pairs = self.searched()
        if pairs is not None:
            self.ends(pairs)
        if np.isnan(self.result.gradient_step_drop) and self.budget.most(1, self.pace):
            self.look_along_gradient()
        trace = self.sampled(work.trace, "trace", 3, self.kind)
        if trace is not None:
            self.update(trace=trace.value, trace_stderr=trace.stderr)
            self.show()
        layers = self.sampled(work.layer_traces, "trace by layer", 1, self.kind)
        if layers is not None:
            self.update(layers=layers)
        if n_lanczos and pairs is not None:
            self.density(pairs, n_lanczos)
        elif n_lanczos:
            self.budget.unfinished.append("spectral density")
        return {"value": self.result.trace, "stderr": self.result.trace_stderr}

    def searched(self) -> Any:
        """Search the ends of the spectrum, in the time there is; what the clock has cut is not kept.

        Gives None where so few steps fit that a Rayleigh quotient says nothing of an end.
        """
        land, search = self.land, self.search
        keeps = 2 * search.n_eigenvalues * land.n_parameters * 4 < _CACHED_VECTORS
        key = self.key(work.eigenpairs, self.kind, search)
        found = recall(self.memory, work.eigenpairs, key) if keeps else MISSING
        step = self.step("ends of the spectrum", 10 * search.n_eigenvalues)
        if found is not MISSING:
            return found
        after = _AFTER_ENDS * (self.budget.seconds or 0.0)
        reserved = after if after > _LEAST_AFTER * self.pace else 0.0
        how: dict[str, Any] = {"budget": self.budget, "reserved": reserved, "seconds": self.pace, "step": step}
        ends = ends_in_time(land, self.kind, search, **how)
        self.pace, self.cut = ends.seconds, not ends.whole
        if ends.short:
            self.budget.unfinished.append(ends.short)
        if keeps and ends.whole:
            keep(self.memory, work.eigenpairs, key, ends.pairs)
        return ends.pairs

    def ends(self, pairs: Any) -> None:
        """Take over the ends of the spectrum."""
        self.vectors = pairs.vectors
        self.update(
            eigenvalues=pairs.values,
            residuals=pairs.residuals,
            converged=pairs.converged,
            negligible=pairs.negligible,
            zero_threshold=float(self.search.tol * np.abs(pairs.values).max()),
            n_products=self.result.n_products + pairs.n_products,
        )
        self.show()

    def density(self, pairs: Any, n_lanczos: int) -> None:
        """Measure density and fractions, and look again where the ends missed something."""
        message, probes = "spectral density", self.probes
        if self.cut or not is_cached(self.memory, work.density, self.density_key(probes, n_lanczos)):
            probes = self.fewer(message, self.budget.most(probes, n_lanczos * self.pace, least=2))
            if not probes:
                return
        step = self.watched(message, self.probes * min(n_lanczos, self.land.n_parameters))
        asked = self.land, self.kind, pairs, self.search, probes, n_lanczos, step
        if self.cut:
            found = work.density(*asked)  # of pairs that nobody finds again
        else:
            found = cached_call(self.memory, work.density, self.density_key(probes, n_lanczos), *asked)
        self.update(
            fractions=found.fractions,
            fractions_stderr=found.fractions_stderr,
            fractions_spread=found.fractions_spread,
            fractions_bracket=found.fractions_bracket,
            density=(found.grid, found.density),
            density_stderr=found.density_stderr,
            density_sigma=found.sigma,
            n_products=self.result.n_products + found.n_products,
        )
        if not self.cut and _missed(pairs, found, self.search):
            self.search_again(pairs)
        self.show()

    def density_key(self, probes: int, n_lanczos: int) -> str:
        """Name the answer of the density: the search decides the pairs."""
        return fingerprint(self.land.fingerprint, "density", self.kind, self.search, probes, n_lanczos)

    def search_again(self, pairs: Any) -> None:
        """Search the ends once more, where the probes saw an eigenvalue that one start vector sees one copy of."""
        message = "ends of the spectrum, again"
        if not self.budget.most(2 * pairs.n_products, self.pace, least=2 * pairs.n_products):
            self.budget.unfinished.append(message)
            return
        step = self.watched(message, 0)
        self.ends(work.eigenpairs(self.land, self.kind, self.search, step, verify=True))

    def compare(self, own: dict[str, float]) -> None:
        """Put the traces of the four matrices beside each other."""
        traces = {self.kind: own} if np.isfinite(own["value"]) else {}
        if self.settings.compare_traces:
            loss = self.land.settings["loss"]
            for kind in work.KINDS:
                if kind == self.kind or (kind == "fisher" and not self.land.is_likelihood):
                    continue
                if kind == "fisher" and "ggn" in traces and loss == "cross_entropy":
                    traces[kind] = traces["ggn"]  # the same matrix for this loss (Martens 2020)
                    continue
                found = self.sampled(work.trace, f"trace of {kind}", 3, kind)
                if found is None:
                    continue
                traces[kind] = {"value": found.value, "stderr": found.stderr}
        self.update(traces={kind: traces[kind] for kind in work.KINDS if kind in traces})

    def over_examples(self) -> str:
        """Find how much the numbers would change with other examples, or say why that can't be told."""
        land, result, search = self.land, self.result, self.search
        why_not = sampling.why_not(land, derivatives=True)
        if why_not:
            return why_not
        cost = work.SAMPLING_PRODUCTS * self.probes
        if self.cut or self.budget.unfinished or not self.budget.most(cost, self.pace, least=cost):
            self.budget.unfinished.append("error over examples")  # it speaks of numbers that were measured in full
        else:
            step = self.watched("error over examples", cost)
            given = land.fingerprint, "sampling", self.kind, search, self.probes, self.small
            live = land, self.kind, result, self.gradient, self.vectors, search, self.probes, step
            self.update(sampling=cached_call(self.memory, work.over_examples, fingerprint(*given), *live))
        return ""

    def layer_eigenvalues(self) -> None:
        """Find the largest eigenvalue of every layer's block."""
        rows = [dict(row) for row in self.result.layers]
        for row in rows:
            name = row["group"]
            top, residual, converged, products = self.cached(
                work.layer_eigenvalue, f"layer {name}", 20, self.kind, name, self.search.tol, self.search.random_state
            )
            row.update(lambda_max=top, lambda_max_residual=residual, converged=converged)
            self.update(layers=[dict(row) for row in rows], n_products=self.result.n_products + products)


def _missed(pairs: Any, found: Any, search: work.Search) -> bool:
    """Whether the probes saw an eigenvalue beyond those found, clearly inside the wanted ones."""
    k, ends, slack = search.n_eigenvalues, search.ends, 2 * found.threshold
    top = pairs.values[min(k, len(pairs.values)) - 1] if ends != "smallest" else np.inf
    bottom = pairs.values[-min(k, len(pairs.values))] if ends != "largest" else -np.inf
    low, high = found.extremes
    return bool(high > top + slack or low < bottom - slack)
