"""CriticalPointFinder: points, rates and the correlation of index with loss."""

import pickle

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.base import clone
from torch import nn

from estimators import Cancelled, Result
from estimators.core.evidence.intervals import spearman, wilson_interval
from estimators.saddles._finder import CriticalPointFinder
from estimators.saddles._small_net import pooled_digits, small_net

QUICK = {"indices": (0, 1, 2), "n_starts": 5, "max_steps": 80, "l2": 1e-2}


@pytest.fixture(scope="module")
def digits3():
    return pooled_digits(n_samples=60)


@pytest.fixture(scope="module")
def finder(digits3):
    parts = []
    found = CriticalPointFinder(**QUICK).fit(small_net(hidden=3), digits3, on_partial=parts.append)
    return found, parts


def test_points_are_critical_by_independent_derivatives(finder, digits3):
    found, _ = finder
    assert found.found_.sum() >= 10
    net = small_net(hidden=3)

    def objective(theta):
        pieces = dict(zip(dict(net.named_parameters()), torch.split(theta, [12, 3, 9, 3]), strict=True))
        pieces = {k: v.view(dict(net.named_parameters())[k].shape) for k, v in pieces.items()}
        outputs = torch.func.functional_call(net, pieces, (digits3.inputs,))
        return nn.functional.cross_entropy(outputs, digits3.targets) + 0.005 * theta.dot(theta)

    for i in np.flatnonzero(found.found_):
        theta = torch.as_tensor(found.points_[i])
        assert float(torch.func.grad(objective)(theta).norm()) <= 1e-9
        spectrum = torch.linalg.eigvalsh(torch.func.hessian(objective)(theta)).numpy()
        assert (spectrum < 0).sum() == found.asked_[i] == found.index_[i]
        np.testing.assert_allclose(spectrum, found.eigenvalues_[i], atol=1e-10)
        assert float(objective(theta)) == pytest.approx(found.losses_[i], abs=1e-12)


def test_rates_and_correlation_come_from_the_points(finder):
    found, _ = finder
    for row in found.success_:
        mine = found.asked_ == row["index"]
        assert row["starts"] == 5 == mine.sum() and row["found"] == found.found_[mine].sum()
        assert row["low"] <= row["rate"] <= row["high"]
        assert row["distinct"] <= row["found"] <= row["converged"]
    kept = found.distinct_
    expected = stats.spearmanr(found.asked_[kept], found.losses_[kept]).statistic
    assert found.spearman_["value"] == pytest.approx(expected) and found.spearman_["n"] == kept.sum()
    assert found.spearman_["low"] < expected < found.spearman_["high"]


def test_points_are_shown_as_they_are_found(finder):
    found, parts = finder
    counts = [len(p.losses) for p in parts]
    assert counts == sorted(counts) and counts[0] == 4 and counts[-1] < len(found.losses_) == 15
    np.testing.assert_array_equal(parts[0].losses, found.losses_[:4])


def test_permuted_units_are_not_counted_twice(finder):
    found, _ = finder
    minima = found.losses_[found.found_ & found.distinct_ & (found.asked_ == 0)]
    assert len(np.unique(minima.round(7))) == len(minima)


def test_same_seed_same_points_and_the_model_is_left_alone(digits3):
    net = small_net(hidden=2)
    before = [p.clone() for p in net.parameters()]
    state = torch.get_rng_state()
    settings = {**QUICK, "indices": (1,), "n_starts": 2, "max_steps": 20}
    first = CriticalPointFinder(**settings).fit(net, digits3)
    second = CriticalPointFinder(**settings).fit(net, digits3)
    other = CriticalPointFinder(**settings, random_state=1).fit(net, digits3)
    np.testing.assert_array_equal(first.points_, second.points_)
    assert not np.array_equal(first.points_, other.points_)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_transform_describes_a_networks_own_point(finder):
    found, _ = finder
    at = int(np.flatnonzero(found.found_ & (found.asked_ == 1))[0])
    there = small_net(hidden=3)
    nn.utils.vector_to_parameters(torch.as_tensor(found.points_[at]), there.parameters())
    table = clone(found).set_output(transform="pandas")
    table.__dict__.update({k: v for k, v in found.__dict__.items() if k.endswith("_") or k == "_land"})
    rows = table.transform([there, small_net(hidden=3)])
    assert list(rows.columns) == ["loss", "gradient_norm", "index", "n_zero"]
    assert rows["index"].iloc[0] == 1 and rows["gradient_norm"].iloc[0] <= 1e-9 < rows["gradient_norm"].iloc[1]


def test_cancel_keeps_the_order_and_results_save(finder, digits3, tmp_path):
    found, _ = finder
    loaded = Result.load(found.result_.save(tmp_path / "points.npz"))
    np.testing.assert_array_equal(loaded.losses, found.losses_)
    assert loaded.success == found.success_
    assert pickle.loads(pickle.dumps(found)).spearman_ == found.spearman_
    seen = []

    def stop(done, total, message):
        seen.append(done / total)
        if len(seen) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        CriticalPointFinder(**QUICK).fit(small_net(hidden=3), digits3, on_progress=stop)
    assert seen == sorted(seen)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"indices": ()}, "indices must be different integers"),
        ({"indices": (1, 1)}, "indices must be different integers"),
        ({"indices": (0, 99)}, "indices must be below the number of parameters"),
        (
            {"n_starts": 0},
            r"'n_starts' parameter of CriticalPointFinder must be an int in the range \[1, inf\). Got 0 instead",
        ),
        ({"tol": 0.0}, r"'tol' parameter .* a float in the range \(0.0, inf\). Got 0.0 instead"),
        ({"l2": -1.0}, r"'l2' parameter .* a float in the range \[0.0, inf\). Got -1.0 instead"),
    ],
)
def test_bad_arguments(parameters, message):
    with pytest.raises(ValueError, match=message):
        CriticalPointFinder(**parameters).fit()


def test_networks_it_cannot_search(digits3):
    with pytest.raises(ValueError, match=r"must be smooth .* leaky_relu"):
        CriticalPointFinder().fit(nn.Sequential(nn.Linear(4, 3), nn.LeakyReLU(), nn.Linear(3, 3)), digits3)
    with pytest.raises(ValueError, match=r"at most 500 parameters .* got 803"):
        CriticalPointFinder().fit(small_net(hidden=100), digits3)
    with pytest.raises(ValueError, match="model and data must be given together"):
        CriticalPointFinder().fit(small_net())


def test_intervals_against_known_values():
    low, high = wilson_interval(8, 10)
    assert (low, high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson_interval(0, 0) == (0.0, 1.0)
    perfect = spearman(np.arange(6), np.arange(6) ** 3)
    assert perfect["value"] == pytest.approx(1.0)
    assert np.isnan(spearman(np.ones(9), np.arange(9))["value"])


def test_pooled_digits_and_small_net():
    data = pooled_digits()
    assert data.inputs.shape == (200, 4) and data.inputs.dtype == torch.float64
    torch.testing.assert_close(data.inputs.mean(0), torch.zeros(4, dtype=torch.float64), atol=1e-12, rtol=0)
    assert sum(p.numel() for p in small_net().parameters()) == 35
    with pytest.raises(ValueError, match="side must be 1, 2, 4 or 8"):
        pooled_digits(side=3)
