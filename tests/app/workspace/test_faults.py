"""A full disk, a workspace that can't be written to, a clock that jumps, two processes: nothing lost, one sentence."""

from __future__ import annotations

import json
import re
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import workspace
from app.work import jobs
from app.workspace import library, runs
from app.workspace.curves import TrainingResult
from app.workspace.trainings import unfinished
from tests.faults import full_disk, unusable

MAIN = Path(__file__).parents[3] / "app" / "main.py"
SENTENCE = re.compile(r"workspace must have room and permission for what is kept, got [^\n]+ at '[^\n]+'\. [^\n]+\.$")


def result(size=2000):
    return TrainingResult({"loss": np.random.default_rng(0).random(size)}, name="kept")


def kept():
    return runs.Run.get(runs.save_run("workbench", "A run", result(), {}, seconds=1.0))


def checkpoint(folder, name="mine"):
    source = folder / "weights.safetensors"
    if not source.exists():
        source.write_bytes(bytes(5000))
    meta = {"name": name, "architecture": "test_resnet", "num_classes": 10, "image_size": 32}
    return library.add_checkpoint(source, meta, epochs=[source])


CHANGES = {
    "save a run": lambda folder, run: runs.save_run("workbench", "Another", result(), {}, seconds=1.0),
    "rename": lambda folder, run: run.rename("Other"),
    "pin": lambda folder, run: run.change(pinned=True),
    "keep an upload": lambda folder, run: library.store_upload(bytes(5000), "a.safetensors"),
    "add a checkpoint": lambda folder, run: checkpoint(folder),
    "start a training": lambda folder, run: unfinished({"name": "x" * 500}).__enter__(),
    "note of a training": lambda folder, run: workspace.write_json(run.folder / "history.json", {"rows": [1] * 999}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk_is_a_sentence_and_the_workspace_is_as_it_was(change, tmp_path, workspace_folder):
    run = kept()
    (tmp_path / "weights.safetensors").write_bytes(bytes(5000))
    before = {p: p.read_bytes() for p in workspace_folder.rglob("*") if p.is_file()}
    with full_disk(64), pytest.raises(OSError) as caught:
        CHANGES[change](tmp_path, run)
    message = str(caught.value)
    assert SENTENCE.match(message) or message.startswith("A file must go where there is room"), message
    assert message.count(" must ") == 1
    after = {p: p.read_bytes() for p in workspace_folder.rglob("*") if p.is_file() and "trainings" not in p.parts}
    assert after == before
    assert runs.load_result(runs.Run.get(run.id)).history["loss"].shape == (2000,)


def test_a_result_that_finds_no_room_stays_on_screen():
    gate = threading.Event()
    job = jobs.submit("workbench", "A long job", lambda handle: (gate.wait(20), result())[1])
    with full_disk(64):
        gate.set()
        assert jobs.get_queue().wait(20)
    assert job.state == jobs.DONE and job.result is not None and job.error is None
    assert "it could not be saved; download it below. A file must go where" in job.note and "\n" not in job.note
    assert runs.list_runs() == []


def test_a_job_that_meets_a_full_disk_says_it_in_a_sentence():
    def work(handle):
        raise OSError(28, "No space left on device", "/somewhere/x")

    job = jobs.submit("workbench", "A job", work)
    assert jobs.get_queue().wait(20)
    assert job.error == (
        "'/somewhere/x' must be readable and have room, got No space left on device. "
        "Free some space, or choose another place."
    )


def test_a_workspace_that_can_not_be_made_leaves_an_app_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSS_ATLAS_WORKSPACE", str(unusable(tmp_path)))
    monkeypatch.delenv("LOSS_ATLAS_RAISE")
    assert SENTENCE.match(workspace.problem())
    assert runs.list_runs() == [] and library.list_checkpoints() == []
    app = AppTest.from_file(MAIN, default_timeout=60).run()
    assert not app.exception
    assert any("workspace must have room and permission" in warning.value for warning in app.warning)
    assert any(header.value for header in app.header)  # the page itself is there


def test_a_full_disk_is_told_before_anything_is_computed(workspace_folder):
    assert workspace.problem() is None
    with full_disk(64):
        assert SENTENCE.match(workspace.problem())
    assert not list(workspace_folder.rglob(".*"))


def test_a_change_that_fails_is_told_on_the_page(workspace_folder):
    run = kept()
    (workspace_folder / "runs" / run.id).rename(workspace_folder / "runs" / "gone")  # another process deleted it
    with pytest.raises(ValueError, match="run must be one of those in the workspace"):
        run.rename("x")

    def page(run_id):
        import streamlit as st

        from app.widgets.entries import attempt, undo_bar
        from app.workspace import runs

        undo_bar("runs")
        st.button("go", on_click=attempt, args=("runs", lambda: runs.Run(run_id, {}).rename("x")))

    app = AppTest.from_function(page, args=(run.id,)).run()
    app.button[0].click().run()
    assert not app.exception and app.error[0].value.startswith("run must be one of those in the workspace")
    app.run()
    assert not app.error  # said once


def test_the_workspace_is_private(workspace_folder):
    path = library.store_upload(b"x" * 100, "a.PT")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.suffix == ".pt"
    for folder in (workspace_folder, *(workspace.folder(k) for k in ("runs", "checkpoints", "uploads", "bin", "logs"))):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    workspace.folder("runs").chmod(0o755)  # from before
    assert stat.S_IMODE(workspace.folder("runs").stat().st_mode) == 0o700


def test_a_clock_that_jumps_changes_no_duration_and_removes_nothing(monkeypatch, workspace_folder):
    started = threading.Event()
    gate = threading.Event()

    def work(handle):
        handle.progress(1, 10, "half")
        started.set()
        gate.wait(20)
        return result()

    job = jobs.submit("workbench", "A job", work)
    assert started.wait(20)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 10 * 86400)
    assert 0 <= job.elapsed < 60 and (job.eta is None or job.eta >= 0)
    gate.set()
    assert jobs.get_queue().wait(20)
    assert 0 <= job.elapsed < 60 and job.state == jobs.DONE
    assert len(runs.list_runs()) == 1
    workspace.sweep()
    assert runs.load_result(runs.list_runs()[0]).name == "kept"


def test_two_that_keep_and_sweep_at_once_lose_nothing(tmp_path, workspace_folder):
    def keep(number):
        workspace.sweep(days=0 if number % 10 == 5 else 7)
        return runs.save_run("workbench", f"Run {number}", result(50), {}, seconds=1.0)

    def remove(number):
        left = workspace_folder / "runs" / f".partial-old-{number}"
        left.mkdir(parents=True, exist_ok=True)
        workspace.sweep()

    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda n: keep(n) if n % 2 == 0 else remove(n), range(40)))
    saved = {i for i in ids if i}
    assert {run.id for run in runs.list_runs()} == saved and len(saved) == 20
    for run in runs.list_runs():
        assert json.loads((run.folder / "run.json").read_text())["title"].startswith("Run ")
