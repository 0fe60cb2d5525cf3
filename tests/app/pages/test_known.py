"""The page Known landscapes, its ladder, and the check from a terminal."""

from __future__ import annotations

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import estimators
from app import __main__ as launcher
from app.pages.known import charts, page
from app.texts import texts
from app.work import jobs
from estimators import CheckResult, check_installation

TEXT = texts("known")


def row(right=True, rung=-1, quantity="loss", **more):
    return {
        "landscape": "linear_autoencoder", "quantity": quantity, "engine": "CurvatureEstimator", "expected": 1.25,
        "measured": 1.25 if right else -1.25, "difference": 0.0 if right else -2.5, "error": 1e-9,
        "error_of": "float64 rounding", "rung": rung, "right": right, **more,
    }  # fmt: skip


def draw_page():
    from app.pages.known import page as known

    known.render()


def test_the_ladder_shows_rungs_and_what_was_measured_and_found_on_them():
    found = "loss found from random starts"
    rows = [row(rung=k, expected=1 + k, measured=1 + k) for k in range(3)]
    rows += [row(rung=k, expected=1 + k, measured=1.5 + k, quantity=found) for k in range(3)] + [row()]
    result = CheckResult(rows=rows)
    table = charts.ladder_table(result)
    assert len(table) == 9
    np.testing.assert_array_equal(table[table["kind"] == TEXT("formula")]["loss"], [1, 2, 3])
    np.testing.assert_array_equal(table[table["kind"] == TEXT("found")]["loss"], [1.5, 2.5, 3.5])
    chart = charts.ladder(result)
    assert chart.to_dict() and "3.0000 at 2" in chart.description


def test_the_check_runs_on_its_page_and_a_red_row_is_said_with_its_landscape(monkeypatch):
    monkeypatch.setattr(estimators, "check_installation", lambda **r: check_installation(("deep_linear",), **r))
    at = AppTest.from_function(draw_page, default_timeout=60).run()
    at.button[0].click().run()
    assert jobs.get_queue().wait(60)
    at.run()
    assert not at.exception
    assert any(TEXT("so_far", count=11) in str(e.value) for e in at.info)
    assert [len(frame.value) for frame in at.dataframe] == [11]
    assert set(at.dataframe[0].value[TEXT("col.verdict")]) == {TEXT("verdict.right")}
    jobs.adopt(page.PAGE, "red", CheckResult(rows=[row(rung=0), row(right=False, rung=1)]), {})
    at.run()
    assert "1 of 2 numbers disagree with their formulas: Linear autoencoder." in at.error[0].value
    assert "loss, index 1" in at.dataframe[0].value[TEXT("col.quantity")].tolist()


@pytest.mark.parametrize("right", [True, False])
def test_the_terminal_says_every_row_and_its_exit_code_is_the_verdict(right, monkeypatch, capsys):
    def checked(on_progress):
        on_progress(0, 1, "Linear autoencoder")
        return CheckResult(rows=[row(rung=2), row(right=right)], seconds=3.2)

    monkeypatch.setattr(estimators, "check_installation", checked)
    assert launcher.main(["check"]) == (0 if right else 1)
    said = capsys.readouterr()
    assert "loss, index 2" in said.out and "Linear autoencoder: ½·mean‖x − a bᵀx‖²" in said.out
    assert ("WRONG" in said.out) is not right
    assert f"{1 + right} of 2 numbers right, in 3 s." in said.out
    assert "Linear autoencoder (1 of 1)" in said.err
