"""The page Sharpness and its charts: a job from the page, pins, the experiment, and what each chart shows."""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import export
from app.pages.sharpness import batch as batch_module
from app.pages.sharpness import charts
from app.pages.sharpness import page as page_module
from app.texts import texts
from app.work import jobs
from app.workspace import runs
from estimators.experiments import BatchSizeResult
from estimators.experiments.batch_size import judge
from estimators.sharpness._measures import MEASURES
from estimators.sharpness._result import SharpnessResult

TEXT = texts("sharpness")


def draw():
    from app.pages.sharpness import page as sharpness

    sharpness.render()


def page():
    return AppTest.from_function(draw, default_timeout=60)


def experiment_page():
    at = page().run()
    return at.segmented_control(key="sharpness.view").set_value("batch").run()


def measured(**changes):
    radius = np.array([0.01, 0.02, 0.05, 0.1])
    values = {
        "measures": list(MEASURES),
        "settings": {"rho": 0.05, "sigma": 0.01, "noise": "plain", "adaptive": False, "norm": "l2"},
        "loss": 0.1, "accuracy": 0.98, "gradient_norm": 0.3, "scaled_gradient_norm": 0.3,
        "sharpness": 0.05, "one_step": 0.03, "lambda_max": 30.0, "lambda_max_residual": 0.02,
        "lambda_max_converged": True, "lambda_max_scaled_converged": True, "quadratic_rise": 0.0375,
        "trace": 200.0, "trace_stderr": 7.0,
        "average_sharpness": 0.011, "average_sharpness_stderr": 0.001, "m_sharpness": 0.09,
        "m_sharpness_stderr": 0.004, "pac_bayes_bound": 1.2, "sigma_tolerated": 0.0316,
        "pac_bayes": {"bound": 1.2, "bound_kl": 0.93, "vacuous": True, "kl": 31.0, "sigma": 0.1, "delta": 0.05},
        "profile_radius": radius, "profile_rise": 20 * radius**2, "profile_one_step": 15 * radius**2,
        "noise_sigma": radius, "noise_average": 100 * radius**2, "noise_stderr": 10 * radius**2,
    }  # fmt: skip
    return SharpnessResult(**{**values, **changes})


def layers(chart):
    """Return the layers of a chart with the rows each draws; shared rows stand on the chart itself."""
    spec = chart.to_dict()
    return [(layer, rows_of(layer, spec, spec["datasets"])) for layer in spec["layer"]]


def rows_of(layer, parent, datasets):
    return datasets[(layer.get("data") or parent["data"])["name"]]


# ---- charts ----


def test_profile_draws_the_measured_rises_the_step_and_the_prediction():
    first, second = measured(), measured(sharpness=0.2, quadratic_rise=float("nan"))
    chart = charts.rise_profile([("a", first), ("b", second)])
    line, lines = layers(chart)[1]
    best = {(r["model"], r["radius"]): r["rise"] for r in lines if r["what"] == "best"}
    assert best[("a", 0.05)] == pytest.approx(0.05)
    prediction = [r for r in lines if r["what"] == "quadratic"]
    assert {r["model"] for r in prediction} == {"a"}  # b has none
    assert next(r["rise"] for r in prediction if r["radius"] == 0.1) == pytest.approx(0.0375 * 4)
    assert line["encoding"]["x"]["title"] == TEXT("axis.radius")
    assert "nats" in line["encoding"]["y"]["title"]
    assert line["encoding"]["y"]["scale"]["type"] == "log"
    assert "a: 0.05 at ρ = 0.05" in chart.description


def test_logarithmic_axes_leave_out_what_has_no_logarithm_and_linear_ones_keep_it():
    flat = measured(profile_one_step=np.array([-0.1, 0.0, 0.03, np.nan]))
    for log, kept in ((True, 1), (False, 3)):
        _, lines = layers(charts.rise_profile([("a", flat)], log=log))[1]
        assert sum(r["what"] == "one_step" for r in lines) == kept


def test_a_profile_without_a_rise_at_rho_is_drawn():
    marks = layers(charts.rise_profile([("a", measured(sharpness=float("nan")))]))
    assert marks  # it was measured without "sharpness": there is no ring to draw


def test_noise_band_is_two_standard_errors():
    _, band = layers(charts.noise_profile([("a", measured())], log=False))[0]
    row = next(r for r in band if r["sigma"] == 0.05)
    assert row["high"] - row["low"] == pytest.approx(4 * 10 * 0.05**2)
    wide = measured(noise_stderr=np.full(4, 1.0))
    _, band = layers(charts.noise_profile([("a", wide)], log=True))[0]
    assert all(r["low"] > 0 for r in band)


