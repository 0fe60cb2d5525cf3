"""Flat or sharp among reference networks: the rank by each measure, and the answer that follows."""

from __future__ import annotations

import dataclasses

import pytest
from streamlit.testing.v1 import AppTest

from app.catalog import DataSpec, PointSpec
from app.pages.sharpness import page, reference
from app.texts import texts
from app.work import jobs
from estimators import SharpnessEstimator
from tests.app.pages.test_sharpness import measured

TEXT = texts("sharpness")


def at(scale):
    return measured(**{name: scale * getattr(measured(), name) for name in reference.COMPARED})


@pytest.mark.parametrize(("scale", "said"), [(0.5, "flat"), (2.0, "between"), (9.0, "sharp")])
def test_the_answer_is_the_place_among_the_references_by_every_measure(scale, said):
    rows = reference.standing(at(scale), [at(1.0), at(3.0)])
    assert [name for name, *_ in rows] == list(reference.COMPARED)
    assert {flatter for _, flatter, _ in rows} == {{"flat": 0, "between": 1, "sharp": 2}[said]}
    assert reference.answer(rows) == said


def test_one_measure_among_the_references_leaves_it_open():
    mixed = dataclasses.replace(at(0.5), lambda_max=2 * measured().lambda_max)
    assert reference.answer(reference.standing(mixed, [at(1.0), at(3.0)])) == "between"
    unmeasured = measured(**dict.fromkeys(reference.COMPARED, float("nan")))
    assert reference.answer(reference.standing(unmeasured, [at(1.0)])) == "between"


def test_references_are_trained_to_the_loss_of_the_model_and_measured_as_it_was(monkeypatch):
    monkeypatch.setattr(reference, "RECIPES", ((16, 0), (32, 0)))
    monkeypatch.setattr(reference, "EPOCHS", 1)
    estimator = SharpnessEstimator(measures=("lambda_max",), n_lanczos=10)
    data, point = DataSpec(n_samples=64), PointSpec()
    result = estimator.fit(point.load(), data.load()).result_
    params = {k: v for k, v in estimator.get_params(deep=False).items() if k != "memory"}
    config = {"points": {"model": point.as_dict()}, "data": data.as_dict(), "params": params}
    owner = jobs.adopt(page.PAGE, "mine", result, config)

    def draw():
        from app.pages.sharpness import page

        page.render()

    app = AppTest.from_function(draw, default_timeout=60).run()
    app.button(key="sharpness.reference").click().run()
    assert not app.exception
    assert jobs.get_queue().wait(120)
    app.run()
    assert not app.exception
    job = jobs.latest(reference.JOB)
    assert job.error is None and job.config == {"of": owner.id}
    assert [found.settings["n_examples"] for found in job.result] == [64, 64]
    rows = reference.standing(result, job.result)
    assert f"**{TEXT('reference.' + reference.answer(rows))}**" in [m.value for m in app.markdown]
