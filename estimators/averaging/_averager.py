"""Weight averaging: running means of a trajectory, exponential means and soups of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..base import LandscapeEstimator
from ..core.means.averages import ExponentialMean, RunningMean, greedy_soup
from ..core.network.batchnorm import policy_settings
from ..core.network.copying import private_copy
from ..models import save_checkpoint
from ..progress import OnProgress, part
from ._checkpoints import Members, architecture, gather, read_state
from ._evaluation import GAP, Gauge
from ._extras import map_plane, measure_sharpness
from ._result import AverageResult
from ._schedule import run_schedule
from ._settings import SOUPS, buffer_names, check_settings, remark, write_shares


@dataclass(kw_only=True, eq=False, repr=False)
class SWAAverager(TransformerMixin, LandscapeEstimator, auto_wrap_output_keys=None):
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
        here, see :mod:`estimators.core.batchnorm`), or left as in the last member
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
    >>> swa = SWAAverager(swa_lr=0.05).train(model, data, epochs=20, held_out=test)  # doctest: +SKIP
    >>> swa.transform(model), swa.result_.row("average")["held_out_accuracy"]  # doctest: +SKIP
    >>> SWAAverager(method="greedy_soup").fit(paths, data, model=model, held_out=test)  # doctest: +SKIP
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
    precision: str = "float32"
    batch_norm: str = "auto"
    n_jobs: int = 1

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
        checkpoints : TrainingRun or sequence of nn.Module, state dict or path
            In order. A run contributes the epochs that `start` and `every` choose, a list all it holds.
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
        check_settings(self)
        report = self._progress(on_progress, "averaging")
        members = gather(checkpoints, model, float(self.start), int(self.every), names)
        carrier = architecture(members.model)
        # Plain buffers are those of the last member; reading it first also refuses a stranger before any work.
        carrier.load_state_dict(members[len(members) - 1])
        gauge = Gauge(self, carrier, data, held_out)
        gauge.check_forwards(members.sources, members.names)
        soup, self._buffers = self.method in SOUPS, buffer_names(carrier)
        edge = 0.5 if soup and self.barrier_points else 0.9
        mean, rows = self._new_mean(), []
        for i, state in enumerate(members):
            name = members.names[i]
            theta = gauge.theta(state, name)
            gauge.note_twin(name, theta)
            mean.update(state)
            rows.append({"name": name, "role": "member", "kept": True, **gauge.values(theta)})
            part(report, 0.0, edge)(i + 1, len(members), f"measuring {name}")
            if on_partial is not None:
                on_partial(AverageResult(settings=self._settings(gauge), method=self.method, report=list(rows)))
        barriers = np.empty((0, 0))
        if soup and self.barrier_points:
            barriers = gauge.barriers(members, members.names, int(self.barrier_points), part(report, edge, 0.9))
        if self.method == "greedy_soup":
            average = self._choose(members, gauge, rows)
        else:
            average = mean.state()
            write_shares(rows, self.method, mean, float(self.decay), bool(self.warmup))
        self._mean = mean
        self._publish_average(gauge, average, rows, barriers=barriers)
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
        check_settings(self)
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
            self._buffers = buffer_names(self._carrier)
            self._mean = self._new_mean()
        state = read_state(checkpoint, self._carrier, f"checkpoint {self._mean.n}")
        self._carrier.load_state_dict(state)
        if data is not None:
            gauge = Gauge(self, self._carrier, data, held_out)
            name = f"#{self._mean.n}"
            gauge.check_forwards([checkpoint], [name])
            row = {"name": name, "role": "member", "kept": True, **gauge.values(gauge.theta(state, name))}
            self._mean.update(state)
            before = [r for r in getattr(self, "report_", []) if r["role"] == "member"]
            self._publish_average(gauge, self._mean.state(), [*before, row])
        else:
            self._mean.update(state)
            average = self._mean.state()
            self.state_dict_, self.n_averaged_ = average, self._mean.n
            note = "Nothing was measured: partial_fit was given no data; batch-norm statistics are the last member's."
            settings = {k: getattr(self, k) for k in ("method", "decay", "warmup")}
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
            Where the epochs are kept; None takes a temporary folder.
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
        check_settings(self)
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
        edges = np.cumsum([0.0, 1.0, 0.7 * bool(plane_resolution), 0.7 * sharpness])
        report, plane_report, sharpness_report = (
            part(whole, start, stop) for start, stop in pairwise(edges / edges[-1])
        )
        training = {
            "epochs": int(epochs),
            "lr": float(lr),
            "batch_size": int(batch_size),
            "momentum": float(momentum),
            "weight_decay": float(weight_decay),
            "random_state": self.random_state,
            "device": self.device,
        }
        outcome = run_schedule(
            self, model, data, held_out, training, checkpoint_dir, compare, trace, report, on_partial
        )
        self.run_, self.plain_run_, self.states_ = outcome.run, outcome.plain, outcome.states
        self._mean, self._buffers = outcome.mean, buffer_names(outcome.gauge.base)
        self._carrier = outcome.gauge.base
        self._publish_average(
            outcome.gauge,
            outcome.mean.state(),
            outcome.rows,
            history=outcome.history,
            settings={"training": training, "compare": bool(compare)},
            loss_of_ema=outcome.values_of["ema"],
            loss_of_iterate=outcome.values_of["iterate"],
        )
        extra: dict[str, Any] = {}
        if plane_resolution:
            if on_partial is not None:
                on_partial(self.result_)
            extra |= map_plane(self, self._carrier, outcome.gauge.land.data, plane_resolution, plane_report)
        if sharpness:
            if on_partial is not None:
                on_partial(replace(self.result_, **extra))
            extra["sharpness"] = measure_sharpness(self, self._carrier, outcome.gauge.land.data, sharpness_report)
        self._publish(replace(self.result_, **extra))
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
        check_is_fitted(self)
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
        check_is_fitted(self)
        save_checkpoint(path, self.state_dict_, {"method": self.method, "n_averaged": str(self.n_averaged_)})

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "state_dict_")

    # -- inside -----------------------------------------------------------------------------------------

    def _new_mean(self) -> RunningMean | ExponentialMean:
        if self.method == "ema":
            return ExponentialMean(self._buffers, decay=float(self.decay), warmup=bool(self.warmup))
        return RunningMean(self._buffers)

    def _choose(self, members: Members, gauge: Gauge, rows: list[dict[str, Any]]) -> dict[str, Tensor]:
        where = "held_out" if gauge.outside is not None else "train"
        score = self.score
        if score == "accuracy" and any(np.isnan(row[f"{where}_accuracy"]) for row in rows):
            score = "loss"
            gauge.notes.append("Targets that are not classes have no accuracy: members were chosen by their loss.")
        sign = 1.0 if score == "accuracy" else -1.0
        average, verdicts = greedy_soup(
            members,
            lambda state: gauge.score(gauge.land.point(state), score),
            buffers=self._buffers,
            scores=[sign * row[f"{where}_{score}"] for row in rows],
        )
        kept = sum(v.kept for v in verdicts)
        for order, verdict in enumerate(verdicts):
            rows[verdict.member] |= {
                "order": order,
                "kept": verdict.kept,
                "share": 1 / kept if verdict.kept else 0.0,
                "score": sign * verdict.score,
                "soup_score": sign * verdict.soup_score,
            }
        gauge.notes.append(
            "Members were chosen on the held-out data: the soup's held-out numbers are optimistic."
            if gauge.outside is not None
            else "Members were chosen on the training data; give held_out to choose by generalisation."
        )
        return average

    def _publish_average(
        self,
        gauge: Gauge,
        average: dict[str, Tensor],
        rows: Sequence[dict[str, Any]],
        *,
        barriers: np.ndarray | None = None,
        history: Sequence[dict[str, Any]] = (),
        settings: dict[str, Any] | None = None,
        loss_of_ema: dict[str, float] | None = None,
        loss_of_iterate: dict[str, float] | None = None,
    ) -> None:
        state, statistics, before = gauge.finish(average)
        values = gauge.values(gauge.land.point(state))
        rows = list(rows)
        if before is not None:
            rows.append({"name": "average, old statistics", "role": "average_before", **before})
        rows.append({"name": "average", "role": "average", **values})
        members = [row for row in rows if row["role"] == "member"]
        n = sum(bool(row.get("kept")) for row in members) if members else self._mean.n
        gap = float("nan")
        if self.method == "ema" and loss_of_ema is None and members:
            loss_of_ema, loss_of_iterate = values, members[-1]
        if loss_of_ema is not None and loss_of_iterate is not None:
            key = "train_loss" if gauge.outside is None else "held_out_loss"
            gap = loss_of_ema[key] - loss_of_iterate[key]
        remark(gauge.notes, gap, barriers, [r["name"] for r in members], self.method)
        self.state_dict_, self.n_averaged_, self._carrier = state, n, gauge.base
        self._publish(
            AverageResult(
                settings={**self._settings(gauge), **(settings or {})},
                method=self.method,
                n_averaged=n,
                report=rows,
                barriers=np.empty((0, 0)) if barriers is None else barriers,
                statistics=statistics,
                history=list(history),
                ema_gap=gap,
                ema_gap_flagged=bool(gap > GAP),
                notes=list(gauge.notes),
            )
        )

    def _settings(self, gauge: Gauge) -> dict[str, Any]:
        names = ("method", "start", "every", "swa_lr", "schedule", "anneal_epochs", "decay", "warmup", "score")
        own = {name: getattr(self, name) for name in names}
        outside = {} if gauge.outside is None else {"held_out": gauge.outside.data.fingerprint[:12]}
        return {**gauge.land.settings, **own, **outside, "random_state": self.random_state}