def test_measures_have_one_panel_each_and_bars_of_their_uncertainty():
    chart = charts.measures([("a", measured()), ("b", measured(trace=100.0))])
    spec = chart.to_dict()
    assert len(spec["concat"]) == len(charts.PANELS)
    trace = spec["concat"][1]
    rows = {r["model"]: r for r in rows_of(trace["layer"][0], trace, spec["datasets"])}
    assert rows["b"]["low"] == pytest.approx(100 - 2 * 7.0)
    only = charts.measures([("a", measured(trace=np.nan, sharpness=np.nan, m_sharpness=np.nan))])
    assert len(only.to_dict()["concat"]) == len(charts.PANELS) - 3


def test_an_eigenvalue_whose_search_has_not_converged_is_shown_as_a_bound():
    cut = measured(lambda_max_converged=False, lambda_max_scaled_converged=False, lambda_max_residual=9.0)
    table = page_module.numbers([("a", measured()), ("b", cut)]).set_index(TEXT("row"))
    assert list(table.loc[TEXT("row.lambda_max")]) == ["30 ± 0.02", "≥ 30"]
    assert table.loc[TEXT("row.quadratic_rise"), "b"].startswith("≥ ")
    spec = charts.measures([("a", measured()), ("b", cut)]).to_dict()
    panel = spec["concat"][0]
    rows = {r["model"]: r for r in rows_of(panel["layer"][0], panel, spec["datasets"])}
    assert rows["a"]["high"] > 30 and rows["b"]["low"] == rows["b"]["high"] == 30
    assert (rows["a"]["bound"], rows["b"]["bound"]) == ("", "≥")


def experiment_result(n_seeds=3):
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(n_seeds):
        for group, size, factor in (("small", 16, 1.0), ("large", 256, 10.0)):
            row = {name: factor * (1 + 0.1 * rng.random()) for name in charts.EXPERIMENT_PANELS}
            row |= {"sigma_tolerated": 0.1 / factor, "held_out_accuracy": 0.9 + 0.01 * rng.random()}
            row |= {"train_accuracy": 1.0, "held_out_loss": 0.3, "reached": True, "epochs": 3.0}
            rows.append({"group": group, "seed": seed, "batch_size": size, "lr": 0.05, **row})
    settings = {"small": 16, "large": 256, "random_state": 0}
    return BatchSizeResult(settings=settings, rows=rows, claims=judge(rows), target_loss=0.05)


def test_experiment_chart_has_a_dot_a_run_and_a_line_a_seed():
    spec = charts.experiment(experiment_result()).to_dict()
    assert len(spec["concat"]) == len(charts.EXPERIMENT_PANELS)
    panel = spec["concat"][1]
    assert len(rows_of(panel["layer"][1], panel, spec["datasets"])) == 6
    assert panel["layer"][0]["encoding"]["detail"]["field"] == "seed"
    assert panel["title"]["text"] == TEXT("narrow.lambda_max")


def test_every_chart_becomes_a_picture():
    both = [("a", measured()), ("b", measured(loss=0.2))]
    pictures = (charts.rise_profile(both), charts.noise_profile(both), charts.measures(both))
    for chart in (*pictures, charts.experiment(experiment_result(1))):
        assert export.chart_bytes(chart, "svg").startswith(b"<svg")
        assert chart.description


# ---- texts and tables ----


def test_every_measure_claim_and_row_has_its_words():
    for name in MEASURES:
        assert TEXT("measure." + name)
    for claim in experiment_result().claims:
        assert TEXT("claim." + claim["key"]).endswith(".")
    for name in page_module.ROWS:
        assert TEXT("row." + name)


def test_table_shows_uncertainty_and_says_vacuous():
    table = page_module.numbers(
        [("a", measured()), ("b", measured(trace=np.nan, pac_bayes={}, pac_bayes_bound=np.nan))]
    )
    cells = dict(zip(table.iloc[:, 0], table["a"], strict=True))
    assert cells[TEXT("row.trace")] == "200 ± 7"
    assert cells[TEXT("row.pac_bayes_bound")] == "1.2 (vacuous)"
    assert cells[TEXT("row.first_order")] == "0.015"
    other = dict(zip(table.iloc[:, 0], table["b"], strict=True))
    assert other[TEXT("row.trace")] == "–"


