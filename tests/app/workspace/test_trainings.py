"""A training that does not end leaves the epochs it finished in the library."""

import os
import signal
import subprocess
import sys

import pytest

from app import workspace
from app.catalog import DataSpec, PointSpec
from app.work import jobs
from app.work import training as training_jobs
from app.workspace import library
from app.workspace import trainings as unfinished
from estimators import Cancelled, load_model, read_checkpoint

SETTINGS = {"epochs": 4, "batch_size": 32, "lr": 0.05}
DATA = DataSpec(n_samples=64)


def stopped_after(epochs, then):
    """Give a handle that does `then` once so many epochs are done."""
    job = jobs.Job("workbench", "mine")
    handle = jobs.Handle(job)
    report = handle.progress

    def progress(done, total, message=""):
        report(done, total, message)
        if done >= epochs:
            then(job)

    handle.progress = progress
    return handle


def cancel(job):
    raise Cancelled("enough")


def kill(job):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_cancelled_training_is_in_the_library():
    handle = stopped_after(2, cancel)
    with pytest.raises(Cancelled):
        training_jobs.train(handle, "mine", PointSpec(), DATA, SETTINGS)
    (kept,) = library.list_checkpoints()
    assert kept.name == "mine (stopped after epoch 2)"
    assert kept.info["stopped_after"] == 2 and 0 <= kept.info["accuracy"] <= 1
    assert [path.name for path in kept.trajectory] == ["0000.safetensors", "0001.safetensors", "0002.safetensors"]
    state, _ = read_checkpoint(kept.path)
    load_model("test_resnet", num_classes=10, image_size=32).load_state_dict(state)
    assert handle.job.partial.checkpoint_id == kept.id and len(handle.job.partial.history["loss"]) == 2
    assert not workspace.entries(unfinished.KIND)


def test_a_training_stopped_in_its_first_epoch_leaves_nothing(monkeypatch):
    import estimators

    def stopped(model, data, *, checkpoint_dir, **rest):
        estimators.save_checkpoint(checkpoint_dir / "epoch-0000.safetensors", model.state_dict(), {})
        raise Cancelled("at once")

    monkeypatch.setattr(estimators, "train", stopped)
    with pytest.raises(Cancelled):
        training_jobs.train(jobs.Handle(jobs.Job("workbench", "mine")), "mine", PointSpec(), DATA, SETTINGS)
    assert not library.list_checkpoints() and not workspace.entries(unfinished.KIND)


def test_a_killed_training_comes_back_when_the_app_starts():
    program = (
        "from tests.app.workspace.test_trainings import *\n"
        "training_jobs.train(stopped_after(2, kill), 'mine', PointSpec(), DATA, SETTINGS)\n"
    )
    died = subprocess.run([sys.executable, "-c", program], check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert died.returncode == -signal.SIGKILL
    assert not library.list_checkpoints()
    (kept,) = unfinished.recover()
    assert kept.name == "mine (stopped after epoch 2)" and len(kept.trajectory) == 3
    assert not unfinished.recover() and not workspace.entries(unfinished.KIND)


@pytest.mark.parametrize("moment", ["before its folder goes", "while its folder goes"])
def test_a_kill_while_recovering_makes_no_duplicate(monkeypatch, moment):
    with pytest.raises(OSError), monkeypatch.context() as disk:
        disk.setattr(library, "add_checkpoint", lambda *a, **k: (_ for _ in ()).throw(OSError()))
        training_jobs.train(stopped_after(2, cancel), "mine", PointSpec(), DATA, SETTINGS)

    class Killed(BaseException):
        pass

    def kill(*args, **kwargs):
        raise Killed

    with pytest.raises(Killed), monkeypatch.context() as patch:
        if moment.startswith("before"):
            patch.setattr(workspace, "remove", kill)
        else:
            patch.setattr("app.workspace._files.shutil.rmtree", kill)
        unfinished.recover()
    assert unfinished.recover() == [] and len(library.list_checkpoints()) == 1
    assert not workspace.entries(unfinished.KIND)


def test_a_running_training_is_left_alone():
    with unfinished.unfinished({"name": "mine", "architecture": "test_resnet"}) as training:
        training.epochs.mkdir()
        (training.epochs / "epoch-0001.safetensors").write_bytes(b"")
        assert unfinished.recover() == []
        assert training.path.is_dir()
    assert not training.path.exists()


def test_what_cannot_be_kept_waits_for_the_next_start(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(library, "add_checkpoint", full)
        with pytest.raises(OSError, match="No space left"):
            training_jobs.train(stopped_after(2, cancel), "mine", PointSpec(), DATA, SETTINGS)
        assert unfinished.recover() == []
    (kept,) = unfinished.recover()
    assert kept.name == "mine (stopped after epoch 2)"
