"""A training run with the schedule that averaging wants, followed by its running and exponential means."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ..core.means.averages import ExponentialMean, RunningMean
from ..core.means.schedules import swa_learning_rate
from ..progress import OnProgress, part
from ..training import TrainingRun, cosine, train
from ._checkpoints import select
from ._evaluation import Gauge
from ._result import AverageResult

if TYPE_CHECKING:
    from ._averager import SWAAverager


@dataclass
class Outcome:
    """What `run_schedule` leaves behind.

    Attributes
    ----------
    run : TrainingRun
        With its checkpoints on disk.
    plain : TrainingRun or None
        The run without averaging.
    gauge : Gauge
        Measures points of this run.
    mean : RunningMean or ExponentialMean
        The one the estimator's method asks for.
    rows : list of dict
        For the report: collected points, last iterate, the other mean, and the plain run.
    history : list of dict
        One row an epoch and role.
    values_of : dict
        Last values by role.
    states : dict
        State dicts by role, with statistics estimated again where the policy says so.
    """

    run: TrainingRun
    plain: TrainingRun | None
    gauge: Gauge
    mean: RunningMean | ExponentialMean
    rows: list[dict[str, Any]]
    history: list[dict[str, Any]]
    values_of: dict[str, dict[str, float]]
    states: dict[str, dict[str, Tensor]]


def run_schedule(
    estimator: SWAAverager,
    model: nn.Module,
    data: Any,
    held_out: Any,
    training: dict[str, Any],
    checkpoint_dir: str | os.PathLike | None,
    compare: bool,
    trace: bool,
    report: OnProgress,
    on_partial: Callable[[AverageResult], None] | None,
) -> Outcome:
    """Train and average on the way; with `compare`, train the plain cosine run after it.

    Parameters
    ----------
    estimator : SWAAverager
        Its schedule, `every`, `decay` and engine settings are used.
    model, data, held_out
        As in :meth:`SWAAverager.train`.
    training : dict
        Keyword arguments of :func:`train` that both runs share.
    checkpoint_dir : path or None
        Where the epochs go.
    compare : bool
        Whether the plain run is trained too.
    trace : bool
        Whether points are measured after every epoch; otherwise at the end alone (and collected points too).
    report, on_partial : callable
        Progress, and the result so far after each epoch.
    """
    gauge = Gauge(estimator, model, data, held_out)
    buffers = frozenset(name for name, _ in gauge.base.named_buffers(remove_duplicate=False))
    swa = RunningMean(buffers)
    ema = ExponentialMean(buffers, decay=float(estimator.decay), warmup=bool(estimator.warmup))
    epochs, lr = training["epochs"], training["lr"]
    collected = {i + 1 for i in select(epochs, float(estimator.start), int(estimator.every))}
    history: list[dict[str, Any]] = []
    latest: dict[str, dict[str, float]] = {}
    shared = {**training, "loss": estimator.loss}

    def factor(progress: float) -> float:
        rate = swa_learning_rate(
            progress,
            lr=lr,
            swa_lr=float(estimator.swa_lr),
            epochs=epochs,
            start=float(estimator.start),
            schedule=estimator.schedule,
            anneal_epochs=float(estimator.anneal_epochs),
            period=float(estimator.every),
            base=cosine,
        )
        return rate / lr

    def record(role: str, epoch: int, rate: float, values: dict[str, float]) -> None:
        latest[role] = values
        history.append({"epoch": epoch, "role": role, "learning_rate": rate, **values})

    def on_epoch(epoch: int, network: nn.Module, row: dict[str, float]) -> None:
        state = network.state_dict()
        if epoch in collected:
            swa.update(state)
        if trace or epoch in collected:
            record("iterate", epoch, row["lr"], gauge.values(gauge.land.point(state)))
        if not (trace or epoch == epochs):
            return
        if swa.n:
            record("swa", epoch, row["lr"], gauge.values(gauge.land.point(swa.state())))
        record("ema", epoch, row["lr"], gauge.values(gauge.land.point(ema.state())))
        if on_partial is not None:
            on_partial(AverageResult(method=estimator.method, history=list(history)))

    run = train(
        model,
        gauge.land.data,
        schedule=factor,
        checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir),
        on_progress=part(report, 0.0, 0.55 if compare else 0.95),
        on_epoch=on_epoch,
        on_step=lambda network: ema.update(network.state_dict()),
        **shared,
    )
    iterates = [row for row in history if row["role"] == "iterate"]
    keys = ("train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy")
    rows: list[dict[str, Any]] = []
    if estimator.method == "swa":
        share = 1 / max(1, swa.n)
        rows += [
            {"name": f"epoch {r['epoch']}", "role": "member", "kept": True, "share": share} | {k: r[k] for k in keys}
            for r in iterates
            if r["epoch"] in collected
        ]
    rows.append({"name": "last iterate", "role": "iterate", **latest["iterate"]})
    other = "ema" if estimator.method == "swa" else "swa"
    if other in latest:
        rows.append({"name": OTHER[other], "role": other, **latest[other]})
    plain: TrainingRun | None = None
    if compare:
        first = min(collected)

        def on_plain_epoch(epoch: int, network: nn.Module, row: dict[str, float]) -> None:
            if not (trace or epoch == epochs):
                return
            if epoch < first:  # the two runs are one until the switch
                values = {k: iterates[epoch - 1][k] for k in keys}
            else:
                values = gauge.values(gauge.land.point(network.state_dict()))
            record("sgd", epoch, row["lr"], values)

        plain = train(
            model,
            gauge.land.data,
            schedule="cosine",
            on_progress=part(report, 0.55, 0.95),
            on_epoch=on_plain_epoch,
            **shared,
        )
        rows.append({"name": "SGD without averaging", "role": "sgd", **latest["sgd"]})
    points = {"iterate": run.model.state_dict(), "ema": ema.state()}
    if swa.n:
        points["swa"] = swa.state()
    if plain is not None:
        points["sgd"] = plain.model.state_dict()
    states = {role: gauge.land.state_dict(gauge.land.point(state)) for role, state in points.items()}
    mean: RunningMean | ExponentialMean = swa if estimator.method == "swa" else ema
    return Outcome(run, plain, gauge, mean, rows, history, latest, states)


OTHER = {"ema": "exponential mean", "swa": "running mean"}
