"""Background work: one daemon thread fed by a queue, and the plain objects that describe it.

A page calls :func:`submit` with a function ``work(handle) -> result``. The worker runs it outside every
Streamlit session, so a click, another page or a reload never stops it; pages read the :class:`Job` and draw
what it holds. The worker never calls ``st.*``: a thread without a session would lose such calls silently.

One worker, not several: two measurements at once would share the cores and both come back later, and torch's
default dtype is one per process.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from app import workspace
from app.workspace import runs

logger = logging.getLogger("loss_atlas.jobs")

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"


@dataclass
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
        """Ask the job to stop; it does so between two chunks of work."""
        self.cancel_event.set()
        if self.state == QUEUED:
            self.state, self.finished = CANCELLED, time.monotonic()


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

    def part(self, start: float, stop: float) -> Handle:
        """Return a handle whose 0–1 covers ``start``–``stop`` of this one, for work of several stages."""
        width = self._stop - self._start
        return Handle(self.job, self._start + width * start, self._start + width * stop)


class JobQueue:
    """The queue, its worker and the jobs of this process, newest last."""

    def __init__(self, max_jobs: int = 60) -> None:
        self._pending: queue.Queue[tuple[Job, Callable[[Handle], Any]]] = queue.Queue()
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()
        self._max_jobs = max_jobs
        self._thread: threading.Thread | None = None

    def submit(self, job: Job, work: Callable[[Handle], Any]) -> Job:
        """Put a job in the queue and return it at once."""
        self.add(job)
        self._pending.put((job, work))
        self._ensure_worker()
        return job

    def add(self, job: Job) -> Job:
        """Keep a job that needs no work (a reopened run); the oldest finished ones are let go."""
        with self._lock:
            self._jobs[job.id] = job
            finished = [j.id for j in self._jobs.values() if not j.live]
            for old in finished[: max(0, len(self._jobs) - self._max_jobs)]:
                del self._jobs[old]
        return job

    def jobs(self) -> list[Job]:
        """Return the jobs, oldest first."""
        with self._lock:
            return list(self._jobs.values())

    def get(self, job_id: str) -> Job | None:
        """Return a job by its id, or None."""
        return self._jobs.get(job_id)

    def latest(self, page: str) -> Job | None:
        """Return the newest job of a page, or None."""
        return next((j for j in reversed(self.jobs()) if j.page == page), None)

    def live(self) -> list[Job]:
        """Return the jobs that wait or run, in their order."""
        return [j for j in self.jobs() if j.live]

    def wait(self, timeout: float = 60.0) -> bool:
        """Block until nothing is live; for tests and scripts. Return False when the time ran out."""
        deadline = time.monotonic() + timeout
        while self.live():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _ensure_worker(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="loss-atlas-worker", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        while True:
            job, work = self._pending.get()
            if job.state == QUEUED and not job.cancel_event.is_set():
                _run(job, work)
            self._pending.task_done()


def _run(job: Job, work: Callable[[Handle], Any]) -> None:
    """Run one job to its end, whatever that is: nothing it raises reaches the worker, and its state always settles."""
    job.started, job.state = time.monotonic(), RUNNING
    outcome = FAILED
    try:
        job.result = _result(job, work)
        job.fraction, job.finished = 1.0, time.monotonic()
        outcome = _save(job) if job.keep else DONE
    except BaseException as error:  # a SystemExit of some library must not take the jobs behind this one along
        outcome = _blame(job, error)
    finally:
        job.finished = job.finished or time.monotonic()
        job.state = outcome


def _result(job: Job, work: Callable[[Handle], Any]) -> Any:
    """Do the work with torch's defaults, which it may change for itself alone."""
    import torch

    dtype = torch.get_default_dtype()
    try:
        # A thread starts with gradients on, but earlier work may have left another mode behind.
        with torch.enable_grad():
            return work(Handle(job))
    finally:
        torch.set_default_dtype(dtype)


