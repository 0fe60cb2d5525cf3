from pathlib import Path

import numpy as np
import pytest

from estimators.core.planes import refinement
from estimators.core.planes.interpolation import fill, fit_lattice, lattice_coordinates, stretch_of
from estimators.core.planes.refinement import refine
from tests import analytic_maps
from tests.benchmarks.judge_maps import judge, maps_of

MAPS = sorted((Path(__file__).parents[3] / "data" / "maps").glob("*.npz"))


def lattice(r1=41, r2=41, span=1.0):
    return np.meshgrid(np.linspace(-span, span, r1), np.linspace(-span, span, r2), indexing="ij")


def run(losses, **kwargs):
    """Refine a known map; count how often each node is asked for."""
    asked = np.zeros(losses.shape, int)

    def evaluate(indices):
        np.add.at(asked, (indices[:, 0], indices[:, 1]), 1)
        return losses[indices[:, 0], indices[:, 1]]

    return list(refine(evaluate, losses.shape, **kwargs)), asked


def log_error(result, losses):
    """|error| of the log-loss over the range of the finite log-losses."""
    finite = np.isfinite(losses)
    logs = np.log(losses, where=finite, out=np.full(losses.shape, np.nan))
    both = finite & np.isfinite(result.values)
    error = np.zeros(losses.shape)
    error[both] = np.abs(np.log(result.values[both]) - logs[both])
    return error, np.nanmax(logs) - np.nanmin(logs)


def bowl(r1=41, r2=41):
    x, y = lattice(r1, r2)
    return 0.01 + (x + 0.3 * y) ** 2 + 4 * y**2 + 0.3 * np.sin(2 * x) * np.cos(3 * y) + 0.31


@pytest.mark.parametrize("shape", [(41, 41), (40, 40), (31, 11), (11, 31), (81, 21)])
def test_smooth_maps_reach_the_tolerance_from_a_fraction_of_the_points(shape):
    losses = bowl(*shape)
    rounds, asked = run(losses, tolerance=0.01)
    last = rounds[-1]
    error, span = log_error(last, losses)
    assert last.converged
    assert error.max() <= 0.01 * span
    assert last.n_evaluated <= 0.6 * losses.size if losses.size < 900 else last.n_evaluated <= 200
    assert asked.max() == 1
    assert (asked == 1).sum() == last.n_evaluated == last.evaluated.sum()


def test_evaluated_nodes_are_exact_and_the_middle_is_one_of_them():
    losses = bowl()
    rounds, _ = run(losses)
    for state in rounds:
        assert np.array_equal(state.values[state.evaluated], losses[state.evaluated])
        assert (state.error_estimate[state.evaluated] == 0).all()
        assert state.evaluated[20, 20]
    assert [s.n_evaluated for s in rounds[:3]] == [9, 25, 81]
    assert [s.converged for s in rounds] == [False] * (len(rounds) - 1) + [True]
    assert run(losses, centre=(3, 38))[0][0].evaluated[3, 38]


def test_two_runs_are_equal_bit_for_bit():
    losses = bowl()
    first, second = run(losses)[0][-1], run(losses)[0][-1]
    for field in ("values", "evaluated", "error_estimate"):
        assert np.array_equal(getattr(first, field), getattr(second, field))


def test_a_sharp_minimum_and_a_ridge_are_found():
    x, y = lattice()
    losses = 1e-3 + x**2 + 3 * y**2 + 2 * np.exp(-(((x + y - 0.9) / 0.12) ** 2))
    last = run(losses)[0][-1]
    error, span = log_error(last, losses)
    assert error.max() <= 0.012 * span
    assert last.n_evaluated <= 420
    assert (error <= last.error_estimate + 1e-12).mean() >= 0.9


def test_a_constant_map_stops_after_the_base_lattice():
    for level in (2.3, 0.0):
        last = run(np.full((41, 41), level))[0][-1]
        assert last.converged
        assert last.n_evaluated == 81
        assert (last.values == level).all()
        assert last.largest_error == 0.0
        assert (last.error_estimate == 0).all()


def test_rounding_noise_on_a_flat_map_is_not_chased():
    noise = np.random.default_rng(0).normal(size=(41, 41))
    last = run(2.3 * (1 + 1e-8 * noise))[0][-1]
    assert last.n_evaluated == 81
    assert last.converged


