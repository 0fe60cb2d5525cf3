"""An app that is killed starts with the queue as it was, and every page shows its last result."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import app
from app import workspace
from app.catalog import DataSpec, PointSpec
from app.widgets.jobs import fit_one
from app.work import jobs
from app.work import training as training_jobs
from app.work.work import Work, read, restartable, written
from app.workspace import library, queued, runs
from app.workspace.curves import TrainingResult
from estimators import SharpnessEstimator, SurfaceMapper, read_checkpoint
from estimators.variants import presets

SETTINGS = {"epochs": 6, "batch_size": 32, "lr": 0.05, "random_state": 0}
DATA = DataSpec(n_samples=64)


@restartable
def count(handle, up_to, name=""):
    """Give a result that can be kept."""
    return TrainingResult({"loss": np.arange(float(up_to))}, name=name)


@restartable
def wait_for(handle, file):
    """Go on once a file is there."""
    while not file.exists():
        handle.progress(0, 1)
        time.sleep(0.01)
    return count(handle, 2)


# What runs must be named in the program itself, so these stand in for a page's functions.
count.__module__ = wait_for.__module__ = "app.work.stand_in"


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setitem(sys.modules, "app.work.stand_in", sys.modules[__name__])


def killed(program):
    """Run a program that kills itself; it computes with as many threads as this one, on which the last bits depend."""
    head = f"import sys, torch\ntorch.set_num_threads({torch.get_num_threads()})\n"
    head += "import tests.app.work.test_restart as t\nsys.modules['app.work.stand_in'] = t\n"
    head += "from tests.app.work.test_restart import *\n"
    died = subprocess.run([sys.executable, "-c", head + program], check=False, env=os.environ)
    assert died.returncode == -signal.SIGKILL


def started_again():
    """Give the queue of the next start."""
    queue = jobs.JobQueue()
    queue.restore()
    return queue


# ---- work that can be written down ----


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, 0.1, float("inf"), "words", Path("/tmp/a"), (1, ("b", None)), [1, [2]], {"a": (1,), "b": {}},
        PointSpec("resnet18", seed=3), DataSpec(mean=(0.1, 0.2, 0.3)), presets("test_resnet")["skips"],
    ],
)  # fmt: skip
def test_what_is_written_is_read_as_it_was(value, tmp_path):
    workspace.write_json(tmp_path / "value.json", {"value": written(value)})
    again = read(workspace.read_json(tmp_path / "value.json")["value"])
    assert again == value and type(again) is type(value)


def test_an_estimator_is_read_with_all_its_settings(tmp_path):
    mapper = SurfaceMapper(span=(0.3, 1.0), resolution=(5, 7), memory="default", random_state=4)
    workspace.write_json(tmp_path / "value.json", {"value": written(mapper)})
    again = read(workspace.read_json(tmp_path / "value.json")["value"])
    assert type(again) is SurfaceMapper and again.get_params() == mapper.get_params()


def test_what_cannot_be_written_down_is_refused_when_it_is_asked_for():
    with pytest.raises(TypeError, match="plain values, got function"):
        Work.of(count, up_to=lambda: 3)


@pytest.mark.parametrize(
    "name", ["os:remove", "app.workspace:remove", "app.work.gone:f", "app.work.stand_in:started_again", "nothing"]
)
def test_a_file_names_only_functions_that_are_meant_for_it(name):
    with pytest.raises(ValueError, match="work must be one that this version knows"):
        Work(name, {})(None)


@pytest.mark.parametrize("kind", ["subprocess:Popen", "app.work.job:uuid", "app.work.jobs:JobQueue"])
def test_a_file_names_only_classes_that_hold_values(kind):
    with pytest.raises(ValueError, match="must be of this version"):
        read([kind, {}])


def test_every_run_that_a_page_asks_for_can_be_written_down():
    """`start_fit` writes down what it is given; who queues a kept job without it does so too."""
    by_hand = []
    for path in Path(app.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "jobs.submit":
                kept = not any(k.arg == "keep" and ast.unparse(k.value) == "False" for k in node.keywords)
                work = ast.unparse(node.args[2])
                if kept and not work.startswith("Work.of("):
                    scope = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and node in ast.walk(f)][-1]
                    made = [ast.unparse(a) for a in ast.walk(scope) if isinstance(a, ast.Assign)]
                    by_hand += [] if any(a.startswith(f"{work} = Work.of(") for a in made) else [f"{path}: {work}"]
    assert by_hand == []


# ---- the queue after a kill ----


def test_a_killed_app_goes_on_with_its_queue_in_its_order():
    killed(
        "training_jobs.submit('mine', PointSpec(), DATA, SETTINGS)\n"
        "for n in (3, 4, 5):\n"
        "    jobs.submit('surface', f'count {n}', Work.of(count, up_to=n), config={'script': 'print()'})\n"
        "gone, first = jobs.live()[2], jobs.live()[3]\n"
        "gone.cancel()\n"
        "jobs.get_queue().advance(first)\n"
        "while jobs.latest('workbench').fraction < 0.3: time.sleep(0.001)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert not library.list_checkpoints()
    queue = started_again()
    assert [job.title for job in queue.restored] == ["mine", "count 5", "count 3"]
    assert [job.config.get("script") for job in queue.restored[1:]] == ["print()", "print()"]
    assert queue.wait(120)
    assert [job.state for job in queue.restored] == [jobs.DONE] * 3, [job.error for job in queue.restored]
    assert [job.starts for job in queue.restored] == [2, 1, 1]
    assert len(queue.restored[1].result.history["loss"]) == 5
    # Once each, and the network is the one that an undisturbed training gives.
    assert sorted(run.title for run in runs.list_runs()) == ["count 3", "count 5", "mine"]
    (entry,) = library.list_checkpoints()
    assert entry.name == "mine" and len(entry.trajectory) == 7
    assert len(queue.restored[0].result.history["loss"]) == 6
    training_jobs.train(jobs.Handle(jobs.Job("workbench", "again")), "again", PointSpec(), DATA, SETTINGS)
    states = [read_checkpoint(c.path)[0] for c in library.list_checkpoints()]
    assert all((states[0][name] == states[1][name]).all() for name in states[0])
    assert workspace.entries(queued.KIND) == [] == workspace.entries("trainings")
    assert started_again().restored == []


def test_a_kill_after_the_run_was_saved_does_not_do_it_twice():
    done = jobs.submit("surface", "once", Work.of(count, up_to=3))
    assert jobs.get_queue().wait(20)
    done.write()  # as if the kill had come before its place went
    done.queued.release()
    queue = started_again()
    assert queue.restored == [] and workspace.entries(queued.KIND) == []
    assert len(runs.list_runs()) == 1


def test_what_work_has_added_to_the_library_is_not_added_twice():
    job = training_jobs.submit("mine", PointSpec(), DATA, SETTINGS | {"epochs": 2})
    assert jobs.get_queue().wait(60) and job.error is None
    training_jobs.train(jobs.Handle(job), "mine", PointSpec(), DATA, SETTINGS | {"epochs": 2})
    assert len(library.list_checkpoints()) == 1


def test_jobs_of_an_app_that_lives_are_left_alone(tmp_path):
    job = jobs.submit("surface", "held", Work.of(wait_for, file=tmp_path / "go"))
    program = "from app.work import jobs\nqueue = jobs.JobQueue()\nqueue.restore()\nprint(len(queue.restored))\n"
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "0"
    (tmp_path / "go").touch()
    assert jobs.get_queue().wait(20) and job.state == jobs.DONE


def test_a_job_that_kills_the_app_is_not_started_for_ever():
    job = jobs.Job("surface", "too large", work=Work.of(count, up_to=3), starts=jobs.MOST_STARTS)
    job.write()
    job.queued.release()
    queue = started_again()
    assert queue.restored == []
    (found,) = queue.jobs()
    assert found.state == jobs.FAILED and "The app ended 5 times while this ran" in found.error
    assert workspace.entries(queued.KIND) == []


def test_files_on_the_way_are_there_again_and_go_with_the_job():
    job = jobs.Job("averaging", "mine", work=Work.of(count, up_to=3))
    job.write()
    with jobs.Handle(job).folder() as folder:
        (folder / "epoch").write_bytes(b"3")
    job.queued.release()
    (restored,) = started_again().restored
    assert restored.id == job.id
    with jobs.Handle(jobs.Job("averaging", "no place")).folder() as folder:
        assert folder.is_dir()
    assert not folder.exists()
    deadline = time.time() + 20
    while workspace.entries(queued.KIND) and time.time() < deadline:
        time.sleep(0.01)
    assert workspace.entries(queued.KIND) == []


def test_a_place_that_cannot_be_read_is_let_go():
    for name, content in (("empty", None), ("list", []), ("half", {"id": "half"}), ("odd", {"id": 3, "work": 5})):
        path = workspace.folder(queued.KIND) / name
        path.mkdir()
        if content is not None:
            workspace.write_json(path / queued.FILE, content)
    assert started_again().restored == [] and workspace.entries(queued.KIND) == []


def test_a_workspace_without_room_loses_the_place_not_the_job(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(queued.Queued, "take", full)
    job = jobs.submit("surface", "all the same", Work.of(count, up_to=3))
    assert jobs.get_queue().wait(20)
    assert job.state == jobs.DONE and "lost if the app ends before it" in job.note


# ---- the last result of every page ----


def test_every_page_shows_its_last_result_again():
    for page, n in (("surface", 2), ("surface", 3), ("workbench", 4)):
        jobs.submit(page, f"{page} {n}", Work.of(count, up_to=n), config={"script": "print()"})
    assert jobs.get_queue().wait(20)
    queue = started_again()
    assert queue.jobs() == []  # nothing is read before somebody looks
    for page, n in (("surface", 3), ("workbench", 4)):
        job = queue.latest(page)
        assert job is queue.latest(page) is queue.shown(page)
        assert job.title == f"{page} {n}" and len(job.result.history["loss"]) == n
        assert job.state == jobs.DONE and job.config == {"script": "print()"} and job.run_id is not None
    assert queue.latest("sharpness") is None


def test_a_last_result_that_is_gone_is_no_error():
    jobs.submit("surface", "gone", Work.of(count, up_to=2))
    assert jobs.get_queue().wait(20)
    queue = started_again()
    runs.list_runs()[0].delete()
    assert queue.latest("surface") is None


def test_the_earlier_picture_stays_until_the_new_one_is_there(tmp_path):
    first = jobs.submit("surface", "first", Work.of(count, up_to=2))
    assert jobs.get_queue().wait(20)
    second = jobs.submit("surface", "second", Work.of(wait_for, file=tmp_path / "go"))
    assert jobs.latest("surface") is second and jobs.shown("surface") is first
    second.partial = 1
    assert jobs.shown("surface") is second
    (tmp_path / "go").touch()
    assert jobs.get_queue().wait(20)
    assert jobs.shown("surface") is second


def test_the_default_work_fits_one_network_and_gives_its_result():
    estimator = SharpnessEstimator(measures=("average",), n_draws=4)
    work = Work.of(fit_one, estimator=estimator, points=(PointSpec(),), data=DATA, held_out=None)
    result = work(jobs.Handle(jobs.Job("sharpness", "t")))
    assert np.isfinite(result.average_sharpness)
