"""The engine where the answer is known, and whether the check would notice a mistake in the engine."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

import estimators
from estimators import KNOWN_LANDSCAPES, Landscape, Result, check_installation
from estimators.connectivity import _path
from estimators.core.means.averages import RunningMean
from estimators.core.saddles.objectives import Objective
from estimators.curvature import _steps
from estimators.known import _linear
from estimators.sharpness import _measures
from estimators.surface._planes import MapPlane


@pytest.fixture(scope="module")
def checked():
    return check_installation()


def wrong(result):
    return [(row["landscape"], row["quantity"]) for row in result.rows if not row["right"]]


def test_every_row_of_every_known_landscape_is_right_to_its_stated_error(checked):
    assert wrong(checked) == []
    assert checked.right
    assert {row["landscape"] for row in checked.rows} == set(KNOWN_LANDSCAPES)
    assert {row["engine"] for row in checked.rows} >= {
        "CurvatureEstimator", "CriticalPointFinder", "SharpnessEstimator", "ModeConnector", "SaddleEscaper",
        "SurfaceMapper", "SWAAverager", "Landscape",
    }  # fmt: skip
    assert all(row["error"] < 0.6 * max(abs(row["expected"]), 0.5) for row in checked.rows)  # a bar, not a barn door


def test_the_ladder_is_the_one_written_down(checked):
    """Figures of λ and of the losses, and loss and index climb together."""
    values, _ = _linear.covariance(_linear.tiny_digits())
    np.testing.assert_allclose(values, (1.57911, 1.16857, 0.84392, 0.40840), atol=5e-6)
    rungs = {row["rung"]: row["measured"] for row in checked.rows if row["quantity"] == "loss" and row["rung"] >= 0}
    np.testing.assert_allclose([rungs[k] for k in range(5)], (1.220415, 1.425671, 1.587981, 1.805676, 2.0), atol=5e-7)
    found = [row["measured"] for row in checked.rows if row["quantity"] == "loss found from random starts"]
    np.testing.assert_allclose(found, [rungs[k] for k in range(5)], atol=1e-9)


def test_the_result_can_be_saved_and_tells_its_errors(checked, tmp_path):
    again = Result.load(checked.save(tmp_path / "check.npz"))
    assert again.rows == checked.rows and again.right
    low, high = checked.uncertainty_of("rows.measured")[1]
    expected = np.array([row["expected"] for row in checked.rows])
    assert ((low <= expected) & (expected <= high)).all()


def flip_products(patch):
    plain = Landscape.hvp
    patch.setattr(Landscape, "hvp", lambda self, v, theta=None: -plain(self, v, theta))


def flip_gradients(patch):
    plain = Landscape._loss_and_gradient

    def flipped(self, *args):
        loss, gradient = plain(self, *args)
        return loss, -gradient

    patch.setattr(Landscape, "_loss_and_gradient", flipped)


def flip_barrier(patch):
    plain = _path.barrier
    patch.setattr(_path, "barrier", lambda t, losses: plain(t, -losses))


def flip_ascent(patch):
    plain = _measures.ascend

    def flipped(*args, **options):
        found = plain(*args, **options)
        return replace(found, rise=-found.rise)

    patch.setattr(_measures, "ascend", flipped)


def flip_noise(patch):
    plain = _measures.average_rise

    def flipped(*args, **options):
        found = plain(*args, **options)
        return replace(found, mean=-found.mean)

    patch.setattr(_measures, "average_rise", flipped)


def flip_trace(patch):
    plain = _steps.hutchpp

    def flipped(*args, **options):
        found = plain(*args, **options)
        return replace(found, value=-found.value)

    patch.setattr(_steps, "hutchpp", flipped)


def flip_map(patch):
    plain = MapPlane.coefficients
    patch.setattr(MapPlane, "coefficients", lambda self, at: plain(self, at) * [1, *[-1] * at.shape[1]])


def flip_descent(patch):
    plain = Objective.values_and_gradients

    def flipped(self, thetas, indices=None):
        values, gradients = plain(self, thetas, indices)
        return values, -gradients

    patch.setattr(Objective, "values_and_gradients", flipped)


def flip_mean(patch):
    plain = RunningMean._add
    patch.setattr(RunningMean, "_add", lambda self, total, tensor: plain(self, total, -tensor))


PLANTS = [
    (flip_products, ("linear_autoencoder", "softmax_linear", "quadratic", "deep_linear", "two_basins")),
    (flip_gradients, ("quadratic",)),
    (flip_barrier, ("two_basins",)),
    (flip_ascent, ("quadratic", "quartic_valley")),
    (flip_noise, ("quadratic", "quartic_valley")),
    (flip_trace, ("softmax_linear", "quadratic")),
    (flip_map, ("quartic_valley",)),
    (flip_descent, ("saddle",)),
    (flip_mean, ("average",)),
]


@pytest.mark.parametrize(("plant", "landscapes"), PLANTS, ids=[plant.__name__ for plant, _ in PLANTS])
def test_a_wrong_sign_in_the_engine_turns_rows_red(plant, landscapes, monkeypatch):
    plant(monkeypatch)
    result = check_installation(landscapes)
    assert not result.right
    assert {landscape for landscape, _ in wrong(result)} == set(landscapes)


def test_an_engine_that_raises_is_a_red_row_and_the_rest_is_still_measured(monkeypatch):
    def broken(self, v, theta=None):
        raise RuntimeError("no double backward here")

    monkeypatch.setattr(Landscape, "hvp", broken)
    result = check_installation(("softmax_linear", "saddle"))
    assert wrong(result) == [("softmax_linear", "stopped: no double backward here")]
    assert sum(row["landscape"] == "saddle" for row in result.rows) == 8


def test_progress_and_partial_results_are_handed_on():
    told, seen = [], []
    check_installation(
        ("saddle", "average"),
        on_progress=lambda *said: told.append(said),
        on_partial=lambda r: seen.append(len(r.rows)),
    )
    assert told[-1] == (2, 2, "done") and [message for *_, message in told[:2]] == [
        KNOWN_LANDSCAPES["saddle"].title, KNOWN_LANDSCAPES["average"].title,
    ]  # fmt: skip
    assert seen == sorted(seen) and len(seen) == 2


def test_no_rows_are_no_proof_and_an_unknown_name_is_refused():
    assert not check_installation(()).right
    with pytest.raises(ValueError, match=re.escape("names must be one of")):
        check_installation("alexnet")


def test_each_problem_is_what_any_estimator_takes():
    for known in KNOWN_LANDSCAPES.values():
        model, data, loss = known.make()
        assert np.isfinite(estimators.Landscape(model, data, loss=loss, precision="float64").loss())
        assert known.formula and known.answer and known.source
