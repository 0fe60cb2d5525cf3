"""Workbench: a recorded trajectory joins the library and opens on the pages that take one."""

from __future__ import annotations

import timm
import torch

from app.catalog import DataSpec, PointSpec
from app.work import jobs
from app.workspace import library
from estimators import CheckpointRecorder, read_recording
from tests.app.test_frame import finish, page


def record(folder, model, steps=4):
    with CheckpointRecorder(folder, every=10) as recorder:
        for step in range(10, 10 * steps + 1, 10):
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(torch.randn_like(p), alpha=0.01)
            recorder(model, step=step, loss=1 / step, lr=0.1)


def add(folder, **values):
    at = page("workbench").run()
    at.text_input(key="workbench.recording.folder").set_value(str(folder)).run()
    for key, value in values.items():
        at.session_state[f"workbench.recording.{key}"] = value
    at.run()
    return at


def test_a_recording_opens_on_every_page_that_takes_a_trajectory(tmp_path):
    record(tmp_path / "mine", timm.create_model("test_vit", num_classes=10, img_size=32))
    at = add(tmp_path / "mine")
    assert not at.exception and not at.error
    assert any("4 points, steps 10 to 40" in caption.value for caption in at.caption)
    at.button(key="workbench.recording.go").click().run()
    assert not at.exception
    (entry,) = library.list_checkpoints()
    assert (entry.name, entry.architecture, entry.num_classes, entry.image_size) == ("mine", "test_vit", 10, 32)
    assert [int(p.stem) for p in entry.trajectory] == [10, 20, 30, 40]
    for path in read_recording(tmp_path / "mine").checkpoints:  # what the library has does not depend on the folder
        path.unlink()
    assert PointSpec.from_checkpoint(entry, entry.trajectory[0].stem).load() and len(DataSpec(n_samples=8).load()) == 8

    at = page("surface")
    at.session_state["surface.directions"] = "trajectory"
    at.session_state["surface.resolution"] = 3
    at.session_state["subject.samples"] = 64
    at.run()
    assert not at.warning and not at.button(key="surface.run").disabled
    at.button(key="surface.run").click().run()
    finish(at)
    job = jobs.latest("surface")
    assert job.error is None and len(job.result.trajectories[0]["x"]) == 4

    at = page("stationary")
    at.session_state["stationary.view"] = "training"
    at.session_state["subject.samples"] = 64
    at.run()
    at.button(key="stationary.training.run").click().run()
    finish(at)
    job = jobs.latest("stationary.training")
    assert job.error is None and job.result.steps.tolist() == [10, 20, 30, 40]
    assert job.result.learning_rates.tolist() == [0.1] * 4


def test_a_network_without_a_name_asks_for_its_architecture(tmp_path):
    made = timm.create_model("test_vit", num_classes=10, img_size=32)
    made.pretrained_cfg = None
    record(tmp_path / "own", made)
    at = add(tmp_path / "own", **{"architecture": "test_resnet"})
    assert any("must fit test_resnet" in error.value for error in at.error)
    assert at.button(key="workbench.recording.go").disabled
    at = add(tmp_path / "own", **{"architecture": "test_vit"})
    assert not at.error and not at.button(key="workbench.recording.go").disabled


def test_a_folder_without_a_recording_is_said_beside_its_box(tmp_path):
    at = add(tmp_path)
    assert any("A trajectory must be a folder that a CheckpointRecorder wrote" in error.value for error in at.error)
    assert at.button(key="workbench.recording.go").disabled
