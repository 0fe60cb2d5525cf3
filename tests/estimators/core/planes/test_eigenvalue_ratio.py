"""Convexity of maps whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from estimators.core.planes.eigenvalue_ratio import convex_share

AXIS = np.linspace(-1, 1, 21)
X, Y = np.meshgrid(AXIS, AXIS, indexing="ij")


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
