"""Curvature: the spectrum of the Hessian at a point, and what kind of point that makes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import StrOptions
from torch import nn

from ..base import ProbingEstimator
from ..budget import Budget, Budgeted
from ..checks import positive, whole
from ..core.spectrum.lanczos import ENDS, usual_products
from ..landscape import Landscape
from ..pace import Work
from ..progress import OnProgress, ignore_progress
from ._measurement import CurvatureSettings, Measurement
from ._result import CurvatureResult
from ._steps import KINDS, SAMPLING_PRODUCTS, SEMIDEFINITE, Search

COLUMNS = (
    "loss",
    "gradient_norm",
    "lambda_max",
    "lambda_min",
    "trace",
    "saddle_index",
    "zero_fraction",
)
_LAYERS, _PER_LAYER = 15, 20  # layers of a network, and products for the largest eigenvalue of one


@dataclass(kw_only=True, eq=False, repr=False)
class CurvatureEstimator(TransformerMixin, Budgeted, ProbingEstimator):
    """Measure the curvature at a point: the ends of the spectrum, its density, its trace, the saddle index.

    Small networks get an explicit matrix in float64. Larger ones get Lanczos with full reorthogonalisation for the
    ends, stochastic Lanczos quadrature for density and fractions, and Hutch++ for the trace, each with its residual
    or standard error.

    Parameters
    ----------
    n_eigenvalues : int, default=5
        Eigenvalues wanted at each end.
    ends : {"both", "largest", "smallest"}, default="both"
        "smallest" are the most negative. Semidefinite matrices are searched at their large end only.
    kind : {"hessian", "ggn", "fisher", "empirical_fisher"}, default="hessian"
        H = ∇²L; the Gauss-Newton matrix (1/N) Σ Jᵀ(∂²ℓ/∂z²)J; the Fisher matrix (1/N) Σ E_y[ggᵀ] with labels
        drawn from the model; the empirical Fisher (1/N) Σ ggᵀ with the true labels, whose trace is the mean
        squared gradient norm.
    n_probes : int, default=10
        Random vectors behind density, fractions and traces.
    n_lanczos : int, default=80
        Lanczos steps a probe; 0 leaves density and fractions out.
    exact_below : int, default=2000
        Largest P for which the matrix is made explicitly, in float64.
    tol : float, default=1e-3
        A pair has converged at ‖Av − λv‖ ≤ tol·|λ|; eigenvalues within tol times the largest magnitude count as
        zero.
    gradient_tol : float, default=1e-3
        Largest gradient norm at which the point counts as stationary.
    max_products : int, default=1000
        Most products in the search for the ends.
    per_layer : bool, default=False
        Find λ_max of each layer too when iterative; its trace costs little and is always given.
    compare_traces : bool, default=True
        Estimate the traces of all four matrices beside each other.
    sampling : bool, default=False
        Also find how much loss, accuracy, gradient norm, λ_max, λ_min and trace of the Hessian would change with other
        examples: ``result_.uncertainty_of(name, "sampling")`` is a `SamplingError`.
    parameters : str, tuple of str or None, default=None
        Regular expressions that choose the parameters of θ.
    time_budget : float or None, default=None
        Seconds that a fit may take: the ends come first and may take 70 % of it, then trace, density and the rest, each
        from as many probes as fit. ``unfinished_`` lists what is missing; what was finished is kept for the next fit.
    loss, batch_size, device, precision, batch_norm, memory, random_state, verbose
        As everywhere, see `LandscapeEstimator`.

    Attributes
    ----------
    eigenvalues_, residuals_, trace_, trace_stderr_, density_, gradient_norm_, saddle_index_, saddle_index_stderr_,
    point_kind_, layers_
        And every other field of `CurvatureResult`, with an underscore.
    result_ : CurvatureResult

    References
    ----------
    Dauphin et al. 2014 (saddle index); Wu & Simon 2000 (Lanczos); Ghorbani et al. 2019 (density); Meyer et al. 2021
    (Hutch++); Kunstner et al. 2019 (the two Fisher matrices).

    Examples
    --------
    >>> from torch import nn
    >>> from estimators import CurvatureEstimator, load_data
    >>> data = load_data("digits", n_samples=32, image_size=8)
    >>> model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(3 * 4, 10))
    >>> est = CurvatureEstimator(n_eigenvalues=3, compare_traces=False).fit(model, data)
    >>> est.eigenvalues_.shape, est.method_, est.point_kind_
    ((6,), 'exact', 'not stationary')
    """

    n_eigenvalues: int = 5
    ends: str = "both"
    kind: str = "hessian"
    n_probes: int = 10
    n_lanczos: int = 80
    exact_below: int = 2000
    tol: float = 1e-3
    gradient_tol: float = 1e-3
    max_products: int = 1000
    per_layer: bool = False
    compare_traces: bool = True
    sampling: bool = False
    parameters: str | tuple[str, ...] | None = None

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(2, "n_probes"),
        **whole(1, "n_eigenvalues", "max_products"),
        **whole(0, "n_lanczos", "exact_below"),
        **positive("tol", "gradient_tol"),
        "ends": [StrOptions(set(ENDS))],
        "kind": [StrOptions(set(KINDS))],
        "per_layer": ["boolean"],
        "compare_traces": ["boolean"],
    }

    def fit(
        self,
        model: nn.Module,
        data: Any,
        *,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[CurvatureResult], None] | None = None,
    ) -> CurvatureEstimator:
        """Measure one model.

        Parameters
        ----------
        model : nn.Module
            The point; it is not modified.
        data : Examples, (inputs, targets), Dataset or DataLoader
            The examples the loss is taken over.
        on_progress : callable, optional
            ``on_progress(done, total, message)``; may raise `Cancelled`.
        on_partial : callable, optional
            ``on_partial(result)`` after each step of the measurement.

        Returns
        -------
        CurvatureEstimator
            Itself.

        Raises
        ------
        ValueError
            If a parameter is not allowed, more eigenvalues are asked for than there are parameters, the loss at the
            point is not finite, the model has no double backward, or the memory would not suffice.
        """
        budget = Budget(self.time_budget)
        land = self._landscape(model, data)
        report = self._progress(on_progress, "curvature")
        self._data = land.data
        self._publish(self._measure(land, model, budget, report, on_partial))
        return self

    def transform(self, models: nn.Module | Iterable[nn.Module]) -> np.ndarray:
        """Measure models on the examples of ``fit``.

        Parameters
        ----------
        models : nn.Module or iterable of nn.Module
            Networks of any architecture that accept the examples.

        Returns
        -------
        ndarray of shape (n_models, 7)
            Columns are named by `get_feature_names_out`.
        """
        listed = [models] if isinstance(models, nn.Module) else list(models)
        rows = []
        for model in listed:
            budget = Budget(self.time_budget)
            result = self._measure(self._landscape(model, self._data), model, budget, ignore_progress, None)
            row = {name: getattr(result, name) for name in COLUMNS if name != "zero_fraction"}
            rows.append([float({**row, "zero_fraction": result.fractions[1]}[name]) for name in COLUMNS])
        return np.array(rows, dtype=float).reshape(len(listed), len(COLUMNS))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`."""
        return np.array(COLUMNS, dtype=object)

    def cost(self) -> Work:
        """Count what a fit of a network with more than `exact_below` parameters takes, about."""
        both = self.kind not in SEMIDEFINITE and self.ends == "both"
        search = usual_products(2 * self.n_eigenvalues, "both") if both else usual_products(self.n_eigenvalues, "one")
        same = self.loss == "cross_entropy"  # whose Fisher matrix is the Gauss-Newton matrix
        others = (len(KINDS) - 1 - same) if self.compare_traces else 0
        a_probe = self.n_lanczos + 1 + 3 * (1 + others) + SAMPLING_PRODUCTS * self.sampling
        layers = _LAYERS * _PER_LAYER if self.per_layer else 0
        return Work(products=search + self.n_probes * a_probe + layers)

    # -- inside -----------------------------------------------------------------------------------------

    def _settings(self, n_parameters: int) -> CurvatureSettings:
        """Give the settings as one value, with the ends that make sense for the matrix."""
        if self.n_eigenvalues > n_parameters:
            raise ValueError(
                f"n_eigenvalues must be at most the number of parameters ({n_parameters}), got "
                f"{self.n_eigenvalues!r}. Ask for fewer, or choose more parameters."
            )
        ends = "largest" if self.kind in SEMIDEFINITE and self.ends == "both" else self.ends
        return self._as(CurvatureSettings, search=self._as(Search, ends=ends))

    def _measure(
        self,
        land: Landscape,
        model: nn.Module,
        budget: Budget,
        report: OnProgress,
        on_partial: Callable[[CurvatureResult], None] | None,
    ) -> CurvatureResult:
        settings = self._settings(land.n_parameters)
        if land.n_parameters <= self.exact_below:
            land = self._landscape(model, land.data, precision="float64")
        loss, accuracy = self._values_here(land)
        result = CurvatureResult(
            settings=land.settings | self._own_settings() | {"ends": settings.search.ends},
            matrix=self.kind,
            n_parameters=land.n_parameters,
            loss=loss,
            accuracy=accuracy,
            gradient_tol=settings.gradient_tol,
        )
        how: dict[str, Any] = {"memory": self._memory(), "budget": budget, "report": report, "on_partial": on_partial}
        return Measurement(land, settings, result, **how).take()
