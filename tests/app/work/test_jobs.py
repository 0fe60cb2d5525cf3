"""The worker: order, progress, cancelling, failures, and what survives."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from app import workspace
from app.work import jobs
from app.workspace import runs
from app.workspace.curves import TrainingResult


@dataclass
class Numbers:
    """A result like the estimators': it saves itself."""

    values: np.ndarray
    settings: dict = field(default_factory=dict)

    def save(self, path):
        with open(path, "wb") as file:
            np.savez(file, values=self.values)


def finish(timeout=20):
    assert jobs.get_queue().wait(timeout), "the worker did not finish"


def test_a_job_runs_in_the_background_and_is_saved_as_a_run():
    caller = threading.current_thread().name
    seen = []

    def work(handle):
        seen.append(threading.current_thread().name)
        handle.progress(1, 2, "half")
        return Numbers(np.arange(3.0), {"batch_norm": "frozen"})

    job = jobs.submit("surface", "A map", work, config={"script": "print(1)"})
    finish()
    assert seen[0] != caller
    assert threading.main_thread().name != seen[0]
    assert (job.state, job.fraction, job.message) == (jobs.DONE, 1.0, "half")
    np.testing.assert_array_equal(job.result.values, [0, 1, 2])
    saved = runs.Run.get(job.run_id)
    assert saved.title == "A map"
    assert saved.info["config"]["script"] == "print(1)"
    assert saved.info["settings"] == {"batch_norm": "frozen"}
    assert torch.__version__.startswith(saved.info["versions"]["torch"])
    with np.load(saved.result_path) as stored:
        np.testing.assert_array_equal(stored["values"], [0, 1, 2])


def test_jobs_run_one_after_the_other_in_their_order():
    order = []
    for name in "abc":
        jobs.submit("p", name, lambda handle, name=name: order.append((name, time.sleep(0.02))), keep=False)
    finish()
    assert [name for name, _ in order] == ["a", "b", "c"]
    assert jobs.latest("p").title == "c"
    assert jobs.latest("nothing here") is None


def test_cancelling_stops_between_two_steps_and_keeps_the_partial_result():
    started = threading.Event()

    def work(handle):
        for step in range(1000):
            handle.partial(step)
            handle.progress(step, 1000, "step")
            started.set()
            time.sleep(0.005)
        return "finished"

    job = jobs.submit("p", "long", work)
    assert started.wait(10)
    job.cancel()
    finish()
    assert job.state == jobs.CANCELLED
    assert job.result is None
    assert isinstance(job.partial, int)
    assert job.error is None
    assert runs.list_runs() == []


def test_a_waiting_job_can_be_cancelled_before_it_starts():
    gate = threading.Event()
    first = jobs.submit("p", "first", lambda handle: gate.wait(10), keep=False)
    second = jobs.submit("p", "second", lambda handle: pytest.fail("it must not run"), keep=False)
    second.cancel()
    assert second.state == jobs.CANCELLED
    gate.set()
    finish()
    assert first.state == jobs.DONE
    assert second.error is None


def test_a_refused_input_becomes_its_sentence_and_the_worker_goes_on():
    def refuse(handle):
        raise ValueError("resolution must be at least 1, got 0. Raise it.")

    bad = jobs.submit("p", "bad", refuse)
    good = jobs.submit("p", "good", lambda handle: 7, keep=False)
    finish()
    assert bad.state == jobs.FAILED
    assert bad.error == "resolution must be at least 1, got 0. Raise it."
    assert bad.note is None
    assert good.result == 7


def test_an_unexpected_error_shows_one_line_and_its_traceback_goes_to_the_log():
    def crash(handle):
        return {}["missing"]

    job = jobs.submit("p", "crash", crash)
    finish()
    assert job.error == "KeyError: 'missing'"
    assert "Traceback" not in job.error
    log = workspace.log_path().read_text()
    assert "Traceback" in log
    assert "crash" in log
    assert str(workspace.log_path()) in job.note


def test_a_disk_that_refuses_costs_the_run_not_the_result():
    class Refused(Numbers):
        def save(self, path):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

    job = jobs.submit("p", "full", lambda handle: Refused(np.ones(2)))
    finish()
    assert job.state == jobs.DONE
    np.testing.assert_array_equal(job.result.values, [1, 1])
    assert "No space left on device" in job.note
    assert runs.list_runs() == []
    assert list(workspace.folder("runs").iterdir()) == []


class Unsayable(Exception):
    """An error that cannot even say what it is."""

    def __str__(self):
        raise RuntimeError("no words")


def raising(error):
    class Broken(Numbers):
        def save(self, path):
            raise error

    return Broken(np.ones(2))


@pytest.mark.parametrize(
    "error", [KeyError("missing"), ValueError("object arrays"), MemoryError(), SystemExit(3), KeyboardInterrupt()]
)
def test_whatever_saving_raises_ends_the_job_and_keeps_result_and_worker(error):
    job = jobs.submit("p", "unsaved", lambda handle: raising(error))
    after = jobs.submit("p", "after", lambda handle: 7, keep=False)
    finish()
    assert job.state == jobs.FAILED and not job.live
    np.testing.assert_array_equal(job.result.values, [1, 1])
    assert job.error.startswith(f"The result is here, but saving it failed with {type(error).__name__}")
    assert "\n" not in job.error and job.run_id is None and job.finished is not None
    assert (after.state, after.result) == (jobs.DONE, 7)
    assert runs.list_runs() == []
    assert list(workspace.folder("runs").iterdir()) == []


