"""random_state has one meaning everywhere: an integer is the seed, None draws a fresh one that the result names."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn

from estimators import load_data, train
from estimators.checks import check_seed
from estimators.connectivity._connector import ModeConnector
from estimators.curvature._estimator import CurvatureEstimator
from estimators.curvature._random_points import random_critical_points
from estimators.curvature._tracker import CurvatureTracker
from estimators.experiments.batch_size import batch_size_experiment
from estimators.experiments.connectivity_cases import ConnectivityCases
from estimators.saddles._escaper import SaddleEscaper
from estimators.sharpness._estimator import SharpnessEstimator
from estimators.surface._mapper import SurfaceMapper

MEASURE = SharpnessEstimator(n_steps=2, n_restarts=1, n_draws=4, n_probes=2, n_lanczos=4, n_posterior_draws=1)


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    return load_data((torch.randn(24, 4, generator=generator), torch.arange(24) % 3))


def fits(data):
    """Every kind of estimator with little work, fitted from None."""
    yield SharpnessEstimator(measures=("average",), n_draws=4, random_state=None).fit(net(), data)
    yield CurvatureEstimator(exact_below=0, n_lanczos=4, n_probes=2, n_eigenvalues=1, random_state=None).fit(
        net(), data
    )
    yield CurvatureTracker(trace=False, max_products=8, random_state=None).fit([net(), net(1)], data)
    yield SurfaceMapper(resolution=3, random_state=None).fit(net(), data)
    yield ModeConnector(n_points=3, random_state=None).fit((net(), net(1)), data)
    yield SaddleEscaper(saddle="origin", n_seeds=2, max_steps=2, random_state=None).fit(net(), data)
    cases = {
        "cases": ("same start",),
        "train_epochs": 1,
        "fine_tune_epochs": 1,
        "n_points": 3,
        "n_seeds": 1,
        "joints": ("linear",),
    }
    yield ConnectivityCases(**cases, train_batch_size=8, random_state=None).fit(net, data)


def test_none_draws_a_seed_that_the_result_names(data):
    for fitted in fits(data):
        seed = fitted.random_state_
        assert isinstance(seed, int) and seed > 0, type(fitted)
        assert fitted.random_state is None and clone(fitted).random_state is None
        assert str(seed) in str(fitted.result_.settings), type(fitted)


def test_two_fits_from_none_differ_and_the_named_seed_repeats_one(data):
    one, two = (SharpnessEstimator(measures=("average",), n_draws=4, random_state=None).fit(net(), data) for _ in "ab")
    assert one.average_sharpness_ != two.average_sharpness_
    assert one.result_.settings["random_state"] == one.random_state_
    again = SharpnessEstimator(measures=("average",), n_draws=4, random_state=one.random_state_).fit(net(), data)
    assert again.average_sharpness_ == one.average_sharpness_
    # What is measured after the fit draws as the fit did.
    assert one.measure(net()).average_sharpness == one.average_sharpness_


def test_a_fit_that_fails_leaves_nothing_behind(data):
    estimator = SharpnessEstimator(rho=-1.0, random_state=None)
    with pytest.raises(ValueError, match="'rho' parameter of SharpnessEstimator must be"):
        estimator.fit(net(), data)
    assert estimator.random_state is None
    with pytest.raises(NotFittedError):
        estimator.transform(net())


def test_functions_take_none_too(data):
    run = train(net(), data, epochs=1, random_state=None)
    assert run.settings["random_state"] > 0
    assert random_critical_points((1, 2), n_samples=10, random_state=None).settings["random_state"] > 0
    found = batch_size_experiment(
        net, data, data, small=4, large=8, n_seeds=1, epochs=1, estimator=MEASURE, random_state=None
    )
    assert found.settings["random_state"] == found.rows[0]["seed"] > 0


def test_a_seed_is_an_integer_from_0():
    assert check_seed(np.int64(3)) == 3 and check_seed(None) != check_seed(None)
    for wrong in (-1, 1.5, True, "0"):
        with pytest.raises(ValueError, match="random_state must be an integer from 0 or None"):
            check_seed(wrong)
