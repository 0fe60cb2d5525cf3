"""Trainings that have not ended: what they have reached lies on disk, so that no stop loses it.

``trainings/<id>/`` holds ``meta.json`` (what the library needs), ``history.json`` (a row for each epoch), ``epochs/``
and a lock that the operating system releases when the process dies, however it dies. A training that ends is removed;
one that was stopped goes to the library with the epochs it finished, at once or when the app starts again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

from filelock import FileLock, Timeout

from app import workspace
from app.workspace import library, queued

logger = logging.getLogger("loss_atlas.unfinished")

KIND = "trainings"


class Unfinished:
    """One training on its way to the library.

    Attributes
    ----------
    path : Path
        Its folder.
    epochs : Path
        Where its checkpoints go.
    settled : bool
        Whether the library has what was reached.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.epochs, self.settled = path, path / "epochs", False

    def rows(self) -> list[dict[str, float]]:
        """Return the curves that were kept."""
        return list((workspace.read_json(self.path / "history.json") or {}).get("rows", []))

    def note(self, rows: list[dict[str, float]]) -> None:
        """Keep the curves so far."""
        workspace.write_json(self.path / "history.json", {"rows": rows})

    def keep(self) -> library.Checkpoint | None:
        """Put the last finished epoch into the library, with those before it; None where there is none."""
        meta = workspace.read_json(self.path / "meta.json")
        if library.added_by(self.path.name) is not None:
            self.settled = True  # a kill came between the library and the end of this folder
            return None
        rows = self.rows()
        weights = sorted(self.epochs.glob("epoch-*.safetensors"))
        last = int(weights[-1].stem.removeprefix("epoch-")) if weights else 0
        if meta is None or last == 0:
            self.settled = True
            return None
        row = rows[last - 1] if last <= len(rows) else {}
        meta |= {
            "name": f"{meta['name']} (stopped after epoch {last})",
            "stopped_after": last,
            "held_out_loss": row.get("held_out_loss"),
            "accuracy": row.get("held_out_accuracy"),
        }
        kept = library.add_checkpoint(weights[-1], meta, epochs=weights, made_by=self.path.name)
        self.settled = True
        return kept


@contextmanager
def unfinished(meta: dict[str, Any], job: str = "") -> Iterator[Unfinished]:
    """Give a training its folder; it goes when the block ends well or was settled, and stays for `recover` otherwise.

    The same job, started again after a kill, finds what it had reached.

    Parameters
    ----------
    meta : dict
        What the library must know of the network, its ``name`` there among it.
    job : str
        Id of the job.
    """
    known = f"{job}-{crc32(meta['name'].encode()):08x}"  # one job may train several
    path = workspace.folder(KIND) / (known if job else workspace.new_id(meta["name"]))
    with workspace.told(path):
        path.mkdir(exist_ok=True)
    training = Unfinished(path)
    try:
        with FileLock(path / "lock"):
            workspace.write_json(path / "meta.json", meta)
            yield training
            training.settled = True
    finally:
        if training.settled:
            workspace.remove(path)


def recover() -> list[library.Checkpoint]:
    """Bring trainings into the library that a kill or a crash has stopped; those that run or wait are left alone."""
    kept = []
    for path in workspace.entries(KIND):
        if queued.waits(path.name.partition("-")[0]):  # its job goes on with it
            continue
        try:
            with FileLock(path / "lock", timeout=0):
                found = Unfinished(path).keep()
        except Timeout:
            continue
        except OSError as error:  # a full disk: the folder stays for the next start
            logger.warning("the training in %s could not be kept: %s", path, error)
            continue
        kept += [] if found is None else [found]
        workspace.remove(path)
    return kept