def _blame(job: Job, error: BaseException) -> str:
    """Say in a sentence why the work ended, the rest in the log; return the state it ended in."""
    from estimators import Cancelled

    if isinstance(error, Cancelled):
        return CANCELLED
    if isinstance(error, OSError) and error.errno and _words(error).startswith("[Errno"):  # the system's own words
        job.error, job.note = _disk(error), _where_to_look()
        logger.error("job %s (%s) could not read or write", job.id, job.title, exc_info=error)
    elif isinstance(error, ValueError | TypeError | OSError) and _words(error):
        job.error = _words(error)
        logger.info("job %s (%s) refused its input", job.id, job.title, exc_info=error)
    else:
        job.error, job.note = _sentence(error), _where_to_look()
        logger.error("job %s (%s) failed", job.id, job.title, exc_info=error)
    return FAILED


def _save(job: Job) -> str:
    """Keep a finished job as a run and return the state it ends in; a result that cannot be saved stays on screen."""
    try:
        job.run_id = runs.save_run(job.page, job.title, job.result, job.config, seconds=job.elapsed)
    except OSError as error:  # the disk's fault, not the work's
        job.note = f"The result is here, but it could not be saved; download it below. {_disk(error)}"
        logger.error("job %s could not be saved", job.id, exc_info=error)
    except BaseException as error:
        job.error = f"The result is here, but saving it failed with {_sentence(error)}."
        job.note = _where_to_look()
        logger.error("job %s could not be saved", job.id, exc_info=error)
        return FAILED
    return DONE


def _disk(error: OSError) -> str:
    """Say in a sentence what the system answered to a read or a write."""
    if not _words(error).startswith("[Errno"):
        return _words(error) or type(error).__name__
    what = repr(str(error.filename)) if error.filename else "a file"
    return f"{what} must be readable and have room, got {error.strerror}. Free some space, or choose another place."


def _words(error: BaseException) -> str:
    """Return an error's own words; an error whose words fail has none."""
    try:
        return str(error).strip()
    except Exception:
        return ""


def _sentence(error: BaseException) -> str:
    """Return one line for a person: the kind of an error and the first line of its words."""
    return f"{type(error).__name__}: {(_words(error) or 'no message').splitlines()[0]}"


def _where_to_look() -> str | None:
    """Return where the details are; None when the workspace cannot be written to, so that there is no log."""
    try:
        log = workspace.log_path()
        return f"The details are in {log}." if log.parent.is_dir() else None
    except OSError:
        return None


@st.cache_resource(show_spinner=False)
def get_queue() -> JobQueue:
    """Return the one queue of this server process."""
    workspace.start_log()
    with suppress(OSError):  # what is left half written can wait
        workspace.sweep()
    return JobQueue()


def submit(
    page: str,
    title: str,
    work: Callable[[Handle], Any],
    *,
    config: dict[str, Any] | None = None,
    keep: bool = True,
) -> Job:
    """Start work in the background.

    Parameters
    ----------
    page : str
        Page that owns it; :func:`latest` of that page returns the job.
    title : str
        What a person calls it, such as ``"Surface of digits-a, 41 × 41"``.
    work : callable
        ``work(handle) -> result``; give ``handle.progress`` as ``on_progress`` and ``handle.partial`` as
        ``on_partial``. It must not call ``st.*``.
    config : dict, optional
        From :func:`app.export.config`; saved with the run.
    keep : bool, default=True
        Save the result as a run in the workspace.

    Returns
    -------
    Job
    """
    return get_queue().submit(Job(page=page, title=title, config=config or {}, keep=keep), work)


def adopt(page: str, title: str, result: Any, config: dict[str, Any], run_id: str | None = None) -> Job:
    """Show an existing result on a page as if its job had just finished (reopening a run)."""
    now = time.monotonic()
    job = Job(
        page=page,
        title=title,
        config=config,
        keep=False,
        state=DONE,
        fraction=1.0,
        result=result,
        run_id=run_id,
    )
    job.started = job.finished = now
    return get_queue().add(job)


def latest(page: str) -> Job | None:
    """Return the newest job of a page, or None."""
    return get_queue().latest(page)


def live() -> list[Job]:
    """Return the jobs that wait or run, in their order."""
    return get_queue().live()
