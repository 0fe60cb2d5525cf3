"""Checkpoints on disk, one folder each: weights, what made them, and the epochs on the way.

``weights.safetensors`` is the final point, ``epochs/`` the points it passed through (for averages and for
planes of a trajectory), ``meta.json`` the architecture, classes, image size, data, training settings and
accuracy.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from app import workspace
from app.workspace import Entry

WEIGHTS = "weights.safetensors"


class Checkpoint(Entry):
    """One entry of the library. ``info`` is its ``meta.json``."""

    kind, file, title_field, advice = "checkpoints", "meta.json", "name", "Import its file again."

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.title

    @property
    def architecture(self) -> str:
        """Its timm name."""
        return str(self.info.get("architecture", ""))

    @property
    def num_classes(self) -> int:
        """Classes it tells apart."""
        return int(self.info.get("num_classes", 0))

    @property
    def image_size(self) -> int:
        """Pixels on a side of its images."""
        return int(self.info.get("image_size", 0))

    @property
    def path(self) -> Path:
        """The weights file."""
        return self.folder / str(self.info.get("weights", WEIGHTS))

    @property
    def trajectory(self) -> tuple[Path, ...]:
        """The epochs on the way, in order; empty for an imported file."""
        return tuple(sorted((self.folder / "epochs").glob("*.safetensors")))

    @property
    def label(self) -> str:
        """Name and held-out accuracy, for lists."""
        accuracy = self.info.get("accuracy")
        return f"{self.name} · {self.architecture}" + (f" · {accuracy:.1%}" if isinstance(accuracy, float) else "")


def list_checkpoints(architecture: str | None = None) -> list[Checkpoint]:
    """Return the library, newest first, or only one architecture of it."""
    return [c for c in Checkpoint.every() if c.path.is_file() and architecture in (None, c.architecture)]


def add_checkpoint(
    weights: Path, meta: dict[str, Any], *, epochs: Sequence[Path] = (), made_by: str | None = None
) -> Checkpoint:
    """Copy a weights file, and the epochs before it, into the library.

    Parameters
    ----------
    weights : Path
        safetensors or a torch file; its suffix is kept.
    meta : dict
        At least ``name``, ``architecture``, ``num_classes``, ``image_size``.
    epochs : sequence of Path
        safetensors files in order.
    made_by : str, optional
        Names the work that made it: what the same work has added already, before it was killed and started again, is
        given as it is.
    """
    there = added_by(made_by) if made_by is not None else None
    if there is not None:
        return there
    meta = {**meta, "made_by": made_by} if made_by is not None else meta
    weights = Path(weights)
    file = WEIGHTS if weights.suffix == ".safetensors" else f"weights{weights.suffix}"
    with Checkpoint.new({"name": "checkpoint", **meta, "weights": file}) as (path, made):
        shutil.copyfile(weights, path / file)
        if epochs:
            (path / "epochs").mkdir()
            for number, epoch in enumerate(epochs):
                shutil.copyfile(epoch, path / "epochs" / f"{number:04d}.safetensors")
    return made


def added_by(work: str) -> Checkpoint | None:
    """Return what a piece of work has added, by the name it noted there, or None."""
    return next((c for c in list_checkpoints() if c.info.get("made_by") == work), None)


def add_recording(folder: Path, meta: dict[str, Any]) -> Checkpoint:
    """Take what a recorder wrote into the library: its last point, with all its points as epochs.

    They keep the numbers of their steps. A recorder replaces files and never writes into them, so that a hard link
    stands for a copy where the file system allows it.

    Parameters
    ----------
    folder : Path
    meta : dict
        As for :func:`add_checkpoint`.
    """
    from estimators import read_recording

    recording = read_recording(folder)
    steps = [int(step) for step in recording.history["step"]]
    training = {"loss": float(recording.history["loss"][-1]), "recorded_in": str(recording.folder.resolve())}
    rates = {"rates": recording.history["lr"].tolist()} if "lr" in recording.history else {}
    with Checkpoint.new({"name": "recording", **training, **rates, **meta, "weights": WEIGHTS}) as (path, made):
        (path / "epochs").mkdir()
        for step, point in zip(steps, recording.checkpoints, strict=True):
            _link(point, path / "epochs" / f"{step:08d}.safetensors")
        shutil.copyfile(recording.checkpoints[-1], path / WEIGHTS)
    return made


def _link(source: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def unused_name(base: str) -> str:
    """Return ``base``, or ``base 2``, ``base 3``, …: the first name no checkpoint has."""
    taken = {c.name for c in list_checkpoints()}
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base} {number}"
    return name


def store_upload(content: bytes | memoryview, file_name: str) -> Path:
    """Keep an uploaded file under the hash of its content, so that the same file is kept once."""
    suffix = Path(file_name).suffix.lower() or ".bin"
    target = workspace.folder("uploads") / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    if not target.exists():
        workspace.write_bytes(target, content)
    return target


def drop_upload(path: Path) -> None:
    """Remove an uploaded file that was refused; a file elsewhere on this computer stays."""
    with suppress(OSError):
        if path.parent == workspace.folder("uploads"):
            path.unlink()
