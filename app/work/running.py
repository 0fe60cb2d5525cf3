"""One job from its start to its end, whatever that is."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from app.work.job import CANCELLED, DONE, FAILED, Handle, Job
from app.work.sentences import in_a_line, said, where_to_look, words
from app.workspace import runs

logger = logging.getLogger("loss_atlas.jobs")


def run(job: Job) -> None:
    """Run one job to its end, whatever that is: nothing it raises reaches the worker, and its state always settles."""
    outcome = FAILED
    try:
        job.starts += 1
        if not job.cancel_event.is_set():
            job.write()
        job.result = _result(job)
        job.fraction, job.finished = 1.0, time.monotonic()
        outcome = _save(job) if job.keep else DONE
    except BaseException as error:  # a SystemExit of some library must not take the jobs behind this one along
        outcome = _blame(job, error)
    finally:
        job.finished = job.finished or time.monotonic()
        with suppress(OSError):  # what is left of it is removed when the app starts again
            job.forget()
        job.state = outcome
        logger.info("job %s (%s) ended: %s", job.id, job.title, outcome)


def _result(job: Job) -> Any:
    """Do the work with torch's defaults, which it may change for itself alone."""
    import torch

    import estimators  # whole, before a part of it: a page may be importing it meanwhile

    dtype = torch.get_default_dtype()
    try:
        # A thread starts with gradients on, but earlier work may have left another mode behind.
        with torch.enable_grad():
            return job.work(Handle(job)) if job.work is not None else None
    finally:
        torch.set_default_dtype(dtype)
        estimators.return_freed_memory()  # the C library keeps 300 MB after thirty small jobs


def _blame(job: Job, error: BaseException) -> str:
    """Say in a sentence why the work ended, the rest in the log; return the state it ended in."""
    from estimators import Cancelled

    if isinstance(error, Cancelled):
        return CANCELLED
    if isinstance(error, OSError) and error.errno and words(error).startswith("[Errno"):  # the system's own words
        job.error, job.note = said(error), where_to_look()
        logger.error("job %s (%s) could not read or write", job.id, job.title, exc_info=error)
    elif isinstance(error, ValueError | TypeError | OSError) and words(error):
        job.error = words(error)
        logger.info("job %s (%s) refused its input", job.id, job.title, exc_info=error)
    else:
        job.error, job.note = in_a_line(error), where_to_look()
        logger.error("job %s (%s) failed", job.id, job.title, exc_info=error)
    return FAILED


def _save(job: Job) -> str:
    """Keep a finished job as a run and return the state it ends in; a result that cannot be saved stays on screen."""
    try:
        job.run_id = runs.save_run(job.page, job.title, job.result, job.config, seconds=job.elapsed, job=job.id)
    except OSError as error:  # the disk's fault, not the work's
        job.note = f"The result is here, but it could not be saved; download it below. {said(error)}"
        logger.error("job %s could not be saved", job.id, exc_info=error)
    except BaseException as error:
        job.error = f"The result is here, but saving it failed with {in_a_line(error)}."
        job.note = where_to_look()
        logger.error("job %s could not be saved", job.id, exc_info=error)
        return FAILED
    return DONE
