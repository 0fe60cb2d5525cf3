"""Basin width and convexity on surfaces whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from estimators.core.basin import convex_share, crossing_radii

AXIS = np.linspace(-1, 1, 21)
X, Y = np.meshgrid(AXIS, AXIS, indexing="ij")


def test_width_of_a_parabola_is_where_it_reaches_the_level():
    radii = np.linspace(0.01, 3, 300)
    losses = 0.3 + 0.5 * np.array([[1.0], [4.0]]) * radii**2
    assert crossing_radii(radii, losses, 0.3, 0.5) == pytest.approx([1.0, 0.5], abs=1e-3)


def test_width_between_two_radii_is_linear():
    assert crossing_radii([1.0, 2.0], [[0.0, 4.0]], 0.0, 1.0) == pytest.approx([1.25])
    assert crossing_radii([1.0, 2.0], [[2.0, 4.0]], 0.0, 1.0) == pytest.approx([0.5]), "from the centre"


def test_a_ray_that_never_rises_has_infinite_width_and_an_overflow_a_finite_one():
    radii = [1.0, 2.0, 3.0]
    found = crossing_radii(radii, [[0.1, 0.2, 0.3], [0.1, np.inf, 0.0], [0.1, np.nan, 9.0]], 0.0, 1.0)
    assert found.tolist() == [np.inf, 2.0, 2.0]
    with pytest.raises(ValueError, match="rise must be a number above 0, got 0"):
        crossing_radii(radii, [[0, 0, 0]], 0.0, 0)


@pytest.mark.parametrize(
    ("losses", "share"),
    [
        (X**2 + 2 * Y**2 + X * Y, 1.0),
        (X**2 - Y**2, 0.0),
        (-(X**2) - Y**2, 0.0),
        (X * Y, 0.0),
        (X + 2 * Y, 1.0),
    ],
)
def test_quadratics_are_convex_everywhere_or_nowhere(losses, share):
    assert convex_share((AXIS, AXIS), losses) == share


def test_convexity_of_a_double_well_is_that_of_its_formula():
    losses = X**4 - 0.5 * X**2 + Y**2
    inside = AXIS[1:-1]
    expected = np.mean(12 * inside**2 + 2 * 0.1**2 - 1 >= -1e-3 * 12)
    assert convex_share((AXIS, AXIS), losses) == pytest.approx(expected)


def test_uneven_spans_and_overflow():
    wide = np.linspace(-2, 2, 11)
    a, b = np.meshgrid(wide, AXIS, indexing="ij")
    losses = a**2 + b**2
    losses[0, 0] = np.inf
    assert convex_share((wide, AXIS), losses) == 1.0
    assert np.isnan(convex_share((AXIS, AXIS), np.full((21, 21), np.nan)))
    with pytest.raises(ValueError, match=r"at least 3×3 nodes, got shape \(2, 21\)"):
        convex_share((AXIS[:2], AXIS), np.zeros((2, 21)))
