"""The page Architectures and its charts: inputs, a real small job, every view, and what each chart shows."""

from __future__ import annotations

import ast

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import export
from app.pages.architectures import charts
from app.pages.architectures.views import measured, runs_table, spread, summary_table
from app.texts import texts
from app.work import jobs
from estimators.architectures._claims import judge_claims, rank_measures
from estimators.architectures._result import MEASURED, ComparisonResult, summarise
from estimators.experiments.width_sweep import WidthSweepResult, judge_width, summarise_widths

TEXT = texts("architectures")
NAMES = ["as built", "without skips", "without norm"]
TRAINING = {"batch_size": 64, "lr": 0.1, "epochs": 8}


def draw():
    from app.pages.architectures import page as architectures

    architectures.render()


def page():
    return AppTest.from_function(draw, default_timeout=120)


def row(name, changes, seed, value, ok=True):
    numbers = dict.fromkeys(MEASURED, value * (1 + 0.1 * seed) if ok else None)
    if ok:
        numbers |= {"train_accuracy": 0.99, "held_out_accuracy": 0.95 - value / 100 - seed / 1000}
    return {"variant": name, "architecture": "test_resnet", "changes": changes, "training": TRAINING, "seed": seed,
            "status": "ok" if ok else "failed: not finite after epoch 1", "n_parameters": 1000,
            "parameters_per_example": 2.0, "epochs_run": 8, "seconds_training": 1.0,
            "seconds_measuring": 2.0 if ok else None, **numbers}  # fmt: skip


def comparison(seeds=3):
    rows = []
    for seed in range(seeds):
        rows.append(row(NAMES[0], [], seed, 1.0))
        rows.append(row(NAMES[1], ["without_skips"], seed, 3.0))
        rows.append(row(NAMES[2], ["without_norm"], seed, 5.0, ok=False))
    axis = np.linspace(-1, 1, 5)
    bowl = 0.1 + axis[:, None] ** 2 + axis[None, :] ** 2
    surfaces = np.stack([bowl, 10 * bowl, np.full((5, 5), np.nan)])
    return ComparisonResult(
        table=rows, summary=summarise(rows, NAMES), names=NAMES, surfaces=surfaces, axes=np.stack([axis, axis]),
        correlations=rank_measures(rows), claims=judge_claims(rows),
        settings={"data": "digits", "n_examples": 512, "batch_norm": "frozen"},
    )  # fmt: skip


def sweep():
    rows, barriers = [], []
    for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
        for seed in (0, 1):
            rows.append({"factor": factor, "seed": seed, "status": "ok", "n_parameters": int(1000 * factor**2),
                         "parameters_per_example": 2 * factor**2, "epochs_run": 8,
                         "train_loss": 0.1 / factor + seed / 99,
                         "train_accuracy": 1.0, "held_out_loss": 0.2, "held_out_accuracy": 0.9 + seed / 50,
                         "gap": 0.1, "lambda_max": 5.0 + factor + seed})  # fmt: skip
        barriers.append({"factor": factor, "seeds": [0, 1], "barrier": 1 / factor, "why": ""})
    summary = summarise_widths(rows, barriers, 0.03)
    return WidthSweepResult(
        factors=np.array([0.25, 0.5, 1.0, 2.0, 4.0]), table=rows, barriers=barriers, summary=summary,
        claims=judge_width(rows, summary), settings={"data": "digits"},
    )  # fmt: skip


def rows_of(chart, layer):
    spec = chart.to_dict()
    one = spec["layer"][layer]
    return spec["datasets"][(one.get("data") or spec["data"])["name"]]


# --- charts ---


def test_maps_share_one_scale_and_leave_failures_out():
    result = comparison()
    assert [name for name, _ in charts.maps(result)] == NAMES[:2]
    assert charts.domain_of(result) == pytest.approx((0.1, 21.0))
    chart = charts.small_multiples(result)
    spec = chart.to_dict()
    domains = [
        layer["encoding"]["color"]["scale"]["domain"]
        for panel in spec["concat"]
        for layer in panel["layer"]
        if "scale" in layer["encoding"].get("color", {})
    ]
    assert len(domains) == 2
    assert all(domain == pytest.approx([0.1, 21.0]) for domain in domains)
    assert "as built, without skips" in chart.description
    with pytest.raises(ValueError, match=r"at least one map, got none"):
        charts.small_multiples(ComparisonResult(**{**result.__dict__, "surfaces": np.full((3, 5, 5), np.nan)}))


def test_dots_show_every_seed_the_mean_and_its_spread():
    chart = charts.dots(comparison(), "lambda_max")
    assert sorted({r["variant"] for r in rows_of(chart, 1)}) == ["as built", "without skips"]
    assert len(rows_of(chart, 1)) == 6
    bar = next(r for r in rows_of(chart, 0) if r["variant"] == "as built")
    assert bar["mean"] == pytest.approx(1.1)
    assert bar["high"] - bar["low"] == pytest.approx(2 * np.std([1.0, 1.1, 1.2], ddof=1))
    assert "3 did not train" in chart.to_dict()["layer"][1]["encoding"]["y"]["axis"]["labelExpr"]
    assert "as built 1.1 ± 0.1" in chart.description
    assert charts.dots(comparison(), "lambda_max").to_dict()["layer"][1]["encoding"]["x"]["scale"]["type"] == "log"


def test_one_seed_has_no_spread_bar():
    chart = charts.dots(comparison(seeds=1), "sharpness")
    assert rows_of(chart, 0) == []
    assert "±" not in chart.description


