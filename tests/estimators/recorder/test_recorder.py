"""The recorder in a plain loop: what lies in the folder, what goes, what survives, and who opens it."""

import errno
import os
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn

from estimators import (
    CheckpointRecorder,
    CurvatureTracker,
    Landscape,
    SurfaceMapper,
    SWAAverager,
    load_data,
    load_model,
    read_checkpoint,
    read_recording,
)


@pytest.fixture(scope="module")
def data():
    return load_data("digits", image_size=8, n_samples=64, channels=1)


def net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 10))


def steps_of(folder):
    return read_recording(folder).history["step"].astype(int).tolist()


def trained(folder, data, epochs=6, **options):
    """Train as people do, with the one line in the loop; give the losses and the network."""
    model, losses = net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    recorder = CheckpointRecorder(folder, **options)
    recorder(model, step=0)
    for _ in range(epochs):
        loss = nn.functional.cross_entropy(model(data.inputs), data.targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recorder(model, loss=loss, lr=0.5)
        losses.append(loss.item())
    recorder.close()
    return model, losses


def test_a_plain_loop_leaves_a_trajectory_that_every_estimator_opens(tmp_path, data):
    model, losses = trained(tmp_path, data)
    recording = read_recording(tmp_path)
    assert recording.history["step"].tolist() == [0, 1, 2, 3, 4, 5, 6] and len(recording) == 7
    np.testing.assert_allclose(recording.history["loss"], [np.nan, *losses])
    state, _ = read_checkpoint(recording.checkpoints[-1])
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())

    mapper = SurfaceMapper(directions="trajectory", resolution=3).fit(tmp_path, data, architecture=model)
    assert len(mapper.trajectories_[0]["x"]) == 7
    own = [Landscape(model, data).loss(), mapper.trajectories_[0]["loss"][-1]]
    assert own[0] == pytest.approx(own[1], abs=1e-6)
    averager = SWAAverager(start=0.5).fit(tmp_path, data, model=model)
    wanted = torch.stack([read_checkpoint(p)[0]["1.weight"] for p in recording.checkpoints[-3:]]).mean(0)
    assert averager.n_averaged_ == 3
    torch.testing.assert_close(averager.state_dict_["1.weight"], wanted)
    tracker = CurvatureTracker(trace=False, max_products=40).fit(str(tmp_path), data, model=model)
    assert tracker.steps_.tolist() == [0, 1, 2, 3, 4, 5, 6] and tracker.learning_rates_[1:].tolist() == [0.5] * 6
    for estimator, label in ((SWAAverager(), "model must be"), (CurvatureTracker(), "model must be")):
        with pytest.raises(ValueError, match=label):
            estimator.fit(tmp_path, data)


def test_a_timm_network_is_built_again_from_the_folder(tmp_path):
    data = load_data("digits", image_size=32, n_samples=16)
    model = timm.create_model("test_vit", num_classes=10, img_size=32)
    with CheckpointRecorder(tmp_path) as recorder:
        for _ in range(3):
            with torch.no_grad():
                model.head.weight.add_(torch.randn_like(model.head.weight), alpha=0.01)
            recorder(model)
    recording = read_recording(tmp_path)
    assert recording.settings == {"architecture": "test_vit", "num_classes": 10, "image_size": 32}
    assert torch.equal(recording.model.head.weight, model.head.weight)
    assert SurfaceMapper(directions="trajectory", resolution=3).fit(tmp_path, data).losses_.shape == (3, 3)
    assert SWAAverager(start=0.0).fit(tmp_path, data).n_averaged_ == 3  # no starting point among them


def test_every_counts_calls_and_close_keeps_the_end(tmp_path):
    with CheckpointRecorder(tmp_path / "a", every=4) as recorder:
        written = [recorder(net(), loss=1.0) is not None for _ in range(10)]
    assert written == [False, False, False, True] * 2 + [False, False] and steps_of(tmp_path / "a") == [4, 8, 10]
    with pytest.raises(KeyboardInterrupt), CheckpointRecorder(tmp_path / "b", every=4) as recorder:
        recorder(net())
        raise KeyboardInterrupt
    assert not (tmp_path / "b").exists()


LOSSES = [5.0, 2.0, float("nan"), 1.0, 4.0, 3.0, 0.5, 6.0, 7.0, 8.0, 9.0]


@pytest.mark.parametrize(
    ("prune", "kept"), [("even", [1, 5, 9, 11]), ("last", [8, 9, 10, 11]), ("best", [2, 4, 7, 11])]
)
def test_the_rule_says_which_points_go(tmp_path, prune, kept):
    recorder = CheckpointRecorder(tmp_path, keep=4, prune=prune)
    for step, loss in enumerate(LOSSES, 1):
        recorder(net(), loss=loss)
        assert len(list(tmp_path.iterdir())) <= 4
        assert steps_of(tmp_path)[-1] == step
    assert steps_of(tmp_path) == kept


def test_thinning_keeps_even_distances_for_long(tmp_path):
    recorder, model = CheckpointRecorder(tmp_path, keep=9), nn.Linear(1, 1)
    for _ in range(150):
        recorder(model)
    recorder = CheckpointRecorder(tmp_path, keep=9, resume=True)
    for _ in range(50):
        recorder(model)
    steps = steps_of(tmp_path)
    assert steps[0] == 1 and steps[-1] == 200 and 5 <= len(steps) <= 9 and len(set(np.diff(steps[:-1]))) == 1