def test_cells_that_are_not_finite_stay_so_and_the_edge_of_the_region_is_found():
    x, y = lattice()
    losses = np.exp(3 * (x**2 + y**2))
    losses[(x**2 + y**2) > 1.1] = np.inf
    losses[(x > 0.8) & (y > 0.8)] = np.nan
    last = run(losses)[0][-1]
    seen = last.evaluated
    np.testing.assert_array_equal(last.values[seen], losses[seen])
    truth, said = np.isfinite(losses), np.isfinite(last.values)
    wrong = truth != said
    assert wrong.mean() <= 0.02
    assert np.isinf(last.error_estimate[wrong]).all()  # every misjudged cell was reported as open
    error, span = log_error(last, losses)
    assert error.max() <= 0.01 * span
    assert last.n_evaluated <= 300


def test_nothing_finite_ends_without_a_number():
    last = run(np.full((21, 21), np.nan))[0][-1]
    assert np.isnan(last.values).all()
    assert last.converged


def test_zeros_and_negative_values():
    x, y = lattice()
    losses = np.maximum(x**2 + y**2 - 0.2, 0.0)
    last = run(losses)[0][-1]
    assert last.scale == "log"
    assert np.array_equal(last.values[last.evaluated], losses[last.evaluated])
    signed = run(x**2 - y)[0][-1]
    assert signed.scale == "linear"
    assert np.abs(signed.values - (x**2 - y)).max() <= 0.01 * np.ptp(x**2 - y)


def test_a_budget_is_kept_and_said():
    losses = bowl()
    losses[20, 20] = 1e-6
    rounds, asked = run(losses, max_evaluations=60)
    assert asked.sum() == rounds[-1].n_evaluated == 60
    assert not rounds[-1].converged
    small = bowl(15, 13)
    everything = run(small, tolerance=1e-9)[0][-1]
    assert everything.n_evaluated == small.size
    assert everything.converged
    assert np.array_equal(everything.values, small)


def test_one_dimension():
    x = np.linspace(-1, 1, 101)
    losses = (0.05 + x**2)[:, None]
    last = run(losses)[0][-1]
    error, span = log_error(last, losses)
    assert error.max() <= 0.01 * span
    assert last.n_evaluated < 60


def test_small_lattices_are_evaluated_whole():
    losses = bowl(5, 3)
    last = run(losses)[0][-1]
    assert last.n_evaluated == 15
    assert np.array_equal(last.values, losses)


def test_the_thin_plate_interpolant_is_scipys():
    from scipy.interpolate import RBFInterpolator

    coordinates = lattice_coordinates((15, 15))
    nodes = np.arange(0, 225, 7)
    values = np.sin(5 * coordinates[nodes, 0]) + coordinates[nodes, 1] ** 2
    fit = fit_lattice(coordinates, nodes, values)
    for row, kernel in enumerate(("thin_plate_spline", "cubic", "linear")):
        expected = RBFInterpolator(coordinates[nodes], values, kernel=kernel)(coordinates)
        np.testing.assert_allclose(fit.members[row], expected, rtol=0, atol=1e-9)


def test_leave_one_out_errors_are_those_of_fits_without_the_point():
    coordinates = lattice_coordinates((9, 9))
    nodes = np.arange(0, 81, 5)
    values = np.cos(4 * coordinates[nodes, 0]) * coordinates[nodes, 1]
    together = fit_lattice(coordinates, nodes, values, ("cubic",)).skill[0]
    apart = []
    for k in range(len(nodes)):
        others = np.delete(nodes, k)
        fit = fit_lattice(coordinates, others, np.delete(values, k), ("cubic",))
        apart.append(fit.members[0, nodes[k]] - values[k])
    assert together == pytest.approx(np.sqrt(np.mean(np.square(apart))), rel=1e-8)


def test_the_stretch_follows_the_direction_that_bends():
    x, y = lattice()
    along, across = np.array([1.0, 1.0]), np.array([1.0, -1.0])
    stretch = stretch_of((x + y) ** 2 + 1e-2 * (x - y) ** 2)
    ratio = np.linalg.norm(stretch @ along) / np.linalg.norm(stretch @ across)
    assert ratio == pytest.approx(10.0, rel=0.05)  # a fourth root of the squared ratio of curvatures
    assert np.array_equal(stretch_of(np.ones((5, 5))), np.eye(2))


