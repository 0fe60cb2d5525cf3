"""The workspace folder: where checkpoints, runs and the log live, and how a file gets there safely.

Nothing is ever written in place. A file is written beside its name and renamed over it, a folder is filled
under a temporary name and renamed once it is complete; both are atomic on one file system, so a kill or a
full disk leaves the old state or the new one, never half of one. Deleting moves to a bin inside the
workspace, which makes undo a rename.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

ENVIRONMENT = "LOSS_ATLAS_WORKSPACE"
_PARTIAL = ".partial-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def place() -> Path:
    """Return where the workspace is: ``LOSS_ATLAS_WORKSPACE`` or the platform's user data folder."""
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen).expanduser()
    from platformdirs import user_data_path

    return user_data_path("loss-atlas", appauthor=False)


def root() -> Path:
    """Return the workspace folder, created."""
    return _made(place())


def folder(kind: str) -> Path:
    """Return the folder of one kind of thing (``checkpoints``, ``runs``, ``uploads``, ``bin``, ``logs``), created."""
    path = _made(root() / kind)
    if path.stat().st_mode & 0o077:  # from before they were private
        with suppress(OSError):
            path.chmod(0o700)
    return path


def _made(path: Path) -> Path:
    """Make a folder for this user alone. One that a person chose keeps its rights."""
    if not path.is_dir():
        with told(path):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


@contextmanager
def scratch() -> Iterator[Path]:
    """Yield a folder in the workspace for files on their way; it goes when the block ends."""
    with told(place()):
        path = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=root()))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Unwritable(OSError):
    """Something could not be written in the workspace; the message is one sentence."""

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Turn what the system says of a write into a sentence: where, why, and what to do."""
    try:
        yield
    except OSError as error:
        if not str(error).startswith("[Errno"):  # it is a sentence already, of ours or of the engine's
            raise
        cure = "Free some space" if error.errno in _FULL else "Choose a folder that this program may write to"
        raise Unwritable(
            error.errno,
            f"workspace must have room and permission for what is kept, got {error.strerror or error} at "
            f"{str(error.filename or path)!r}. {cure}, or start with --workspace FOLDER.",
        ) from error


def problem() -> str | None:
    """Say why nothing can be kept in the workspace; None when it can."""
    try:
        probe = folder("logs") / ".room"
        write_bytes(probe, bytes(4096))  # a full disk takes a name, and no content
        probe.unlink(missing_ok=True)
    except Unwritable as error:
        return str(error)
    return None


def new_id(title: str = "") -> str:
    """Return a name for a new folder: time, a readable part of the title, and a random tail."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:32]
    return "-".join(part for part in (time.strftime("%Y%m%d-%H%M%S"), slug, uuid.uuid4().hex[:6]) if part)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically and durably."""
    write_bytes(path, json.dumps(content, indent=2, ensure_ascii=False, default=str).encode())


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file for this user alone, atomically and durably."""
    temporary = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        with told(path):
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


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
    try:
        with told(parent / name):
            temporary.mkdir(parents=True)
            yield temporary
            os.replace(temporary, parent / name)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove(path: Path) -> None:
    """Delete a folder; it is no entry any more from the first moment, so that a kill leaves no half of one."""
    gone = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex[:8]}-{path.name}")
    with suppress(OSError):
        os.replace(path, gone)
        shutil.rmtree(gone, ignore_errors=True)


def sweep(days: float = 7.0) -> None:
    """Remove what a kill left half written; younger things may belong to another process of the app."""
    for parent in (root(), *(folder(kind) for kind in ("checkpoints", "runs", "uploads", "trainings", "queue"))):
        for left in parent.glob(f"{_PARTIAL}*"):
            with suppress(OSError):  # another process may be sweeping too
                if time.time() - left.stat().st_mtime > 86400 * days:
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def entries(kind: str) -> list[Path]:
    """Return the complete folders of one kind, newest first by name; none where there is no workspace."""
    try:
        parent = folder(kind)
    except Unwritable:
        return []
    found = [p for p in parent.iterdir() if p.is_dir() and not p.name.startswith(_PARTIAL)]
    return sorted(found, key=lambda p: p.name, reverse=True)


def discard(path: Path) -> Path:
    """Move a folder of the workspace to the bin and return where it lies, for :func:`restore`."""
    target = folder("bin") / f"{path.parent.name}--{path.name}"
    with told(path):
        if target.exists():
            shutil.rmtree(target)
        os.replace(path, target)
    return target


def restore(binned: Path) -> Path:
    """Move a folder out of the bin to where it came from."""
    kind, name = binned.name.split("--", 1)
    target = folder(kind) / name
    with told(binned):
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
    return place() / "logs" / "loss-atlas.log"


def start_log() -> None:
    """Send the app's log to a file in the workspace (1 MB, three old ones kept); twice is harmless."""
    logger = logging.getLogger("loss_atlas")
    try:
        path = str(folder("logs") / log_path().name)
    except Unwritable:
        return
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
