"""One run of a comparison: build, train, measure and map one variant from one seed, through the cache."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import cache
from ..core.network.batchnorm import policy_settings
from ..core.planes.eigenvalue_ratio import convex_share
from ..data import Examples
from ..landscape import Landscape
from ..models import count_parameters, trainable_names
from ..progress import OnProgress, ignore_progress, subprogress
from ..surface import SurfaceMapper
from ..training import train
from ..variants import Variant
from ..workers import Parcel, count_workers, spread
from ._measurement import MeasureSettings, measure
from ._result import MEASURED


@dataclass(frozen=True)
class Task:
    """What one run needs; plain values and fixed tensors, so that it can go to another process.

    Attributes
    ----------
    variant : Variant
    seed : int
    training : dict
        All training settings.
    data, held_out : Examples
    options : dict
        Keyword arguments of `Landscape`.
    measures : MeasureSettings
    map : dict or None
        Keyword arguments of `SurfaceMapper` where a map is wanted.
    memory : joblib.Memory
    """

    variant: Variant
    seed: int
    training: dict[str, Any]
    data: Examples
    held_out: Examples
    options: dict[str, Any]
    measures: MeasureSettings
    map: dict[str, Any] | None
    memory: Any


@dataclass(frozen=True)
class RunOutcome:
    """A row of the table, the map with its axes (or None) and the trained weights (or None)."""

    row: dict[str, Any]
    surface: np.ndarray | None
    axes: np.ndarray | None
    state: dict[str, torch.Tensor] | None


def with_label_noise(data: Examples, share: float, random_state: int) -> Examples:
    """Give a share of the examples a class that is not theirs, drawn evenly from the others.

    Parameters
    ----------
    data : Examples
        With integer targets.
    share : float
        In [0, 1); rounded to a whole number of examples.
    random_state : int
        Seed.

    Returns
    -------
    data : Examples
        The same inputs; the argument itself where the share is 0.
    """
    count = round(share * len(data))
    if count == 0:
        return data
    rng = np.random.default_rng(random_state)
    chosen = rng.choice(len(data), count, replace=False)
    n_classes = max(len(data.class_names), int(data.targets.max()) + 1)
    targets = data.targets.clone()
    shift = torch.from_numpy(rng.integers(1, n_classes, count))
    targets[chosen] = (targets[chosen] + shift) % n_classes
    name = f"{data.name} with {share:.0%} wrong labels (seed {random_state})"
    return dataclasses.replace(data, targets=targets, name=name)


def build(task: Task) -> nn.Module:
    """Build the task's network with its initial weights."""
    n_classes = max(len(task.data.class_names), int(task.data.targets.max()) + 1)
    _, channels, height, _ = task.data.images.shape
    return task.variant.build(n_classes, height, channels, random_state=task.seed)


def run(task: Task, on_progress: OnProgress = ignore_progress) -> RunOutcome:
    """Run one task, loading what the cache holds already.

    Parameters
    ----------
    task : Task
    on_progress : callable, optional
        `(done, total, message)` over this run.

    Returns
    -------
    RunOutcome
        A training that ends in non-finite weights or loss gives a row with status "failed: …".
    """
    on_progress(0, 1, "building")
    model = build(task)
    data = with_label_noise(task.data, task.training["label_noise"], task.seed)
    engine = {name: task.options[name] for name in ("loss", "device")}
    network = [cache.describe_module(model), trainable_names(model)]
    key = cache.fingerprint(network, task.training, task.seed, data.fingerprint, engine)
    step = subprogress(on_progress, 0.0, 0.4, "training")
    trained = cache.cached_call(
        task.memory, _train, key, task, model, data, cache.working_folder(task.memory, key), step
    )
    row: dict[str, Any] = {
        **task.variant.as_dict(),
        "variant": task.variant.name,
        "training": task.training,
        "seed": task.seed,
        "status": trained["status"],
        "n_parameters": count_parameters(model),
        "epochs_run": trained["epochs_run"],
        "seconds_training": trained["seconds"],
        "seconds_measuring": None,
        **dict.fromkeys(MEASURED),
    }
    del row["name"]
    row["parameters_per_example"] = row["n_parameters"] / len(data)
    if trained["status"] != "ok":
        return RunOutcome(row, None, None, None)
    model.load_state_dict(trained["state"])
    sets, measures = (data.fingerprint, task.held_out.fingerprint), dataclasses.asdict(task.measures)
    key = cache.fingerprint(trained["state"], network, *sets, task.options, measures)
    row |= cache.cached_call(task.memory, _measure, key, task, model, data, subprogress(on_progress, 0.4, 0.7))
    surface = axes = None
    if task.map is not None:
        surface, axes = _surface(task, model, data, subprogress(on_progress, 0.7, 1.0, "map"))
        row["convex_share"] = _known(convex_share((axes[0], axes[1]), surface))
    on_progress(1, 1, "done")
    return RunOutcome(row, surface, axes, trained["state"])


