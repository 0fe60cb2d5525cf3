import numpy as np
import pytest
import torch

from estimators.core.paths.paths import (
    PATHS,
    barrier,
    gram,
    initial_bends,
    path_length,
    plane_through,
    rise_over_endpoints,
    worst_t,
)


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("n_bends", [1, 2, 3, 5])
def test_ends_are_exact_and_rows_sum_to_one(name, n_bends):
    coefficients = PATHS[name]([0.0, 0.3, 0.5, 0.77, 1.0], n_bends)
    a, b = np.zeros(coefficients.shape[1]), np.zeros(coefficients.shape[1])
    a[0], b[-1] = 1.0, 1.0
    assert np.array_equal(coefficients[0], a)
    assert np.array_equal(coefficients[-1], b)
    np.testing.assert_allclose(coefficients.sum(1), 1.0, rtol=0, atol=1e-15)


def test_quadratic_bezier_is_the_lectures_formula():
    t = np.linspace(0, 1, 7)
    expected = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
    np.testing.assert_allclose(PATHS["bezier"](t, 1), expected, rtol=0, atol=1e-15)


def test_polychain_passes_through_its_bends():
    np.testing.assert_allclose(PATHS["polychain"]([0.25, 0.5, 0.75], 3), np.eye(5)[1:4], rtol=0, atol=0)
    np.testing.assert_allclose(PATHS["polychain"]([0.25], 1), [[0.5, 0.5, 0.0]])


@pytest.mark.parametrize("name", ["bezier", "polychain"])
def test_initial_bends_give_the_straight_line(name):
    a, b = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    anchors = torch.stack([a, *initial_bends(a, b, 3), b]).numpy()
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(PATHS[name](t, 3) @ anchors, PATHS["linear"](t) @ anchors[[0, -1]], rtol=0, atol=1e-14)


def test_barrier_subtracts_the_chord_and_rise_the_worse_end():
    t, losses = [0.0, 0.25, 0.5, 1.0], [1.0, 2.0, 2.5, 3.0]
    assert barrier(t, losses) == pytest.approx(0.5)  # 2.0 - 1.5 at t = 0.25, 2.5 - 2.0 at t = 0.5
    assert rise_over_endpoints(losses) == 0.0
    assert worst_t(t, [1.0, 2.0, 2.6, 3.0]) == 0.5


def test_a_path_below_the_chord_has_no_barrier():
    assert barrier([0, 0.5, 1], [1.0, 0.1, 1.0]) == 0.0


@pytest.mark.parametrize("bad, expected", [(np.nan, np.isnan), (np.inf, np.isposinf)])
def test_non_finite_losses_are_not_hidden(bad, expected):
    t, losses = np.linspace(0, 1, 4), np.array([0.1, bad, 0.2, 0.1])
    assert expected(barrier(t, losses))
    assert expected(rise_over_endpoints(losses))
    assert worst_t(t, losses) == t[1]


def test_lengths_of_straight_bent_and_curved_paths():
    a, bend, b = torch.tensor([[0.0, 0, 0], [3.0, 4, 0], [6.0, 0, 0]], dtype=torch.float64)
    inner = gram(torch.stack([a, bend, b]))
    assert path_length(PATHS["linear"], 0, inner[::2, ::2]) == pytest.approx(6.0)
    assert path_length(PATHS["polychain"], 1, inner) == pytest.approx(10.0, rel=1e-12)
    # parabola y = 4 x (6 - x) / 18 from 0 to 6, by quadrature of its arc length
    x = np.linspace(0, 6, 200001)
    arc = np.trapezoid(np.sqrt(1 + ((6 - 2 * x) * 4 / 18) ** 2), x)
    assert path_length(PATHS["bezier"], 1, inner) == pytest.approx(arc, rel=1e-5)


def test_plane_holds_both_ends_and_a_single_bend():
    anchors = torch.randn(3, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    plane = plane_through(anchors)
    back = plane.origin + torch.from_numpy(plane.anchors) @ plane.axes
    torch.testing.assert_close(back, anchors, rtol=0, atol=1e-12)
    np.testing.assert_allclose(plane.distances, 0.0, atol=1e-12)
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    assert plane.anchors[0].tolist() == [0.0, 0.0]
    assert plane.anchors[-1, 1] == 0.0


def test_plane_of_several_bends_says_how_far_they_are_from_it():
    anchors = torch.randn(5, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    plane = plane_through(anchors)
    assert plane.distances[[0, -1]].max() < 1e-12
    assert plane.distances[1:-1].min() > 0.1
    # no other plane through A and B keeps more of the bends: compare with one turned a little
    rest = anchors[1:-1] - anchors[0]
    rest = rest - (rest @ plane.axes[0])[:, None] * plane.axes[0]
    other = torch.nn.functional.normalize(plane.axes[1] + 0.3 * torch.nn.functional.normalize(rest[0], dim=0), dim=0)
    assert (rest @ plane.axes[1]).norm() >= (rest @ other).norm()


def test_plane_of_a_straight_path_is_still_a_plane():
    a, b = torch.randn(2, 30, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    plane = plane_through(torch.stack([a, *initial_bends(a, b, 1), b]))
    torch.testing.assert_close(plane.axes @ plane.axes.T, torch.eye(2, dtype=torch.float64))
    np.testing.assert_allclose(plane.distances, 0.0, atol=1e-6)
