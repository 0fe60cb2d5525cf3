"""The grid on its own: a quadratic in place of a network."""

import numpy as np
import pytest
import torch

from estimators.surface._grid import Grid
from estimators.surface._planes import MapPlane

AXIS = np.linspace(-1.0, 1.0, 21)


def plane(k, number=0):
    return MapPlane(torch.full((k,), float(number)), torch.eye(k), [""] * k)


def losses(coordinates):
    return 0.1 + (coordinates**2 @ np.arange(1.0, 1.0 + coordinates.shape[1]))


class Measure:
    """Counts what it is asked for."""

    def __init__(self):
        self.n_asked = 0

    def __call__(self, plane, coordinates, arrived):
        self.n_asked += len(coordinates)
        found = losses(coordinates) + float(plane.origin[0])
        half = len(coordinates) // 2
        for which in (np.arange(half, len(coordinates)), slice(0, half)):  # in any order, a quantity at a time
            arrived(which, {"losses": found[which]})
            arrived(which, {"accuracies": np.full(len(found[which]), 0.5)})


def grid(*axes, planes=None, centre=None):
    return Grid(
        planes or [plane(len(axes))], axes, [0.0] * len(axes) if centre is None else centre, ["losses", "accuracies"]
    )


def test_every_node_is_asked_for_once_and_the_centre_is_that_of_the_map():
    measure, filled = Measure(), grid(AXIS, AXIS[::2])
    for _ in filled.fill_exactly(measure, 64):
        pass
    found = filled.as_fields()
    x, y = np.meshgrid(AXIS, AXIS[::2], indexing="ij")
    np.testing.assert_allclose(found["losses"], 0.1 + x**2 + 2 * y**2)
    assert measure.n_asked == found["n_evaluated"] == filled.expected == found["losses"].size
    assert found["converged"] and found["largest_error"] == 0.0 and not found["error_estimate"].any()
    assert found["loss"] == pytest.approx(0.1)
    assert not any(filled.fill_exactly(measure, 64)) and measure.n_asked == found["losses"].size


def test_a_picture_of_an_exact_map_is_completed_and_forgets_nothing_exact():
    measure, filled = Measure(), grid(AXIS, AXIS)
    pictures = filled.fill_exactly(measure, 64)
    next(pictures)
    assert np.isnan(filled.as_fields()["losses"]).sum() == 21 * 21 - 9
    filled.sketch()
    shown = filled.as_fields()
    assert np.isfinite(shown["losses"]).all() and shown["evaluated"].sum() == 9
    assert not shown["converged"] and np.isnan(shown["error_estimate"]).sum() == 21 * 21 - 9
    np.testing.assert_allclose(shown["accuracies"], 0.5)
    for _ in pictures:
        pass
    np.testing.assert_allclose(filled.first_losses()[10], 0.1 + 2 * AXIS**2)


def test_an_adaptive_map_expects_what_it_will_ask_for_and_can_be_finished():
    measure, filled = Measure(), grid(AXIS, AXIS)
    expected = [filled.expected for _ in filled.fill_adaptively(measure, 0.02)]
    assert expected[-1] == measure.n_asked == filled.n_evaluated < 21 * 21
    assert filled.converged and 0 < filled.largest_error <= 0.02
    for _ in filled.fill_exactly(measure, 64):
        pass
    assert measure.n_asked == 21 * 21 and filled.largest_error == 0.0


def test_profiles_of_several_planes_and_slices_of_a_volume_have_their_places():
    several = grid(AXIS, planes=[plane(1, n) for n in range(3)])
    for _ in several.fill_exactly(Measure(), 64):
        pass
    np.testing.assert_allclose(several.as_fields()["losses"][:, 10], [0.1, 1.1, 2.1])
    np.testing.assert_allclose(several.first_losses(), 0.1 + AXIS**2)
    volume = grid(AXIS[::5], AXIS[::5], AXIS[::10], centre=[0.5, 0.0, 0.0])
    for _ in volume.fill_exactly(Measure(), 64):
        pass
    found = volume.as_fields()
    assert found["losses"].shape == (5, 5, 3)
    assert found["losses"][4, 1, 2] == pytest.approx(0.1 + 1.0 + 2 * 0.25 + 3.0)
    assert found["loss"] == pytest.approx(0.1 + 0.25)


def test_nodes_for_a_comparison_are_evaluated_finite_and_spread():
    filled = grid(AXIS, AXIS)

    def measure(plane, coordinates, arrived):
        values = np.where(coordinates[:, 0] > 0, np.nan, losses(coordinates))
        arrived(slice(None), {"losses": values, "accuracies": np.zeros(len(values))})

    for _ in filled.fill_exactly(measure, 64):
        pass
    _, where, values = filled.spread_nodes(9)
    assert len(values) == 9 and (where[:, 0] <= 0).all()
    np.testing.assert_allclose(values, losses(where))
    assert where[0].tolist() == [-1.0, -1.0] and where[-1].tolist() == [0.0, 1.0]
    assert filled.as_fields()["n_not_finite"] == 10 * 21
