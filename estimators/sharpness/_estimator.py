"""Sharpness: how fast the loss rises around a point, measured in several ways side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from .. import sampling
from ..base import ProbingEstimator
from ..budget import Budget, Budgeted, TimeUp
from ..checks import positive, whole
from ..core.ball.ascent import NORMS
from ..core.ball.average_case import NOISES
from ..landscape import Landscape
from ..pace import Work
from ..progress import OnProgress, shares
from ._answers import Answers
from ._measures import MEASURES, PROFILE_FACTORS, SharpnessSettings, taken_for
from ._result import SharpnessResult, notes_on, with_profile
from ._sampling import cost_over_examples, over_examples


@dataclass(kw_only=True, eq=False, repr=False)
class SharpnessEstimator(TransformerMixin, Budgeted, ProbingEstimator, SharpnessSettings):
    """Measure the sharpness of a point in several ways.

    ``fit`` measures one model; ``transform`` measures others on the same examples with the same settings and
    gives the table that compares them.

    Parameters
    ----------
    measures : "all" or tuple of str, default="all"
        Keys of `MEASURES`: "sharpness", "average", "lambda_max", "trace", "m_sharpness", "pac_bayes",
        "profile".
    rho : float, default=0.05
        Radius of the worst-case ball, of the whole vector; with ``adaptive`` it is relative to |θ|, and 0.5
        to 2 is usual.
    norm : {"l2", "linf"}, default="l2"
        Norm of the ball.
    adaptive : bool, default=False
        Scale the ball elementwise by |θ| (ASAM), which makes it invariant to rescaled layers.
    n_steps, n_restarts : int, default=30, 10
        Gradients of an ascent's last climb, and starts: the SAM step, both ends of the top eigenvector, and random
        points. They share a budget (`core.ball.ascent_starts.shared_budget`): about 210 gradients by default.
    sigma : float, default=0.01
        Standard deviation of the noise, per element; relative to the filter's RMS with ``noise="filter"``.
    noise : {"plain", "filter"}, default="plain"
        Scale of the noise.
    n_draws : int, default=32
        Noise draws, in pairs ±ε.
    m : int, default=128
        Examples in one batch of m-sharpness.
    profile_radii : tuple of float or None, default=None
        Radii of the profile; None takes ρ times 1/8, 1/4, 1/2, 1, 2, 4.
    n_lanczos : int, default=80
        Most Hessian-vector products for λ_max.
    tol : float, default=1e-3
        Relative residual at which λ_max has converged.
    n_probes : int, default=10
        Probes of the trace; Hutch++ costs three products each.
    sampling : bool, default=False
        Also find how much loss, accuracy, gradient norm, sharpness, average sharpness, λ_max and trace would change
        with other examples: ``result_.uncertainty_of(name, "sampling")`` is a `SamplingError`.
    prior : {"auto", "initial", "zero"}, default="auto"
        Mean of the PAC-Bayes prior: the initial weights given to ``fit``, or 0; "auto" takes what is there.
    delta : float, default=0.05
        The PAC-Bayes bound holds with probability 1 − delta.
    n_posterior_draws : int, default=64
        Draws behind the bound's error.
    parameters : str, tuple of str or None, default=None
        Regular expressions choosing the parameters that may move; the others stay fixed.
    time_budget : float or None, default=None
        Seconds that a fit may take, shared among the measures in proportion to their cost: those that do not fit take
        fewer draws, probes, starts or steps, or are left out. ``unfinished_`` lists them, and ``converged_`` tells
        whether everything was measured as asked.
    loss, batch_size, device, precision, batch_norm, memory, random_state, verbose
        As everywhere, see `LandscapeEstimator`.

    Attributes
    ----------
    loss_, sharpness_, one_step_, average_sharpness_, average_sharpness_stderr_, lambda_max_, trace_
        And every other field of `SharpnessResult`, with an underscore.
    pac_bayes_ : dict
        All parts of the bound.
    profile_ : dict of ndarray
        Loss rise against radius and against σ.
    result_ : SharpnessResult

    Notes
    -----
    Batch-norm statistics are never updated by a probe. With frozen statistics the PAC-Bayes bound speaks of
    the network with those statistics given: they come from the data and are not paid for in the KL term.

    References
    ----------
    Keskar et al. 2017; Foret et al. 2021 (SAM, m-sharpness); Kwon et al. 2021 (ASAM); Jiang et al. 2020;
    McAllester 1999 and Maurer 2004 (PAC-Bayes); Meyer et al. 2021 (Hutch++).

    Examples
    --------
    >>> from torch import nn
    >>> from estimators import SharpnessEstimator, load_data
    >>> data = load_data("digits", n_samples=32, image_size=8)
    >>> model, other = (nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10)) for _ in range(2))
    >>> est = SharpnessEstimator(measures=("sharpness", "lambda_max"), n_steps=5, n_restarts=2).fit(model, data)
    >>> bool(est.sharpness_ > 0)
    True
    >>> est.transform([model, other]).shape
    (2, 5)
    >>> list(est.get_feature_names_out())
    ['loss', 'sharpness', 'one_step', 'lambda_max', 'quadratic_rise']
    """

    measures: str | tuple[str, ...] = "all"
    sampling: bool = False
    prior: str = "auto"
    parameters: str | tuple[str, ...] | None = None

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(3, "n_draws"),
        **whole(2, "n_lanczos", "n_probes"),
        **whole(1, "n_steps", "n_restarts", "m", "n_posterior_draws"),
        **positive("rho", "sigma", "tol"),
        "measures": [str, tuple, list],
        "norm": [StrOptions(set(NORMS))],
        "adaptive": ["boolean"],
        "noise": [StrOptions(set(NOISES))],
        "profile_radii": ["array-like", None],
        "prior": [StrOptions({"auto", "initial", "zero"})],
        "delta": [Interval(Real, 0, 1, closed="neither")],
    }

    def fit(
        self,
        model: nn.Module,
        data: Any,
        *,
        initial: Any = None,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[SharpnessResult], None] | None = None,
    ) -> SharpnessEstimator:
        """Measure one model.

        Parameters
        ----------
        model : nn.Module
            The point; it is not modified.
        data : Examples, (inputs, targets), Dataset or DataLoader
            The examples the loss is taken over.
        initial : nn.Module, state dict or path, optional
            Weights training started from: the mean of the PAC-Bayes prior.
        on_progress : callable, optional
            ``on_progress(done, total, message)``; may raise `Cancelled`.
        on_partial : callable, optional
            ``on_partial(result)`` after each measure.

        Returns
        -------
        SharpnessEstimator
            Itself.

        Raises
        ------
        ValueError
            If a parameter is not allowed, the loss at the point is not finite, or ``prior="initial"`` comes
            without ``initial``.
        """
        self._check()
        budget = Budget(self.time_budget)
        land = self._landscape(model, data)
        report = self._progress(on_progress, "sharpness")
        result = self._measure(land, initial, budget, report, on_partial)
        self._data = land.data
        self._publish(result)
        self.profile_ = result.profile
        return self

    def measure(
        self, model: nn.Module, *, initial: Any = None, on_progress: OnProgress | None = None
    ) -> SharpnessResult:
        """Measure another model on the examples of ``fit``: all of it, where `transform` gives the values."""
        self._check()
        budget = Budget(self.time_budget)
        land = self._landscape(model, self._data)
        return self._measure(land, initial, budget, self._progress(on_progress, "sharpness"), None)

    def transform(self, models: nn.Module | Iterable[nn.Module]) -> np.ndarray:
        """Measure models on the examples of ``fit``.

        Parameters
        ----------
        models : nn.Module or iterable of nn.Module
            Networks of any architecture that accept the examples.

        Returns
        -------
        ndarray of shape (n_models, n_measures)
            Columns are named by `get_feature_names_out`.
        """
        listed = [models] if isinstance(models, nn.Module) else list(models)
        names = self.get_feature_names_out()
        rows = [[float(getattr(self.measure(model), name)) for name in names] for model in listed]
        return np.array(rows, dtype=float).reshape(len(listed), len(names))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`."""
        columns = [column for name in self._chosen() for column in MEASURES[name].columns]
        return np.array(["loss", *columns], dtype=object)

    def cost(self) -> Work:
        """Count what the chosen measures take, about."""
        self._check()
        settings, chosen = self._as(SharpnessSettings), self._chosen()
        measures = sum((MEASURES[name].cost(settings) for name in taken_for(chosen)), Work())
        return measures + Work(evaluations=cost_over_examples(settings, chosen) if self.sampling else 0)

    # -- inside -----------------------------------------------------------------------------------------

    def _chosen(self) -> list[str]:
        if isinstance(self.measures, str):
            names = list(MEASURES) if self.measures == "all" else [self.measures]
        else:
            names = list(self.measures)
        unknown = [name for name in names if name not in MEASURES]
        if unknown or not names:
            raise ValueError(
                f"measures must be 'all' or names among {', '.join(MEASURES)}, got {self.measures!r}. "
                "Choose one or more of them."
            )
        return [name for name in MEASURES if name in names]

    def _check(self) -> None:
        self._chosen()
        if self.profile_radii is not None and not all(r > 0 and np.isfinite(r) for r in self.profile_radii):
            raise ValueError(
                f"profile_radii must be finite radii > 0, got {self.profile_radii!r}. "
                f"Leave it out for rho times {', '.join(map(str, PROFILE_FACTORS))}."
            )

    def _prior(self, land: Landscape, initial: Any) -> Any:
        if self.prior == "initial" and initial is None:
            raise ValueError(
                "initial must be the weights training started from when prior='initial', got None. "
                "Pass fit(model, data, initial=...), or use prior='zero'."
            )
        return None if self.prior == "zero" or initial is None else land.point(initial)

    def _prior_doubt(self, initial: Any) -> str:
        """Say so where a network given as initial weights tells of its training."""
        weights = str(getattr(initial, "provenance", {}).get("weights", ""))
        return f"their history says “{weights}”" if self.prior != "zero" and weights.startswith("trained") else ""

    def _measure(
        self,
        land: Landscape,
        initial: Any,
        budget: Budget,
        report: OnProgress,
        on_partial: Callable[[SharpnessResult], None] | None,
    ) -> SharpnessResult:
        chosen, settings = self._chosen(), self._as(SharpnessSettings)
        why_not = sampling.why_not(land, derivatives=True) if self.sampling else ""
        errors = cost_over_examples(settings, chosen) if self.sampling and not why_not else 0
        passes = sum(MEASURES[name].cost(settings).passes for name in taken_for(chosen))
        report, on_errors = shares(report, [passes, errors])
        prior = self._prior(land, initial)
        loss, accuracy = self._values_here(land)
        result = SharpnessResult(
            settings=land.settings | self._own_settings(),
            measures=chosen,
            loss=loss,
            accuracy=accuracy,
        )
        doubt = self._prior_doubt(initial)
        how: dict[str, Any] = {"memory": self._memory(), "budget": budget, "report": report}
        answers = Answers(land, settings, chosen, prior=prior, prior_doubt=doubt, **how)
        if budget.seconds is None or budget.most(1, answers.pace.gradients):
            result = replace(result, gradient_norm=float(land.gradient().double().norm()))
        else:
            budget.unfinished.append("gradient")
        for name in chosen:
            result = replace(result, **{key: value for key, value in answers[name].items() if not key.startswith("_")})
            if name == "profile" and len(result.profile_radius):
                result = with_profile(result, float(self.rho))
            if on_partial is not None:
                on_partial(result)
        if errors and not answers.cut:
            spent = 0

            def spend(passes: float) -> None:
                nonlocal spent
                spent = min(spent + int(passes), errors)
                on_errors(spent, errors, "error over examples")
                if budget.seconds is not None and not budget.most(1, passes * answers.pace.evaluations):
                    raise TimeUp

            taken = {name: answers[name] for name in chosen}
            key = land.fingerprint, "over examples", asdict(settings), chosen
            try:
                found = self._cached(over_examples, key, land, settings, loss, accuracy, taken, spend)
                result = replace(result, sampling=found)
            except TimeUp:
                budget.unfinished.append("error over examples")
        elif errors:  # it speaks of numbers that were measured in full
            budget.unfinished.append("error over examples")
        open_ = "lambda_max" in chosen and not result.lambda_max_converged
        result = replace(result, converged=not (budget.unfinished or open_), **budget.said())
        return replace(result, notes=[*notes_on(result, float(self.rho)), *filter(None, [why_not])])
