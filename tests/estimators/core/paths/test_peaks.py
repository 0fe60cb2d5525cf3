import numpy as np
import pytest
import torch
from torch import nn

from estimators import ModeConnector
from estimators.core.paths.paths import chord
from estimators.core.paths.peaks import bounds, find_highest, merge, probes, refine_maxima

FINE = np.linspace(0.0, 1.0, 200_001)
CURVES = {
    "smooth": lambda t: 0.1 + 2 * np.sin(np.pi * t) ** 2 + 0.3 * t,
    "skew": lambda t: 0.05 + 0.3 * t + 5 * t * (1 - t) ** 4,
    "corner": lambda t: 0.1 + 2 * np.minimum(t / 0.37, (1 - t) / 0.63),
    "two peaks": lambda t: 0.1 + np.exp(-(((t - 0.27) / 0.08) ** 2)) + 1.02 * np.exp(-(((t - 0.71) / 0.05) ** 2)),
    "wiggle": lambda t: 0.1 + 0.3 * np.abs(np.sin(9 * t)) + np.maximum(0, 0.4 - np.abs(t - 0.6)),
    "valley": lambda t: 0.1 + 0.03 * np.sin(3 * np.pi * t) - 0.5 * np.sin(np.pi * t),
    "flat": lambda t: 0.1 + 0 * t,
}


def highest(f, n, **options):
    t = np.linspace(0.0, 1.0, n)
    asked = []

    def evaluate(positions):
        asked.extend(positions)
        return f(positions)

    found = find_highest(evaluate, t, f(t), **options)
    assert len(asked) == found.n_added == len(found.t) - n
    return found


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("n", [5, 21, 201])
def test_the_maximum_lies_within_the_stated_error(name, n):
    f = CURVES[name]
    found = highest(f, n)
    for k, reference in enumerate((chord, lambda t, v: max(v[0], v[-1]))):
        truth = np.max(f(FINE) - reference(FINE, f(FINE)))
        said = np.max(found.values - reference(found.t, found.values))
        assert said <= truth + 1e-9
        assert truth <= said + found.errors[k]
        rises = f(FINE) - reference(FINE, f(FINE))
        assert found.places[k, 0] - 1e-9 <= FINE[rises.argmax()] <= found.places[k, 1] + 1e-9
    assert found.errors.max() <= 3e-3 * np.ptp(found.values) + 1e-6
    assert (np.diff(found.t) > 0).all()
    assert found.n_added <= {5: 52 + 32, 21: 36 + 32, 201: 27}[n]  # what is looked into, and what is refined


@pytest.mark.parametrize("n", [11, 21, 41])
@pytest.mark.parametrize("centre", [0.2, 0.3, 0.5, 0.7])
def test_a_spike_of_a_third_of_a_step_next_to_an_end_is_found(n, centre):
    step = 1 / (n - 1)
    for at in (centre * step, 1 - centre * step):

        def f(t, at=at):  # nothing at any position of the grid, and no slope there
            inside = np.abs(t - at) < 0.15 * step
            return 0.01 + 11.3 * np.where(inside, np.cos((t - at) / (0.15 * step) * np.pi / 2) ** 2, 0.0)

        found = highest(f, n)
        rise = found.values.max() - 0.01
        assert rise <= 11.3 <= rise + found.errors[1]


def test_a_spike_inside_is_found_where_its_flank_is_met():
    def f(t):
        return 0.1 + 0.5 * np.sin(np.pi * t) + 11.3 * np.exp(-(((t - 0.4125) / 0.0065) ** 2))

    found = highest(f, 21)
    truth = f(FINE).max()
    assert np.abs(f(np.linspace(0, 1, 21)).max() - truth) > 10
    assert found.values.max() <= truth + 1e-6 <= found.values.max() + found.errors[1]


