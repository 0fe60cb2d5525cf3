"""Training in the background: a network, its epochs and its curves, kept in the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from app.catalog import DataSpec, PointSpec
from app.work import jobs
from app.work.work import Work, restartable
from app.workspace import library
from app.workspace.trainings import unfinished

PAGE = "workbench"


@restartable
def train(handle: jobs.Handle, name: str, point: PointSpec, data: DataSpec, settings: dict[str, Any]) -> Any:
    """Train one network and add it to the library; runs in the worker thread.

    A training that is cancelled leaves the epochs it finished in the library; one that was killed goes on after them.

    Parameters
    ----------
    handle : Handle
    name : str
        Name in the library.
    point : PointSpec
        Where training starts.
    data : DataSpec
        Training examples; the other split of the same source is held out.
    settings : dict
        Keyword arguments of :func:`estimators.train`.
    """
    from app.workspace.curves import TrainingResult
    from estimators import Cancelled, Landscape, count_parameters, save_checkpoint
    from estimators import train as fit

    held_out_spec = data.held_out(None)
    examples, held_out = data.load(), held_out_spec.load()
    model = point.load()
    meta = {
        "name": name,
        **point.meta(data),
        "training": settings,
        "start": point.as_dict(),
        "parameters": count_parameters(model),
        "held_out_examples": len(held_out),
    }

    with unfinished(meta, handle.job.id) as training:
        rows = training.rows()

        def on_epoch(epoch: int, network: Any, row: dict[str, float]) -> None:
            rows[epoch - 1 :] = [row]
            training.note(rows)
            handle.partial(TrainingResult(_curves(rows), name=name))

        try:
            run = fit(
                model,
                examples,
                held_out=held_out,
                checkpoint_dir=training.epochs,
                on_progress=handle.progress,
                on_epoch=on_epoch,
                **settings,
            )
        except Cancelled:
            stopped = training.keep()
            if stopped is not None:
                handle.partial(TrainingResult(_curves(rows), stopped.id, stopped.name, settings=stopped.info))
            raise
        land = Landscape(run.model, examples, batch_norm="frozen")
        outside = land.on(held_out)
        meta |= {
            "loss": land.loss(),
            "train_accuracy": land.accuracy(),
            "held_out_loss": outside.loss(),
            "accuracy": outside.accuracy(),
        }
        weights = training.path / library.WEIGHTS
        save_checkpoint(weights, run.model.state_dict(), meta)
        kept = library.add_checkpoint(
            weights, meta, epochs=[Path(path) for path in run.checkpoints], made_by=training.path.name
        )
    return TrainingResult(dict(run.history), kept.id, name, settings=meta)


def _curves(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {key: np.array([past[key] for past in rows]) for key in rows[0]}


def script(point: PointSpec, data: DataSpec, settings: dict[str, Any]) -> str:
    """Return the Python program that trains the same network."""
    listed = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return f"""from estimators import load_data, load_model, train

{data.code("data")}
{data.held_out(None).code("held_out")}
{point.code("model")}
run = train(model, data, held_out=held_out, {listed})
print({{name: values[-1] for name, values in run.history.items()}})
"""


def submit(name: str, point: PointSpec, data: DataSpec, settings: dict[str, Any]) -> jobs.Job:
    """Queue the training of one network."""
    config = {
        "points": {"start": point.as_dict()},
        "data": data.as_dict(),
        "params": settings,
        "estimator": "train",
        "script": script(point, data, settings),
    }
    work = Work.of(train, name=name, point=point, data=data, settings=settings)
    return jobs.submit(PAGE, name, work, config=config)


def submit_quick_start() -> None:
    """Queue two small networks on digits that differ in their seed alone."""
    data = DataSpec(n_samples=None)
    for seed in (0, 1):
        name = library.unused_name(f"digits-{'ab'[seed]}")
        submit(name, PointSpec(seed=seed), data, {"epochs": 8, "batch_size": 64, "lr": 0.1, "random_state": seed})