def test_a_result_without_a_way_to_save_ends_its_job():
    job = jobs.submit("p", "plain", lambda handle: 42)
    finish()
    assert (job.state, job.result) == (jobs.FAILED, 42)
    assert "AttributeError" in job.error


@pytest.mark.parametrize("error", [SystemExit("bye"), KeyboardInterrupt(), GeneratorExit(), Unsayable(), ValueError()])
def test_whatever_the_work_raises_ends_the_job_in_a_sentence_and_the_worker_lives(error):
    def crash(handle):
        raise error

    job = jobs.submit("p", "crash", crash)
    worker = jobs.get_queue()._thread
    after = jobs.submit("p", "after", lambda handle: 7, keep=False)
    finish()
    assert job.state == jobs.FAILED
    assert job.error.startswith(type(error).__name__) and "\n" not in job.error
    assert after.result == 7
    assert jobs.get_queue()._thread is worker and worker.is_alive()


@pytest.mark.parametrize("report", [lambda h: h.progress("half", 2), lambda h: h.progress(1, object())])
def test_a_report_that_cannot_be_read_ends_the_job(report):
    job = jobs.submit("p", "reports", report)
    finish()
    assert job.state == jobs.FAILED and job.error


def test_a_workspace_that_is_gone_does_not_take_the_worker(monkeypatch):
    def gone():
        raise PermissionError("read-only")

    def crash(handle):
        raise RuntimeError("first")

    jobs.get_queue()
    monkeypatch.setattr(workspace, "log_path", gone)
    job = jobs.submit("p", "crash", crash)
    after = jobs.submit("p", "after", lambda handle: 7, keep=False)
    finish()
    assert (job.state, job.error, job.note) == (jobs.FAILED, "RuntimeError: first", None)
    assert after.result == 7


def test_a_damaged_result_is_named_when_it_is_opened():
    result = TrainingResult({"loss": np.arange(5.0)}, name="half")
    run_id = runs.save_run("p", "half", result, {}, seconds=1.0)
    path = runs.Run.get(run_id).result_path
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:40] + bytes(len(content) - 40)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="result of 'half' must be readable"):
            runs.load_result(runs.Run.get(run_id))


def test_the_default_dtype_and_grad_mode_do_not_leak_between_jobs():
    seen = {}

    def leave_a_mess(handle):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)

    def look(handle):
        seen["dtype"], seen["grad"] = torch.get_default_dtype(), torch.is_grad_enabled()

    jobs.submit("p", "mess", leave_a_mess, keep=False)
    jobs.submit("p", "look", look, keep=False)
    finish()
    assert seen == {"dtype": torch.float32, "grad": True}
    assert torch.get_default_dtype() == torch.float32


def test_freed_memory_is_given_back_after_every_job_however_it_ends(monkeypatch):
    given = []
    monkeypatch.setattr("estimators.return_freed_memory", lambda: given.append(len(given)))

    def fail(handle):
        raise ValueError("work must end well, got this")

    jobs.submit("p", "done", lambda handle: 1, keep=False)
    finish()
    assert given == [0]
    jobs.submit("p", "failed", fail, keep=False)
    finish()
    assert given == [0, 1]


def test_parts_of_a_work_share_its_progress():
    job = jobs.Job(page="p", title="t")
    handle = jobs.Handle(job)
    handle.part(0.0, 0.5).progress(1, 2)
    assert job.fraction == pytest.approx(0.25)
    handle.part(0.5, 1.0).part(0.0, 0.5).progress(1, 1)
    assert job.fraction == pytest.approx(0.75)
    handle.progress(5, 0)
    assert job.fraction == 0.0


def test_eta_comes_from_the_speed_since_the_first_report():
    job = jobs.Job(page="p", title="t", state=jobs.RUNNING)
    assert job.eta is None
    job.started = time.monotonic() - 100
    job._first = (time.monotonic() - 10, 0.2)
    job.fraction = 0.6
    assert job.eta == pytest.approx(10.0, rel=0.05)
    job.state = jobs.DONE
    assert job.eta is None


def test_old_finished_jobs_are_let_go_and_live_ones_are_not():
    queue = jobs.JobQueue(max_jobs=3)
    waiting = queue.add(jobs.Job(page="p", title="waiting"))
    for number in range(6):
        queue.add(jobs.Job(page="p", title=str(number), state=jobs.DONE))
    kept = [job.title for job in queue.jobs()]
    assert kept == ["waiting", "4", "5"]
    assert queue.get(waiting.id) is waiting


def test_a_reopened_result_is_the_newest_of_its_page():
    job = jobs.adopt("surface", "Old map", Numbers(np.zeros(1)), {"script": ""}, "run-1")
    assert jobs.latest("surface") is job
    assert job.state == jobs.DONE
    assert not job.live
