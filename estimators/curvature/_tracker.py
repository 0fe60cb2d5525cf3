"""Curvature through training: λ_max and trace of every checkpoint, beside the edge of stability."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.base import TransformerMixin, clone
from sklearn.utils._param_validation import StrOptions
from torch import nn

from ..base import ProbingEstimator
from ..checks import positive, whole
from ..core.network.copying import private_copy
from ..landscape import Landscape
from ..models import compatible_state_dict, read_checkpoint
from ..progress import OnProgress
from ..recorder import Recording, as_trajectory
from ..training import SCHEDULES, TrainingRun, train
from . import _steps as work
from ._result import CurvatureHistoryResult


@dataclass(kw_only=True, eq=False, repr=False)
class CurvatureTracker(TransformerMixin, ProbingEstimator):
    """Follow λ_max and the trace through a training, beside the line 2/η.

    Full-batch gradient descent often drives λ_max up until it hovers at 2/η, the largest curvature at which its
    steps are stable on a quadratic: the edge of stability. Mini-batch SGD usually stays below it. Each checkpoint
    is measured with its own batch-norm statistics.

    Parameters
    ----------
    kind : {"hessian", "ggn", "fisher", "empirical_fisher"}, default="hessian"
        As in `CurvatureEstimator`.
    trace : bool, default=True
        Estimate the trace too.
    negative : bool, default=False
        Search the most negative eigenvalue too.
    n_probes : int, default=5
        Probes of the trace; three products each.
    tol : float, default=1e-3
        Relative residual at which λ_max has converged.
    max_products : int, default=200
        Most products in the search at one checkpoint.
    parameters, loss, batch_size, device, precision, batch_norm, memory, random_state, verbose
        As everywhere, see `LandscapeEstimator`.

    Attributes
    ----------
    steps_, lambda_max_, traces_, edge_, edge_momentum_
        And every other field of `CurvatureHistoryResult`, with an underscore.
    result_ : CurvatureHistoryResult

    References
    ----------
    Cohen, Kaur, Li, Kolter & Talwalkar 2021, "Gradient descent on neural networks typically occurs at the edge of
    stability".

    Examples
    --------
    >>> from torch import nn
    >>> from estimators import CurvatureTracker, load_data, train
    >>> data = load_data("digits", n_samples=32, image_size=8)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 10))
    >>> run = train(model, data, epochs=2, lr=0.1, schedule="flat")
    >>> tracker = CurvatureTracker(trace=False, tol=0.1).fit(run, data)
    >>> (tracker.lambda_max_ / tracker.edge_).shape
    (3,)
    """

    kind: str = "hessian"
    trace: bool = True
    negative: bool = False
    n_probes: int = 5
    tol: float = 1e-3
    max_products: int = 200
    parameters: str | tuple[str, ...] | None = None

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(2, "n_probes"),
        **whole(1, "max_products"),
        **positive("tol"),
        "kind": [StrOptions(set(work.KINDS))],
        "trace": ["boolean"],
        "negative": ["boolean"],
    }

    def fit(
        self,
        checkpoints: TrainingRun | Recording | str | os.PathLike | Sequence[Any],
        data: Any,
        *,
        model: nn.Module | None = None,
        lr: float | Sequence[float] | None = None,
        momentum: float | None = None,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[CurvatureHistoryResult], None] | None = None,
    ) -> CurvatureTracker:
        """Measure every checkpoint.

        Parameters
        ----------
        checkpoints : TrainingRun, Recording, folder of one, or sequence of (module, state dict or path)
            Points in the order of training. A TrainingRun brings its model, learning rates and momentum along, a
            recording what was noted as "lr" and its model where the architecture is timm's.
        data : Examples, (inputs, targets), Dataset or DataLoader
            The examples the loss is taken over; the training examples for the edge of stability.
        model : nn.Module, optional
            The network that state dicts and files are loaded into; it is not modified.
        lr : float or sequence of float, optional
            Learning rate, one for all or one for each checkpoint.
        momentum : float, optional
            Momentum β of the optimiser; None takes the run's own, or 0.
        on_progress, on_partial : callable, optional
            As in `CurvatureEstimator.fit`; a partial result after each checkpoint.

        Returns
        -------
        CurvatureTracker
            Itself.

        Raises
        ------
        ValueError
            If there is no checkpoint, files come without ``model``, the number of learning rates differs, or a
            parameter is not allowed.
        """
        points, model, rates, momentum = _unpacked(checkpoints, model, lr, momentum)
        labels = [_label(point, i) for i, point in enumerate(points)]
        rates_ = np.array(rates, dtype=float)
        with np.errstate(divide="ignore"):
            edge = 2 / rates_  # a schedule that ended at 0 has no edge: infinite
        empty = np.full(len(points), np.nan)
        result = CurvatureHistoryResult(
            matrix=self.kind,
            steps=np.array([_step(label, i) for i, label in enumerate(labels)], dtype=float),
            labels=labels,
            losses=empty.copy(),
            gradient_norms=empty.copy(),
            lambda_max=empty.copy(),
            lambda_max_residuals=empty.copy(),
            converged=np.zeros(len(points), bool),
            lambda_min=empty.copy(),
            traces=empty.copy(),
            trace_stderrs=empty.copy(),
            learning_rates=rates_,
            edge=edge,
            edge_momentum=(1 + momentum) * edge,
            momentum=float(momentum),
        )
        report = self._progress(on_progress, "curvature through training")
        for i, point in enumerate(points):
            report(i, len(points), labels[i])
            land = self._landscape(_at(model, point), data)
            row = self._point(land, partial(report, i, len(points), labels[i]))
            result = self._with(result, i, row)
            if i == 0:
                own = {"kind": self.kind, "n_probes": self.n_probes, "tol": self.tol, "random_state": self.random_state}
                result = replace(result, settings={**land.settings, **own})
            if on_partial is not None:
                on_partial(result)
        report(len(points), len(points), "done")
        self._publish(replace(result, notes=_notes(result)))
        self._data, self._model = land.data, model
        return self

    def transform(self, checkpoints: TrainingRun | Recording | str | os.PathLike | Sequence[Any]) -> np.ndarray:
        """Measure checkpoints on the examples of ``fit``.

        Parameters
        ----------
        checkpoints : TrainingRun, Recording, folder of one, or sequence of (module, state dict or path)
            As in ``fit``. The learning rates of plain sequences are not known, and their edge is NaN.

        Returns
        -------
        ndarray of shape (n_checkpoints, n_measures)
            Columns are named by `get_feature_names_out`.
        """
        result = clone(self).fit(checkpoints, self._data, model=self._model).result_
        return np.stack([getattr(result, name) for name in self.get_feature_names_out()], axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`."""
        return np.array(["steps", "losses", "gradient_norms", "lambda_max", "traces", "edge"], dtype=object)

    # -- inside -----------------------------------------------------------------------------------------

    def _point(self, land: Landscape, alive: Callable[[], None]) -> dict[str, float]:
        """Measure one checkpoint; ``alive`` is called after every product, so that cancelling is quick."""
        loss, gradient = land.loss_and_gradient()
        row = {"losses": loss, "gradient_norms": float(gradient.double().norm())}
        if not np.isfinite(loss):
            return row
        seed = self.random_state
        ends = "both" if self.negative and self.kind == "hessian" else "largest"
        search = work.Search(1, ends, self.tol, self.max_products, seed)

        def step(done: int, total: int) -> None:
            alive()

        key: tuple[object, ...] = (land.fingerprint, "ends", self.kind, search)
        pairs = self._cached(work.eigenpairs, key, land, self.kind, search, step)
        row["lambda_max"], row["lambda_max_residuals"] = pairs.values[0], pairs.residuals[0]
        row["converged"], row["products"] = pairs.converged[0], pairs.n_products
        if ends == "both":
            row["lambda_min"] = pairs.values[-1]
        if self.trace:
            key = (land.fingerprint, "trace", self.kind, self.n_probes, seed)
            found = self._cached(work.trace, key, land, self.kind, self.n_probes, seed, step)
            row |= {"traces": found.value, "trace_stderrs": found.stderr}
            row["products"] += found.n_products
        return row

    def _with(self, result: CurvatureHistoryResult, i: int, row: dict[str, float]) -> CurvatureHistoryResult:
        products = int(row.pop("products", 0))
        columns = {name: getattr(result, name).copy() for name in row}
        for name, value in row.items():
            columns[name][i] = value
        return replace(replace(result, **columns), n_products=result.n_products + products)


