"""Estimators and experiments ask the cache by everything that makes their numbers."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from estimators import MinimaMapper, SaddleEscaper, load_data
from estimators.base import LandscapeEstimator
from estimators.experiments import _paired, batch_size, connectivity_cases, swa_comparison, width_sweep
from estimators.saddles._small_net import pooled_digits
from estimators.sharpness._measures import MEASURES


class Asked(Exception):
    """Carries the key that was asked for."""


def refuse(memory, function, key, *live, **named):
    raise Asked(key)


def key_of(run):
    with pytest.raises(Asked) as caught:
        run()
    return caught.value.args[0]


@pytest.fixture(scope="module")
def digits3():
    return pooled_digits(n_samples=60)


RACES = {
    "unit": ({"unit": 0}, {"unit": 1}),
    "layer": ({"layer": 0}, {"layer": 1}),
    "weight decay": ({"l2": 0.0}, {"l2": 0.1}),
}


@pytest.mark.parametrize("settings", RACES.values(), ids=RACES.keys())
def test_a_race_from_another_saddle_is_another_race(digits3, tmp_path, settings):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))

    def raced(memory, **own):
        options = {"saddle": "embedding", "n_seeds": 1, "max_steps": 10, "optimizers": ("gd",), "lr": 0.1} | own
        return SaddleEscaper(**options, memory=memory).fit(copy.deepcopy(net), digits3).losses_

    kept = [raced(str(tmp_path), **own) for own in settings]
    for own, losses in zip(settings, kept, strict=True):
        np.testing.assert_array_equal(raced(None, **own), losses)
    assert not np.array_equal(*kept)


def build(activation, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 8), activation, nn.Linear(8, 10))


@pytest.mark.parametrize("experiment", ["batch size", "swa"])
def test_an_experiment_with_another_architecture_is_another_one(monkeypatch, tmp_path, experiment):
    data = load_data("digits", n_samples=32, image_size=8)
    monkeypatch.setattr(_paired, "cached_call", refuse)

    def run(activation):
        if experiment == "batch size":
            batch_size.batch_size_experiment(lambda seed: build(activation), data, data, memory=str(tmp_path), small=8)
        else:
            swa_comparison.swa_experiment(
                lambda seed: build(activation), lambda seed: (data, data), memory=str(tmp_path), n_seeds=1
            )

    keys = [key_of(lambda a=a: run(a)) for a in (nn.Tanh(), nn.ReLU(), nn.Tanh())]
    assert keys[0] == keys[2] != keys[1]


def test_a_map_of_minima_is_asked_by_what_no_path_moves(monkeypatch, tmp_path):
    """Backbones are frozen; only the heads make up the paths."""
    inputs = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    data = (inputs, torch.arange(30) % 3)

    def networks(scale=1.0, seed=0):
        made = []
        for head in (1, 2):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
            net[0].requires_grad_(False).weight.data.mul_(scale)
            torch.manual_seed(head)
            nn.init.normal_(net[2].weight)
            made.append(net)
        return made

    def barriers(models, memory):
        return MinimaMapper(n_points=5, memory=memory, compare=None, layout="barrier").fit(models, data).profiles_

    first, second = (barriers(networks(scale), str(tmp_path)) for scale in (1.0, 4.0))
    np.testing.assert_array_equal(second, barriers(networks(4.0), None))
    assert not np.array_equal(first, second)


def test_a_trained_pair_is_asked_by_which_parameters_move(monkeypatch, tmp_path):
    data = load_data("digits", n_samples=32, image_size=8)
    monkeypatch.setattr(LandscapeEstimator, "_cached", lambda self, function, key, *a, **k: refuse(None, None, key))
    cases = connectivity_cases.ConnectivityCases(memory=str(tmp_path))

    def asked(freeze, activation=None):
        net = build(activation or nn.Tanh())
        net[1].requires_grad_(not freeze)
        return key_of(lambda: cases._train(net, data, 0, lambda *_: None, epochs=1, lr=0.1))

    assert asked(False) == asked(False)
    assert asked(False) != asked(True) and asked(False) != asked(False, nn.ReLU())


def test_a_line_between_widths_is_asked_by_the_networks(monkeypatch):
    data = load_data("digits", n_samples=32, image_size=8)
    monkeypatch.setattr(width_sweep.cache, "cached_call", refuse)
    monkeypatch.setattr(width_sweep, "build", lambda task: build(task.activation))

    def asked(activation):
        variant = SimpleNamespace(name="width × 1")
        task = SimpleNamespace(data=data, options={}, memory=None, variant=variant, activation=activation)
        row = {"seed": 0, "changes": ("with_width=1",)}
        pair = [SimpleNamespace(state=build(activation, seed).state_dict(), row=row) for seed in (1, 2)]
        return key_of(lambda: width_sweep.WidthSweep()._barrier(task, pair, lambda *_: None))

    assert asked(nn.Tanh()) == asked(nn.Tanh()) != asked(nn.ReLU())


def test_a_measure_sees_no_option_that_its_key_lacks(tmp_path):
    """Every measure runs with nothing but the options of its key."""
    from estimators import SharpnessEstimator

    data = load_data("digits", n_samples=32, image_size=8)
    estimator = SharpnessEstimator(measures="all", n_steps=2, n_draws=3, n_probes=2, n_lanczos=4, m=16, tol=0.5)
    estimator.fit(build(nn.Tanh()), data)
    assert set(estimator.measures_) <= set(MEASURES)
