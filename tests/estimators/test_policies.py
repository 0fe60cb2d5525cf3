"""batch_norm="auto": re-estimated where points come from several networks, frozen around one, and said."""

import inspect

import numpy as np
import pytest
import torch

import estimators
from estimators import (
    CurvatureEstimator,
    CurvatureTracker,
    Landscape,
    MinimaMapper,
    ModeConnector,
    SharpnessEstimator,
    SurfaceMapper,
    SWAAverager,
    load_model,
    train,
)
from estimators.base import LandscapeEstimator


@pytest.fixture(scope="module")
def few(digits):
    return digits.subset(128, random_state=0)


@pytest.fixture(scope="module")
def three(few):
    """Three small networks trained from different starts until each knows its 128 examples."""
    return {
        name: train(
            load_model("test_resnet", num_classes=10, image_size=32, random_state=seed), few, epochs=12, batch_size=16,
            lr=0.05, random_state=seed,
        ).model
        for seed, name in enumerate("ABC")
    }  # fmt: skip


def test_auto_is_the_default_of_every_estimator():
    for name in estimators.__all__:
        found = getattr(estimators, name)
        if inspect.isclass(found) and issubclass(found, LandscapeEstimator):
            parameters = inspect.signature(found.__init__).parameters
            assert "batch_norm" not in parameters or parameters["batch_norm"].default == "auto", name
    assert inspect.signature(Landscape.__init__).parameters["batch_norm"].default == "auto"


def taken(result):
    return result.settings["batch_norm"], result.settings.get("batch_norm_chosen_by")


def test_which_policy_auto_takes_and_that_results_say_so(three, few):
    small = few.subset(32, random_state=1)
    a, b, c = three.values()
    frozen, recompute = ("frozen", "auto"), ("recompute", "auto")
    maps = {"resolution": 3}
    assert taken(SurfaceMapper(**maps).fit(a, small).result_) == frozen
    assert taken(SurfaceMapper(**maps).fit(a, small, marked={"b": b}).result_) == recompute
    assert taken(SurfaceMapper(**maps).fit([a, b], small).result_) == recompute
    assert taken(SurfaceMapper(**maps, directions="models").fit([a, b, c], small).result_) == recompute
    assert taken(SurfaceMapper(**maps, directions="linear", n_dims=1).fit([a, b], small).result_) == recompute
    assert taken(SurfaceMapper(**maps, directions="trajectory").fit([a, b, c], small).result_) == recompute
    chosen = SurfaceMapper(**maps, directions="linear", n_dims=1, batch_norm="frozen").fit([a, b], small)
    assert taken(chosen.result_) == ("frozen", None)
    assert taken(ModeConnector(n_points=3, compare=False).fit((a, b), small).result_) == recompute
    explicit = ModeConnector(n_points=3, compare=False, batch_norm="recompute").fit((a, b), small)
    assert taken(explicit.result_) == ("recompute", None)
    assert taken(MinimaMapper(n_points=3, compare=None).fit([a, b], small).result_) == recompute
    assert taken(SWAAverager().fit([a, b], small).result_) == recompute
    sharp = SharpnessEstimator(measures=("average",), n_draws=4).fit(a, small)
    assert taken(sharp.result_) == frozen
    curvature = {"n_eigenvalues": 1, "n_lanczos": 0, "n_probes": 2, "max_products": 2, "compare_traces": False}
    assert taken(CurvatureEstimator(**curvature).fit(a, small).result_) == frozen
    # a tracker measures around each checkpoint by itself
    assert taken(CurvatureTracker(trace=False, max_products=2).fit([a, b], small).result_) == frozen


def test_a_plane_through_three_models_shows_them_in_their_valleys(three, few):
    """Within 0.05 nats of their own losses, and 5 % of the range of the log-losses; not so on frozen statistics."""
    own = [Landscape(model, few).loss() for model in three.values()]
    assert max(own) < 0.2
    fitted = SurfaceMapper(directions="models", resolution=5).fit(three, few)
    places = [[m["x"], m["y"]] for m in fitted.markers_]
    assert [m["loss"] for m in fitted.markers_] == pytest.approx(own, rel=1e-6)
    np.testing.assert_allclose(fitted.evaluate(places), own, atol=0.05)
    frozen = SurfaceMapper(directions="models", resolution=5, batch_norm="frozen").fit(three, few)
    assert max(frozen.evaluate(places)[1:]) > 1.0
    assert [m["loss"] for m in frozen.markers_] == pytest.approx(own, rel=1e-6)


def test_a_mark_whose_own_loss_is_not_the_colour_under_it_says_so(three, few):
    line = {"directions": "linear", "n_dims": 1, "resolution": 7}
    honest = SurfaceMapper(**line).fit({k: three[k] for k in "AB"}, few)
    assert [m["differs"] for m in honest.markers_] == [False, False]
    assert not any("own loss" in note for note in honest.result_.notes)
    frozen = SurfaceMapper(**line, batch_norm="frozen").fit({k: three[k] for k in "AB"}, few)
    a, b = frozen.markers_
    assert not a["differs"] and b["differs"]
    assert b["map_loss"] == frozen.losses_[frozen.axes_[0] == 1.0][0]
    (note,) = [note for note in frozen.result_.notes if note.startswith("B: own loss")]
    assert "its own batch-norm statistics are not the map's (frozen)" in note
    # a mark far from the plane: distance is the reason
    off = SurfaceMapper(resolution=3, span=0.05).fit(three["A"], few, marked={"B": three["B"]})
    assert any("off the plane" in note for note in off.result_.notes) or np.isnan(off.markers_[-1]["map_loss"])


def test_an_average_carries_the_statistics_the_landscape_measures_with(three, few):
    nets = list(three.values())
    averaged = SWAAverager(batch_size=50).fit(nets, few)
    land = Landscape(nets[0], few, several_networks=True)
    theta = torch.stack([land.point(n).double() for n in nets]).mean(0)
    ours, theirs = averaged.state_dict_, land.state_dict(theta)
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-5)
    connector = ModeConnector(n_points=3, compare=False).fit((nets[0], nets[1]), few)
    middle = connector.weights_at(0.5)
    fresh = load_model("test_resnet", num_classes=10, image_size=32)
    fresh.load_state_dict(middle)
    assert Landscape(fresh, few).loss() == pytest.approx(connector.losses_[1], rel=1e-4)