def test_fill_completes_another_quantity_from_the_same_nodes():
    x, y = lattice()
    values = 0.5 + 0.4 * np.tanh(3 * x - y)
    evaluated = np.zeros(values.shape, bool)
    evaluated[::4, ::4] = True
    known = np.where(evaluated, values, np.nan)
    out = fill(known, evaluated, smooth=False)
    assert np.array_equal(out[evaluated], values[evaluated])
    assert np.abs(out - values).max() < 0.06
    assert 0 <= out.min() <= out.max() <= 1


def test_ten_real_maps():
    """The promise of adaptive mode, on exact maps of ten kinds (tests/benchmarks/make_maps.py)."""
    evaluations, largest, medians, covered, wrong = [], [], [], [], []
    for path in MAPS:
        losses = np.load(path)["losses"].astype(np.float64)
        last = run(losses)[0][-1]
        error, span = log_error(last, losses)
        finite = np.isfinite(losses) & np.isfinite(last.values)
        evaluations.append(last.n_evaluated)
        largest.append(error.max() / span)
        medians.append(np.median(error[finite]) / span)
        covered.append((error[finite] <= last.error_estimate[finite] + 1e-12).mean())
        wrong.append((np.isfinite(losses) != np.isfinite(last.values)).mean())
    assert len(MAPS) >= 10
    within = np.array(largest) <= 0.01
    assert (within & (np.array(evaluations) <= 300)).sum() >= 8, (evaluations, largest)
    assert np.median(evaluations) <= 200, evaluations
    assert max(medians) <= 0.002, medians
    assert min(covered) >= 0.9, covered
    assert max(wrong) <= 0.02, wrong


def test_maps_that_claim_the_tolerance_keep_it_on_unseen_ones():
    """Judged on maps that the stop rule was not set on (tests/benchmarks/make_unseen_maps.py): 3 of these failed."""
    judged = {name: judge(losses) for name, losses in maps_of("judged").items()}
    assert len(judged) >= 30
    claimed = {name: worst for name, (last, worst, _) in judged.items() if last.converged}
    wrong = {name: worst for name, worst in claimed.items() if worst > 0.01}
    assert len(claimed) >= 0.9 * len(judged)
    assert len(wrong) <= 0.1 * len(claimed), wrong  # one or two of 32: the points chosen depend on rounding
    assert max(claimed.values()) <= 0.03, wrong
    assert np.median([last.n_evaluated for last, _, _ in judged.values()]) <= 240
    assert np.median([covered for _, _, covered in judged.values()]) >= 0.99
    assert not any(last.rough for last, _, _ in judged.values())


@pytest.mark.parametrize("name", analytic_maps.rough())
def test_noise_is_recognised_early_and_every_point_evaluated(name, monkeypatch):
    """It was chased with a fit for every few points: 1,672 evaluations and a hundred times the time."""
    losses = analytic_maps.rough()[name]
    fits = []
    monkeypatch.setattr(refinement, "fit_lattice", lambda *a: fits.append(len(a[1])) or fit_lattice(*a))
    rounds, asked = run(losses)
    last = rounds[-1]
    weak = name == "noise of 0.5%"  # half the tolerance: whether it is called noise depends on rounding
    assert (last.rough or weak) and last.exhaustive and last.converged
    assert (asked == 1).all()
    assert np.array_equal(last.values, losses)
    # all of them together take less than a tenth of a second, where the noise is as strong as the tolerance
    assert len(fits) <= (60 if weak else 12)
    assert max(fits) <= (1681 if weak else 350)
    assert weak or last.roughness > 0.003
    assert last.largest_error == 0.0
    assert len(rounds) <= len(fits) + 10  # pictures keep coming while the rest is evaluated


def test_real_maps_are_not_taken_for_noise():
    for path in MAPS:
        last = run(np.load(path)["losses"].astype(np.float64))[0][-1]
        assert not last.rough, path.stem
        assert not last.roughness > 0.001, path.stem


def test_a_rough_map_keeps_its_budget():
    losses = analytic_maps.rough()["noise of 10.0%"]
    rounds, asked = run(losses, max_evaluations=300)
    assert asked.sum() == rounds[-1].n_evaluated == 300
    assert not rounds[-1].converged


def test_what_no_evaluated_point_touches_is_missed():
    """The limit that the docstring states: nothing but an exact map sees a point that stands out alone."""
    losses = bowl()
    plain = run(losses)[0][-1]
    at = tuple(np.argwhere(~plain.evaluated)[700])
    losses[at] *= 50
    last = run(losses)[0][-1]
    assert last.converged
    assert not last.evaluated[at]