def test_a_second_recording_in_the_folder_is_refused_and_resuming_rewinds(tmp_path):
    recorder = CheckpointRecorder(tmp_path)
    for _ in range(5):
        recorder(net())
    with pytest.raises(
        ValueError, match=r"folder must hold no recording, got .* with 5 points\. Choose another one, or"
    ):
        CheckpointRecorder(tmp_path)
    CheckpointRecorder(tmp_path, resume=True)(net())
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5, 6]
    resumed = CheckpointRecorder(tmp_path, resume=True)
    with pytest.warns(UserWarning, match="from before step 4: 3 recorded points"):
        resumed(net(), step=4)
    resumed(net())
    assert steps_of(tmp_path) == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match=r"step must be larger than the last one, 5, got 2"):
        resumed(net(), step=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"every": 0}, "every must be"), ({"keep": 1}, "keep must be"), ({"prune": "newest"}, "prune must be one of")],
)
def test_settings_are_checked(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        CheckpointRecorder(tmp_path, **options)


def test_values_are_checked(tmp_path):
    recorder = CheckpointRecorder(tmp_path, prune="best", keep=3)
    with pytest.raises(ValueError, match="loss must be one number, got Tensor"):
        recorder(net(), loss=torch.zeros(3))
    with pytest.raises(ValueError, match="loss must be given where prune='best'"):
        recorder(net())
    with pytest.raises(ValueError, match="A trajectory must be a folder that a CheckpointRecorder wrote"):
        read_recording(tmp_path)


def test_a_full_disk_leaves_no_half_file_and_the_training_going(tmp_path, monkeypatch):
    recorder = CheckpointRecorder(tmp_path)
    recorder(net())
    whole = safetensors.torch.save_file

    def full(tensors, path, *rest):
        whole(tensors, path, *rest)
        os.truncate(path, 100)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.warns(UserWarning, match="Step 2 was not recorded in .*No space left"):
        assert recorder(net()) is None
    monkeypatch.undo()
    recorder(net())
    assert steps_of(tmp_path) == [1, 3] and len(list(tmp_path.iterdir())) == 2


def test_a_killed_training_leaves_whole_files_and_no_rest(tmp_path):
    program = (
        "import torch, sys; from estimators import CheckpointRecorder\n"
        f"recorder, model = CheckpointRecorder({str(tmp_path / 'r')!r}, keep=6), torch.nn.Linear(400, 400)\n"
        "while True: recorder(model, loss=1.0)"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    while len(list((tmp_path / "r").glob("step-*"))) < 4 if (tmp_path / "r").exists() else True:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    files = list((tmp_path / "r").glob("step-*"))
    assert len(read_recording(tmp_path / "r")) == len(files) >= 4
    for left in (".step-00000099.safetensors.1.tmp", ".tmptZokhf"):
        (tmp_path / "r" / left).write_bytes(b"half")
    CheckpointRecorder(tmp_path / "r", keep=6, resume=True)(nn.Linear(400, 400))
    assert not list((tmp_path / "r").glob(".*")) and len(list((tmp_path / "r").iterdir())) <= 6


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile, torch.optim.swa_utils.AveragedModel, ModelEmaV3])
def test_wrappers_are_taken_off(tmp_path, wrap):
    model = net()
    CheckpointRecorder(tmp_path)(wrap(model))
    assert set(read_checkpoint(read_recording(tmp_path).checkpoints[0])[0]) == set(model.state_dict())


def test_names_of_a_network_that_look_like_a_wrapper_stay(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = nn.Linear(2, 2)

    path = CheckpointRecorder(tmp_path)(Own())
    assert set(safetensors.torch.load_file(path)) == {"module.weight", "module.bias"}


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert CheckpointRecorder(tmp_path)(net()) is None and not list(tmp_path.iterdir())
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    assert CheckpointRecorder(tmp_path)(net()) is not None


def test_recording_changes_nothing_in_the_training(tmp_path, data):
    plain, losses = trained(tmp_path / "a", data)
    thin, again = trained(tmp_path / "b", data, every=3, keep=2)
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), thin.parameters(), strict=True))


def test_other_files_in_the_folder_are_no_points(tmp_path):
    CheckpointRecorder(tmp_path)(net(), loss=1.0)
    (tmp_path / "step-00000007.safetensors").write_bytes(b"nothing")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "step-00000009.safetensors")
    (tmp_path / "notes.txt").write_text("mine")
    assert steps_of(tmp_path) == [1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CheckpointRecorder(tmp_path, resume=True)(net())
    assert steps_of(tmp_path) == [1, 2] and (tmp_path / "notes.txt").exists()


def test_load_models_name_is_noted(tmp_path):
    CheckpointRecorder(tmp_path)(load_model("test_resnet", num_classes=3))
    assert read_recording(tmp_path).settings == {"architecture": "test_resnet", "num_classes": 3}
    assert read_recording(tmp_path).model.num_classes == 3
