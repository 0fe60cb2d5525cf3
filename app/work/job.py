"""A piece of background work: what is known of it, what its work sees of it, and its place on disk."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from app import workspace
from app.work.sentences import said
from app.work.work import Work
from app.workspace.queued import Queued

logger = logging.getLogger("loss_atlas.jobs")

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
_WRITTEN = ("id", "page", "title", "config", "keep", "starts", "position")


@dataclass(eq=False)
class Job:
    """One piece of background work and all that is known about it.

    Attributes
    ----------
    id, page, title : str
        Identity, the page that asked for it, and what a person calls it.
    config : dict
        What reproduces it: ``spec``, ``estimator``, ``params``, ``script``; saved with the run.
    state : {"queued", "running", "done", "failed", "cancelled"}
    fraction : float
        Work done, 0 to 1.
    message : str
        What is being done now.
    result, partial : object
        The final result, and the latest one handed on while running. A cancelled job keeps its partial
        result.
    error : str or None
        A sentence for a person. The traceback goes to the log file.
    note : str or None
        Something that went wrong beside the work, such as a full disk when the run was saved.
    run_id : str or None
        Folder of the saved run.
    work : callable or None
        ``work(handle) -> result``; None for a result that was already there.
    queued : Queued or None
        Its place on disk, while it lives and can be written down.
    starts : int
        How often it was started, more than once where the app died.
    position : float
        Waiting jobs are done by its order.
    """

    page: str
    title: str
    config: dict[str, Any] = field(default_factory=dict)
    keep: bool = True
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    state: str = QUEUED
    fraction: float = 0.0
    message: str = ""
    result: Any = None
    partial: Any = None
    error: str | None = None
    note: str | None = None
    run_id: str | None = None
    work: Callable[[Handle], Any] | None = None
    queued: Queued | None = None
    starts: int = 0
    position: float = field(default_factory=time.time)
    created: float = field(default_factory=time.monotonic)
    started: float | None = None
    finished: float | None = None
    cancel_event: threading.Event = field(default_factory=threading.Event)
    _first: tuple[float, float] | None = None

    @property
    def live(self) -> bool:
        """Whether the job waits or runs."""
        return self.state in (QUEUED, RUNNING)

    @property
    def elapsed(self) -> float:
        """Seconds of work so far."""
        if self.started is None:
            return 0.0
        return (self.finished or time.monotonic()) - self.started

    @property
    def eta(self) -> float | None:
        """Seconds left, from the speed since the first progress report; None while it cannot be told."""
        if self.state != RUNNING or self._first is None:
            return None
        since, at = self._first
        gained = self.fraction - at
        if gained <= 0:
            return None
        return (time.monotonic() - since) * (1.0 - self.fraction) / gained

    def cancel(self) -> None:
        """Ask the job to stop; it does so between two chunks of work. It is not started again after a kill either."""
        self.cancel_event.set()
        queued = self.queued
        if queued is not None:
            queued.withdraw()
        if self.state == QUEUED:
            self.state, self.finished = CANCELLED, time.monotonic()
            self.forget()
            logger.info("job %s (%s) ended: %s", self.id, self.title, self.state)

    def write(self) -> None:
        """Keep on disk what is to be done; where that can't be, the job is done all the same."""
        if not isinstance(self.work, Work):
            return
        content = {name: getattr(self, name) for name in _WRITTEN} | {"work": asdict(self.work)}
        try:
            if self.queued is None:
                queued = Queued(self.id)
                queued.take()
                self.queued = queued
            self.queued.write(content)
        except OSError as error:
            self.note = f"This job is lost if the app ends before it. {said(error)}"
            logger.warning("job %s could not be written down: %s", self.id, error)

    @classmethod
    def read(cls, queued: Queued) -> Job | None:
        """Return the job that another start of the app has written down; None where it was withdrawn or is damaged."""
        known = queued.read()
        try:
            return known and cls(**{name: known[name] for name in _WRITTEN}, work=Work(**known["work"]), queued=queued)
        except (KeyError, TypeError) as error:
            logger.warning("the job in %s can't be read: %s", queued.path, error)
            return None

    def forget(self) -> None:
        """Let its place on disk go, once it has ended."""
        if self.queued is not None:
            self.queued.remove()
            self.queued = None


class Handle:
    """What the work sees of its job: where to report progress and partial results.

    ``handle.progress`` is the estimators' ``on_progress`` and raises ``Cancelled`` once the person has asked
    to stop; ``handle.partial`` is their ``on_partial``; ``handle.part(0.0, 0.5)`` is a handle for a first
    half of the work.
    """

    def __init__(self, job: Job, start: float = 0.0, stop: float = 1.0) -> None:
        self.job, self._start, self._stop = job, start, stop

    def progress(self, done: float, total: float, message: str = "") -> None:
        """Record ``done`` of ``total``; raise ``Cancelled`` if the job was asked to stop."""
        job = self.job
        if job.cancel_event.is_set():
            from estimators import Cancelled

            raise Cancelled(f"{job.title} was cancelled")
        share = min(max(done / total, 0.0), 1.0) if total else 0.0
        job.fraction = self._start + (self._stop - self._start) * share
        if message:
            job.message = str(message)
        if job._first is None:
            job._first = (time.monotonic(), job.fraction)

    def partial(self, result: Any) -> None:
        """Hand on what is known so far; the page draws it while the work goes on."""
        self.job.partial = result

    @property
    def reports(self) -> dict[str, Callable[..., None]]:
        """What ``fit`` takes to report here: ``on_progress`` and ``on_partial``."""
        return {"on_progress": self.progress, "on_partial": self.partial}

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a folder for files on the way, which goes when the job ends; after a kill they are there again."""
        if self.job.queued is not None:
            yield self.job.queued.files()
            return
        with workspace.scratch() as path:
            yield path

    def part(self, start: float, stop: float) -> Handle:
        """Return a handle whose 0–1 covers ``start``–``stop`` of this one, for work of several stages."""
        width = self._stop - self._start
        return Handle(self.job, self._start + width * start, self._start + width * stop)