@pytest.mark.parametrize("n", [5, 21, 201])
@pytest.mark.parametrize("at", [0.0017, 0.004, 0.015, 0.985, 0.998])
def test_a_spike_near_an_end_is_found_from_every_grid(n, at):
    """A grid of 5 points looked no closer to its ends than 1/40."""
    width = 0.6 * min(at, 1 - at)

    def f(t):
        inside = np.abs(t - at) < width
        return 0.01 + 11.3 * np.where(inside, np.cos((t - at) / width * np.pi / 2) ** 2, 0.0)

    found = highest(f, n)
    rise = found.values.max() - 0.01
    assert rise <= 11.3 <= rise + found.errors[1]
    assert found.places[1, 0] <= at <= found.places[1, 1] and np.ptp(found.places[1]) < width


def random_curve(rng, narrowest):
    """A line with one to four bumps of random height and width, some of them dents, of three kinds."""
    count, kind, (a, b) = rng.integers(1, 5), rng.integers(3), rng.uniform(0, 0.5, 2)
    centres, widths = rng.uniform(size=count), np.exp(rng.uniform(np.log(narrowest), np.log(0.4), count))
    heights = rng.lognormal(size=count) * rng.choice([1, 1, 1, -0.5], count)

    def f(t):
        u = (np.asarray(t, float)[:, None] - centres) / widths
        bumps = (np.exp(-(u**2)), np.maximum(0, 1 - np.abs(u)), 1 / (1 + u * u) ** 2)[kind] @ heights
        return np.log1p(np.exp(a + (b - a) * t + bumps))

    return f


def test_grids_agree_within_the_stated_error_on_random_curves():
    rng, fine = np.random.default_rng(3), FINE[::4]
    for _ in range(12):
        f = random_curve(rng, 0.03)
        truth = np.max(f(fine) - chord(fine, f(fine)))
        found = [highest(f, n) for n in (5, 21, 201)]
        heights = [np.max(p.values - chord(p.t, p.values)) for p in found]
        errors = [p.errors[0] for p in found]
        assert all(h <= truth + 1e-4 and truth <= h + e for h, e in zip(heights, errors, strict=True))
        assert max(heights) - min(heights) <= max(errors)


def test_the_grid_alone_is_refined_without_looking_between():
    f = CURVES["corner"]
    found = highest(f, 21, look_between=False)
    assert found.values.max() == pytest.approx(2.1, abs=5e-3)
    assert found.n_added <= 12


def test_values_that_are_not_finite_end_the_search():
    found = highest(lambda t: np.where(np.abs(t - 0.3) < 0.2, np.inf, t), 5)
    assert np.isinf(found.values.max())
    assert np.isnan(found.errors).all()
    inside = highest(lambda t: np.where(np.abs(t - 0.125) < 0.1, np.nan, t), 5)
    assert np.isnan(inside.errors).all()


def test_a_concave_function_stays_below_its_bounds():
    t = np.sort(np.append([0.0, 1.0], np.random.default_rng(0).uniform(size=9)))
    bound, where = bounds(t, np.sqrt(t))
    assert ((where > t[:-1]) & (where < t[1:])).all()
    for a, b, top in zip(t[:-1], t[1:], bound, strict=True):
        assert np.sqrt(np.linspace(a, b, 50)).max() <= top + 1e-12


def test_probes_lie_between_wide_steps_and_near_both_ends():
    looked = probes(np.array([0.0, 0.4, 1.0]), 0.01)
    everything = np.sort(np.append(looked, [0.0, 0.4, 1.0]))
    assert np.diff(everything).max() <= 1 / 40 + 1e-12 and looked.min() == 1 - looked.max() == 1 / 1024
    assert len(looked) <= 60 and not np.isin([0.0, 0.4, 1.0], looked).any()
    middles = (np.linspace(0, 1, 21)[1:] + np.linspace(0, 1, 21)[:-1]) / 2
    looked = probes(np.linspace(0, 1, 21), 0.01)
    assert np.isclose(looked[:, None], middles).any(0).all() and len(looked) == 20 + 16
    assert len(probes(np.linspace(0, 1, 201), 0.01)) == 16
    assert merge(np.array([0.0, 1.0]), np.array([3.0, 4.0]), np.array([0.5]), np.array([9.0]))[1].tolist() == [3, 9, 4]


