"""Home, Workbench and Runs through Streamlit's own test runner; the frame, its boundary and the launcher."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import socket

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import __main__ as launcher
from app import catalog, workspace
from app import main as frame
from app.texts import texts
from app.work import jobs
from app.work import training as training_jobs
from app.workspace import library, runs
from app.workspace.curves import TrainingResult

MAIN = frame.__file__


def draw(name):
    import importlib

    from app.main import module_of

    importlib.import_module(module_of(name)).render()


def page(name):
    return AppTest.from_function(draw, args=(name,), default_timeout=60)


def finish(at, seconds=120):
    assert jobs.get_queue().wait(seconds)
    at.run()
    assert not at.exception
    return at


# ---- the frame ----


def test_the_frame_opens_on_home_with_a_picture():
    at = AppTest.from_file(MAIN, default_timeout=60).run()
    assert not at.exception
    assert at.header[0].value == texts("home")("title")
    (picture,) = at.get("vega_lite_chart")
    specification = json.loads(picture.proto.spec)
    assert "Relief of loss" in specification["description"]
    assert specification["layer"][1]["mark"]["type"] == "geoshape"
    assert len(picture.proto.SerializeToString()) > 100_000, "the cells are in it"


def test_a_page_that_was_asked_for_is_reached_though_the_one_before_is_drawn_once_more():
    def asked_and_overtaken():
        import streamlit as st

        from app import main, widgets

        st.session_state.setdefault(widgets.frame._GOING, "surface")  # what `go_to` leaves where its switch is lost
        main.main()

    at = AppTest.from_function(asked_and_overtaken, default_timeout=60).run()
    assert not at.exception
    assert at.header[0].value == texts("surface")("title")
    at = at.run()
    assert at.header[0].value == texts("surface")("title"), "asked for once"


def test_the_package_carries_the_landscape_of_the_assets_and_it_is_what_its_caption_says():
    from app.pages.home import page as home

    first, copy = (path.read_bytes() for path in home.DEMO)
    assert first == copy, "run assets/make_demo.py: it writes both"
    found = home.demo()
    losses = found["losses"]
    assert losses.shape == (len(found["axis_0"]), len(found["axis_1"]))
    assert np.isfinite(losses).all()
    assert [marker["label"] for marker in found["notes"]["markers"]] == ["A", "B", "C"]
    for marker in found["notes"]["markers"]:  # each network lies low, and the way between them is high
        i = int(np.abs(found["axis_0"] - marker["x"]).argmin())
        j = int(np.abs(found["axis_1"] - marker["y"]).argmin())
        assert losses[i, j] < 0.05
    assert losses.max() > 1.0


def test_every_registered_page_has_its_name_its_question_and_a_unique_place():
    names = [name for _, name, _ in frame.PAGES]
    assert len(set(names)) == len(names) == 13
    for name in names:
        assert texts(name)("nav")
        assert texts(name)("nav.help").endswith((".", "?"))


def test_a_page_that_is_not_written_yet_is_left_out():
    assert frame.exists("home")
    assert not frame.exists("a_page_nobody_wrote")


@pytest.mark.parametrize("name", [name for _, name, _ in frame.PAGES])
def test_every_page_loads_with_an_empty_workspace(name):
    assert frame.exists(name)
    at = page(name).run()
    assert not at.exception
    assert not at.error
    assert at.header[0].value


def test_a_page_that_breaks_shows_a_sentence_and_logs_its_traceback(monkeypatch):
    monkeypatch.delenv("LOSS_ATLAS_RAISE")

    def broken():
        from app import main, workspace
        from app.pages.home import page as home

        workspace.start_log()
        home.render = lambda: 1 / 0
        main.view("home")()

    original = importlib.import_module("app.pages.home.page").render
    try:
        at = AppTest.from_function(broken, default_timeout=60).run()
    finally:
        importlib.import_module("app.pages.home.page").render = original
    assert not at.exception
    assert "division by zero" in at.error[0].value
    assert "Traceback" not in at.error[0].value
    assert "ZeroDivisionError" in workspace.log_path().read_text()


# ---- Workbench ----


def test_training_draws_curves_and_fills_the_library():
    at = page("workbench").run()
    at.number_input(key="workbench.epochs").set_value(2)
    at.number_input(key="workbench.samples").set_value(256)
    at.text_input(key="workbench.name").set_value("mine")
    at.button(key="workbench.run").click().run()
    assert not at.exception
    finish(at)
    job = jobs.latest("workbench")
    assert job.error is None
    assert job.state == jobs.DONE
    assert len(at.get("vega_lite_chart")) == 2
    (entry,) = library.list_checkpoints()
    assert entry.name == "mine"
    assert entry.architecture == "test_resnet"
    assert len(entry.trajectory) >= 2
    assert 0.0 <= entry.info["accuracy"] <= 1.0
    assert "mine" in at.success[0].value
    assert at.dataframe[0].value.iloc[0, 0] == "mine"
    # The network in the library is the trained one: its loss is the recorded one.
    from estimators import Landscape

    point = catalog.PointSpec.from_checkpoint(entry)
    data = catalog.DataSpec(**entry.info["data"])
    assert Landscape(point.load(), data.load()).loss() == pytest.approx(entry.info["loss"], rel=1e-5)
    # And the run comes back from disk as it was.
    (saved,) = runs.list_runs()
    again = runs.load_result(saved)
    for name, values in job.result.history.items():
        np.testing.assert_array_equal(again.history[name], values)
    assert dataclasses.replace(again, history={}, settings={}) == dataclasses.replace(
        job.result, history={}, settings={}
    )


def test_the_script_of_a_training_is_python():
    script = training_jobs.script(catalog.PointSpec(), catalog.DataSpec(), {"epochs": 2, "lr": 0.1})
    compile(script, "script", "exec")
    assert "epochs=2, lr=0.1" in script


def test_an_unknown_architecture_is_answered_beside_its_box():
    at = page("workbench")
    at.session_state["workbench.architecture"] = "resnet_18"
    at.run()
    assert not at.exception
    assert "resnet18" in at.error[0].value
    assert at.button(key="workbench.run").disabled


def test_an_empty_folder_is_refused_before_training(tmp_path):
    at = page("workbench")
    at.session_state["workbench.data"] = "folder"
    at.session_state["workbench.data.path"] = str(tmp_path)
    at.run()
    assert not at.exception
    assert any("must hold image files" in error.value for error in at.error)
    assert at.button(key="workbench.run").disabled


def test_a_folder_without_the_split_asked_for_is_refused_before_training(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "test" / name).mkdir(parents=True)
        (tmp_path / "test" / name / "0.png").write_bytes(b"not decoded here")
    at = page("workbench")
    at.session_state["workbench.data"] = "folder"
    at.session_state["workbench.data.path"] = str(tmp_path)
    at.run()
    assert not at.exception
    assert any("must have a folder 'train'" in error.value for error in at.error)
    assert at.button(key="workbench.run").disabled


def test_pretrained_weights_without_a_network_say_what_to_do_within_five_seconds(monkeypatch):
    at = page("workbench").run()
    at.get_by_key("workbench.weights").set_value("pretrained").run()
    with socket.socket() as silent:  # takes connections and never answers, in the place of the hub
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        at.button(key="workbench.run").click().run()
        finish(at)
    job = jobs.latest("workbench")
    assert job.state == jobs.FAILED and job.elapsed < 5
    assert "Traceback" not in job.error
    assert at.error[0].value == job.error
    assert library.list_checkpoints() == []


def test_a_file_that_is_no_checkpoint_is_refused_beside_the_upload(tmp_path):
    at = page("workbench").run()
    at.get_by_key("workbench.from").set_value("file").run()
    at.file_uploader(key="workbench.file").upload("weights.pth", b"this is not a checkpoint").run()
    assert not at.exception
    assert len(at.error) == 1
    assert at.button(key="workbench.run").disabled


def test_what_is_odd_about_a_checkpoint_is_said_beside_it():
    import io

    import torch

    from estimators import load_model

    state = load_model("test_resnet", num_classes=10).state_dict()
    name = next(k for k, v in state.items() if k.endswith("running_var"))
    state[name][0] = -1.0
    file = io.BytesIO()
    torch.save({"module." + k: v for k, v in state.items()}, file)
    at = page("workbench").run()
    at.get_by_key("workbench.from").set_value("file").run()
    at.session_state["workbench.architecture"] = "test_resnet"
    at.file_uploader(key="workbench.file").upload("weights.pth", file.getvalue()).run()
    assert not at.exception and not at.error
    said = " ".join(caption.value for caption in at.caption)
    assert "stripped the prefix 'module.'" in said
    assert name in said


# ---- Runs ----


def test_a_run_is_listed_reopened_pinned_deleted_and_brought_back():
    assert not page("runs").run().exception
    curves = TrainingResult({"train_loss": np.array([2.0, 1.0])}, None, "mine", settings={"epochs": 2})
    jobs.submit("workbench", "First", lambda handle: curves, config={"script": "print(1)"})
    jobs.submit("workbench", "Second", lambda handle: curves)
    assert jobs.get_queue().wait(30)
    at = page("runs").run()
    assert not at.exception
    titles = at.dataframe[0].value["Title"].tolist()
    assert sorted(titles) == ["First", "Second"]
    at.text_input(key="runs.search").set_value("fir").run()
    assert at.dataframe[0].value["Title"].tolist() == ["First"]

    first = next(run for run in runs.list_runs() if run.title == "First")
    runs.Run.get(first.id).change(pinned=True)
    assert runs.list_runs()[0].id == first.id
    runs.Run.get(first.id).rename("Renamed")
    assert runs.Run.get(first.id).title == "Renamed"
    again = runs.load_result(first)
    np.testing.assert_array_equal(again.history["train_loss"], [2.0, 1.0])
    assert again.settings == {"epochs": 2}

    binned = runs.Run.get(first.id).delete()
    assert [run.title for run in runs.list_runs()] == ["Second"]
    at = page("runs")
    at.session_state["runs.binned"] = [("Renamed", str(binned))]
    at.run()
    at.button(key="runs.undo").click().run()
    assert not at.exception
    assert {run.title for run in runs.list_runs()} == {"Second", "Renamed"}


def fill(folder, monkeypatch, n=3):
    from estimators import cache

    monkeypatch.setenv("LOSS_ATLAS_CACHE", str(folder))
    memory = cache.check_memory("default")
    for i in range(n):
        cache.cached_call(memory, np.ones, str(i), 1000)
    return cache


def test_stored_answers_are_shown_reduced_and_cleared_on_runs(tmp_path, monkeypatch):
    cache = fill(tmp_path / "cache", monkeypatch)
    at = page("runs").run()
    at.toggle(key="runs.cache").set_value(True).run()
    assert not at.exception
    assert any("3 answers" in m.value and str(tmp_path) in m.value for m in at.markdown)
    at.button(key="runs.cache.reduce").click().run()
    assert not at.exception and cache.cache_info().entries == 3
    at.button(key="runs.cache.clear").click().run()
    assert not at.exception and cache.cache_info().entries == 0
    assert any(m.value.startswith("0 answers") for m in at.markdown)


def test_a_damaged_result_is_a_sentence():
    curves = TrainingResult({"train_loss": np.array([1.0])})
    jobs.submit("workbench", "Broken", lambda handle: curves)
    assert jobs.get_queue().wait(30)
    (run,) = runs.list_runs()
    run.result_path.write_bytes(b"not an archive")
    with pytest.raises(ValueError, match="must be readable"):
        runs.load_result(run)


# ---- the launcher ----


def test_the_launcher_serves_on_this_machine_alone_and_reports_nothing():
    arguments = launcher.streamlit_arguments(8501, headless=True)
    assert "--server.address=127.0.0.1" in arguments
    assert "--browser.gatherUsageStats=false" in arguments
    assert "--server.headless=true" in arguments
    assert "--server.showEmailPrompt=false" in arguments


def test_a_taken_port_is_passed_over():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert launcher.free_port(port, tries=20) > port
        with pytest.raises(ValueError, match="port must be free"):
            launcher.free_port(port, tries=1)


def test_a_port_outside_the_range_is_a_message(capsys):
    with pytest.raises(SystemExit):
        launcher.main(["--port", "70000"])
    assert "port must be between 1 and 65535, got 70000" in capsys.readouterr().err


def test_the_launcher_looks_at_the_cache_reduces_and_clears_it(tmp_path, monkeypatch, capsys):
    fill(tmp_path / "cache", monkeypatch)
    assert launcher.main(["cache"]) == 0
    assert "3 answers" in capsys.readouterr().out
    assert launcher.main(["cache", "--reduce", "10K"]) == 0
    assert "1 answers" in capsys.readouterr().out
    assert launcher.main(["cache", "--clear"]) == 0
    assert "0 answers" in capsys.readouterr().out
    for wrong in (["cache", "--reduce", "much"], ["cache", "--clear", "--reduce", "1G"]):
        with pytest.raises(SystemExit):
            launcher.main(wrong)
    assert "size must be a number with K, M or G, got 'much'" in capsys.readouterr().err


def test_old_leftovers_of_a_kill_are_swept_and_young_ones_stay():
    old, young = (workspace.folder("runs") / f".partial-{name}" for name in ("old", "young"))
    for path in (old, young):
        path.mkdir()
    kept = workspace.folder("runs") / "20260101-kept"
    kept.mkdir()
    for path in (old, kept):
        os.utime(path, (0, 0))
    workspace.sweep()
    assert not old.exists() and young.is_dir() and kept.is_dir()
