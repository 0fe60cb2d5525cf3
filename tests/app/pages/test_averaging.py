"""The page Weight averaging through Streamlit's own test runner, and its charts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.pages.averaging import charts
from app.texts import texts
from app.work import jobs
from app.workspace import library
from estimators import load_model, save_checkpoint
from estimators.averaging._result import AverageResult
from estimators.experiments import SwaComparisonResult
from estimators.experiments.swa_comparison import judge

text = texts("averaging")


def draw():
    import importlib

    importlib.import_module("app.pages.averaging.page").render()


def page():
    return AppTest.from_function(draw, default_timeout=60)


def finish(at, seconds=240):
    assert jobs.get_queue().wait(seconds)
    at.run()
    assert not at.exception
    failed = [job.error for job in jobs.get_queue().jobs() if job.error]
    assert not failed
    return at


def press(at, label):
    next(b for b in at.button if b.label == label).click()
    return at.run()


def add(name, seed, architecture="test_resnet"):
    model = load_model(architecture, num_classes=10, image_size=32, random_state=seed)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        from pathlib import Path

        path = Path(folder) / "w.safetensors"
        save_checkpoint(path, model.state_dict())
        return library.add_checkpoint(
            path, {"name": name, "architecture": architecture, "num_classes": 10, "image_size": 32}
        )


def descriptions(at):
    return [json.loads(chart.proto.spec).get("description", "") for chart in at.get("vega_lite_chart")]


def test_a_training_with_and_without_averaging_is_drawn_and_kept():
    at = page().run()
    assert not at.exception and not at.error
    at.number_input(key="subject.samples").set_value(64)
    for name, value in (("epochs", 4), ("batch", 32)):
        at.number_input(key=f"averaging.{name}").set_value(value)
    at.toggle(key="averaging.with_sharp").set_value(False)
    at.toggle(key="averaging.with_plane").set_value(False)
    at.run()
    press(at, text("run"))
    finish(at)
    result = jobs.latest("averaging").result
    assert {row["role"] for row in result.history} == {"iterate", "swa", "ema", "sgd"}
    assert any("by epoch; last: plain SGD" in d for d in descriptions(at)), descriptions(at)
    assert {metric.label for metric in at.metric} >= {text("swa_gain"), text("statistics")}
    (frame,) = at.dataframe
    assert "average, old statistics" in set(frame.value[text("column.point")])
    names = {c.name for c in library.list_checkpoints()}
    assert names == {"test_resnet SGD", "test_resnet SWA"}
    kept = next(c for c in library.list_checkpoints() if c.name == "test_resnet SWA")
    assert len(kept.trajectory) == 5
    assert kept.info["accuracy"] == result.row("average")["held_out_accuracy"]
    script = jobs.latest("averaging").config["script"]
    assert ".train(model, data, held_out=held_out, compare=True, epochs=4, lr=0.1, batch_size=32)" in script
    compile(script, "script", "exec")


def test_a_soup_of_library_checkpoints_shows_verdicts_and_barriers_and_is_kept():
    add("one", 0), add("two", 1)
    at = page().run()
    at.segmented_control(key="averaging.view").set_value("soup").run()
    at.number_input(key="subject.samples").set_value(64)
    at.run()
    press(at, text("soup.run"))
    finish(at)
    result = jobs.latest("averaging.soup").result
    assert {row["name"] for row in result.report if row["role"] == "member"} == {"one", "two"}
    shown = descriptions(at)
    assert any("of 2 members" in d for d in shown)
    assert any("barrier (nats) between 2 networks" in d for d in shown)
    assert len(library.list_checkpoints()) == 3
    compile(jobs.latest("averaging.soup").config["script"], "script", "exec")


def test_a_soup_needs_two_checkpoints_of_one_architecture():
    at = page().run()
    at.segmented_control(key="averaging.view").set_value("soup").run()
    assert any(c.value == text("soup.need") for c in at.caption)
    one, other = add("a", 0), add("b", 0, "test_vit")
    at = page().run()
    at.segmented_control(key="averaging.view").set_value("soup").run()
    assert not at.error  # what is chosen first is of one kind
    at.multiselect(key="averaging.soup.models").set_value([one.id, other.id]).run()
    assert any("one architecture" in e.value for e in at.error)
    assert next(b for b in at.button if b.label == text("soup.run")).disabled


def test_seeds_are_compared_and_judged():
    at = page().run()
    at.segmented_control(key="averaging.view").set_value("seeds").run()
    for name, value in (("n", 1), ("epochs", 2), ("samples", 40)):
        at.number_input(key=f"averaging.seeds.{name}").set_value(value)
    at.run()
    press(at, text("seeds.run"))
    finish(at)
    result = jobs.latest("averaging.seeds").result
    assert [row["group"] for row in result.rows] == ["sgd", "swa", "ema"]
    assert sum("over 1 seeds" in d for d in descriptions(at)) == 4
    assert sum("not clear here" in m.value.lower() for m in at.markdown) == 8
    compile(jobs.latest("averaging.seeds").config["script"], "script", "exec")


def test_a_failing_job_says_why_and_the_page_stays(monkeypatch):
    import estimators

    def fail(self, *args, **kwargs):
        raise ValueError("swa_lr must be a positive number, got -1. 0.01 to 0.05 is usual.")

    monkeypatch.setattr(estimators.SWAAverager, "train", fail)
    at = page().run()
    press(at, text("run"))
    assert jobs.get_queue().wait(60)
    at.run()
    assert not at.exception
    assert any("swa_lr must be" in e.value for e in at.error)


# ---- charts ----


def averaged():
    def values(loss):
        return {
            "train_loss": loss,
            "train_accuracy": 1 - loss,
            "held_out_loss": loss + 0.1,
            "held_out_accuracy": 0.9 - loss,
        }

    history = [
        {"epoch": e, "role": role, "learning_rate": 0.1, **values(0.5 / e)}
        for e in range(1, 5)
        for role in ("iterate", "ema", "sgd", *(["swa"] if e > 3 else []))
    ]
    members = [
        {"name": f"m{i}", "role": "member", "kept": i != 1, "share": 0.5, "order": i, **values(0.1 * i)}
        for i in range(3)
    ]
    return AverageResult(
        method="greedy_soup",
        n_averaged=2,
        report=[*members, {"name": "average", "role": "average", **values(0.05)}],
        barriers=np.array([[0, 1, 2], [1, 0, 0.5], [2, 0.5, 0.0]]),
        history=history,
        plane_x=np.linspace(-1, 1, 3),
        plane_y=np.linspace(-2, 2, 3),
        plane_losses=np.arange(9.0).reshape(3, 3) + 1,
        plane_markers=[{"label": "SWA", "x": 0.0, "y": 0.1, "loss": 1.5, "distance": 0.1}],
        plane_trajectories=[{"label": "plain SGD", "x": [0.0, 1.0], "y": [0.0, 1.0], "loss": [2.0, 1.0]}],
        plane_titles=["a (unit)", "b (unit)"],
    )


@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
@pytest.mark.parametrize("on", ["train", "held_out"])
def test_the_history_draws_every_series_and_the_switch(quantity, on):
    chart = charts.history(averaged(), quantity=quantity, on=on, log=True)
    specification = json.dumps(chart.to_dict())
    for role in ("iterate", "swa", "ema", "sgd"):
        assert text("role." + role) in specification
    assert '"epoch": 3.5' in specification
    assert "last:" in chart.description
    expected = {"loss": "nats", "accuracy": "share correct"}[quantity]
    assert expected in specification


def test_an_unfinished_history_and_report_are_drawn():
    assert charts.history(AverageResult()).to_dict()
    partial = AverageResult(report=averaged().report[:2])
    assert "2 members" in charts.members(partial).description


def test_members_barriers_plane_and_bad_arguments():
    result = averaged()
    chart = charts.members(result, quantity="accuracy", on="held_out")
    assert "3 members, 2 kept; the average has 85.0%" in chart.description
    data = list(chart.to_dict()["datasets"].values())
    verdicts = {row["name"]: row["verdict"] for rows in data for row in rows if "verdict" in row}
    assert verdicts == {"m0": text("kept"), "m1": text("left_out"), "m2": text("kept")}
    assert "from 0.5 to 2" in charts.barriers(result).description
    drawn = charts.plane(result)
    assert "SWA 1.5 nats" in drawn.description
    assert "a (unit)" in json.dumps(drawn.to_dict())
    for call in (
        lambda: charts.history(result, quantity="error"),
        lambda: charts.members(result, on="all"),
        lambda: charts.seeds(SwaComparisonResult(), key="speed"),
    ):
        with pytest.raises(ValueError, match="must be one of"):
            call()


def test_seeds_draws_pairs_and_means():
    rows = [
        {
            "seed": s,
            "group": g,
            "train_loss": 0.1,
            "train_accuracy": 1.0,
            "held_out_loss": 0.5 - 0.1 * (g != "sgd") + 0.01 * s,
            "held_out_accuracy": 0.8,
            "lambda_max": 10.0,
            "average_sharpness": 0.2,
            "distance": 0.0,
        }
        for s in range(3)
        for g in ("sgd", "swa", "ema")
    ]
    result = SwaComparisonResult(rows=rows, claims=judge(rows))
    chart = charts.seeds(result, key="held_out_loss")
    assert "over 3 seeds" in chart.description and "0.41" in chart.description
    verdicts = {(c["group"], c["key"]): c["verdict"] for c in result.claims}
    assert verdicts["swa", "held_out_loss"] == "supported"
    assert verdicts["ema", "lambda_max"] == "not clear here"
