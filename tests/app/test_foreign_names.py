"""Names that files, folders and people give are shown as they are: no image is fetched, no link made."""

from __future__ import annotations

import re

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.texts import plain
from app.work import jobs
from app.workspace import library, runs
from app.workspace.curves import TrainingResult
from estimators import SurfaceResult

EVIL = "![x](http://evil.example/a.png) [y](javascript:z) <img src=http://evil.example> :red[r] $a$ **b** `c`"
LIVE = re.compile(r"(?<!\\)[\[<]|(?<!\\)\*\*b|(?<!\\)\$a|(?<!\\)`c")
MARKDOWN = ("markdown", "caption", "error", "warning", "info", "success", "toast", "header", "subheader", "title")


def live(at: AppTest) -> list[str]:
    """List what a page shows that still does something, among what came from EVIL."""
    said = [str(e.value) for kind in MARKDOWN for e in at.get(kind)]
    said += [str(getattr(e.proto, "label", "")) for kind in ("expander", "button", "metric") for e in at.get(kind)]
    said += [str(getattr(e, "text", "")) for e in at.get("progress")]
    said = [words.removeprefix(":orange[:material/info:]") for words in said]  # ours, before a note
    return [words for words in said if "evil.example" in words and LIVE.search(words)]


def draw(name: str) -> None:
    import importlib

    from app.main import module_of

    importlib.import_module(module_of(name)).render()


def page(name: str) -> AppTest:
    return AppTest.from_function(draw, args=(name,), default_timeout=60)


@pytest.fixture
def evil(tmp_path, monkeypatch):
    monkeypatch.delenv("LOSS_ATLAS_RAISE")
    source = tmp_path / "weights.safetensors"
    source.write_bytes(b"no weights")
    meta = {"name": EVIL, "architecture": "test_resnet", "num_classes": 10, "image_size": 32, "data": {"source": EVIL}}
    library.add_checkpoint(source, meta, epochs=[source])
    return tmp_path


def test_what_is_shown_does_nothing():
    shown = plain(EVIL)
    assert not LIVE.search(shown)
    assert re.sub(r"\\(.)", r"\1", shown) == EVIL  # and says the same
    assert plain("test_resnet, 3 of 4. A-b (c)") == "test_resnet, 3 of 4. A-b (c)"
    assert plain("a\nb") == "a  \nb"
    long = plain("n" * 10_000_000)
    assert len(long) == 2001 and long.endswith("…")
    assert plain("x\n" * 100).count("\n") == 39


@pytest.mark.parametrize("name", ["workbench", "runs", "surface", "sharpness"])
def test_a_checkpoint_with_a_name_of_harm_is_shown_as_it_is(evil, name):
    runs.save_run(name, EVIL, TrainingResult({"loss": np.ones(2)}, name=EVIL), {}, seconds=1.0)
    at = page(name).run()
    assert not at.exception and live(at) == []


def test_a_job_with_a_name_and_an_error_of_harm_is_shown_as_it_is(evil):
    def fail(handle):
        handle.progress(1, 2, EVIL)
        raise ValueError(f"checkpoint must be readable, got {EVIL}. Choose another.")

    for title, work in ((EVIL, fail), (EVIL, lambda handle: TrainingResult({"loss": np.ones(2)}, "id", EVIL))):
        job = jobs.submit("workbench", title, work)
        assert jobs.get_queue().wait(20)
        job.note = job.note or EVIL
        at = page("workbench").run()
        assert not at.exception and live(at) == []
    assert any("evil.example" in str(e.value) for e in at.warning)  # it is shown


def test_a_deleted_entry_a_folder_and_a_result_with_names_of_harm(evil):
    at = page("workbench")
    at.session_state["workbench.binned"] = [(EVIL, str(evil))]
    at.session_state["workbench.refused"] = EVIL
    at.run()
    assert live(at) == [] and "evil.example" in at.error[0].value
    axis = np.linspace(-1, 1, 5)
    shown = SurfaceResult(
        axes=(axis, axis), losses=np.ones((5, 5)), accuracies=np.ones((5, 5)), evaluated=np.ones((5, 5), bool),
        error_estimate=np.zeros((5, 5)), axis_titles=[EVIL, EVIL], notes=[EVIL], settings={"model": EVIL, "data": EVIL},
        markers=[{"label": EVIL, "x": 0.0, "y": 0.0, "loss": 1.0, "accuracy": 0.5, "distance": 0.0}],
    )  # fmt: skip
    jobs.adopt("surface", EVIL, shown, {})
    at = page("surface").run()
    assert not at.exception and live(at) == []
    assert any("evil.example" in str(e.value) for e in at.caption)


def test_an_upload_that_is_refused_is_removed_and_its_name_does_nothing(workspace_folder):
    at = page("workbench").run()
    at.get_by_key("workbench.from").set_value("file").run()
    at.file_uploader(key="workbench.file").upload("![x](http:__evil.example_a).pth", b"this is not a checkpoint").run()
    assert not at.exception and len(at.error) == 1 and live(at) == []
    assert list((workspace_folder / "uploads").iterdir()) == []
