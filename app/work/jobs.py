"""Background work: one daemon thread fed by a queue, and the plain objects that describe it.

A page calls :func:`submit` with a function ``work(handle) -> result``. The worker runs it outside every
Streamlit session, so a click, another page or a reload never stops it; pages read the :class:`Job` and draw
what it holds. The worker never calls ``st.*``: a thread without a session would lose such calls silently.

One worker, not several: two measurements at once would share the cores and both come back later, and torch's
default dtype is one per process.

Work that can be written down (:class:`app.work.work.Work`) is kept on disk until it ends: an app that was killed starts
with the queue as it was, and with the newest result of every page.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import streamlit as st

from app import workspace
from app.work.job import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Handle, Job
from app.work.running import run
from app.workspace import runs
from app.workspace.queued import left_behind

__all__ = [
    "CANCELLED", "DONE", "FAILED", "QUEUED", "RUNNING", "Handle", "Job", "JobQueue", "adopt", "get_queue", "latest",
    "live", "shown", "submit",
]  # fmt: skip

NICENESS = 5  # of the worker: pages are drawn first
MOST_STARTS = 5  # a job during which the app has died so often is not started again: it may be what kills it

logger = logging.getLogger("loss_atlas.jobs")


class JobQueue:
    """The queue, its worker and the jobs of this process, newest last.

    Attributes
    ----------
    restored : list of Job
        Those that the last start of the app has not ended.
    """

    def __init__(self, max_jobs: int = 60) -> None:
        self._jobs: dict[str, Job] = {}
        self._waiting: list[Job] = []
        self._lock = threading.RLock()
        self._turn = threading.Condition(self._lock)
        self._max_jobs = max_jobs
        self._thread: threading.Thread | None = None
        self._kept: dict[str, runs.Run] = {}
        self._reading = threading.Lock()
        self.restored: list[Job] = []

    def submit(self, job: Job) -> Job:
        """Put a job in the queue and return it at once."""
        job.write()
        logger.info("job %s (%s) waits", job.id, job.title)
        with self._turn:
            self.add(job)
            self._waiting.append(job)
            self._waiting.sort(key=lambda waiting: waiting.position)
            self._turn.notify()
        self._ensure_worker()
        return job

    def restore(self) -> None:
        """Take over what the last start of the app has left: jobs that have not ended, and each page's last result."""
        saved = runs.Run.every()
        self._kept = {run.page: run for run in reversed(saved)}
        ended = {run.info.get("job") for run in saved}
        for queued in left_behind():
            job = Job.read(queued)
            if job is None or job.id in ended:  # the kill came after its run was saved
                queued.remove()
            elif job.starts < MOST_STARTS:
                self.restored.append(job)
            else:
                job.state, job.finished, job.error = FAILED, time.monotonic(), _gave_up(job)
                job.forget()
                self.add(job)
        self.restored.sort(key=lambda waiting: waiting.position)
        for job in self.restored:
            self.submit(job)

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
        return next((j for j in reversed(self.jobs()) if j.page == page), None) or self._reopened(page)

    def shown(self, page: str) -> Job | None:
        """Return the newest job of a page that has something to draw, final or not, or None."""
        drawn = (j for j in reversed(self.jobs()) if j.page == page and (j.result is not None or j.partial is not None))
        return next(drawn, None) or self._reopened(page)

    def _reopened(self, page: str) -> Job | None:
        """Read the result that a page ended with before the app was started; each is read once."""
        if page not in self._kept:
            return None
        with self._reading:
            saved = self._kept.pop(page, None)
            if saved is None:  # somebody else has just read it
                return next((j for j in self.jobs() if j.page == page), None)
            try:
                result = runs.load_result(saved)
            except ValueError as error:  # deleted meanwhile, or of a class that is gone
                logger.warning("the last result of %s is not shown: %s", page, error)
                return None
            job = _finished(saved.page, saved.title, result, saved.info.get("config", {}), saved.id, saved.seconds)
            job.keep, job.created = True, job.created - saved.age
            with self._lock:
                self._jobs = {job.id: job, **self._jobs}  # older than all that was asked for since
            return job

    def live(self) -> list[Job]:
        """Return the jobs that run or wait, in their order."""
        with self._lock:
            running = [j for j in self._jobs.values() if j.state == RUNNING]
            return running + [j for j in self._waiting if j.live]

    def advance(self, job: Job) -> None:
        """Let a waiting job change places with the one before it."""
        with self._lock:
            waiting = [j for j in self._waiting if j.live]
            place = next((i for i, j in enumerate(waiting) if j is job), 0)
            if place == 0:
                return
            other = waiting[place - 1]
            job.position, other.position = other.position, job.position
            self._waiting.sort(key=lambda one: one.position)
        for moved in (job, other):
            moved.write()

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
        let_others_go_first()
        while True:
            with self._turn:
                while not self._waiting:
                    self._turn.wait()
                job = self._waiting.pop(0)
                if not job.live:
                    continue
                job.started, job.state = time.monotonic(), RUNNING
            run(job)


def let_others_go_first() -> None:
    """Give this thread, and those that torch starts from it, the time that no page wants.

    Linux alone knows priorities of threads.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def _gave_up(job: Job) -> str:
    return (
        f"The app ended {job.starts} times while this ran, so it was not started again. It may need more memory than "
        "there is: ask for less, or for the same again."
    )


@st.cache_resource(show_spinner=False)
def get_queue() -> JobQueue:
    """Return the one queue of this server process."""
    workspace.start_log()
    with suppress(OSError):  # what is left half written can wait
        workspace.sweep()
    queue = JobQueue()
    with suppress(OSError):  # a workspace that can't be read has left nothing
        queue.restore()
    return queue


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
        ``on_partial``. It must not call ``st.*``. A ``Work`` is done again by the next start where the app dies.
    config : dict, optional
        From :func:`app.export.config`; saved with the run.
    keep : bool, default=True
        Save the result as a run in the workspace.

    Returns
    -------
    Job
    """
    return get_queue().submit(Job(page=page, title=title, config=config or {}, keep=keep, work=work))


def adopt(page: str, title: str, result: Any, config: dict[str, Any], run_id: str | None = None) -> Job:
    """Show an existing result on a page as if its job had just finished (reopening a run)."""
    return get_queue().add(_finished(page, title, result, config, run_id))


def _finished(
    page: str, title: str, result: Any, config: dict[str, Any], run_id: str | None, seconds: float = 0.0
) -> Job:
    now = time.monotonic()
    known: dict[str, Any] = {"state": DONE, "fraction": 1.0, "result": result, "run_id": run_id, "keep": False}
    return Job(page, title, config, **known, started=now - seconds, finished=now)


def latest(page: str) -> Job | None:
    """Return the newest job of a page, or None."""
    return get_queue().latest(page)


def shown(page: str) -> Job | None:
    """Return the newest job of a page that has something to draw: while a new one has not, the one before it."""
    return get_queue().shown(page)


def live() -> list[Job]:
    """Return the jobs that run or wait, in their order."""
    return get_queue().live()