def test_correlations_show_interval_or_say_why_not():
    chart = charts.correlations(comparison())
    rows = rows_of(chart, 2)
    assert {r["measure"] for r in rows} == {r["measure"] for r in comparison().correlations if r["tau"] is not None}
    assert all(r["low"] <= r["tau"] <= r["high"] for r in rows)
    unknown = charts.correlations(comparison(seeds=1)).to_dict()
    assert "too few runs" in unknown["description"]


def test_gap_scatter_and_width_curves():
    assert "6 runs" in charts.against_gap(comparison(), "trace").description
    for quantity in charts.WIDTH_QUANTITIES:
        chart = charts.width_sweep(sweep(), quantity)
        assert "× 0.25" in chart.description
        assert chart.to_dict()["layer"][1]["encoding"]["x"]["scale"]["type"] == "log"
    with pytest.raises(ValueError, match=r"quantity must be one of .*got 'colour'"):
        charts.width_sweep(sweep(), "colour")


@pytest.mark.parametrize("make", [charts.small_multiples, lambda r: charts.dots(r, "gap"), charts.correlations])
def test_charts_become_files(make):
    assert export.chart_bytes(make(comparison()), "svg").startswith(b"<svg")


# --- tables and words ---


def test_tables_say_what_is_unknown():
    table = summary_table(comparison(seeds=1))
    assert list(table[TEXT("col.variant")]) == NAMES
    assert table[TEXT("quantity.lambda_max")].tolist() == ["1 ± ?", "3 ± ?", "–"]
    assert table[TEXT("col.runs")].tolist() == ["1 of 1", "1 of 1", "0 of 1"]
    assert len(runs_table(comparison())) == 9
    assert spread(0.123456, 0.01) == "0.123 ± 0.01"


def test_measurements_are_written_with_interval_claim_and_rule():
    claims = {c["key"]: c for c in comparison().claims}
    line = measured(next(m for m in claims["skips_smooth"]["measurements"] if m["measure"] == "lambda_max"))
    assert line.startswith("largest eigenvalue λ_max: × 0.333 (")
    assert "claimed smaller" in line
    assert measured(claims["norm_curvature"]["measurements"][0]).endswith("no run on one side gave a number")


# --- the page ---


def test_page_draws_before_anything_is_computed():
    at = page().run()
    assert not at.exception
    assert at.header[0].value == TEXT("title")
    assert any("12 trainings and 4 maps" in c.value for c in at.caption)


@pytest.mark.parametrize("view", ["maps", "numbers", "rank", "claims", "runs"])
def test_every_view_of_a_comparison(view):
    jobs.adopt("architectures", "t", comparison(), {"script": "print(1)", "runs": 9})
    at = page()
    at.session_state["architectures.view"] = view
    at.run()
    assert not at.exception
    assert any("3 of 9 runs did not train" in w.value for w in at.warning)
    assert not any("One seed" in i.value for i in at.info)
    if view == "claims":
        said = " ".join(m.value for m in at.markdown)
        assert TEXT("claim.skips_smooth") in said
        assert "not clear here" in said, "λ_max speaks for the claim, the basin width against it"


def test_one_seed_is_said_on_the_page():
    jobs.adopt("architectures", "t", comparison(seeds=1), {})
    assert any("spread over seeds is unknown" in i.value for i in page().run().info)


def test_width_sweep_on_the_page():
    jobs.adopt("architectures", "t", sweep(), {"script": "print(1)"})
    at = page()
    at.session_state["architectures.vary"] = "width_sweep"
    at.run()
    assert not at.exception
    said = " ".join(m.value for m in at.markdown)
    assert TEXT("claim.width_connected") in said


def test_unknown_architecture_is_answered_with_near_names():
    at = page()
    at.session_state["architectures.architecture"] = "resnet_18"
    at.run()
    assert "resnet18" in at.error[0].value
    assert at.button(key="architectures.run").disabled


def test_a_split_without_held_out_examples_is_refused():
    at = page()
    at.session_state["subject.split"] = "all"
    at.run()
    assert at.error[0].value == TEXT("split.all")
    assert at.button(key="architectures.run").disabled


def test_no_variant_disables_the_button():
    at = page().run()
    at.button_group(key="architectures.variants.components").set_value([]).run()
    assert at.error[0].value == TEXT("variants.none")
    assert at.button(key="architectures.run").disabled


def test_a_comparison_runs_from_the_page_and_its_script_is_python(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSS_ATLAS_CACHE", str(tmp_path))
    at = page()
    at.session_state["subject.samples"] = 40
    for name, value in {"seeds": 1, "epochs": 1, "resolution": 3}.items():
        at.session_state[f"architectures.{name}"] = value
    at.session_state["architectures.vary"] = "skips"
    at.run()
    at.button(key="architectures.run").click().run()
    assert jobs.get_queue().wait(200)
    job = jobs.latest("architectures")
    assert job.state == "done", job.error
    assert [r["variant"] for r in job.result.table] == ["with skips", "without skips"]
    ast.parse(job.config["script"])
    assert "presets('test_resnet')['skips']" in job.config["script"]
    at.run()
    assert not at.exception
    assert job.run_id is not None


def test_a_change_that_does_not_apply_is_said_where_the_job_is():
    at = page()
    at.session_state["architectures.vary"] = "skips"
    at.session_state["architectures.architecture"] = "test_efficientnet"
    at.session_state["subject.samples"] = 40
    at.run()
    at.button(key="architectures.run").click().run()
    assert jobs.get_queue().wait(120)
    at.run()
    assert any("without any" in e.value for e in at.error)
