"""The workspace folder: where checkpoints, runs and the log live, and how a file gets there safely.

Nothing is ever written in place. A file is written beside its name and renamed over it, a folder is filled
under a temporary name and renamed once it is complete; both are atomic on one file system, so a kill or a
full disk leaves the old state or the new one, never half of one. Deleting moves to a bin inside the
workspace, which makes undo a rename.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

ENVIRONMENT = "LOSS_ATLAS_WORKSPACE"
_PARTIAL = ".partial-"


def root() -> Path:
    """Return the workspace folder, created: ``LOSS_ATLAS_WORKSPACE`` or the platform's user data folder."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        path = Path(chosen).expanduser()
    else:
        from platformdirs import user_data_path

        path = user_data_path("loss-atlas", appauthor=False)
    path.mkdir(parents=True, exist_ok=True)
    return path


def folder(kind: str) -> Path:
    """Return the folder of one kind of thing (``checkpoints``, ``runs``, ``uploads``, ``bin``, ``logs``)."""
    path = root() / kind
    path.mkdir(parents=True, exist_ok=True)
    return path


def new_id(title: str = "") -> str:
    """Return a name for a new folder: time, a readable part of the title, and a random tail."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:32]
    return "-".join(part for part in (time.strftime("%Y%m%d-%H%M%S"), slug, uuid.uuid4().hex[:6]) if part)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically and durably."""
    temporary = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=2, ensure_ascii=False, default=str)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Read JSON; None when the file is missing or damaged (the reader then leaves that entry out)."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``parent/name`` when the block ends without an error.

    On an error the temporary folder is removed and nothing appears under ``parent``.
    """
    temporary = parent / f"{_PARTIAL}{uuid.uuid4().hex[:8]}-{name}"
    temporary.mkdir(parents=True)
    try:
        yield temporary
        os.replace(temporary, parent / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sweep(days: float = 7.0) -> None:
    """Remove what a kill left half written; younger things may belong to another process of the app."""
    for parent in (root(), *(folder(kind) for kind in ("checkpoints", "runs", "uploads"))):
        for left in parent.glob(f"{_PARTIAL}*"):
            if time.time() - left.stat().st_mtime > 86400 * days:
                shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def entries(kind: str) -> list[Path]:
    """Return the complete folders of one kind, newest first by name."""
    found = [p for p in folder(kind).iterdir() if p.is_dir() and not p.name.startswith(_PARTIAL)]
    return sorted(found, key=lambda p: p.name, reverse=True)


def discard(path: Path) -> Path:
    """Move a folder of the workspace to the bin and return where it lies, for :func:`restore`."""
    target = folder("bin") / f"{path.parent.name}--{path.name}"
    if target.exists():
        shutil.rmtree(target)
    os.replace(path, target)
    return target


def restore(binned: Path) -> Path:
    """Move a folder out of the bin to where it came from."""
    kind, name = binned.name.split("--", 1)
    target = folder(kind) / name
    os.replace(binned, target)
    return target


def check_id(kind: str, entry: str) -> Path:
    """Return the folder of an entry; names come from URLs too, so one that leaves the folder is refused."""
    path = folder(kind) / entry
    if not entry or Path(entry).name != entry or entry.startswith(".") or not path.is_dir():
        raise ValueError(f"{kind[:-1]} must be one of those in the workspace, got {entry!r}. It may have been deleted.")
    return path


def log_path() -> Path:
    """Return the path of the log file."""
    return folder("logs") / "loss-atlas.log"


def start_log() -> None:
    """Send the app's log to a file in the workspace (1 MB, three old ones kept); twice is harmless."""
    logger = logging.getLogger("loss_atlas")
    path = str(log_path())
    for handler in list(logger.handlers):
        if isinstance(handler, RotatingFileHandler):
            if handler.baseFilename == os.path.abspath(path):
                return
            logger.removeHandler(handler)
            handler.close()
    handler = RotatingFileHandler(path, maxBytes=1_000_000, backupCount=3, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
