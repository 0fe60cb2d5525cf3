"""The page Runs: found again, compared, reported, taken along, deleted together."""

from __future__ import annotations

import importlib
import io
import json
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.catalog import PointSpec
from app.pages.runs import charts, compare
from app.pages.runs.bundle import bundle
from app.pages.runs.report import report
from app.widgets import pins
from app.workspace import library, runs
from app.workspace.curves import TrainingResult
from app.workspace.numbers import numbers_of
from estimators import AverageResult, SurfaceResult, load_model, save_checkpoint

AXIS = np.linspace(-1.0, 1.0, 5)
SCRIPT = "from estimators import load_model\n\nmodel = load_model('test_resnet', checkpoint={path!r})\n"


def surface(scale=1.0, titles=("first", "second")):
    losses = scale * (1 + AXIS[:, None] ** 2 + AXIS**2)
    return SurfaceResult(
        axes=(AXIS, AXIS), losses=losses, evaluated=np.ones((5, 5), bool), axis_titles=list(titles), loss=scale,
        accuracy=0.5, settings={"batch_norm": "frozen", "model": f"net {scale:g}"},
    )  # fmt: skip


def training(last=0.25):
    return TrainingResult({"loss": np.array([2.0, last]), "held_out_accuracy": np.array([0.1, 0.9])}, name="mine")


def kept(page, title, result, **config):
    return runs.Run.get(runs.save_run(page, title, result, config, seconds=1.0))


def draw_page():
    from app.pages.runs.page import render

    render()


def page():
    return AppTest.from_function(draw_page, default_timeout=60)


# ---- numbers, tags and filters ----


def test_a_result_is_found_by_its_numbers():
    assert numbers_of(surface(3.0)) == {"loss": 3.0, "accuracy": 0.5}
    assert numbers_of(training()) == {"loss": 0.25, "held_out_accuracy": 0.9}
    average = AverageResult(report=[{"role": "member", "train_loss": 9.0}, {"role": "average", "train_loss": 0.5}])
    assert numbers_of(average) == {"loss": 0.5}
    assert numbers_of(SimpleNamespace(loss=float("nan"), sharpness=[{"a": 1}], trace=True)) == {"trace": 1.0}


def test_the_table_has_the_numbers_and_is_filtered_by_words_pages_and_tags():
    kept("surface", "Map of a net", surface(3.0))
    tagged = kept("workbench", "Training of a net", training())
    tagged.change(tags=["final", "paper"])
    at = page().run()
    assert not at.exception
    table = at.dataframe[0].value.set_index("Title")
    assert table.loc["Map of a net", "Loss"] == 3.0 and np.isnan(table.loc["Map of a net", "Held-out accuracy"])
    assert table.loc["Training of a net", "Held-out accuracy"] == 0.9
    assert at.dataframe[0].proto.placeholder == "–"  # where a run has no such number
    for words, expected in (
        ("net map", ["Map of a net"]), ("paper training", ["Training of a net"]), ("net", None), ("other", []),
    ):  # fmt: skip
        at.text_input(key="runs.search").set_value(words).run()
        assert not at.exception
        found = at.dataframe[0].value["Title"].tolist()
        assert len(found) == 2 if expected is None else found == expected
    at.text_input(key="runs.search").set_value("").run()
    at.multiselect(key="runs.tags").set_value(["paper"]).run()
    assert at.dataframe[0].value["Title"].tolist() == ["Training of a net"]


def test_a_tag_is_given_to_all_and_taken_where_all_have_it():
    first, second = kept("surface", "a", surface()), kept("surface", "b", surface())
    first.change(tags=["old"])

    def draw():
        from app.pages.runs.page import tag_box
        from app.workspace import runs

        tag_box(sorted(runs.list_runs(), key=lambda run: run.title))

    at = AppTest.from_function(draw).run()
    at.text_input(key=f"runs.tag.{first.id}").set_value("new").run()
    assert [runs.Run.get(run.id).tags for run in (first, second)] == [("old", "new"), ("new",)]
    at.text_input(key=f"runs.tag.{first.id}").set_value("").run()
    at.text_input(key=f"runs.tag.{first.id}").set_value("new").run()
    assert [runs.Run.get(run.id).tags for run in (first, second)] == [("old",), ()]


def test_several_are_deleted_and_brought_back_together():
    for title in "abc":
        kept("surface", title, surface())

    def draw():
        from app.widgets.entries import delete_button, undo_bar
        from app.workspace import runs

        undo_bar("runs")
        chosen = [run for run in runs.list_runs() if run.title != "c"]
        if chosen:
            delete_button("runs", chosen)

    at = AppTest.from_function(draw).run()
    assert at.button[0].label == "Delete 2"
    at.button[0].click().run()
    assert not at.exception and [run.title for run in runs.list_runs()] == ["c"]
    at.button(key="runs.undo").click().run()
    assert not at.exception and {run.title for run in runs.list_runs()} == set("abc")


# ---- beside each other ----


