"""The page Saddle escape, the view of critical points, and their charts."""

from __future__ import annotations

import ast
import json

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.pages.curvature import critical as critical_module
from app.pages.curvature import critical_charts
from app.pages.saddles import charts
from app.pages.saddles import page as page_module
from app.texts import texts
from app.work import jobs
from estimators import CriticalPointFinder, SaddleEscaper, pooled_digits, small_net

TEXT = texts("escape")


def draw_page():
    from app.pages.saddles import page as escape

    escape.render()


def draw_critical():
    import streamlit as st

    from app.pages.curvature import critical

    critical.render(*st.columns(2))


@pytest.fixture(scope="module")
def surface():
    return SaddleEscaper(saddle="strict_surface", max_steps=120, n_seeds=2).fit().result_


@pytest.fixture(scope="module")
def points():
    finder = CriticalPointFinder(indices=(0, 1, 2), n_starts=4, max_steps=80, l2=1e-2)
    return finder.fit(small_net(hidden=2), pooled_digits(n_samples=40)).result_


def values(at):
    return " ".join(
        str(e.value) for kind in ("markdown", "caption", "metric", "error", "warning") for e in at.get(kind)
    )


# ---- charts ----


def test_times_show_every_run_and_where_those_that_stayed_stand(surface):
    table = charts.times_table(surface)
    runs = table[table["what"] == "run"]
    assert len(runs) == 9 * 3 * 2
    stayed = runs[(runs["optimizer"] == "GD") & (runs["radius"] == "start at r = 0")]
    assert (stayed["outcome"] == "still there").all() and (stayed["steps"] == 1.5 * 120).all()
    left = runs[(runs["optimizer"] == "SGD") & (runs["radius"] == "start at r = 0")]
    np.testing.assert_array_equal(np.sort(left["steps"]), np.sort(surface.escape_steps[1, 0]))
    chart = charts.escape_times(surface, 0)
    spec = chart.to_dict()
    assert "alt" not in spec and "Leaving step of each of 2 seeds" in chart.description
    assert spec["layer"][0]["encoding"]["x"]["scale"]["type"] == "log"
    (drawn,) = (rows for rows in spec["datasets"].values() if {row["what"] for row in rows} >= {"run"})
    assert {row["radius"] for row in drawn} == {"start at r = 0"}


def test_medians_and_quartiles_are_those_of_the_runs(surface):
    table = charts.times_table(surface)
    i = surface.optimizers.index("momentum")
    expected = np.quantile(surface.escape_steps[i, 2], 0.5, method="inverted_cdf")
    row = table[(table.what == "median") & (table.optimizer == "Momentum") & (table.radius == "start at r = 0.001")]
    assert row["steps"].item() == expected


def test_paths_leave_out_what_never_moved(surface):
    rows = charts.path_table(surface, 0)
    assert set(rows["optimizer"]) == {"SGD", "Injected noise"}
    assert len(charts.path_table(surface, 2, ["gd"])) == 2 * len(surface.recorded_steps)
    chart = charts.paths(surface, 0)
    assert "SGD, Injected noise" in chart.description and "r = 0 " in chart.description


def test_curves_start_at_the_saddle_and_fall(surface):
    rows = charts.curve_table(surface, 2, ["momentum"])
    assert abs(rows["median"].iloc[0]) < 1e-6 and rows["median"].iloc[-1] < -surface.threshold
    assert (rows["low"] <= rows["median"]).all() and (rows["median"] <= rows["high"]).all()
    for log in (True, False):
        spec = charts.loss_curves(surface, 2, log=log).to_dict()
        assert spec["layer"][-1]["encoding"]["x"]["scale"]["type"] == ("log" if log else "linear")


def test_each_optimiser_keeps_its_colour(surface):
    few = SaddleEscaper(saddle="strict_surface", max_steps=5, n_seeds=1, optimizers=("adam", "sgd")).fit().result_

    def colors(result):
        scale = charts.color(result).to_dict()["scale"]
        return dict(zip(scale["domain"], scale["range"], strict=True))

    assert colors(few)["Adam"] == colors(surface)["Adam"] and list(colors(few)) == ["SGD", "Adam"]


def test_index_chart_holds_the_points_and_names_the_correlation(points):
    rows = critical_charts.point_table(points)
    assert len(rows) == points.found.sum()
    np.testing.assert_array_equal(rows["loss"], points.losses[points.found])
    assert np.abs(rows["at"] - rows["index"]).max() < 0.2
    chart = critical_charts.index_against_loss(points)
    assert f"{points.spearman['value']:.2f}" in chart.description
    for built in (chart, critical_charts.spectra(points), critical_charts.success(points)):
        assert json.dumps(built.to_dict()) and built.description


