"""One curvature measurement: its steps in order, each through the cache, with progress over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor

from .. import sampling
from ..cache import cached_call, fingerprint
from ..checks import check_memory_fits, check_sketch_fits
from ..landscape import Landscape
from ..progress import OnProgress
from . import _steps as work
from ._point_kind import decided
from ._result import CurvatureResult

_CACHED_VECTORS = 2**28  # eigenvectors above this many bytes are not kept in the cache


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
        report: OnProgress,
        on_partial: Callable[[CurvatureResult], None] | None = None,
    ):
        self.land, self.settings, self.result = land, settings, result
        self.memory, self.report, self.on_partial = memory, report, on_partial
        self.kind, self.search, self.probes = settings.kind, settings.search, settings.n_probes
        self.before = 0
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
        gradient = self.land.gradient()
        norm = float(gradient.double().norm())
        self.update(gradient_norm=norm)
        along = float(gradient.double() @ self.land.hvp(gradient).double())
        if along > 0:
            self.update(gradient_step_drop=norm**4 / (2 * along))
        own = self.exact() if self.small else self.iterative()
        self.compare(own)
        if self.settings.per_layer and not self.small:
            self.layer_eigenvalues()
        why_not = self.over_examples(gradient) if self.settings.sampling else ""
        self.show()
        if why_not:
            self.update(notes=[*self.result.notes, why_not])
        self.report(self.total, self.total, "done")
        return self.result

    def update(self, **fields: Any) -> None:
        """Replace fields of the result so far."""
        self.result = replace(self.result, **fields)

    def step(self, message: str, cost: int) -> Callable[[int, int], None]:
        """Give a step its share of the bar; a step that needs more than expected waits at its end."""
        start, self.before = self.before, self.before + cost
        self.report(min(start, self.total), self.total, message)
        return lambda done, total: self.report(min(start + min(done, cost), self.total), self.total, message)

    def cached(self, function: Callable, message: str, cost: int, *arguments: Any) -> Any:
        """Run one step, or load its answer; its arguments and the landscape are its key."""
        step = self.step(message, cost)
        key = fingerprint(self.land.fingerprint, function.__name__, *arguments)
        return cached_call(self.memory, function, key, self.land, *arguments, step)

    def show(self) -> None:
        """Bring the verdict up to date and hand the partial result on."""
        self.result = decided(self.result, self.search.ends)
        if self.on_partial is not None:
            self.on_partial(self.result)

    def exact(self) -> dict[str, float]:
        """Measure from an explicit matrix; give the trace."""
        n, search = self.land.n_parameters, self.search
        cure = "Lower exact_below so that products are used instead."
        check_memory_fits(5.0 * n * n * 8, self.land.device, "The explicit matrix", cure)
        arguments = self.kind, search.n_eigenvalues, search.ends, search.tol
        found = dict(self.cached(work.exact, "explicit matrix", n, *arguments))
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
        if 2 * search.n_eigenvalues * land.n_parameters * 4 < _CACHED_VECTORS:
            pairs = self.cached(work.eigenpairs, "ends of the spectrum", 10 * search.n_eigenvalues, self.kind, search)
        else:
            step = self.step("ends of the spectrum", 10 * search.n_eigenvalues)
            pairs = work.eigenpairs(land, self.kind, search, step)
        self.ends(pairs)
        arguments = self.kind, self.probes, search.random_state
        trace = self.cached(work.trace, "trace", 3 * self.probes, *arguments)
        self.update(trace=trace.value, trace_stderr=trace.stderr, n_products=self.result.n_products + trace.n_products)
        self.show()
        layers = self.cached(work.layer_traces, "trace by layer", self.probes, *arguments)
        self.update(layers=layers, n_products=self.result.n_products + self.probes)
        if n_lanczos:
            self.density(pairs, n_lanczos)
        return {"value": trace.value, "stderr": trace.stderr}

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
        step = self.step("spectral density", self.probes * min(n_lanczos, self.land.n_parameters))
        how = self.search, self.probes, n_lanczos
        key = fingerprint(self.land.fingerprint, "density", self.kind, *how)  # the search decides the pairs
        found = cached_call(self.memory, work.density, key, self.land, self.kind, pairs, *how, step)
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
        if _missed(pairs, found, self.search):
            # One start vector sees one copy of a repeated eigenvalue; the probes saw another.
            step = self.step("ends of the spectrum, again", 0)
            self.ends(work.eigenpairs(self.land, self.kind, self.search, step, verify=True))
        self.show()

    def compare(self, own: dict[str, float]) -> None:
        """Put the traces of the four matrices beside each other."""
        traces = {self.kind: own}
        if self.settings.compare_traces:
            loss, seed = self.land.settings["loss"], self.search.random_state
            for kind in work.KINDS:
                if kind == self.kind or (kind == "fisher" and not self.land.is_likelihood):
                    continue
                if kind == "fisher" and "ggn" in traces and loss == "cross_entropy":
                    traces[kind] = traces["ggn"]  # the same matrix for this loss (Martens 2020)
                    continue
                found = self.cached(work.trace, f"trace of {kind}", 3 * self.probes, kind, self.probes, seed)
                traces[kind] = {"value": found.value, "stderr": found.stderr}
                self.update(n_products=self.result.n_products + found.n_products)
        self.update(traces={kind: traces[kind] for kind in work.KINDS if kind in traces})

    def over_examples(self, gradient: Tensor) -> str:
        """Find how much the numbers would change with other examples, or say why that can't be told."""
        land, result, search = self.land, self.result, self.search
        why_not = sampling.why_not(land, derivatives=True)
        if not why_not:
            step = self.step("error over examples", work.SAMPLING_PRODUCTS * self.probes)
            given = land.fingerprint, "sampling", self.kind, search, self.probes, self.small
            live = land, self.kind, result, gradient, self.vectors, search, self.probes, step
            self.update(sampling=cached_call(self.memory, work.over_examples, fingerprint(*given), *live))
        return why_not

    def layer_eigenvalues(self) -> None:
        """Find the largest eigenvalue of every layer's block."""
        rows = [dict(row) for row in self.result.layers]
        for row in rows:
            name = row["group"]
            top, residual, converged, products = self.cached(
                work.layer_eigenvalue, f"layer {name}", 20, self.kind, name, self.search.tol, self.search.random_state
            )
            row.update(lambda_max=top, lambda_max_residual=residual, converged=converged)
            self.update(n_products=self.result.n_products + products)
        self.update(layers=rows)


def _missed(pairs: Any, found: Any, search: work.Search) -> bool:
    """Whether the probes saw an eigenvalue beyond those found, clearly inside the wanted ones."""
    k, ends, slack = search.n_eigenvalues, search.ends, 2 * found.threshold
    top = pairs.values[min(k, len(pairs.values)) - 1] if ends != "smallest" else np.inf
    bottom = pairs.values[-min(k, len(pairs.values))] if ends != "largest" else -np.inf
    low, high = found.extremes
    return bool(high > top + slack or low < bottom - slack)
