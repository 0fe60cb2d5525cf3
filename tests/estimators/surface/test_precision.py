"""`precision="auto"`: what is faster is told by a clock of the test's own, never by the machine."""

from itertools import accumulate, cycle

import numpy as np
import pytest
import torch
from torch import nn

from estimators import Landscape, SurfaceMapper, load_data, load_model, train
from estimators.surface import _mapper, _precision
from estimators.surface._precision import choose_precision

OPTIONS = {"mode": "adaptive", "resolution": 21, "tolerance": 0.05, "random_state": 1}


class Killed(BaseException):
    """What a kill is to the program."""


@pytest.fixture(scope="module")
def subject():
    """A small network in use, and its examples."""
    data = load_data("digits", image_size=8, n_samples=48)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16), nn.Tanh(), nn.Linear(16, 10))
    return train(model, data, epochs=12, batch_size=16, lr=0.1, random_state=0).model, data


@pytest.fixture
def takes(monkeypatch):
    """Say how many times as long bfloat16 takes."""

    def say(times):
        ticks = accumulate(cycle([0.0, 1.0, 0.0, times]))  # of each pair: float32 begins and ends, then bfloat16
        monkeypatch.setattr(_precision, "clock", lambda: next(ticks))

    return say


def test_the_deviation_of_bfloat16_is_in_the_error_of_every_cell(subject, takes):
    takes(0.5)
    found = SurfaceMapper(precision="auto", **OPTIONS).fit(*subject)
    settings, estimate = found.result_.settings, found.error_estimate_
    assert settings["precision"] == "bfloat16" and any("bfloat16 was chosen" in note for note in found.notes_)
    choice = settings["precision_choice"]
    assert (choice["float32_seconds"], choice["bfloat16_seconds"]) == (1.0, 0.5)
    assert 0 < choice["share"] <= 0.3 * OPTIONS["tolerance"]
    assert estimate.min() >= choice["difference"] > 0 and not found.evaluated_.all()
    assert np.unique(estimate[found.evaluated_]).size == 1, "an evaluated cell has no other error than its rounding"
    asked = SurfaceMapper(precision="bfloat16", resolution=21, random_state=1).fit(*subject)
    assert np.array_equal(found.losses_[found.evaluated_], asked.losses_[found.evaluated_])
    exact = np.log(SurfaceMapper(resolution=21, random_state=1).fit(*subject).losses_)
    error = np.abs(np.log(found.losses_) - exact)
    assert error[found.evaluated_].max() > 0
    assert (error <= estimate).mean() >= 0.9
    assert error.max() <= OPTIONS["tolerance"] * np.ptp(exact)
    assert found.converged_ and choice["share"] < found.largest_error_ <= OPTIONS["tolerance"]
    assert (asked.error_estimate_ > 0).all(), "also where bfloat16 was asked for"


@pytest.mark.parametrize(("first", "then", "precision"), [(0.5, 3.0, "bfloat16"), (3.0, 0.5, "float32")])
def test_a_killed_map_goes_on_in_the_precision_it_was_begun_in(
    subject, takes, tmp_path, monkeypatch, first, then, precision
):
    takes(first)
    whole = SurfaceMapper(precision="auto", **OPTIONS).fit(*subject)
    assert whole.result_.settings["precision"] == precision
    original, left = Landscape.evaluate, 60

    def counting(self, anchors, coefficients, **kwargs):
        nonlocal left
        left -= len(coefficients)
        if left < 0:
            raise Killed
        return original(self, anchors, coefficients, **kwargs)

    monkeypatch.setattr(Landscape, "evaluate", counting)
    takes(first)
    with pytest.raises(Killed):
        SurfaceMapper(precision="auto", memory=tmp_path, **OPTIONS).fit(*subject)
    left = 10_000
    takes(then)  # the machine is another now, and would choose the other one
    resumed = SurfaceMapper(precision="auto", memory=tmp_path, **OPTIONS).fit(*subject)
    assert left > 10_000 - whole.n_evaluated_, "what was evaluated before the kill is there"
    for name in ("losses_", "evaluated_", "error_estimate_", "accuracies_"):
        assert np.array_equal(getattr(resumed, name), getattr(whole, name)), name
    assert resumed.result_.settings == whole.result_.settings and resumed.notes_ == whole.notes_


