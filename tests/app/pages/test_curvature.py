"""The page Stationary points through Streamlit's test runner, and its charts on made-up results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import nn

from app import export
from app.pages.curvature import charts
from app.pages.curvature import page as stationary
from app.pages.curvature import random as stationary_random
from app.pages.curvature import training as stationary_training
from app.texts import texts
from app.widgets.numbers import known, plus_minus, share
from app.work import jobs
from app.workspace import library
from estimators import CurvatureEstimator, CurvatureTracker, random_critical_points, save_checkpoint

text = texts("stationary")


def draw():
    from app.pages.curvature.page import render

    render()


def page():
    return AppTest.from_function(draw, default_timeout=60)


def finish(at, seconds=120):
    assert jobs.get_queue().wait(seconds)
    at.run()
    assert not at.exception
    return at


@pytest.fixture(scope="module")
def small():
    """A smooth network small enough for the exact path, and its data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
        return model, (torch.randn(30, 5), torch.randint(0, 3, (30,)))


@pytest.fixture(scope="module")
def iterative(small):
    est = CurvatureEstimator(exact_below=0, n_lanczos=20, n_probes=3, per_layer=True, n_eigenvalues=3)
    return est.fit(*small).result_


@pytest.fixture(scope="module")
def history(small):
    model, data = small
    return CurvatureTracker(n_probes=2).fit([model, model], data, lr=[0.1, 0.0], momentum=0.5).result_


@pytest.fixture(scope="module")
def random_points():
    return random_critical_points((1, 2, 9), n_samples=300)


def all_charts(iterative, history, random_points):
    yield charts.eigenvalue_ends(iterative)
    yield charts.density(iterative)
    yield charts.density(iterative, log=False)
    yield charts.fractions(iterative)
    yield charts.traces(iterative)
    for what in ("trace", "mean", "lambda_max"):
        yield charts.layers(iterative, what=what)
    yield charts.through_training(history)
    yield charts.through_training(history, log=False)
    yield charts.trace_through_training(history)
    yield charts.minimum_probability(random_points)


def test_charts_have_axes_with_units_a_description_and_become_files(iterative, history, random_points):
    for chart in all_charts(iterative, history, random_points):
        specification = chart.to_dict()
        assert len(specification["description"]) > 20
        body = json.dumps(specification)
        assert "NaN" not in body and "Infinity" not in body
        titles = [
            channel.get("title")
            for layer in specification["layer"]
            for name, channel in layer["encoding"].items()
            if name in ("x", "y")
        ]
        assert any(title for title in titles)
        assert export.chart_bytes(chart, "svg").startswith(b"<svg")


def test_the_density_axis_shows_a_single_eigenvalue(iterative):
    specification = charts.density(iterative).to_dict()
    scale = specification["layer"][1]["encoding"]["y"]["scale"]
    single = 1 / (iterative.n_parameters * iterative.density_sigma * np.sqrt(2 * np.pi))
    assert scale["type"] == "log" and scale["domain"][0] < single < scale["domain"][1]


def test_an_infinite_edge_is_left_out_of_the_training_chart(history):
    assert np.isinf(history.edge[1])
    data = charts.through_training(history).to_dict()["datasets"]
    rows = next(rows for rows in data.values() if any(r["curve"] == text("curve.edge") for r in rows))
    assert [r["value"] for r in rows if r["curve"] == text("curve.edge")] == [20]


def test_unseen_minima_are_bounds(random_points):
    data = charts.minimum_probability(random_points).to_dict()["datasets"]
    rows = [r for rows in data.values() for r in rows if r.get("hit") is False]
    assert rows and all(r["p"] == pytest.approx(random_points.high[2]) for r in rows)


def test_one_point_from_start_to_verdict():
    at = page().run()
    assert at.header[0].value == text("title")
    at.segmented_control(key="subject.from").set_value("timm").run()
    at.number_input(key="subject.samples").set_value(32).run()
    at.text_input(key="stationary.filter").set_value(r"^fc\.bias").run()
    at.number_input(key="stationary.n_eigenvalues").set_value(2).run()
    assert not at.exception
    at.button(key="stationary.run").click().run()
    at = finish(at)
    job = jobs.latest("stationary")
    assert job.state == jobs.DONE, job.error
    result = job.result
    assert result.method == "exact" and result.n_parameters == 10
    assert any(text("verdict.not stationary", gradient=result.gradient_norm, tol=1e-3) in w.value for w in at.warning)
    names = [m.label for m in at.metric]
    assert text("saddle_index") in names and text("lambda_max") in names
    assert len(at.get("vega_lite_chart")) >= 4
    assert "CurvatureEstimator" in job.config["script"] and "^fc" in job.config["script"]
    assert len(at.dataframe[0].value) == 4