def test_runs_of_any_pages_are_compared_on_one_scale_with_what_differs():
    settings = {"estimator": "SurfaceMapper", "data": {"n_samples": 512}}
    chosen = [
        kept("surface", "a map", surface(1.0), params={"resolution": 5, "span": 1.0}, **settings),
        kept("surface", "a map", surface(10.0), params={"resolution": 9, "span": 1.0}, **settings),
        kept("workbench", "a training", training()),
    ]
    labels = compare.named(chosen)
    assert len(set(labels)) == 3
    drawn = charts.maps([(label, runs.load_result(run)) for label, run in zip(labels, chosen, strict=True)])
    specification = drawn.to_dict()
    assert len(specification["concat"]) == 2 and specification["resolve"]["scale"]["x"] == "shared"
    domains = re.findall(r'"domain": \[([^\]]*)\][^}]*"scheme"', json.dumps(specification))
    assert len(set(domains)) == 1
    differ = runs.differences(chosen[:2])
    assert differ == {"params.resolution": [5, 9], "model": ["net 1", "net 10"]}
    assert runs.differences([chosen[0], chosen[0]]) == {}

    def draw():
        from app.pages.runs import compare
        from app.workspace import runs

        compare.draw(runs.list_runs())

    at = AppTest.from_function(draw).run()
    assert not at.exception and not at.error
    assert len(at.get("vega_lite_chart")) == 2  # maps, and the training's curve
    assert at.dataframe[-1].value["Setting"].tolist()[:1] == ["page"]


def test_maps_in_other_units_keep_axes_of_their_own():
    drawn = charts.maps([("a", surface()), ("b", surface(titles=("along", "across")))])
    assert drawn.to_dict()["resolve"]["scale"]["x"] == "independent"


@pytest.mark.parametrize("where", charts.DRAWN_BY.values())
def test_the_picture_that_stands_for_a_kind_exists(where):
    module, _, name = where.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_every_kind_of_result_that_a_picture_is_named_for_exists():
    import estimators
    import estimators.experiments as experiments
    from estimators import Result

    def below(kind):
        return {kind.__name__, *(name for one in kind.__subclasses__() for name in below(one))}

    assert estimators and experiments
    assert set(charts.DRAWN_BY) <= below(Result)


def test_more_than_four_are_not_compared_but_said():
    for k in range(5):
        kept("surface", f"map {k}", surface())

    def draw():
        from app.pages.runs import compare
        from app.workspace import runs

        compare.draw(runs.list_runs())

    at = AppTest.from_function(draw).run()
    assert not at.get("vega_lite_chart") and "5 are selected" in at.caption[0].value


# ---- taken along ----


def test_a_bundle_carries_the_weights_and_paths_that_work_elsewhere(tmp_path):
    outside = save_checkpoint(tmp_path / "mine.safetensors", load_model("test_resnet", num_classes=10).state_dict())
    meta = {"name": "a", "architecture": "test_resnet", "num_classes": 10, "image_size": 32}
    entry = library.add_checkpoint(outside, meta, epochs=[outside])
    lines = [SCRIPT.format(path=str(path)) for path in (outside, entry.path, entry.trajectory[0])]
    config = {"script": "".join(lines), "points": {"model": PointSpec(weights=f"file:{outside}").as_dict()}}
    run = kept("surface", "map", surface(), **config)
    with zipfile.ZipFile(io.BytesIO(bundle(run))) as archive:
        archive.extractall(tmp_path / "elsewhere")
        names = set(archive.namelist())
    assert {"run.json", "result.npz", "reproduce.py"} < names
    script = (tmp_path / "elsewhere" / "reproduce.py").read_text()
    assert str(tmp_path) not in script and str(tmp_path) not in (tmp_path / "elsewhere" / "run.json").read_text()
    used = re.findall(r"checkpoint='([^']+)'", script)
    assert len(set(used)) == 3
    for path in used:
        assert (tmp_path / "elsewhere" / path).read_bytes() == outside.read_bytes()


def test_a_report_is_one_file_that_asks_nobody():
    evil = "<script>alert(1)</script>"
    chosen = [
        kept("surface", evil, surface(), script="print('<b>')", data={"n_samples": 5}),
        kept("workbench", "a training", training(), data={"n_samples": 6}, params={"epochs": 2}),
    ]
    page = report(chosen)
    assert page.count("<svg") >= 3  # a picture each, and what is compared
    assert evil not in page and "&lt;script&gt;" in page and "print(&#x27;&lt;b&gt;&#x27;)" in page
    assert "data.n_samples" in page and "params.epochs" not in page  # what both have, and what one alone has
    asked = re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(https?:[^\"')\s]+)", page)
    assert asked == []


# ---- pins ----


def test_four_pins_of_the_same_name_are_four(monkeypatch):
    remembered = {}
    monkeypatch.setattr(state, "remember", lambda page, name, value: remembered.__setitem__((page, name), value))
    monkeypatch.setattr(state, "recall", lambda page, name, default=None: remembered.get((page, name), default))
    results = [surface(k + 1.0) for k in range(5)]
    for result in results[:4]:
        pins.pin("surface", "digits-a", result)
    assert [name for name, _ in pins.pinned("surface")] == ["digits-a", *(f"digits-a ({k})" for k in (2, 3, 4))]
    pins.pin("surface", "digits-a", results[0])  # again: nothing changes
    assert [value for _, value in pins.pinned("surface")] == results[:4]
    beside = pins.beside_pinned("surface", "digits-a", results[4])
    assert len({name for name, _ in beside}) == 5 and beside[-1][1] is results[4]
    pins.unpin("surface", results[1])
    assert [value for _, value in pins.pinned("surface")] == [results[0], *results[2:4]]