def run_all(tasks: Sequence[Task], n_jobs: int | None, on_progress: OnProgress) -> Iterator[RunOutcome]:
    """Run tasks, in other processes where `n_jobs` says so; outcomes come in the order of the tasks."""
    total = len(tasks)
    if count_workers(n_jobs) == 1:
        for index, task in enumerate(tasks):
            share = subprogress(on_progress, index / total, (index + 1) / total)
            yield run(task, partial(_labelled, share, f"{task.variant.name}, seed {task.seed}"))
        return
    waiting: dict[int, RunOutcome] = {}
    done = 0
    for index, outcome in spread(_run_one, Parcel(list(tasks)), range(total), n_jobs):
        waiting[index] = outcome
        on_progress(done + len(waiting), total, f"{outcome.row['variant']}, seed {outcome.row['seed']}")
        while done in waiting:
            yield waiting.pop(done)
            done += 1


def _run_one(tasks: Sequence[Task], index: int) -> tuple[int, RunOutcome]:
    return index, run(tasks[index])


def _labelled(report: OnProgress, label: str, done: int, total: int, message: str) -> None:
    report(done, total, f"{label}: {message}")


def describe_settings(params: Mapping[str, Any], data: Examples, **more: Any) -> dict[str, Any]:
    """Give the settings of a result of several runs: an estimator's parameters, what `batch_norm` meant, the data."""
    loss = params["loss"]
    return {
        **{k: v for k, v in params.items() if k not in ("memory", "verbose", "n_jobs")},
        **policy_settings(params["batch_norm"], several_networks=False),
        "loss": loss if isinstance(loss, str) else cache.describe_callable(loss),
        "data": data.name,
        "n_examples": len(data),
        **more,
    }


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _train(
    task: Task, model: nn.Module, data: Examples, folder: Path | None, on_progress: OnProgress
) -> dict[str, Any]:
    settings = {k: v for k, v in task.training.items() if k != "label_noise"}  # the labels carry it already
    settings |= {name: task.options[name] for name in ("loss", "device")}
    start = time.perf_counter()
    outcome = train(
        model,
        data,
        random_state=task.seed,
        checkpoint_dir=folder,
        checkpoint_every=settings["epochs"],
        on_progress=on_progress,
        **settings,
    )
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.perf_counter() - start
    state = {name: value.detach().cpu() for name, value in outcome.model.state_dict().items()}
    finite = all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())
    losses = np.asarray(outcome.history["loss"], dtype=float)
    epochs_run = len(losses)
    failed = not finite or (epochs_run and not np.isfinite(losses[-1]))
    status = f"failed: not finite after epoch {epochs_run}" if failed else "ok"
    return {"status": status, "state": None if failed else state, "epochs_run": epochs_run, "seconds": seconds}


def _measure(task: Task, model: nn.Module, data: Examples, on_progress: OnProgress) -> dict[str, Any]:
    start = time.perf_counter()
    numbers = measure(Landscape(model, data, **task.options), task.held_out, task.measures, on_progress)
    known = {name: _known(value) for name, value in numbers.items()}
    return {**known, "seconds_measuring": time.perf_counter() - start}


def _surface(task: Task, model: nn.Module, data: Examples, on_progress: OnProgress) -> tuple[np.ndarray, np.ndarray]:
    mapper = SurfaceMapper(
        **(task.map or {}), **task.options, memory=task.memory, random_state=task.measures.sharpness.random_state
    ).fit(model, data, on_progress=on_progress)
    return np.asarray(mapper.losses_, dtype=float), np.stack([np.asarray(axis) for axis in mapper.axes_])
