"""Weight averaging: running means of a trajectory, exponential means and soups of checkpoints.

Long because one class has three ways in (`fit`, `partial_fit`, `train`), each with its arguments explained; what
they do is next door.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, Options, StrOptions
from torch import Tensor, nn

from ..base import ParallelEstimator
from ..cache import fingerprint
from ..checks import not_negative, positive, share, whole
from ..core.means.averages import ExponentialMean, RunningMean
from ..core.means.schedules import AFTER_THE_SWITCH
from ..core.network.batchnorm import policy_settings
from ..core.network.copying import private_copy
from ..models import save_checkpoint
from ..progress import OnProgress, shares
from ..sharpness import SharpnessEstimator
from ..surface import SurfaceMapper
from ._around import PLANE, PROBE, map_plane, measure_sharpness
from ._checkpoints import architecture, buffer_names, gather, read_state
from ._evaluation import Evaluator
from ._report import describe_average
from ._result import AverageResult
from ._schedule import Schedule, train_and_average
from ._soup import choose_members, pairwise_barriers

METHODS = {
    "swa": "running mean of the points of one trajectory (Izmailov et al. 2018)",
    "ema": "exponential moving average of the points of one trajectory",
    "uniform_soup": "equal mean of separately trained or fine-tuned networks (Wortsman et al. 2022)",
    "greedy_soup": "mean of those networks that do not make it worse, best first (Wortsman et al. 2022)",
}
SOUPS = ("uniform_soup", "greedy_soup")


@dataclass(kw_only=True, eq=False, repr=False)
class SWAAverager(TransformerMixin, ParallelEstimator, auto_wrap_output_keys=None):
    """Average the weights of several networks of one architecture, and say what that changed.

    ``fit`` averages checkpoints that exist, ``train`` makes them itself, ``partial_fit`` takes them in one at a
    time, and ``transform`` puts the average into a copy of a network.

    Weights, trainable and frozen, are averaged in float32 at least. Buffers and integers come from the last
    member; batch-norm statistics are then estimated again from the training data as a cumulative mean, whatever
    the layers' momentum. Tied weights are averaged once. Checkpoints are read one at a time.

    Parameters
    ----------
    method : {"swa", "ema", "uniform_soup", "greedy_soup"}, default="swa"
        What the average is, see `METHODS`.
    start : float, default=0.75
        Share of training after which points are collected, in [0, 1). It picks epochs of a `TrainingRun` and
        switches the learning rate in ``train``; a list of checkpoints is averaged whole.
    every : int, default=1
        Epochs between collected points, counted back from the last; also the length of a cycle.
    swa_lr : float, default=0.05
        Learning rate of ``train`` after `start`; 0.01 to 0.05 is usual.
    schedule : {"constant", "cyclic"}, default="constant"
        Learning rate after `start`: `swa_lr`, or cycles from `swa_lr` down to a tenth of it.
    anneal_epochs : float, default=1.0
        Length of the half cosine from the learning rate at `start` to `swa_lr`, in epochs.
    decay : float, default=0.999
        Of the exponential mean, in [0, 1).
    warmup : bool, default=True
        Start the exponential mean with a smaller decay, min(`decay`, (1 + n)/(10 + n)), so that the initial
        network is forgotten.
    score : {"accuracy", "loss"}, default="accuracy"
        What a greedy soup must not make worse, on held-out data where there is some.
    barrier_points : int, default=7
        Points on the line between each two members of a soup; 0 leaves the barriers out.
    loss, batch_size, device, precision, memory, n_jobs, random_state, verbose
        As in every estimator.
    batch_norm : {"auto", "recompute", "frozen", "batch"}, default="auto"
        Policy for statistics: estimated again at every point that is measured ("recompute", which is what "auto" means
        here, see :mod:`estimators.core.network.batchnorm`), or left as in the last member
        ("frozen", which is wrong for an average and says so), or those of each batch.

    Attributes
    ----------
    state_dict_ : dict of str to Tensor
        The average, on the CPU, ready for ``load_state_dict``.
    n_averaged_ : int
        Points in it.
    result_ : AverageResult
        Everything measured; each of its fields is also an attribute with a trailing underscore, such as
        ``report_`` (one row a member, one for the average), ``barriers_``, ``statistics_``, ``history_``,
        ``ema_gap_`` and ``notes_``.
    run_ : TrainingRun
        Of ``train`` only: the run whose points were averaged, with its checkpoints on disk.
    plain_run_ : TrainingRun or None
        Of ``train(compare=True)``: the run without averaging.
    states_ : dict of str to state dict
        Of ``train`` only: "iterate", "swa", "ema" and, with ``compare``, "sgd".

    References
    ----------
    Izmailov et al. 2018, *Averaging Weights Leads to Wider Optima and Better Generalization*.
    Wortsman et al. 2022, *Model soups*. Polyak & Juditsky 1992.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from estimators import SWAAverager, load_data
    >>> data = load_data("digits", image_size=8, n_samples=64)
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    >>> swa = SWAAverager(swa_lr=0.05).train(model, data, epochs=4, batch_size=32)
    >>> swa.n_averaged_, swa.transform(model) is model
    (1, False)
    """

    result_: AverageResult = field(init=False)

    method: str = "swa"
    start: float = 0.75
    every: int = 1
    swa_lr: float = 0.05
    schedule: str = "constant"
    anneal_epochs: float = 1.0
    decay: float = 0.999
    warmup: bool = True
    score: str = "accuracy"
    barrier_points: int = 7

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(1, "every"),
        **positive("swa_lr"),
        **not_negative("anneal_epochs"),
        "method": [StrOptions(set(METHODS))],
        **share("start", "decay"),
        "schedule": [StrOptions(set(AFTER_THE_SWITCH))],
        "warmup": ["boolean"],
        "score": [StrOptions({"accuracy", "loss"})],
        "barrier_points": [Options(Integral, {0}), Interval(Integral, 3, None, closed="left")],
    }

    def fit(
        self,
        checkpoints: Any,
        data: Any,
        *,
        model: nn.Module | None = None,
        names: Sequence[str] | None = None,
        held_out: Any = None,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[AverageResult], None] | None = None,
    ) -> SWAAverager:
        """Average checkpoints and measure each of them and the average.

        Parameters
        ----------
        checkpoints : TrainingRun, Recording, folder of one, or sequence of nn.Module, state dict or path
            In order. A run or recording contributes the points that `start` and `every` choose, a list all it holds.
            safetensors and torch files, half precision included.
        data : examples
            Batch-norm statistics and training losses come from these.
        model : nn.Module, optional
            The architecture. Needed only when `checkpoints` holds state dicts and paths alone; its weights
            don't matter.
        names : sequence of str, optional
            What to call the members in the report; file names by default.
        held_out : examples, optional
            Measured too, and what a greedy soup chooses by.
        on_progress, on_partial : callable, optional
            Progress, and the result so far after each member.

        Returns
        -------
        SWAAverager

        Raises
        ------
        TypeError, ValueError
            If a setting is not allowed, there are fewer than two checkpoints, one does not fit the architecture
            (everything that differs is listed) or has weights that are not finite.
        """
        report = self._progress(on_progress, "averaging")
        members = gather(checkpoints, model, float(self.start), int(self.every), names)
        carrier = architecture(members.model)
        # Plain buffers are those of the last member; reading it first also refuses a stranger before any work.
        carrier.load_state_dict(members[len(members) - 1])
        evaluator = self._evaluator(carrier, data, held_out)
        evaluator.check_forwards(members.sources, members.names)
        with_barriers = self.method in SOUPS and self.barrier_points > 0
        on_members, on_barriers, _ = shares(report, [0.5, 0.4, 0.1] if with_barriers else [0.9, 0.0, 0.1])
        self._mean = mean = self._new_mean(carrier)
        rows: list[dict[str, Any]] = []
        notes: list[str] = []
        seen: dict[str, str] = {}
        for name, state in zip(members.names, members, strict=True):
            theta = evaluator.theta(state, name)
            first = seen.setdefault(fingerprint(theta), name)
            if first != name:
                notes.append(f"{name} and {first} have the same weights; averaging them changes nothing.")
            mean.update(state)
            rows.append({"name": name, "role": "member", "kept": True, **evaluator.values(theta)})
            on_members(len(rows), len(members), f"measuring {name}")
            if on_partial is not None:
                settings = self._settings(evaluator)
                on_partial(AverageResult(settings=settings, method=self.method, report=list(rows)))
        barriers = np.empty((0, 0))
        if with_barriers:
            barriers = pairwise_barriers(evaluator, members, int(self.barrier_points), on_barriers)
        if self.method == "greedy_soup":
            average, remarks = choose_members(evaluator, members, rows, self.score, buffer_names(carrier))
            notes += remarks
        else:
            average = mean.state()
            rows = [row | {"share": share} for row, share in zip(rows, mean.shares(), strict=True)]
        self._publish_average(evaluator, carrier, average, rows, notes, barriers=barriers)
        report(1000, 1000, "done")
        return self

    def partial_fit(
        self, checkpoint: Any, data: Any = None, *, model: nn.Module | None = None, held_out: Any = None
    ) -> SWAAverager:
        """Take one more point into the running or exponential mean.

        Parameters
        ----------
        checkpoint : nn.Module, state dict or path
            The next point.
        data : examples, optional
            Re-estimates batch-norm statistics and measures the average. Without it the average carries the
            statistics of this checkpoint, and ``report_`` has no numbers.
        model : nn.Module, optional
            The architecture, where the first checkpoint is not a module.
        held_out : examples, optional
            Measured too.

        Returns
        -------
        SWAAverager

        Raises
        ------
        ValueError
            For a greedy soup, which has to see all members, and as in `fit`.
        """
        self._validate_params()
        if self.method == "greedy_soup":
            raise ValueError(
                "method must be 'swa', 'ema' or 'uniform_soup' for partial_fit, got 'greedy_soup'. "
                "A greedy soup tries the best member first: give fit all of them."
            )
        if not hasattr(self, "_mean"):
            given = model if model is not None else checkpoint
            if not isinstance(given, nn.Module):
                raise ValueError(
                    "model must be a torch.nn.Module with the first checkpoint, got None. "
                    "partial_fit(path, model=load_model(name, num_classes=…))."
                )
            self._carrier = architecture(given)
            self._mean = self._new_mean(self._carrier)
        state = read_state(checkpoint, self._carrier, f"checkpoint {self._mean.n}")
        self._carrier.load_state_dict(state)
        if data is not None:
            evaluator = self._evaluator(self._carrier, data, held_out)
            name = f"#{self._mean.n}"
            evaluator.check_forwards([checkpoint], [name])
            values = evaluator.values(evaluator.theta(state, name))
            self._mean.update(state)
            before = [r for r in getattr(self, "report_", []) if r["role"] == "member"]
            rows = [*before, {"name": name, "role": "member", "kept": True, **values}]
            self._publish_average(evaluator, self._carrier, self._mean.state(), rows, [])
        else:
            self._mean.update(state)
            self.state_dict_, self.n_averaged_ = self._mean.state(), self._mean.n
            note = "Nothing was measured: partial_fit was given no data; batch-norm statistics are the last member's."
            settings = {"method": self.method, "decay": self.decay, "warmup": self.warmup}
            settings |= policy_settings(self.batch_norm, several_networks=True)
            self._publish(AverageResult(settings=settings, method=self.method, n_averaged=self._mean.n, notes=[note]))
        return self

    def train(
        self,
        model: nn.Module,
        data: Any,
        *,
        epochs: int = 20,
        lr: float = 0.1,
        batch_size: int = 64,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        held_out: Any = None,
        checkpoint_dir: str | os.PathLike | None = None,
        compare: bool = False,
        trace: bool = True,
        plane_resolution: int = 0,
        sharpness: bool = False,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[AverageResult], None] | None = None,
    ) -> SWAAverager:
        """Train with a schedule made for averaging, and average on the way.

        Until `start` the run is an ordinary cosine run; then the learning rate goes to `swa_lr` and every
        `every`-th epoch joins the running mean. The exponential mean follows every step from the beginning.
        Iterate and both means are measured after each epoch; the loss of the means uses statistics estimated
        again.

        Parameters
        ----------
        model : nn.Module
            Where training starts. It is not changed.
        data : examples
            Trained on.
        epochs : int, default=20
            Passes over the data.
        lr, batch_size, momentum, weight_decay
            Of stochastic gradient descent; `lr` is the learning rate at the beginning.
        held_out : examples, optional
            Measured only.
        checkpoint_dir : path, optional
            Where the epochs are kept; None takes a temporary folder. With it a run that was killed goes on from its
            last epoch when it is called again with the same arguments, to the same averages bit for bit.
        compare : bool, default=False
            Train the plain cosine run to its end too, from the same seed: it shares every step with this one
            until `start`. Its end point is reported with role "sgd".
        trace : bool, default=True
            Measure after every epoch; False measures the end (and the collected points) alone, which is faster.
        plane_resolution : int, default=0
            Points on a side of a map of the plane through the runs after `start`; 0 draws none.
        sharpness : bool, default=False
            Also measure how sharp the end points and averages are (``sharpness_``).
        on_progress, on_partial : callable, optional
            Progress, and the result so far after each epoch.

        Returns
        -------
        SWAAverager
        """
        if self.method in SOUPS:
            raise ValueError(
                f"method must be 'swa' or 'ema' for train, got {self.method!r}. "
                "A soup averages several runs: train them and give fit their checkpoints."
            )
        if plane_resolution and plane_resolution < 3:
            raise ValueError(
                f"plane_resolution must be 0 or at least 3, got {plane_resolution!r}. 15 shows the valley."
            )
        whole = self._progress(on_progress, "training")
        on_run, on_plane, on_sharpness = shares(whole, [1.0, 0.7 * bool(plane_resolution), 0.7 * sharpness])
        training: dict[str, Any] = {"epochs": int(epochs), "lr": float(lr), "batch_size": int(batch_size)}
        training |= {"momentum": float(momentum), "weight_decay": float(weight_decay)}
        training |= {"random_state": self.random_state, "device": self.device}
        schedule = self._as(Schedule, epochs=int(epochs), lr=float(lr))
        partial = on_partial or (lambda result: None)
        carrier = architecture(model)
        buffers = buffer_names(carrier)
        evaluator = self._evaluator(carrier, data, held_out)
        outcome = train_and_average(
            model,
            evaluator,
            schedule,
            RunningMean(buffers),
            ExponentialMean(buffers, decay=float(self.decay), warmup=bool(self.warmup)),
            training | {"loss": self.loss},
            checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
            compare=compare,
            trace=trace,
            on_progress=on_run,
            on_history=lambda history: partial(AverageResult(method=self.method, history=history)),
        )
        self.run_, self.plain_run_, self.states_ = outcome.run, outcome.plain, outcome.states
        self._mean = outcome.swa if self.method == "swa" else outcome.ema
        self._publish_average(
            evaluator,
            carrier,
            self._mean.state(),
            outcome.rows(self.method, schedule.collected),
            [],
            history=outcome.history,
            settings={"training": training, "compare": bool(compare)},
            ends=(outcome.latest["ema"], outcome.latest["iterate"]),
        )
        around = self.states_, carrier, evaluator.land.data
        if plane_resolution:
            partial(self.result_)
            runs = outcome.after_the_switch(float(self.start))
            mapper = self._as(SurfaceMapper, resolution=int(plane_resolution), **PLANE)
            mapped = map_plane(mapper, runs, *around, on_plane)
            self._publish(replace(self.result_, **mapped))
        if sharpness:
            partial(self.result_)
            probe = self._as(SharpnessEstimator, **PROBE)
            self._publish(replace(self.result_, sharpness=measure_sharpness(probe, *around, on_sharpness)))
        whole(1000, 1000, "done")
        return self

    def transform(self, model: nn.Module) -> nn.Module:
        """Put the average into a copy of a network.

        Parameters
        ----------
        model : nn.Module
            Of the same architecture; it is not changed.

        Returns
        -------
        nn.Module
            A new module in the mode, device and precision of `model`.

        Raises
        ------
        ValueError
            If the average does not fit, with everything that differs listed.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}. Use load_model(name).")
        averaged = private_copy(model)
        averaged.load_state_dict(read_state(self.state_dict_, model, "The average"))
        return averaged

    def set_output(self, *, transform: str | None = None) -> SWAAverager:
        """Accept a container for ``transform``, which gives a network and is never put into a table."""
        return self

    def save(self, path: str | os.PathLike) -> None:
        """Write the average as safetensors that plain timm loads (``create_model(..., checkpoint_path=path)``).

        Parameters
        ----------
        path : path
            Ends in ``.safetensors``.
        """
        save_checkpoint(path, self.state_dict_, {"method": self.method, "n_averaged": str(self.n_averaged_)})

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "state_dict_")

    # -- inside -----------------------------------------------------------------------------------------

    def _evaluator(self, model: nn.Module, data: Any, held_out: Any, **overrides: Any) -> Evaluator:
        land = self._landscape(model, data, **{"several_networks": True, **overrides})
        return Evaluator(land, None if held_out is None else land.on(held_out), self._memory(), self.n_jobs)

    def _new_mean(self, model: nn.Module) -> RunningMean | ExponentialMean:
        if self.method == "ema":
            return ExponentialMean(buffer_names(model), decay=float(self.decay), warmup=bool(self.warmup))
        return RunningMean(buffer_names(model))

    def _publish_average(
        self,
        evaluator: Evaluator,
        model: nn.Module,
        average: dict[str, Tensor],
        rows: list[dict[str, Any]],
        notes: list[str],
        *,
        settings: dict[str, Any] | None = None,
        **measured: Any,
    ) -> None:
        data, held_out = evaluator.land.data, None if evaluator.outside is None else evaluator.outside.data
        self.state_dict_, result = describe_average(
            self.method,
            evaluator,
            lambda module: self._evaluator(module, data, held_out, batch_norm="frozen", several_networks=False),
            model,
            average,
            rows,
            notes,
            n_averaged=self._mean.n,
            settings={**self._settings(evaluator), **(settings or {})},
            **measured,
        )
        self._carrier = model
        self._publish(result)

    def _settings(self, evaluator: Evaluator) -> dict[str, Any]:
        other = evaluator.outside
        outside = {} if other is None else {"held_out": other.data.fingerprint[:12]}
        return evaluator.land.settings | self._own_settings() | outside
