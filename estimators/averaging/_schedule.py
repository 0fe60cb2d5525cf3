"""A training run with the schedule that averaging wants, followed by its running and exponential means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..core.means.averages import ExponentialMean, RunningMean
from ..core.means.schedules import swa_learning_rate
from ..progress import OnProgress, shares
from ..training import TrainingRun, cosine, train
from ._checkpoints import select
from ._evaluation import Evaluator

MEANS = {"swa": "running mean", "ema": "exponential mean"}
VALUES = ("train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy")


@dataclass(frozen=True)
class Schedule:
    """When points are collected, and which learning rate leads there.

    Attributes
    ----------
    epochs : int
        Length of the run.
    lr, swa_lr : float
        Learning rate at the beginning, and after the switch.
    start : float
        Share of training at which the switch is made.
    every : int
        Epochs between collected points.
    schedule : {"constant", "cyclic"}
        Learning rate after the switch.
    anneal_epochs : float
        Length of the way to a constant rate.
    """

    epochs: int
    lr: float
    swa_lr: float
    start: float
    every: int
    schedule: str
    anneal_epochs: float

    @property
    def collected(self) -> frozenset[int]:
        """Epochs, from 1, whose points are averaged."""
        return frozenset(i + 1 for i in select(self.epochs, self.start, self.every))

    def factor(self, progress: float) -> float:
        """Factor on `lr` when a share of the training is done."""
        rate = swa_learning_rate(
            progress,
            lr=self.lr,
            swa_lr=self.swa_lr,
            epochs=self.epochs,
            start=self.start,
            schedule=self.schedule,
            anneal_epochs=self.anneal_epochs,
            period=float(self.every),
            base=cosine,
        )
        return rate / self.lr


@dataclass(frozen=True)
class Outcome:
    """What `train_and_average` leaves behind.

    Attributes
    ----------
    run : TrainingRun
        With its checkpoints on disk.
    plain : TrainingRun or None
        The run without averaging.
    swa, ema : RunningMean, ExponentialMean
        Of the collected epochs and of every step.
    history : list of dict
        One row an epoch and role.
    latest : dict
        Last values by role.
    states : dict
        State dicts by role, with statistics estimated again where the policy says so.
    """

    run: TrainingRun
    plain: TrainingRun | None
    swa: RunningMean
    ema: ExponentialMean
    history: list[dict[str, Any]]
    latest: dict[str, dict[str, float]]
    states: dict[str, dict[str, Tensor]]

    def after_the_switch(self, start: float) -> dict[str, list[Path]]:
        """Checkpoints of each run from the epoch on with which collecting begins."""
        first = select(len(self.run.checkpoints) - 1, start, 1)[0]
        runs = {"averaged run": self.run, "plain SGD": self.plain}
        return {name: run.checkpoints[first:] for name, run in runs.items() if run is not None}

    def rows(self, method: str, collected: frozenset[int]) -> list[dict[str, Any]]:
        """Rows of a report: collected points, last iterate, the mean that `method` is not, and the plain run."""
        rows: list[dict[str, Any]] = []
        if method == "swa":
            rows += [
                {"name": f"epoch {r['epoch']}", "role": "member", "kept": True, "share": 1 / max(1, self.swa.n)}
                | {k: r[k] for k in VALUES}
                for r in self.history
                if r["role"] == "iterate" and r["epoch"] in collected
            ]
        other = "ema" if method == "swa" else "swa"
        named = {"iterate": "last iterate", other: MEANS[other], "sgd": "SGD without averaging"}
        return rows + [
            {"name": name, "role": role, **self.latest[role]} for role, name in named.items() if role in self.latest
        ]


@dataclass
class _Followed:
    """What a run leaves on the way; it is written down with the run, so that both go on after a kill.

    Attributes
    ----------
    history : list of dict
        One row an epoch and role.
    latest : dict
        Last values by role.
    swa, ema : RunningMean, ExponentialMean
    """

    history: list[dict[str, Any]]
    latest: dict[str, dict[str, float]]
    swa: RunningMean
    ema: ExponentialMean

    def state_dict(self) -> dict[str, Any]:
        """Give all of it."""
        means = {"swa": self.swa.state_dict(), "ema": self.ema.state_dict()}
        return {"history": self.history, "latest": self.latest, **means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.history[:] = state["history"]
        self.latest.update(state["latest"])
        self.swa.load_state_dict(state["swa"])
        self.ema.load_state_dict(state["ema"])


def train_and_average(
    model: nn.Module,
    evaluator: Evaluator,
    schedule: Schedule,
    swa: RunningMean,
    ema: ExponentialMean,
    training: dict[str, Any],
    *,
    checkpoint_dir: Path | None,
    compare: bool,
    trace: bool,
    on_progress: OnProgress,
    on_history: Callable[[list[dict[str, Any]]], None],
) -> Outcome:
    """Train and average on the way; with `compare`, train the plain cosine run after it.

    Parameters
    ----------
    model : nn.Module
        Where training starts.
    evaluator : Evaluator
        Measures points; its training data are trained on.
    schedule : Schedule
        Of the averaged run.
    swa, ema : RunningMean, ExponentialMean
        Empty; they follow the run.
    training : dict
        Keyword arguments of :func:`train` that both runs share.
    checkpoint_dir : path or None
        Where the epochs go; with it a run that was killed goes on from its last one, the plain run (in the folder
        `plain` there) too.
    compare : bool
        Whether the plain run is trained too.
    trace : bool
        Whether points are measured after every epoch; otherwise at the end alone (and collected points too).
    on_progress, on_history : callable
        Progress, and the history so far after each epoch.
    """
    land, epochs, collected = evaluator.land, schedule.epochs, schedule.collected
    history: list[dict[str, Any]] = []
    latest: dict[str, dict[str, float]] = {}
    followed = _Followed(history, latest, swa, ema)
    on_run, on_plain, _ = shares(on_progress, [0.55, 0.4, 0.05] if compare else [0.95, 0.0, 0.05])

    def record(role: str, row: dict[str, float], values: dict[str, float]) -> None:
        latest[role] = values
        history.append({"epoch": int(row["epoch"]), "role": role, "learning_rate": row["lr"], **values})

    def measure(role: str, row: dict[str, float], state: dict[str, Tensor]) -> None:
        record(role, row, evaluator.values(land.point(state)))

    def on_epoch(epoch: int, network: nn.Module, row: dict[str, float]) -> None:
        state = network.state_dict()
        if epoch in collected:
            swa.update(state)
        if trace or epoch in collected:
            measure("iterate", row, state)
        if not (trace or epoch == epochs):
            return
        if swa.n:
            measure("swa", row, swa.state())
        measure("ema", row, ema.state())
        on_history(list(history))

    run = train(
        model,
        land.data,
        schedule=schedule.factor,
        checkpoint_dir=checkpoint_dir,
        on_progress=on_run,
        on_epoch=on_epoch,
        on_step=lambda network: ema.update(network.state_dict()),
        carried=followed,
        **training,
    )
    plain: TrainingRun | None = None
    if compare:
        before = [row for row in history if row["role"] == "iterate"]

        def on_plain_epoch(epoch: int, network: nn.Module, row: dict[str, float]) -> None:
            if not (trace or epoch == epochs):
                return
            if epoch < min(collected):  # the two runs are one until the switch
                record("sgd", row, {k: before[epoch - 1][k] for k in VALUES})
            else:
                measure("sgd", row, network.state_dict())

        plain = train(
            model,
            land.data,
            schedule="cosine",
            checkpoint_dir=None if checkpoint_dir is None else Path(checkpoint_dir) / "plain",
            on_progress=on_plain,
            on_epoch=on_plain_epoch,
            carried=followed,
            **training,
        )
    points = {"iterate": run.model.state_dict(), "ema": ema.state()}
    if swa.n:
        points["swa"] = swa.state()
    if plain is not None:
        points["sgd"] = plain.model.state_dict()
    states = {role: land.state_dict(land.point(state)) for role, state in points.items()}
    return Outcome(run, plain, swa, ema, history, latest, states)