def scheduled_rates(training: Mapping[str, Any], steps: Sequence[int]) -> tuple[list[float], float]:
    """Work out learning rates and momentum from the arguments a training was started with.

    Parameters
    ----------
    training : mapping
        Keyword arguments of :func:`estimators.train`; what is missing has its default.
    steps : sequence of int
        Epochs of the checkpoints; epoch 0 gets the rate of the first epoch.

    Returns
    -------
    rates : list of float
        η at the end of each epoch; NaN for a schedule or optimiser to which 2/η does not apply.
    momentum : float
    """
    defaults = {name: p.default for name, p in inspect.signature(train).parameters.items()}
    given = {**defaults, **training}
    schedule = SCHEDULES.get(given["schedule"]) if isinstance(given["schedule"], str) else given["schedule"]
    if given["optimizer"] != "sgd" or schedule is None:
        return [float("nan")] * len(steps), 0.0
    epochs = max(int(given["epochs"]), 1)
    rates = [float(given["lr"]) * schedule(min(max(step, 1) / epochs, 1.0)) for step in steps]
    return rates, float(given["momentum"])


def _unpacked(
    checkpoints: Any,
    model: nn.Module | None,
    lr: float | Sequence[float] | None,
    momentum: float | None,
) -> tuple[list[Any], nn.Module | None, list[float], float]:
    points: list[Any]
    checkpoints = as_trajectory(checkpoints)
    if isinstance(checkpoints, Recording):
        points = list(checkpoints.checkpoints)
        model = checkpoints.model if model is None else model
        lr = checkpoints.history["lr"].tolist() if lr is None and "lr" in checkpoints.history else lr
    elif isinstance(checkpoints, TrainingRun):
        points = list(checkpoints.checkpoints)
        model = checkpoints.model if model is None else model
        if lr is None and checkpoints.settings.get("optimizer", "sgd") == "sgd":
            by_epoch = dict(zip(checkpoints.history["epoch"], checkpoints.history["lr"], strict=True))
            first = float(checkpoints.history["lr"][0])
            lr = [float(by_epoch.get(_step(_label(p, i), i), first)) for i, p in enumerate(points)]
        if momentum is None:
            momentum = float(checkpoints.settings.get("momentum", 0.0))
    else:
        points = list(checkpoints)
    if not points:
        raise ValueError("checkpoints must hold at least one point, got none. Train with checkpoint_every=1.")
    if model is None and not all(isinstance(point, nn.Module) for point in points):
        raise ValueError("model must be a network when checkpoints are files or state dicts, got None. Pass model=.")
    rates = [float("nan")] if lr is None else list(np.atleast_1d(np.asarray(lr, dtype=float)))
    if len(rates) == 1:
        rates = rates * len(points)
    if len(rates) != len(points):
        raise ValueError(
            f"lr must be one number or one for each of the {len(points)} checkpoints, got {len(rates)} numbers. "
            "Pass the learning rate in use when each was written."
        )
    if any(rate < 0 for rate in rates):
        raise ValueError(f"lr must be 0 or more, got {float(min(rates))!r}. Leave it out where it is not known.")
    return points, model, rates, 0.0 if momentum is None else float(momentum)


def _at(model: nn.Module | None, point: Any) -> nn.Module:
    """Make a network at a checkpoint, its buffers included."""
    if isinstance(point, nn.Module):
        return point
    state = point if isinstance(point, Mapping) else read_checkpoint(point)[0]
    assert model is not None
    network = private_copy(model)
    network.load_state_dict(compatible_state_dict(network, dict(state)))
    return network


def _label(point: Any, index: int) -> str:
    return Path(point).stem if isinstance(point, str | os.PathLike) else str(index)


def _step(label: str, index: int) -> int:
    """Epoch at the end of a file name, or the place in the list."""
    found = re.search(r"(\d+)$", label)
    return int(found.group(1)) if found else index


def _notes(result: CurvatureHistoryResult) -> list[str]:
    notes = []
    finite = np.isfinite(result.losses)
    if not finite.all():
        notes.append(f"{int((~finite).sum())} checkpoints have a loss that is not finite and were not measured.")
    open_ = finite & ~result.converged
    if open_.any():
        notes.append(f"λ_max has not converged at {int(open_.sum())} checkpoints: raise max_products.")
    return notes
