"""The steps of one curvature measurement, each through the cache, with progress over all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import check_memory_fits, check_sketch_fits
from ..landscape import Landscape
from ..progress import OnProgress
from . import _steps as work
from ._point_kind import decided
from ._result import CurvatureResult

if TYPE_CHECKING:
    from ._estimator import CurvatureEstimator

_CACHED_VECTORS = 2**28  # eigenvectors above this many bytes are not kept in the cache


class CurvatureRun:
    """One measurement: its steps in order, each through the cache, with progress over all of them."""

    def __init__(
        self,
        estimator: CurvatureEstimator,
        land: Landscape,
        options: dict[str, Any],
        report: OnProgress,
        on_partial: Callable[[CurvatureResult], None] | None,
        result: CurvatureResult,
    ):
        self.estimator, self.land, self.options, self.on_partial = estimator, land, options, on_partial
        self.result, self.report = result, report
        self.kind, self.probes, self.seed = estimator.kind, estimator.n_probes, options["random_state"]
        self.before = 0
        others = len(work.KINDS) - 1 if estimator.compare_traces else 0
        if result.n_parameters <= estimator.exact_below:
            self.total = result.n_parameters + 3 * self.probes * others
        else:
            layers = len(work.groups_of(land)) if estimator.per_layer else 0
            lanczos = self.probes * min(estimator.n_lanczos, land.n_parameters)
            ends = 10 * estimator.n_eigenvalues
            self.total = ends + 3 * self.probes * (1 + others) + self.probes + lanczos + 20 * layers

    def update(self, **fields: Any) -> None:
        """Replace fields of the result so far."""
        self.result = replace(self.result, **fields)

    def step(self, message: str, cost: int) -> Callable[[int, int], None]:
        """Give a step its share of the bar; a step that needs more than expected waits at its end."""
        start, self.before = self.before, self.before + cost
        self.report(min(start, self.total), self.total, message)
        return lambda done, total: self.report(min(start + min(done, cost), self.total), self.total, message)

    def cached(self, function: Callable, message: str, cost: int, *arguments: Any, store: bool = True) -> Any:
        """Run one step, or load its answer."""
        step = self.step(message, cost)
        if not store:
            return function(self.land, *arguments, step)
        key = (self.land.fingerprint, function.__name__, *arguments)
        return self.estimator._cached(function, key, self.land, *arguments, step)

    def show(self) -> None:
        """Bring the verdict up to date and hand the partial result on."""
        self.result = decided(self.result, self.options["ends"])
        if self.on_partial is not None:
            self.on_partial(self.result)

    def finish(self) -> None:
        """Hand on the final result."""
        self.show()
        self.report(self.total, self.total, "done")

    def exact(self) -> None:
        """Measure from an explicit matrix."""
        n, options = self.land.n_parameters, self.options
        check_memory_fits(
            5.0 * n * n * 8,
            self.land.device,
            "The explicit matrix",
            "Lower exact_below so that products are used instead.",
        )
        fields = self.cached(
            work.exact, "explicit matrix", n, self.kind, options["n_eigenvalues"], options["ends"], options["tol"]
        )
        self.update(**fields)
        self.show()
        self.compare({"value": self.result.trace, "stderr": 0.0})
        self.finish()

    def iterative(self) -> None:
        """Measure from products."""
        land, options, estimator = self.land, self.options, self.estimator
        needed = work.basis_bytes(land, options["n_eigenvalues"], options["ends"], options["n_lanczos"])
        check_memory_fits(
            needed,
            land.device,
            "The Lanczos vectors",
            "Lower n_lanczos or n_eigenvalues, or choose fewer parameters.",
        )
        check_sketch_fits(land.theta, self.probes)
        vectors = 2 * options["n_eigenvalues"] * land.n_parameters * 4
        pairs = self.cached(
            work.eigenpairs,
            "ends of the spectrum",
            10 * options["n_eigenvalues"],
            self.kind,
            options,
            store=vectors < _CACHED_VECTORS,
        )
        self.ends(pairs)
        trace = self.cached(work.trace, "trace", 3 * self.probes, self.kind, self.probes, self.seed)
        self.update(trace=trace.value, trace_stderr=trace.stderr, n_products=self.result.n_products + trace.n_products)
        self.show()
        layers = self.cached(work.layer_traces, "trace by layer", self.probes, self.kind, self.probes, self.seed)
        self.update(layers=layers, n_products=self.result.n_products + self.probes)
        if options["n_lanczos"]:
            self.density(pairs)
        self.compare({"value": trace.value, "stderr": trace.stderr})
        if estimator.per_layer:
            self.layer_eigenvalues()
        self.finish()

    def ends(self, pairs: Any) -> None:
        """Take over the ends of the spectrum."""
        self.update(
            eigenvalues=pairs.values,
            residuals=pairs.residuals,
            converged=pairs.converged,
            negligible=pairs.negligible,
            zero_threshold=float(self.options["tol"] * np.abs(pairs.values).max()),
            n_products=self.result.n_products + pairs.n_products,
        )
        self.show()

    def density(self, pairs: Any) -> None:
        """Measure density and fractions, and look again where the ends missed something."""
        cost = self.probes * min(self.options["n_lanczos"], self.land.n_parameters)
        step = self.step("spectral density", cost)
        key = (self.land.fingerprint, "density", self.kind, self.options)
        found = self.estimator._cached(work.density, key, self.land, self.kind, pairs, self.options, step)
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
        if _missed(pairs, found, self.options):
            # One start vector sees one copy of a repeated eigenvalue; the probes saw another.
            step = self.step("ends of the spectrum, again", 0)
            self.ends(work.eigenpairs(self.land, self.kind, self.options, step, verify=True))
        self.show()

    def compare(self, own: dict[str, float]) -> None:
        """Put the traces of the four matrices beside each other."""
        traces = {self.kind: own}
        if self.estimator.compare_traces:
            for kind in work.KINDS:
                if kind == self.kind or (kind == "fisher" and callable(self.estimator.loss)):
                    continue  # a callable loss names no distribution to draw labels from
                if kind == "fisher" and "ggn" in traces and self.estimator.loss == "cross_entropy":
                    traces[kind] = traces["ggn"]  # the same matrix for this loss (Martens 2020)
                    continue
                found = self.cached(work.trace, f"trace of {kind}", 3 * self.probes, kind, self.probes, self.seed)
                traces[kind] = {"value": found.value, "stderr": found.stderr}
                self.update(n_products=self.result.n_products + found.n_products)
        self.update(traces={kind: traces[kind] for kind in work.KINDS if kind in traces})

    def layer_eigenvalues(self) -> None:
        """Find the largest eigenvalue of every layer's block."""
        rows = [dict(row) for row in self.result.layers]
        for row in rows:
            name = row["group"]
            top, residual, converged, products = self.cached(
                work.layer_eigenvalue, f"layer {name}", 20, self.kind, name, self.options["tol"], self.seed
            )
            row.update(lambda_max=top, lambda_max_residual=residual, converged=converged)
            self.update(n_products=self.result.n_products + products)
        self.update(layers=rows)


def _missed(pairs: Any, found: Any, options: dict[str, Any]) -> bool:
    """Whether the probes saw an eigenvalue beyond those found, clearly inside the wanted ones."""
    k, ends, slack = options["n_eigenvalues"], options["ends"], 2 * found.threshold
    top = pairs.values[min(k, len(pairs.values)) - 1] if ends != "smallest" else np.inf
    bottom = pairs.values[-min(k, len(pairs.values))] if ends != "largest" else -np.inf
    low, high = found.extremes
    return bool(high > top + slack or low < bottom - slack)
