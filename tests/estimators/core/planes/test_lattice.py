import numpy as np
import pytest

from estimators.core.planes.lattice import axis_through_zero, axis_through_zero_and_one, coarse_to_fine, window


@pytest.mark.parametrize("n", [3, 4, 10, 11, 40, 41, 201])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.3, 2.0), (-5.0, 0.01), (0.0, 1.0), (-2.0, 0.0)])
def test_axes_cover_the_window_evenly_with_zero_on_the_grid(n, low, high):
    axis = axis_through_zero(low, high, n)
    assert len(axis) == n
    assert (axis == 0.0).sum() == 1
    assert axis[0] <= low + 1e-12 and axis[-1] >= high - 1e-12
    np.testing.assert_allclose(np.diff(axis), axis[1] - axis[0], rtol=1e-9)
    # covering costs less than a step at one end, except where the grid has no room to put 0 elsewhere
    if n > 4 and low == -high:
        assert axis[-1] - axis[0] < (high - low) * (n + 1) / (n - 1)


def test_symmetric_odd_axes_are_symmetric_to_the_last_bit():
    axis = axis_through_zero(-0.7, 0.7, 41)
    assert np.array_equal(axis, -axis[::-1])
    assert axis[-1] == 0.7


@pytest.mark.parametrize("n", [3, 10, 21, 41])
def test_linear_axes_hold_both_models(n):
    axis = axis_through_zero_and_one(0.25, n)
    assert len(axis) == n
    assert 0.0 in axis and 1.0 in axis


def test_window_frames_points_and_origin():
    frame = window(np.array([[1.0, -2.0], [3.0, -1.0]]), margin=0.5)
    assert frame == [(-1.5, 4.5), (-3.0, 1.0)]
    assert window(np.zeros((1, 1)), 0.2) == [(-0.7, 0.7)]
    assert window(np.array([[2.0]]), 0.0, scale=0.1) == [(0.0, 1.1)]


def test_coarse_to_fine_lists_every_node_once_and_spreads_every_prefix():
    order = coarse_to_fine((9, 13), (4, 6))
    assert sorted(order.tolist()) == list(range(9 * 13))
    assert order[0] == 4 * 13 + 6
    first = np.stack(np.unravel_index(order[:6], (9, 13)), axis=1)
    assert np.abs(first - [4, 6]).max() >= 4
