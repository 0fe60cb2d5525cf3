"""LandscapeEstimator: what the estimators share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import wraps
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import joblib
import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.utils import Tags
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from .cache import cached_call, check_memory, fingerprint
from .checks import check_seed, whole
from .core.network.batchnorm import POLICIES
from .core.network.losses import Loss
from .landscape import PRECISIONS, Evaluation, Landscape
from .points import OnChunk, evaluate_points
from .progress import OnProgress, ignore_progress, progress_bar
from .results import Result

_OF_A_LANDSCAPE = set(inspect.signature(Landscape).parameters)  # an estimator's fields of these names are passed on
_FITTING = ("fit", "train")
_T = TypeVar("_T")
_DRAWING = (*_FITTING, "measure", "transform")


def _started(method: Callable, fresh: bool) -> Callable:
    """Check the settings before a method runs, and let it find an integer seed in `random_state` while it does."""

    @wraps(method)
    def started(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not fresh:
            _ = self.result_
        self._validate_params()
        given = self.random_state
        repeatable = isinstance(given, int | np.integer)
        seed = check_seed(given) if fresh or repeatable else getattr(self, "random_state_", given)
        try:
            if not repeatable:
                self.random_state = seed
            answer = method(self, *args, **kwargs)
        finally:
            self.random_state = given
        if fresh:
            self.random_state_ = seed
        return answer

    return started


@dataclass(kw_only=True, eq=False, repr=False)
class LandscapeEstimator(BaseEstimator):
    """Base of the estimators: builds the landscape, evaluates points through the cache, publishes the result.

    Subclasses are dataclasses: a setting is a field, its bounds stand in `_parameter_constraints` and are checked by
    scikit-learn's validator before anything runs. `fit` must end with `self._publish(result)`.

    Parameters
    ----------
    loss : str or callable, default="cross_entropy"
        See :class:`Landscape`; so are `precision`, `batch_norm`, `parameters` and `points_per_pass` where an estimator
        has them.
    batch_size : int, default=512
        Examples in one forward pass.
    device : str, default="auto"
        "auto" takes CUDA when there is one.
    memory : None, "default", path or joblib.Memory, default=None
        Where answers are kept; None keeps nothing, "default" is the user's cache folder.
    random_state : int, RandomState or None, default=0
        The seed; anything but an integer draws a fresh one for each fit, named by `random_state_` and the settings.
    verbose : int, default=0
        1 shows a progress bar.
    """

    loss: str | Loss = "cross_entropy"
    batch_size: int = 512
    device: str = "auto"
    memory: Any = None
    random_state: Any = 0
    verbose: int = 0
    result_: Result = field(init=False)
    random_state_: int = field(init=False)

    # what several estimators take is declared once, also where a subclass adds the field itself
    _parameter_constraints: ClassVar[dict[str, list]] = {
        "loss": [str, callable],  # what a name may say is checked where it is read
        **whole(1, "batch_size", "points_per_pass"),
        "device": [str],
        "memory": [None, str, os.PathLike, joblib.Memory],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "precision": [StrOptions(set(PRECISIONS))],
        "batch_norm": [StrOptions({"auto", *POLICIES})],
        "parameters": [str, tuple, list, None],
        "n_jobs": [Integral, None],
        "sampling": ["boolean"],
        "time_budget": [Interval(Real, 0, None, closed="neither"), None],
    }

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = cls.__dict__.get("_parameter_constraints", {})
        cls._parameter_constraints = super(cls, cls)._parameter_constraints | own
        for name in _DRAWING:
            if name in cls.__dict__:
                setattr(cls, name, _started(cls.__dict__[name], fresh=name in _FITTING))

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False  # it is fitted on a network, not on a table
        tags.no_validation = True
        return tags

    if not TYPE_CHECKING:  # mypy is to go on finding attributes that exist nowhere

        def __getattr__(self, name: str) -> Any:
            """Say that nothing is fitted yet, where something is asked for that a fit leaves behind."""
            made_by_fit = name.endswith("_") or name.startswith("_")
            if made_by_fit and not name.startswith("__") and "result_" not in vars(self):
                raise NotFittedError(f"{type(self).__name__} is not fitted yet. Call fit before using what it finds.")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _landscape(self, model: Any, data: Any, **overrides: Any) -> Landscape:
        """Build the Landscape of `model` and `data` from the constructor's settings.

        An estimator that looks at points of several networks passes ``several_networks=True``, which decides what
        ``batch_norm="auto"`` means.
        """
        return Landscape(model, data, **(self._options() | overrides))

    def _options(self) -> dict[str, Any]:
        """Give the settings that say how a landscape is evaluated."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in _OF_A_LANDSCAPE}

    def _own_settings(self) -> dict[str, Any]:
        """Give the settings that belong to this estimator alone: what a result says beside those of its landscape."""
        aside = {*_OF_A_LANDSCAPE, "memory", "verbose", "n_jobs"}
        several = (tuple, list, np.ndarray, np.generic)
        own = {name: value for name, value in self.get_params().items() if name not in aside}
        return {name: np.asarray(v).tolist() if isinstance(v, several) else v for name, v in own.items()}

    def _as(self, kind: type[_T], **given: Any) -> _T:
        """Make another dataclass of settings from those of the same name here, and from what is given."""
        names = [f.name for f in fields(kind) if f.init and hasattr(self, f.name)]  # type: ignore[arg-type]
        return kind(**({name: getattr(self, name) for name in names} | given))

    def _values_here(self, land: Landscape) -> tuple[float, float]:
        """Give loss and accuracy at a landscape's own point, which must be finite."""
        here = land.evaluate(land.theta[None], [[1.0]])
        loss = float(here.losses[0])
        if not np.isfinite(loss):
            raise ValueError(
                f"the loss at the model's own weights must be finite, got {loss!r}. "
                "Check the checkpoint, the input normalisation and the precision."
            )
        return loss, float(here.accuracies[0])

    def _memory(self) -> joblib.Memory:
        return check_memory(self.memory)

    def _progress(self, on_progress: OnProgress | None, description: str) -> OnProgress:
        """Choose the caller's callback, a bar when `verbose`, or nobody."""
        if on_progress is not None:
            return on_progress
        return progress_bar(description) if self.verbose else ignore_progress

    def _generator(self) -> torch.Generator:
        """Make a CPU generator seeded by `random_state`, apart from the global one."""
        return torch.Generator().manual_seed(check_seed(self.random_state))

    def _evaluate(
        self,
        land: Landscape,
        anchors: Tensor | Sequence[Tensor],
        coefficients: Any,
        on_progress: OnProgress = ignore_progress,
        on_chunk: OnChunk | None = None,
        first_chunk: int | None = None,
    ) -> Evaluation:
        """Evaluate points in chunks that are cached, resumable and spread over `n_jobs`; see `evaluate_points`."""
        return evaluate_points(
            land,
            anchors,
            coefficients,
            memory=self._memory(),
            n_jobs=getattr(self, "n_jobs", 1),
            on_progress=on_progress,
            on_chunk=on_chunk,
            first_chunk=first_chunk,
        )

    def _cached(self, function: Callable, key: Sequence[object], *live: Any, **named: Any) -> Any:
        """Call a module-level function through the cache, keyed by the content of `key`."""
        memory = self._memory()
        return (
            function(*live, **named)
            if memory.location is None
            else cached_call(memory, function, fingerprint(*key), *live, **named)
        )

    def _publish(self, result: Result) -> None:
        """Set `result_` and one fitted attribute `<field>_` for each of its fields."""
        self.result_ = result
        for f in fields(result):
            setattr(self, f"{f.name}_", getattr(result, f.name))


@dataclass(kw_only=True, eq=False, repr=False)
class ProbingEstimator(LandscapeEstimator):
    """Base of the estimators that take networks with batch norm and leave the precision open.

    Parameters
    ----------
    precision : {"float32", "float64", "bfloat16"}, default="float32"
    batch_norm : {"auto", "frozen", "recompute", "batch"}, default="auto"
        See :class:`Landscape`.
    """

    precision: str = "float32"
    batch_norm: str = "auto"


@dataclass(kw_only=True, eq=False, repr=False)
class ParallelEstimator(ProbingEstimator):
    """Base of those whose work goes to several processes.

    Parameters
    ----------
    n_jobs : int, default=1
        As in joblib.
    """

    n_jobs: int = 1