def test_the_budget_is_kept_and_the_error_says_so():
    def references(t, v):
        return np.zeros((1, len(t)))

    t = np.linspace(0, 1, 5)
    found = refine_maxima(np.sin, t, np.sin(9 * t), references, max_added=2)
    assert found.n_added == 2
    assert found.errors[0] > 2e-3 * np.ptp(found.values)


# -- on networks ----------------------------------------------------------------------------------------------------


class Bump(nn.Module):
    """A network whose loss is a function of its only weight: log(1 + exp(f(w)))."""

    def __init__(self, weight, centre, width, height):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([float(weight)], dtype=torch.float64))
        self.centre, self.width, self.height = centre, width, height

    def forward(self, x):
        f = self.height * torch.exp(-(((self.weight - self.centre) / self.width) ** 2)) - 6.0
        return torch.stack([f.expand(len(x)), torch.zeros(len(x), dtype=f.dtype)], 1)


def fit(n_points, centre, width, height=17.3, **options):
    ends = Bump(0.0, centre, width, height), Bump(1.0, centre, width, height)
    data = torch.zeros(4, 1, dtype=torch.float64), torch.ones(4, dtype=torch.int64)
    return ModeConnector(n_points=n_points, precision="float64", **options).fit(ends, data)


def test_a_spike_between_grid_points_is_a_barrier():
    """Grid values gave a barrier of 0 and "connected"."""
    found = fit(21, 1 - 0.3 / 20, 0.15 / 20 / 1.5)
    assert found.losses_.max() < 0.02
    assert found.barrier_ <= 11.3 <= found.barrier_ + found.barrier_error_ + 1e-3
    assert found.rise_over_endpoints_ == pytest.approx(11.3, abs=0.05)
    assert not found.connected_
    assert found.worst_t_ == pytest.approx(0.985, abs=1e-3)
    assert found.refined_losses_.max() == pytest.approx(found.losses_.min() + found.barrier_, abs=1e-3)
    assert not np.isin(found.refined_t_, found.t_).any()


def test_grids_of_5_21_and_201_points_agree_within_the_stated_error():
    """A barrier between grid points was up to 12 % low."""
    runs = [fit(n, 0.437, 0.11) for n in (5, 21, 201)]
    for a in runs:
        for b in runs:
            assert abs(a.barrier_ - b.barrier_) <= max(a.barrier_error_, b.barrier_error_)
        assert a.barrier_error_ <= 0.01 * a.barrier_
        assert a.straight_barrier_ == a.barrier_
        assert len(a.refined_t_) == a.n_refined_ <= {5: 70, 21: 60, 201: 27}[a.t_.size]
        assert a.straight_barrier_error_ == a.barrier_error_
        low, high = a.result_.uncertainty_of("worst_t")[1]
        assert low <= 0.437 <= high and high - low < 0.06
    assert abs(runs[0].losses_.max() - runs[0].barrier_) > 0.1 * runs[0].barrier_


def test_the_comparison_lines_are_refined_too():
    chain = fit(11, 0.437, 0.11, path="polychain", epochs=0)
    straight = fit(21, 0.437, 0.11)
    assert chain.straight_barrier_ == pytest.approx(straight.barrier_, rel=5e-3)
    assert chain.barrier_ == pytest.approx(straight.barrier_, rel=5e-3)


def test_refinement_is_resumed_from_the_cache(tmp_path, monkeypatch):
    first = fit(11, 0.437, 0.11, memory=str(tmp_path))

    def refuse(*args, **kwargs):
        raise AssertionError("evaluated again")

    monkeypatch.setattr("estimators.landscape.Landscape.evaluate", refuse)
    second = fit(11, 0.437, 0.11, memory=str(tmp_path))
    assert second.barrier_ == first.barrier_
    assert np.array_equal(second.refined_losses_, first.refined_losses_)


def test_a_verdict_within_the_error_is_said():
    found = fit(21, 0.437, 0.11)
    close = fit(21, 0.437, 0.11, tolerance=found.rise_over_endpoints_ + 1e-6)
    assert close.connected_
    assert any("may exceed" in note for note in close.notes_)
    assert not any("may exceed" in note for note in found.notes_)
