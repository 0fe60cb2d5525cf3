"""Checkpoint files in the app: what every tool writes opens by its path, and what is chosen of it is kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app.catalog import PointSpec
from app.texts import plain, texts
from app.workspace import library
from estimators import load_model, read_checkpoint, save_checkpoint
from tests import checkpoint_files


def draw():
    import streamlit as st

    from app.widgets.data import data_picker
    from app.widgets.pickers import file_point

    data = data_picker("t")
    st.session_state["point"] = file_point("t", data)


def page(path, architecture="test_resnet"):
    at = AppTest.from_function(draw, default_timeout=60)
    at.session_state["t.given"] = "path"
    at.session_state["t.architecture"] = architecture
    return type_in(at.run(), path)


def type_in(at, path):
    at.text_input(key="t.file_path").set_value(str(path)).run()
    assert not at.exception
    return at


def pick(at):
    (box,) = [box for box in at.selectbox if box.label == texts("common")("entry")]
    return box


def captions(at):
    return " ".join(caption.value for caption in at.caption)


def test_every_file_opens_by_its_path(tmp_path):
    files = checkpoint_files.write_all(tmp_path)
    at = page("/nowhere/at.all")
    assert "existing file" in at.error[0].value and at.session_state["point"] is None
    for kind, written in files.items():
        type_in(at, written.path)
        if written.entry is not None and written.entry != "teacher.model":
            pick(at).set_value(written.entry).run()
        assert not at.exception and not at.error, (kind, [error.value for error in at.error])
        point = at.session_state["point"]
        assert point.num_classes == 10, kind
        if written.entry == "teacher.model":  # a prefix is chosen from a script
            continue
        assert point.entry == (written.entry or point.entry), kind
        weights = point.load().state_dict()["fc.weight"]
        torch.testing.assert_close(weights, written.state["fc.weight"], rtol=written.rounded, atol=written.rounded / 10)
        for words in written.notes:
            assert words in captions(at), (kind, words)
    at.session_state["t.architecture"] = "test_convnext"
    type_in(at, files["DDP"].path)
    assert "notes that it is of test_resnet" in captions(at)
    assert "mismatches" in at.error[0].value and "choose that architecture" in at.error[0].value
    assert at.session_state["point"] is None


def test_the_number_of_classes_is_the_files_and_a_fresh_head_is_offered(tmp_path):
    for classes in (12, 5):
        model = load_model("test_resnet", num_classes=classes)
        path = save_checkpoint(tmp_path / f"{classes}.safetensors", model.state_dict())
        at = page(path)
        if classes == 12:
            assert at.session_state["point"].num_classes == 12 and not at.error
        else:
            assert at.session_state["point"] is None and "tells 5 classes apart" in at.error[0].value
        assert f"tells {classes} classes apart; the data have 10" in captions(at)
        at.toggle[0].set_value(True).run()
        assert not at.exception and not at.error
        point = at.session_state["point"]
        assert (point.num_classes, point.new_head) == (10, True)
        assert point.load().fc.weight.shape == (10, 96)
        assert "the head fc is new and untrained" in captions(at)
        assert "new_head=True" in point.code()
        script = {}
        exec("from estimators import load_model\n" + point.code(), script)
        assert torch.equal(script["model"].conv1[0].weight, model.conv1[0].weight)


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "last.pt"
    torch.save(load_model("test_resnet", num_classes=10).state_dict(), path)
    at = page(path)
    assert at.session_state["point"].num_classes == 10
    torch.save(load_model("test_resnet", num_classes=11).state_dict(), path)
    at.run()
    assert at.session_state["point"].num_classes == 11
    path.write_bytes(b"broken")
    at.run()
    assert "begins like neither" in at.error[0].value


def test_what_was_chosen_of_a_file_is_what_the_library_keeps(tmp_path):
    def workbench():
        from app.pages.workbench import checkpoints

        checkpoints.add_file("w")

    a, b = (load_model("test_resnet", num_classes=10, random_state=seed) for seed in (0, 1))
    path = tmp_path / "both.pth"
    torch.save({"state_dict": a.state_dict(), "state_dict_ema": b.state_dict()}, path)
    at = AppTest.from_function(workbench, default_timeout=60)
    at.session_state["w-import.given"] = "path"
    at.session_state["w-import.architecture"] = "test_resnet"
    at.run()
    at.text_input(key="w-import.file_path").set_value(str(path)).run()
    pick(at).set_value("state_dict").run()
    at.button(key="w.import.go").click().run()
    assert not at.exception and not at.error
    (kept,) = library.list_checkpoints()
    assert torch.equal(read_checkpoint(kept.path)[0]["fc.weight"], a.fc.weight)
    assert torch.equal(PointSpec.from_checkpoint(kept).load().fc.weight, a.fc.weight)
    assert kept.num_classes == 10


def test_names_from_a_file_are_not_markdown(tmp_path):
    picture = "![x](http://example.invalid/y.png)"
    assert plain(picture) == r"!\[x\](http://example.invalid/y.png)"
    state = load_model("test_resnet", num_classes=10).state_dict() | {picture: torch.ones(1)}
    torch.save(state, tmp_path / "a.pt")
    at = page(tmp_path / "a.pt")
    shown = "".join(element.value for kind in (at.error, at.caption, at.markdown) for element in kind)
    assert plain(picture) in shown and picture not in shown


def test_shared_names_are_offered_and_refused_beside_the_input(monkeypatch, tmp_path):
    def picker():
        import streamlit as st

        from app.widgets.data import data_picker
        from app.widgets.pickers import point_picker

        st.session_state["point"] = point_picker("t", data_picker("t"), default="timm")

    import timm

    folder = tmp_path / "shared"
    model = load_model("test_vit", num_classes=10, image_size=32)
    timm.models.save_for_hf(model, folder, model_args={"img_size": 32, "num_classes": 10})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (f"local-dir:{folder}", "hf-hub:nobody/nothing"):
        at = AppTest.from_function(picker, default_timeout=60)
        at.session_state["t.architecture"] = name
        at.session_state["t.weights"] = "pretrained"
        at.run()
        assert not at.exception
        point = at.session_state["point"]
        if point is None:
            assert "connect to the network once" in at.error[0].value and "hf-hub" in name
        else:
            assert not at.error and "local-dir" in name
            torch.testing.assert_close(point.load().head.weight, model.head.weight)


@pytest.mark.parametrize("entry", ["", "model"])
def test_a_point_of_a_file_is_plain_values_and_prints_its_python(entry):
    point = PointSpec("test_resnet", "file:/a.pt", 0, 32, entry=entry)
    assert PointSpec(**point.as_dict()) == point
    assert ("entry='model'" in point.code()) == bool(entry)
    assert "num_classes=None" in point.code() and "new_head" not in point.code()
    assert np.isclose(point.image_size, 32)