def test_spectra_are_sorted_by_loss_and_complete(points):
    spec = critical_charts.spectra(points).to_dict()
    rows = next(iter(spec["datasets"].values()))
    assert len(rows) == points.distinct.sum() * points.eigenvalues.shape[1]
    losses = [r["loss"] for r in rows]
    assert losses == sorted(losses)
    negative = sum(r["sign"] == texts("stationary.critical")("negative") for r in rows)
    assert negative == points.index[points.distinct].sum()


# ---- the page ----


def run_page(saddle, **settings):
    at = AppTest.from_function(draw_page, default_timeout=60).run()
    at.selectbox(key="escape.saddle").set_value(saddle).run()
    for name, value in settings.items():
        at.number_input(key=f"escape.{name}").set_value(value)
    at.run()
    at.button(key="escape.run").click().run()
    assert jobs.get_queue().wait(120)
    assert not at.exception
    return at.run()


def test_a_race_from_the_page():
    at = run_page("strict_surface", seeds=2, steps=150)
    assert not at.exception
    job = jobs.latest("escape")
    assert job.state == "done" and job.result.escape_steps.shape == (9, 3, 2)
    shown = values(at)
    assert "SGD noise" in shown and "left from r = 0 in" in shown
    assert "not clear here" in shown.lower(), "two directions decide nothing"
    script = job.config["script"]
    ast.parse(script)
    assert "SaddleEscaper(saddle='strict_surface', n_seeds=2, max_steps=150)" in script and ".fit()" in script


def test_the_small_network_and_its_script_can_be_run():
    at = run_page("origin", seeds=1, steps=20)
    assert "All weights are 0" in values(at)
    job = jobs.latest("escape")
    scope = {}
    exec(job.config["script"], scope)  # what a person copies must run as it is
    np.testing.assert_array_equal(scope["result"].escape_steps_, job.result.escape_steps)


def test_a_saddle_not_found_is_said():
    result = SaddleEscaper(n_starts=1, max_search=1, n_seeds=1).fit(small_net(), pooled_digits(n_samples=30)).result_
    jobs.adopt("escape", "not found", result, {})
    at = AppTest.from_function(draw_page, default_timeout=60).run()
    assert not at.exception
    assert "No saddle of index 1 was found" in values(at) and not at.dataframe


def test_divergence_is_said():
    result = SaddleEscaper(saddle="strict_surface", lr=3.0, n_seeds=1, max_steps=40, radii=(0.1,), optimizers=("gd",))
    jobs.adopt("escape", "diverged", result.fit().result_, {})
    at = AppTest.from_function(draw_page, default_timeout=60).run()
    assert "GD: 100% of the runs diverged. They count as not having left." in values(at)


def test_no_optimiser_chosen_disables_the_button():
    at = AppTest.from_function(draw_page, default_timeout=60).run()
    at.get("button_group")
    at.session_state["escape.optimizers"] = []
    at.run()
    assert TEXT("optimizers.none") in values(at)
    assert at.button(key="escape.run").disabled


def test_every_saddle_has_its_words():
    for name in (*page_module.SEARCHED, *page_module.SURFACES):
        assert TEXT(f"saddle.{name}") and TEXT(f"about.{name}")
    from estimators.core.saddles.optimizers import OPTIMIZERS
    from estimators.saddles._escaper import SADDLES
    from estimators.saddles._mechanisms import MECHANISMS

    assert set(SADDLES) == {*page_module.SEARCHED, *page_module.SURFACES}
    assert TEXT.options("optimizer") == tuple(OPTIMIZERS)
    assert all(TEXT(f"mechanism.{m.key}") for m in MECHANISMS)


# ---- critical points ----


def test_a_search_from_the_view():
    at = AppTest.from_function(draw_critical, default_timeout=60).run()
    for name, value in {"hidden": 2, "largest": 1, "starts": 2}.items():
        at.number_input(key=f"stationary.critical.{name}").set_value(value)
    at.run()
    at.button(key="stationary.critical.run").click().run()
    assert jobs.get_queue().wait(120)
    at.run()
    assert not at.exception
    job = jobs.latest("stationary.critical")
    assert job.state == "done" and len(job.result.losses) == 4
    ast.parse(job.config["script"])
    assert f"{job.result.found.sum()} / 4" in values(at)


def test_a_network_too_large_for_the_search_is_said():
    at = AppTest.from_function(draw_critical, default_timeout=60).run()
    at.selectbox(key="stationary.critical.features").set_value(64)
    at.number_input(key="stationary.critical.hidden").set_value(20).run()
    assert "more than a dense search takes" in values(at)
    assert at.button(key="stationary.critical.run").disabled


def test_results_are_drawn_with_verdict_and_table(points):
    jobs.adopt("stationary.critical", "search", points, {})
    at = AppTest.from_function(draw_critical, default_timeout=60).run()
    assert not at.exception
    table = critical_module.success_table(points)
    assert list(table["Searches"]) == [4, 4, 4]
    assert "Critical points of higher index have higher loss" in values(at)