def test_effects_are_said_with_their_interval():
    claims = {claim["key"]: claim for claim in experiment_result().claims}
    assert claims["lambda_max"]["verdict"] == "supported"
    assert "large / small" in batch_module.effect(claims["lambda_max"])
    assert "95 % interval" in batch_module.effect(claims["gap_loss"])
    assert "τ" in batch_module.effect(claims["flat_generalises"])
    single = {claim["key"]: claim for claim in experiment_result(1).claims}
    assert batch_module.effect(single["trace"]) == TEXT("effect.none")


# ---- the page ----


def test_a_job_runs_from_the_page_and_a_second_model_is_compared():
    at = page().run()
    assert not at.exception
    at.segmented_control(key="subject.from").set_value("timm").run()
    at.number_input(key="subject.samples").set_value(64)
    at.pills(key="sharpness.measures").set_value(["sharpness", "average"])
    at.number_input(key="sharpness.n_steps").set_value(3)
    at.number_input(key="sharpness.n_draws").set_value(4).run()
    at.button(key="sharpness.run").click().run()
    assert not at.exception
    assert jobs.get_queue().wait(120)
    at.run()
    assert not at.exception
    job = jobs.latest("sharpness")
    assert job.state == jobs.DONE, job.error
    assert job.result.sharpness > 0
    assert np.isnan(job.result.trace)
    table = at.dataframe[0].value
    assert f"{job.result.sharpness:.4g}" in set(table.iloc[:, 1])
    assert len(at.get("vega_lite_chart")) == 1  # only the measures: no profile was asked for
    # The printed script is a program that names what was chosen.
    script = job.config["script"]
    ast.parse(script)
    assert "measures=('sharpness', 'average')" in script and "n_steps=3" in script
    # It comes back from disk.
    (saved,) = runs.list_runs()
    assert runs.load_result(saved).sharpness == job.result.sharpness
    # Pin it, measure another seed: both are in the table.
    pin = next(b for b in at.button if b.label == texts("common")("pin"))
    pin.click().run()
    at.number_input(key="subject.seed").set_value(1).run()
    at.button(key="sharpness.run").click().run()
    assert jobs.get_queue().wait(120)
    at.run()
    assert not at.exception
    assert at.dataframe[0].value.shape[1] == 3


def test_nothing_chosen_and_a_bad_file_are_said():
    at = page().run()
    at.segmented_control(key="subject.from").set_value("timm").run()
    at.pills(key="sharpness.measures").set_value([]).run()
    assert any(TEXT("nothing_chosen") in error.value for error in at.error)
    assert at.button(key="sharpness.run").disabled


def test_the_experiment_runs_from_the_page():
    at = experiment_page()
    assert not at.exception
    at.number_input(key="subject.samples").set_value(32)
    at.number_input(key="subject.image_size").set_value(16)
    at.number_input(key="sharpness.batch.small").set_value(8)
    at.number_input(key="sharpness.batch.large").set_value(24)
    at.number_input(key="sharpness.batch.seeds").set_value(1)
    at.number_input(key="sharpness.batch.target").set_value(2.0)
    at.number_input(key="sharpness.batch.epochs").set_value(2).run()
    at.button(key="sharpness.batch.run").click().run()
    assert not at.exception
    assert jobs.get_queue().wait(240)
    at.run()
    assert not at.exception
    job = jobs.latest("sharpness.batch")
    assert job.state == jobs.DONE, job.error
    assert [row["group"] for row in job.result.rows] == ["small", "large"]
    # one pair decides nothing, and two vacuous bounds or two lower bounds are no comparison
    verdicts = {claim["key"]: claim["verdict"] for claim in job.result.claims}
    assert verdicts.pop("pac_bayes_bound") in ("not clear here", "not comparable")
    assert verdicts.pop("sharpness") == "not comparable"
    assert set(verdicts.values()) == {"not clear here"}
    ast.parse(job.config["script"])
    json.dumps(job.config)
    assert len(at.get("vega_lite_chart")) == 1


def test_batch_sizes_in_the_wrong_order_are_said_before_the_run():
    at = experiment_page()
    at.number_input(key="sharpness.batch.small").set_value(300).run()
    assert any(TEXT("batch.order") in error.value for error in at.error)
    assert at.button(key="sharpness.batch.run").disabled


def test_a_reopened_experiment_opens_its_own_view():
    jobs.adopt("sharpness.batch", "Batch 16 against 256", experiment_result(), {}, "some-run")
    at = page().run()
    assert not at.exception
    assert at.segmented_control(key="sharpness.view").value == "batch"
    assert len(at.get("vega_lite_chart")) == 1