def test_a_wrong_filter_is_said_beside_it():
    at = page().run()
    at.text_input(key="stationary.filter").set_value("(").run()
    assert any("must be a regular expression, got '('" in e.value for e in at.error)
    assert at.button(key="stationary.run").disabled


def test_random_points_live():
    at = page().run()
    at.segmented_control(key="stationary.view").set_value("random").run()
    at.number_input(key="stationary.random.largest").set_value(4).run()
    at.number_input(key="stationary.random.samples").set_value(4000).run()
    at.button(key="stationary.random.run").click().run()
    at = finish(at)
    result = jobs.latest("stationary.random").result
    assert result.n_samples.tolist() == [4000] * 4
    assert len(at.get("vega_lite_chart")) == 1
    # Minima are rarer than independent signs say, and the page says so.
    assert any("not supported" in m.value.lower() for m in at.markdown)
    assert list(at.dataframe[0].value[text("table.d")]) == [1, 2, 3, 4]


def test_curvature_through_a_training_of_the_library(tmp_path):
    from estimators import load_model

    model = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    paths = [save_checkpoint(tmp_path / f"{i}.safetensors", model.state_dict(), {}) for i in range(2)]
    meta = {
        "name": "tiny",
        "architecture": "test_resnet",
        "num_classes": 10,
        "image_size": 32,
        "data": {"source": "digits"},
        "training": {"epochs": 1, "lr": 0.1, "schedule": "flat", "momentum": 0.0},
    }
    library.add_checkpoint(paths[-1], meta, epochs=paths)
    at = page().run()
    at.segmented_control(key="stationary.view").set_value("training").run()
    at.number_input(key="subject.samples").set_value(16).run()
    at.toggle(key="stationary.training.trace").set_value(False).run()
    at.button(key="stationary.training.run").click().run()
    at = finish(at)
    job = jobs.latest("stationary.training")
    assert job.state == jobs.DONE, job.error
    assert job.result.edge.tolist() == [20, 20] and np.isfinite(job.result.lambda_max).all()
    assert job.result.lambda_max[0] == job.result.lambda_max[1]
    assert "lr=rates" in job.config["script"] and "checkpoints = [" in job.config["script"]
    assert len(at.get("vega_lite_chart")) == 1


def test_without_a_kept_training_it_offers_one():
    at = page().run()
    at.segmented_control(key="stationary.view").set_value("training").run()
    assert any(text("training.none") == c.value for c in at.caption)
    assert at.button(key="stationary.training.run").disabled


def test_every_verdict_has_its_sentence():
    from estimators.curvature._result import POINT_KINDS

    for kind in POINT_KINDS:
        assert text(f"verdict.{kind}", gradient=1.0, tol=1e-3, low=-1.0, high=2.0)


def test_numbers_say_their_uncertainty():
    assert plus_minus(123.456, 0.5) == "123.5 ± 0.5"
    assert plus_minus(123.456, 0.0) == "123.5"
    assert plus_minus(2657.3, 480.0) == "2,700 ± 500"
    assert plus_minus(-10.83982, 0.00086) == "−10.8398 ± 0.0009"
    assert plus_minus(3e-9, 1e-10) == "3e−09 ± 1e−10"
    assert plus_minus(float("nan"), 1.0) == ""
    assert share(0.1234, 0.01) == "12.34 ± 1 %"
    assert share(0.5, 0.0) == "50.00 %"


def test_an_end_whose_search_has_not_converged_is_shown_as_a_bound(iterative):
    cut = replace(iterative, converged=np.zeros(6, bool), negligible=np.zeros(6, bool))
    assert "≥" not in known(iterative, "lambda_max") and "±" in known(iterative, "trace")
    assert known(cut, "lambda_max") == f"≥ {cut.lambda_max:.4g}"
    assert known(cut, "lambda_min") == f"≤ {cut.lambda_min:.4g}".replace("-", "−")
    assert known(cut, "trace") == known(iterative, "trace")


def test_tables(iterative, history, random_points):
    assert len(stationary.ends_table(iterative)) == 6
    table = stationary_training.numbers(history)
    assert list(table[text("table.edge")]) == ["20", "∞"]
    assert len(stationary_random.numbers(random_points)) == 3
