"""The data picker: what a folder was taken to hold is said beside it, and damaged images are left out by choice."""

from __future__ import annotations

import pytest
from PIL import Image

from app.catalog import DataSpec
from app.work import jobs
from tests.app.test_frame import finish, page


def folder_of(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (20 * i, 60 * len(name), 9)).save(root / name / f"{i}.png")
    return root


def opened(folder, **values):
    at = page("surface")
    at.session_state["subject.from"] = "timm"
    at.session_state["subject.architecture"] = "test_vit"
    at.session_state["subject.data"] = "folder"
    at.session_state["subject.data.path"] = str(folder)
    at.session_state["surface.resolution"] = 3
    for key, value in values.items():
        at.session_state[f"subject.{key}"] = value
    return at.run()


def test_what_a_folder_was_taken_to_hold_is_said(tmp_path):
    at = opened(folder_of(tmp_path / "a", ant=10, bee=5))
    assert not at.exception and not at.error
    assert at.text[0].value.startswith("2 classes, 12 images in this split: ant 8, bee 4.")
    assert "no folder “test”" in at.text[0].value
    folder_of(tmp_path / "b" / "pets", cat=3, dog=3)
    folder_of(tmp_path / "b" / "birds", eagle=3, sparrow=3)
    at = opened(tmp_path / "b")
    (warning,) = at.warning  # two classes are not taken silently
    assert "one level too high" in warning.value
    assert "'pets' is one class; its images lie in folders inside it: 'cat', 'dog'" in warning.value
    folder_of(tmp_path / "c" / "photos", **{"![x](far.away)": 4}, **{f"class {k:02d}": 2 for k in range(14)})
    at = opened(tmp_path / "c" / "photos")
    assert "15 classes" in at.text[0].value and at.text[0].value.count("class 0") == 10 and ", …" in at.text[0].value
    assert not any("far.away" in found.value for found in [*at.markdown, *at.caption])
    at = opened(tmp_path / "c")
    assert any("one level too high" in error.value for error in at.error) and at.button(key="surface.run").disabled


def test_damaged_images_are_left_out_where_that_is_chosen(tmp_path):
    folder = folder_of(tmp_path / "a", ant=10, bee=10)
    (folder / "ant" / "3.png").write_bytes(b"no image")
    small = {"samples": 20, "split": "all"}
    at = opened(folder, **small)
    at.button(key="surface.run").click().run()
    assert jobs.get_queue().wait(120)
    assert "3.png" in str(jobs.latest("surface").error) and "got 1 that are not" in str(jobs.latest("surface").error)
    at = opened(folder, unreadable=True, **small)
    at.button(key="surface.run").click().run()
    finish(at)
    job = jobs.latest("surface")
    assert job.error is None and job.result.settings["n_examples"] == 19
    assert "unreadable='skip'" in job.config["script"]


def test_the_choice_is_kept_with_the_data():
    spec = DataSpec("/x", unreadable="skip")
    assert DataSpec(**spec.as_dict()) == spec and "unreadable='skip'" in spec.code()
    assert "unreadable" not in DataSpec().code()
    with pytest.raises(TypeError):
        DataSpec(nonsense=1)
