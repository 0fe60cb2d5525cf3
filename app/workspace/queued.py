"""Jobs that have not ended: what was asked for lies on disk, so that no stop of the app loses it.

``queue/<id>/`` holds ``job.json`` (what to do), ``files/`` (what the work keeps on its way) and a lock that the
operating system releases when the process dies, however it dies. A job that ends is removed; one whose process died is
taken over by the next start of the app.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from app import workspace

KIND, FILE = "queue", "job.json"


class Queued:
    """One job on disk.

    Parameters
    ----------
    job : str
        Its id, and the name of its folder.
    """

    def __init__(self, job: str) -> None:
        self.path = workspace.folder(KIND) / job
        self._lock = FileLock(self.path / "lock", thread_local=False)

    def take(self) -> bool:
        """Hold it for this process until it is removed; tell whether no other process does."""
        with workspace.told(self.path):
            self.path.mkdir(exist_ok=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                return False
        return True

    def write(self, content: dict[str, Any]) -> None:
        """Keep what to do."""
        workspace.write_json(self.path / FILE, content)

    def read(self) -> dict[str, Any] | None:
        """Give what to do; None where that was never written whole, or withdrawn."""
        return workspace.read_json(self.path / FILE)

    def withdraw(self) -> None:
        """Do not start it again; its files stay until it is removed."""
        (self.path / FILE).unlink(missing_ok=True)

    def files(self) -> Path:
        """Give the folder for what the work keeps on its way, created."""
        path = self.path / "files"
        with workspace.told(path):
            path.mkdir(exist_ok=True)
        return path

    def remove(self) -> None:
        """Let it go, with its files."""
        workspace.remove(self.path)
        self.release()

    def release(self) -> None:
        """Let another process take it over."""
        self._lock.release()


def waits(job: str) -> bool:
    """Tell whether a job is still to be done, by this process or another."""
    return (workspace.folder(KIND) / job / FILE).is_file()


def left_behind() -> list[Queued]:
    """Take over the jobs whose process died."""
    found = [Queued(path.name) for path in reversed(workspace.entries(KIND))]
    return [queued for queued in found if queued.take()]
