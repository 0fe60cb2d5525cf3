"""Work that goes on after a stop says where."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from estimators import Cancelled, ModeConnector, SurfaceMapper, train
from estimators.connectivity import _path
from estimators.progress import resumed


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


def examples(n=24):
    torch.manual_seed(1)
    return torch.randn(n, 3, 2, 2), torch.arange(n) % 3


def stopped_then_told(work, stop):
    """Do work until `stop(done, message)`, then again; give how far the first got and what the second says."""
    reached = []

    def until(done, total, message):
        reached.append(done)
        if stop(done, message):
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        work(until)
    said = []
    work(lambda done, total, message: said.append(message))
    return reached[-1], said


def test_it_is_said_only_where_something_was_there_and_something_is_left():
    assert resumed("points", 649, 10_201) == "points, resumed at 649 of 10,201"
    assert resumed("points", 0, 5) == resumed("points", 5, 5) == "points"


def test_a_map_says_where_it_goes_on(tmp_path):
    def work(on_progress):
        mapper = SurfaceMapper(mode="exact", resolution=31, memory=str(tmp_path))
        mapper.fit(network(), examples(), on_progress=on_progress)

    reached, said = stopped_then_told(work, lambda done, message: done > 100)
    (at, of) = re.search(r"points, resumed at (\d+) of (\d+)", said[-1]).groups()
    assert int(of) == 961 and 0 < int(at) <= reached
    assert said[0] == "points"  # nothing was computed yet


def test_a_training_says_where_it_goes_on(tmp_path):
    def work(on_progress):
        train(network(), examples(), epochs=5, batch_size=8, checkpoint_dir=tmp_path, on_progress=on_progress)

    _, said = stopped_then_told(work, lambda done, message: done == 3)
    assert said[0] == "epochs, resumed at 3 of 5"


def test_a_path_says_where_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(_path, "WRITTEN_EVERY", 0.0)

    def work(on_progress):
        connector = ModeConnector(path="bezier", epochs=6, n_points=5, memory=str(tmp_path))
        connector.fit((network(0), network(1)), examples(), on_progress=on_progress)

    _, said = stopped_then_told(work, lambda done, message: "epoch 4 of 6" in message)
    assert "training the bends, resumed at 4 of 6" in said
