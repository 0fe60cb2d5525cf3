"""Training in the background: a network, its epochs and its curves, kept in the library."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from app import jobs, library, workspace
from app.catalog import DataSpec, PointSpec

PAGE = "workbench"


@dataclass(frozen=True)
class TrainingResult:
    """Curves of a training, and the checkpoint it left in the library (None while it runs)."""

    history: dict[str, np.ndarray]
    checkpoint_id: str | None = None
    name: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the curves and settings to an NPZ without pickles."""
        notes = json.dumps(
            {"checkpoint_id": self.checkpoint_id, "name": self.name, "settings": self.settings}, default=str
        )
        with open(path, "wb") as file:
            np.savez_compressed(file, __notes__=np.array(notes), **self.history)

    @classmethod
    def load(cls, path: Path) -> TrainingResult:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            notes = json.loads(str(stored["__notes__"]))
            history = {name: stored[name] for name in stored.files if name != "__notes__"}
        return cls(history, notes["checkpoint_id"], notes["name"], notes["settings"])


def train(handle: jobs.Handle, name: str, point: PointSpec, data: DataSpec, settings: dict[str, Any]) -> TrainingResult:
    """Train one network and add it to the library; runs in the worker thread.

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
    from estimators import Landscape, save_checkpoint
    from estimators import train as fit

    held_out_spec = data.held_out(None)
    examples, held_out = data.load(), held_out_spec.load()
    model = point.load()
    rows: list[dict[str, float]] = []

    def on_epoch(epoch: int, network: Any, row: dict[str, float]) -> None:
        rows.append(row)
        history = {key: np.array([past[key] for past in rows]) for key in row}
        handle.partial(TrainingResult(history, name=name))

    with TemporaryDirectory(prefix=".partial-", dir=workspace.root()) as folder:
        run = fit(
            model,
            examples,
            held_out=held_out,
            checkpoint_dir=Path(folder) / "epochs",
            on_progress=handle.progress,
            on_epoch=on_epoch,
            **settings,
        )
        land = Landscape(run.model, examples, batch_norm="frozen")
        outside = land.on(held_out)
        meta = {
            "name": name,
            "architecture": point.architecture,
            "num_classes": point.num_classes,
            "image_size": point.image_size,
            "data": data.as_dict(),
            "training": settings,
            "start": point.as_dict(),
            "loss": land.loss(),
            "train_accuracy": land.accuracy(),
            "held_out_loss": outside.loss(),
            "accuracy": outside.accuracy(),
            "parameters": land.n_parameters,
            "held_out_examples": len(held_out),
        }
        weights = Path(folder) / library.WEIGHTS
        save_checkpoint(weights, run.model.state_dict(), meta)
        kept = library.add_checkpoint(weights, meta, epochs=[Path(path) for path in run.checkpoints])
    return TrainingResult(dict(run.history), kept.id, name, meta)


def script(point: PointSpec, data: DataSpec, settings: dict[str, Any]) -> str:
    """Return the Python program that trains the same network."""
    listed = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return "\n".join(
        [
            "from estimators import load_data, load_model, train",
            "",
            data.code("data"),
            data.held_out(None).code("held_out"),
            point.code("model"),
            f"run = train(model, data, held_out=held_out, {listed})",
            "print({name: values[-1] for name, values in run.history.items()})",
            "",
        ]
    )


def submit(name: str, point: PointSpec, data: DataSpec, settings: dict[str, Any]) -> jobs.Job:
    """Queue the training of one network."""
    config = {
        "points": {"start": point.as_dict()},
        "data": data.as_dict(),
        "params": settings,
        "estimator": "train",
        "script": script(point, data, settings),
    }
    return jobs.submit(PAGE, name, lambda handle: train(handle, name, point, data, settings), config=config)


def submit_quick_start() -> None:
    """Queue two small networks on digits that differ in their seed alone."""
    data = DataSpec(n_samples=None)
    for seed in (0, 1):
        name = library.unused_name(f"digits-{'ab'[seed]}")
        submit(name, PointSpec(seed=seed), data, {"epochs": 8, "batch_size": 64, "lr": 0.1, "random_state": seed})
