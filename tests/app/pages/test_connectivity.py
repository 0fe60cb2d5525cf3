"""The page Mode connectivity, its views and its charts."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import export
from app.catalog import PointSpec
from app.charts import connectivity as charts
from app.charts import connectivity_pairs as pairs
from app.texts import texts
from app.work import jobs
from app.workspace import library, runs
from estimators import MapResult, PathResult, save_checkpoint
from estimators.experiments.connectivity_cases import CasesResult, judge, summarise

TEXT = texts("connectivity")


def draw():
    from app.pages.connectivity import page as connectivity

    connectivity.render()


def page():
    return AppTest.from_function(draw, default_timeout=60)


def add_network(seed, name, tmp_path, architecture="test_resnet"):
    point = PointSpec(architecture, seed=seed)
    meta = {"name": name, "architecture": architecture, "num_classes": 10, "image_size": 32, "accuracy": 0.1}
    file = save_checkpoint(tmp_path / f"{name}.safetensors", point.load().state_dict(), meta)
    return library.add_checkpoint(file, meta)


def path_result(**changes):
    t = np.linspace(0, 1, 5)
    values = {
        "path": "bezier", "n_bends": 1, "t": t, "losses": np.array([0.1, 0.15, 0.2, 0.16, 0.12]),
        "accuracies": np.full(5, 0.97), "straight_losses": np.array([0.1, 1.0, 2.0, 1.0, 0.12]),
        "straight_accuracies": np.full(5, 0.6), "barrier": 0.09, "straight_barrier": 1.89,
        "rise_over_endpoints": 0.08, "worst_t": 0.5, "connected": True, "distance": 10.0, "path_length": 11.0,
        "plane_anchors": np.array([[0, 0], [5, 4.0], [10, 0]]), "plane_distances": np.zeros(3),
        "plane_path": np.stack([10 * t, 8 * t * (1 - t)], 1), "history_losses": np.array([1.0, 0.3]),
        "history_learning_rates": np.array([0.1, 0.0]),
    }  # fmt: skip
    return PathResult(**{**values, **changes})


def map_result():
    square = np.array([[0, 0.02, 2.0], [0.02, 0, 1.5], [2.0, 1.5, 0]])
    return MapResult(
        names=["a", "b", "c"], losses=np.full(3, 0.1), accuracies=np.full(3, 0.98), barriers=square, rises=square,
        distances=10 * square, cka=1 - square / 4, t=np.linspace(0, 1, 3), profiles=np.zeros((3, 3, 3)),
        layout=np.array([[0, 0], [1, 0.1], [5, -1.0]]), layout_share=1.0, clusters=np.array([0, 0, 1]),
    )  # fmt: skip


def cases_result(n=3):
    heights = {"same start": 0.03, "different starts": 2.0, "fine-tuned": 0.0}
    rows = [
        {
            "case": case,
            "seed": s,
            "path": p,
            "barrier": h if p == "linear" else 0.02,
            "rise": h if p == "linear" else 0.02,
        }
        for s in range(n)
        for case, h in heights.items()
        for p in ("linear", "bezier")
    ]
    summary = summarise(rows, 0.1)
    profiles = np.array([[0.1, 0.1 + r["barrier"], 0.1] for r in rows])
    return CasesResult(rows=rows, t=np.array([0, 0.5, 1]), profiles=profiles, summary=summary, verdicts=judge(summary))


def rows_of(chart):
    return [row for data in chart.to_dict()["datasets"].values() for row in data]


# ---- charts ----


def test_the_profile_draws_every_line_and_marks_its_barrier():
    rows = rows_of(charts.profile(path_result(), at=0.3))
    assert {r["path"] for r in rows if "path" in r} == {"straight", "Bézier"}
    assert {r["label"] for r in rows if "label" in r} == {"1.89", "0.09"}
    assert [r["high"] for r in rows if "from" in r] == [pytest.approx(0.22)]  # the worse end and the tolerance
    assert {"t": 0.3} in rows


def test_the_profile_shows_a_maximum_between_the_points_of_the_grid():
    spike = path_result(
        refined_t=np.array([0.6, 0.97]), refined_losses=np.array([0.19, 11.4]), barrier=11.28, straight_barrier=2.1,
        barrier_error=0.02, worst_t_low=0.96, worst_t_high=0.98,
    )  # fmt: skip
    rows = rows_of(charts.profile(spike))
    curve = [(r["t"], r["value"]) for r in rows if r.get("path") == "Bézier" and "value" in r]
    assert (0.97, 11.4) in curve
    assert [t for t, _ in curve] == sorted(t for t, _ in curve)
    assert {r["label"] for r in rows if "label" in r} == {"2.1", "11.3"}  # the refined ones, of both lines
    assert {(r["t"], r["t_low"], r["t_high"], r["error"]) for r in rows if r.get("label") == "11.3"} == {
        (0.97, 0.96, 0.98, 0.02)
    }
    assert len([r for r in rows_of(charts.profile(spike, quantity="accuracies")) if r.get("path") == "Bézier"]) == 5


def test_the_profile_leaves_out_what_is_not_finite_and_says_heights():
    broken = path_result(losses=np.array([0.1, np.nan, 0.2, np.inf, 0.12]))
    chart = charts.profile(broken, log=True)
    values = [r["value"] for r in rows_of(chart) if r.get("path") == "Bézier"]
    assert values == [0.1, 0.2, 0.12]
    assert charts.profile(path_result(), quantity="accuracies").to_dict()["description"].startswith("accuracy")
    with pytest.raises(ValueError, match="quantity must be losses or accuracies"):
        charts.profile(path_result(), quantity="speed")


def test_a_partial_result_shows_the_straight_line_alone():
    partial = path_result(losses=np.empty(0), accuracies=np.empty(0))
    assert {r["path"] for r in rows_of(charts.profile(partial)) if "path" in r} == {"straight"}


def test_the_plane_holds_ends_bend_and_both_paths():
    chart = charts.plane(path_result(), at=0.5)
    labels = {r["label"] for r in rows_of(chart) if "label" in r}
    assert {"A", "B", "bend", "t = 0.50"} <= labels
    x = np.linspace(-2, 12, 4)
    mapped = charts.plane(
        path_result(plane_x=x, plane_y=x, plane_losses=np.ones((4, 4)), plane_accuracies=np.ones((4, 4)))
    )
    assert sum("cx" in r for r in rows_of(mapped)) == 16
    axes = [layer["encoding"]["y"]["title"] for layer in mapped.to_dict()["layer"][1:]]
    first = mapped.to_dict()["layer"][0]["layer"][0]["encoding"]["y"]["title"]
    assert all(title == first for title in axes)  # unequal ones are joined, and longer than the picture


def test_the_matrix_and_the_map_show_each_pair():
    assert sum("value" in r for r in rows_of(pairs.matrix(map_result()))) == 9
    rows = rows_of(pairs.layout(map_result()))
    assert sorted(r["barrier"] for r in rows if "pair" in r) == [0.02, 1.5, 2.0]
    assert {(r["name"], r["group"]) for r in rows if "group" in r} == {("a", "1"), ("b", "1"), ("c", "2")}
    with pytest.raises(ValueError, match="quantity must be one of barriers, distances, cka"):
        pairs.matrix(map_result(), quantity="speed")


def test_cases_show_every_pair_and_the_band():
    rows = rows_of(pairs.cases(cases_result()))
    assert sum("pair" in r for r in rows) == 18
    bands = [r for r in rows_of(pairs.case_profiles(cases_result())) if "low" in r]
    assert len(bands) == 3 * 2 * 3
    assert all(r["low"] - 1e-9 <= r["mean"] <= r["high"] + 1e-9 for r in bands)


@pytest.mark.parametrize(
    "chart",
    [charts.profile(path_result()), charts.plane(path_result()), charts.training(path_result()),
     pairs.matrix(map_result()), pairs.layout(map_result()), pairs.cases(cases_result()),
     pairs.case_profiles(cases_result())],
)  # fmt: skip
def test_every_chart_describes_itself_and_becomes_a_picture(chart):
    assert len(chart.to_dict()["description"]) > 20
    assert export.chart_bytes(chart, "svg").startswith(b"<svg")


# ---- page ----


def test_an_empty_library_offers_two_networks():
    at = page().run()
    assert not at.exception
    assert at.button(key="connectivity.run").disabled
    assert any("Train" in b.label or "train" in b.label for b in at.button)


def test_a_path_is_found_drawn_kept_and_reproducible(tmp_path):
    first, second = add_network(0, "one", tmp_path), add_network(1, "two", tmp_path)
    at = page().run()
    at.number_input(key="subject.samples").set_value(32)
    at.number_input(key="connectivity.epochs").set_value(1)
    at.number_input(key="connectivity.n_points").set_value(3)
    at.number_input(key="connectivity.plane").set_value(2)
    at.toggle(key="connectivity.align").set_value(True)
    at.run()
    assert not at.button(key="connectivity.run").disabled
    at.button(key="connectivity.run").click().run()
    assert jobs.get_queue().wait(120)
    job = jobs.latest("connectivity")
    assert job.error is None, job.error
    at.run()
    assert not at.exception
    labels = [m.label for m in at.metric]
    (height,) = (m for m in at.metric if m.label == TEXT("barrier"))
    assert "higher" in height.delta  # with the error of the maximum
    assert TEXT("aligned_barrier") in labels
    assert at.slider(key="connectivity.t").value == 0.5
    at.slider(key="connectivity.t").set_value(0.25).run()
    assert TEXT("at.loss", t=0.25) in [m.label for m in at.metric]
    at.segmented_control(key="connectivity.quantity").set_value("accuracies").run()
    at.segmented_control(key="connectivity.on").set_value("held_out").run()
    assert not at.exception
    ast.parse(job.config["script"])
    assert "ModeConnector(" in job.config["script"]
    assert str(first.path) in job.config["script"] or str(second.path) in job.config["script"]
    assert [r.page for r in runs.list_runs()] == ["connectivity"]


def test_the_same_checkpoint_twice_and_two_architectures_are_said_before_the_run(tmp_path):
    entry = add_network(0, "one", tmp_path)
    other = add_network(0, "another kind", tmp_path, "test_efficientnet")
    at = page().run()
    at.selectbox(key="subject.checkpoint").set_value(entry.id)
    at.selectbox(key="connectivity.b.checkpoint").set_value(entry.id).run()
    assert at.button(key="connectivity.run").disabled
    assert [w.value for w in at.warning] == [TEXT("need_two")]
    at.selectbox(key="connectivity.b.checkpoint").set_value(other.id).run()
    assert at.button(key="connectivity.run").disabled
    assert "test_efficientnet" in at.error[0].value


def test_several_networks_must_be_of_one_kind_and_the_epochs_of_one_will_do(tmp_path):
    entry = add_network(0, "one", tmp_path)
    other = add_network(0, "another kind", tmp_path, "test_efficientnet")
    at = page().run()
    at.segmented_control(key="connectivity.view").set_value("map").run()
    assert not at.error  # what is chosen first is of one kind
    at.multiselect(key="connectivity.map.models").set_value([entry.id, other.id]).run()
    assert at.button(key="connectivity.map.run").disabled
    assert "test_efficientnet (10), test_resnet (10)" in at.error[0].value
    at.multiselect(key="connectivity.map.models").set_value([entry.id]).run()
    assert at.button(key="connectivity.map.run").disabled and not at.error
    assert TEXT("map.need") in [c.value for c in at.caption]
    passed = library.add_checkpoint(entry.path, entry.info, epochs=[entry.path] * 3)
    at = page().run()
    at.segmented_control(key="connectivity.view").set_value("map").run()
    at.multiselect(key="connectivity.map.models").set_value([passed.id]).run()
    at.toggle(key="connectivity.map.epochs").set_value(True).run()
    assert not at.button(key="connectivity.map.run").disabled


def test_a_map_is_measured_and_drawn(tmp_path):
    for seed, name in enumerate(("one", "two", "three")):
        add_network(seed, name, tmp_path)
    at = page().run()
    at.segmented_control(key="connectivity.view").set_value("map").run()
    at.number_input(key="subject.samples").set_value(32)
    at.number_input(key="connectivity.map.n_points").set_value(3).run()
    at.button(key="connectivity.map.run").click().run()
    assert jobs.get_queue().wait(120)
    job = jobs.latest("connectivity.map")
    assert job.error is None, job.error
    at.run()
    assert not at.exception
    assert [m.label for m in at.metric][:1] == [TEXT("map.groups")]
    for quantity in pairs.MATRICES:
        at.segmented_control(key="connectivity.map.matrix").set_value(quantity).run()
        assert not at.exception
    ast.parse(job.config["script"])


def test_the_cases_show_verdicts_and_reopen_on_their_view():
    jobs.adopt("connectivity.cases", "Three cases", cases_result(), {"script": "print()"}, "some-run")
    at = page().run()
    assert not at.exception
    assert at.segmented_control(key="connectivity.view").value == "cases"
    shown = " ".join(m.value for m in at.markdown)
    assert TEXT("cases.claim.fine-tuned") in shown
    assert len(at.dataframe) == 1
    assert not at.button(key="connectivity.cases.run").disabled
    at.pills(key="connectivity.cases.joints").set_value([]).run()
    assert at.button(key="connectivity.cases.run").disabled


def test_a_failed_path_is_a_sentence():
    jobs.submit("connectivity", "bad", lambda handle: (_ for _ in ()).throw(ValueError("models must be two")))
    assert jobs.get_queue().wait(20)
    at = page().run()
    assert not at.exception
    assert any("models must be two" in e.value for e in at.error)
