"""Checkpoints on disk, one folder each: weights, what made them, and the epochs on the way.

``weights.safetensors`` is the final point, ``epochs/`` the points it passed through (for averages and for
planes of a trajectory), ``meta.json`` the architecture, classes, image size, data, training settings and
accuracy.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from app import workspace

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """One entry of the library. ``meta`` is its ``meta.json``."""

    id: str
    name: str
    architecture: str
    num_classes: int
    image_size: int
    meta: dict[str, Any]

    @property
    def path(self) -> Path:
        """The weights file."""
        return workspace.folder("checkpoints") / self.id / str(self.meta.get("weights", WEIGHTS))

    @property
    def trajectory(self) -> tuple[Path, ...]:
        """The epochs on the way, in order; empty for an imported file."""
        return tuple(sorted((workspace.folder("checkpoints") / self.id / "epochs").glob("*.safetensors")))

    @property
    def label(self) -> str:
        """Name and held-out accuracy, for lists."""
        accuracy = self.meta.get("accuracy")
        return f"{self.name} · {self.architecture}" + (f" · {accuracy:.1%}" if isinstance(accuracy, float) else "")


def list_checkpoints(architecture: str | None = None) -> list[Checkpoint]:
    """Return the library, newest first, or only one architecture of it."""
    found = []
    for path in workspace.entries("checkpoints"):
        meta = workspace.read_json(path / "meta.json")
        if meta is not None and (path / str(meta.get("weights", WEIGHTS))).is_file():
            found.append(_checkpoint(path.name, meta))
    return [c for c in found if architecture in (None, c.architecture)]


def get_checkpoint(checkpoint_id: str) -> Checkpoint:
    """Return one entry; ``ValueError`` when it is not there."""
    path = workspace.check_id("checkpoints", checkpoint_id)
    meta = workspace.read_json(path / "meta.json")
    if meta is None:
        raise ValueError(f"checkpoint must have a readable meta.json, got {checkpoint_id!r}. Import its file again.")
    return _checkpoint(path.name, meta)


def _checkpoint(name: str, meta: dict[str, Any]) -> Checkpoint:
    return Checkpoint(
        name,
        str(meta.get("name", name)),
        str(meta.get("architecture", "")),
        int(meta.get("num_classes", 0)),
        int(meta.get("image_size", 0)),
        meta,
    )


def add_checkpoint(weights: Path, meta: dict[str, Any], *, epochs: Sequence[Path] = ()) -> Checkpoint:
    """Copy a weights file, and the epochs before it, into the library.

    Parameters
    ----------
    weights : Path
        safetensors or a torch file; its suffix is kept.
    meta : dict
        At least ``name``, ``architecture``, ``num_classes``, ``image_size``.
    epochs : sequence of Path
        safetensors files in order.
    """
    weights = Path(weights)
    file = WEIGHTS if weights.suffix == ".safetensors" else f"weights{weights.suffix}"
    name = workspace.new_id(str(meta.get("name", "checkpoint")))
    meta = {**meta, "weights": file, "created": datetime.now().astimezone().isoformat(timespec="seconds")}
    with workspace.new_folder(workspace.folder("checkpoints"), name) as path:
        shutil.copyfile(weights, path / file)
        if epochs:
            (path / "epochs").mkdir()
            for number, epoch in enumerate(epochs):
                shutil.copyfile(epoch, path / "epochs" / f"{number:04d}.safetensors")
        workspace.write_json(path / "meta.json", meta)
    return _checkpoint(name, meta)


def rename_checkpoint(checkpoint_id: str, name: str) -> None:
    """Give a checkpoint another name; an empty one changes nothing."""
    path = workspace.check_id("checkpoints", checkpoint_id)
    meta = workspace.read_json(path / "meta.json") or {}
    if name.strip():
        workspace.write_json(path / "meta.json", {**meta, "name": name.strip()})


def delete_checkpoint(checkpoint_id: str) -> Path:
    """Move a checkpoint to the bin; give the returned path to :func:`app.workspace.restore` to undo."""
    return workspace.discard(workspace.check_id("checkpoints", checkpoint_id))


def unused_name(base: str) -> str:
    """Return ``base``, or ``base 2``, ``base 3``, …: the first name no checkpoint has."""
    taken = {c.name for c in list_checkpoints()}
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base} {number}"
    return name


def store_upload(content: bytes, file_name: str) -> Path:
    """Keep an uploaded file under the hash of its content, so that the same file is kept once."""
    suffix = Path(file_name).suffix.lower() or ".bin"
    target = workspace.folder("uploads") / f"{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    if not target.exists():
        temporary = target.with_name(f".partial-{target.name}")
        temporary.write_bytes(content)
        temporary.replace(target)
    return target