def assert_same_as_float32(found, subject, **options):
    expected = SurfaceMapper(**(OPTIONS | options)).fit(*subject)
    for name in ("losses_", "evaluated_", "error_estimate_"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert found.result_.settings["precision"] == "float32"
    assert "bfloat16_deviation" not in found.result_.settings


def test_a_deviation_that_does_not_fit_goes_back_to_float32_and_says_so(subject, takes):
    takes(0.5)
    found = SurfaceMapper(precision="auto", **(OPTIONS | {"tolerance": 1e-4, "resolution": 11})).fit(*subject)
    assert_same_as_float32(found, subject, tolerance=1e-4, resolution=11)
    assert found.result_.settings["precision_choice"]["share"] > 0.3e-4
    assert any("float32 was chosen: bfloat16 is off by" in note for note in found.notes_)


def test_what_is_slower_is_not_taken(subject, takes):
    takes(0.95)
    found = SurfaceMapper(precision="auto", **OPTIONS).fit(*subject)
    assert_same_as_float32(found, subject)
    assert any("a point takes 950 ms in bfloat16 and 1000 ms in float32" in note for note in found.notes_)


def test_a_hopeless_precision_is_not_compared_at_every_node(subject, takes, monkeypatch):
    takes(12.0)
    asked = []
    original = Landscape.evaluate
    monkeypatch.setattr(
        Landscape, "evaluate", lambda self, *a, **k: asked.append(self.precision) or original(self, *a, **k)
    )
    SurfaceMapper(precision="auto", **OPTIONS).fit(*subject)
    assert asked.count("bfloat16") == 2


class ThroughNumpy(nn.Module):
    """A network that computes a part in numpy, which has no bfloat16."""

    def __init__(self):
        super().__init__()
        self.weights = nn.Linear(192, 10)

    def forward(self, x):
        return torch.from_numpy(np.tanh(self.weights(x.flatten(1)).detach().numpy()))


def test_a_network_that_does_not_run_in_bfloat16_is_mapped_in_float32(subject, takes):
    takes(0.5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ThroughNumpy(), subject[1]
    found = SurfaceMapper(precision="auto", **OPTIONS).fit(*network)
    assert_same_as_float32(found, network)
    assert any("can't be run in bfloat16" in note for note in found.notes_)


def test_what_only_the_whole_map_shows_begins_it_again_in_float32(subject, takes, tmp_path, monkeypatch):
    takes(0.5)
    monkeypatch.setattr(_mapper, "apart", lambda losses, linear: (1.0, 1.0))
    found = SurfaceMapper(precision="auto", memory=tmp_path, **OPTIONS).fit(*subject)
    assert_same_as_float32(found, subject)
    assert found.result_.settings["precision_choice"]["difference"] == 1.0
    assert any("float32 was chosen: bfloat16 is off by" in note for note in found.notes_)
    again = SurfaceMapper(precision="auto", memory=tmp_path, **OPTIONS).fit(*subject)
    assert again.notes_ == found.notes_ and np.array_equal(again.losses_, found.losses_)


def test_an_exact_map_stays_in_float32_and_says_so(subject, takes):
    takes(0.5)
    found = SurfaceMapper(precision="auto", resolution=5).fit(*subject)
    assert found.result_.settings["precision"] == "float32" and not found.error_estimate_.any()
    assert any("for adaptive maps alone" in note for note in found.notes_)


def test_a_budget_that_is_too_short_to_compare_keeps_float32(subject):
    land = Landscape(*subject)
    mixed = Landscape(*subject, precision="bfloat16")
    weights = np.array([[0.0], [0.5], [1.0]])
    choice = choose_precision(land, lambda: mixed, [land.theta], weights, 0.1, lambda done, total: None, lambda: True)
    assert choice.precision == "float32" and "time budget" in choice.why


def test_a_budget_that_was_too_short_to_compare_chooses_for_no_other_fit(subject, takes, tmp_path, monkeypatch):
    takes(0.5)
    monkeypatch.setattr(_mapper, "FOR_CHOICE", 0.0)  # no time to compare at all
    hurried = SurfaceMapper(precision="auto", time_budget=600.0, memory=str(tmp_path), **OPTIONS).fit(*subject)
    assert any("time budget is too short" in note for note in hurried.notes_)
    takes(0.5)
    later = SurfaceMapper(precision="auto", memory=str(tmp_path), **OPTIONS).fit(*subject)
    assert later.result_.settings["precision"] == "bfloat16"


def test_held_out_losses_and_a_closer_look_are_measured_in_the_precision_of_their_own_map(subject, takes):
    takes(0.5)
    fitted = SurfaceMapper(precision="auto", **OPTIONS).fit(*subject, held_out=subject[1])
    assert fitted.result_.settings["precision"] == "bfloat16"
    assert np.array_equal(fitted.held_out_losses_[fitted.evaluated_], fitted.losses_[fitted.evaluated_])
    takes(3.0)
    closer = fitted.look_closer((0.0, 0.0))
    assert closer.result_.settings["precision"] == "float32"
    assert closer.losses_[10, 10] == Landscape(*subject).loss()


def test_a_network_with_batch_norm_and_marks(digits, takes):
    takes(0.5)
    data = digits.subset(32)
    model = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    found = SurfaceMapper(precision="auto", **(OPTIONS | {"resolution": 9, "tolerance": 0.2})).fit(
        model, data, marked={"itself": model}
    )
    assert found.result_.settings["precision"] == "bfloat16"
    assert found.markers_[0]["map_loss"] == found.loss_ == found.losses_[4, 4]
