"""Marks on a map: own losses beside the colours under them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from estimators.surface._inputs import Group
from estimators.surface._marks import Mark, compare

AXES = (np.linspace(-1.0, 1.0, 5), np.linspace(-1.0, 1.0, 5))
LOSSES = np.exp(AXES[0][:, None] ** 2 + AXES[1][None, :] ** 2)


def mark(x, y, loss, distance, *, label="m"):
    unknown = [float("nan")] * len(x)
    columns = {"x": x, "y": y, "loss": loss, "accuracy": unknown, "distance": distance, "map_loss": unknown}
    return Mark(Group(label, tuple(x), len(x) > 1), {**columns, "differs": [False] * len(x)})


def compared(given, *, exact=1.0, batch_norm=False):
    land = SimpleNamespace(theta=torch.ones(100), has_batch_norm=batch_norm, batch_norm="recompute")
    return compare(given, land, AXES, LOSSES, 0.05, lambda where: np.full(len(where), exact))


def test_a_mark_of_the_same_colour_has_no_note():
    found = compared(mark([0.1], [0.0], [1.02], [0.0]))
    assert found.columns["map_loss"] == [1.0] and found.columns["differs"] == [False] and found.note == ""
    assert found.entry()["map_loss"] == 1.0 and found.entry()["label"] == "m"


@pytest.mark.parametrize(
    ("distance", "exact", "batch_norm", "why"),
    [
        (0.0, 5.0, True, "the grid steps over it, the loss of the plane at its place is 5"),
        (3.0, 1.0, True, "it lies 3 off the plane"),
        (0.0, 1.0, True, "its own batch-norm statistics are not the map's (recompute)"),
        (0.0, 1.0, False, "it differs in weights that the map does not move"),
    ],
)
def test_a_mark_of_another_colour_says_why(distance, exact, batch_norm, why):
    found = compared(mark([0.0], [0.0], [5.1], [distance]), exact=exact, batch_norm=batch_norm)
    assert found.columns["differs"] == [True]
    assert found.note == f"m: own loss 5.1, colour under it 1: {why}."


def test_a_trajectory_counts_its_checkpoints_and_what_lies_outside_has_no_colour():
    found = compared(mark([0.0, 1.0, 9.0], [0.0, 1.0, 0.0], [5.0, float("inf"), 1.0], [0.0] * 3, label="sgd"))
    assert found.columns["map_loss"][:2] == [1.0, pytest.approx(np.exp(2.0))]
    assert np.isnan(found.columns["map_loss"][2])
    assert found.columns["differs"] == [True, True, False]
    assert found.note.startswith("2 of 3 checkpoints of sgd: own loss inf")
    assert isinstance(found.entry()["loss"], list)
    assert found.is_measured and not mark([0.0], [0.0], [float("nan")], [0.0]).is_measured
