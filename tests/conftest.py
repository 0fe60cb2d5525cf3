"""Fixtures shared by all tests: digits, a tiny network, and two trained networks."""

import os

import pytest
import torch
from torch import nn

from estimators import load_data, load_model, train
from tests import isolation  # noqa: F401  before anything asks where the cache and the workspace are


@pytest.fixture(autouse=True, scope="session")
def _one_thread_each():
    """pytest-xdist runs one process per core: more threads would only wait for each other."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    return load_data("digits", n_samples=512)


@pytest.fixture(scope="session")
def digits_all():
    return load_data("digits")


@pytest.fixture(scope="session")
def digits_test():
    return load_data("digits", split="test")


@pytest.fixture
def tiny_mlp():
    """A smooth network of 8 → 6 → 3 with 75 parameters, in float64-friendly sizes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.fixture(scope="session")
def trained_pair(digits_all):
    """Two networks trained on digits from seeds 0 and 1."""
    models = []
    for seed in (0, 1):
        model = load_model("test_resnet", num_classes=10, image_size=32, random_state=seed)
        models.append(train(model, digits_all, epochs=8, random_state=seed).model)
    return tuple(models)
