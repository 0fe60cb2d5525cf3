"""Errors over examples, where they are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from estimators.core.evidence import sampling
from estimators.core.evidence.intervals import mean_interval, wilson_interval


def test_a_mean_has_the_interval_of_its_terms_and_four_times_the_examples_halve_it():
    terms = np.random.default_rng(0).lognormal(size=50)
    found = sampling.sampling_error(float(terms.mean()), terms)
    assert found.stderr == pytest.approx(stats.sem(terms)) and found.bias == 0 and found.promised
    np.testing.assert_allclose((found.low, found.high), mean_interval(terms))
    assert found.n_to_halve == 200
    moved = sampling.sampling_error(7.0, terms + 3, bias=0.1)  # influences are known up to a constant
    np.testing.assert_allclose((moved.low, moved.high), np.add((found.low, found.high), 7.0 - terms.mean() - 0.1))


def test_what_is_taken_as_known_or_a_large_bias_is_not_promised():
    terms = np.arange(10.0)
    assert not sampling.sampling_error(4.5, terms, given="batch-norm statistics").promised
    stderr = float(stats.sem(terms))
    assert sampling.sampling_error(4.5, terms, bias=0.4 * stderr).promised
    assert not sampling.sampling_error(4.5, terms, bias=0.6 * stderr).promised
    unknown = sampling.sampling_error(4.5, terms, bias=float("nan"))
    assert not unknown.promised and unknown.low < 4.5 < unknown.high


def test_an_example_that_makes_up_most_of_the_spread_takes_the_promise_away():
    terms = np.append(np.arange(10.0), 30.0)
    found = sampling.sampling_error(float(terms.mean()), terms)
    squares = np.square(terms - terms.mean())
    assert found.largest_share == pytest.approx(squares[-1] / squares.sum()) and not found.promised
    assert sampling.sampling_error(0.5, np.tile([0.0, 1.0], 5)).largest_share == pytest.approx(0.1)


def test_values_that_are_not_finite_have_no_error():
    assert np.isnan(sampling.sampling_error(np.inf, np.array([1.0, np.inf, 2.0]))[:3]).all()


def test_a_share_of_examples_has_wilsons_interval_and_one_of_positions_has_not():
    hits = np.repeat([1.0, 0.0], [29, 1])
    found = sampling.share_error(hits)
    assert (found.low, found.high) == wilson_interval(29, 30) and found.high <= 1
    parts = np.array([0.25, 0.5, 1.0, 0.75])  # each example has four positions
    assert sampling.share_error(parts) == sampling.sampling_error(float(parts.mean()), parts)


def test_the_spread_of_examples_is_told_from_that_of_probes():
    rng, n, k = np.random.default_rng(1), 400, 6
    examples, probes, noise = rng.normal(0, 1, (n, 1)), rng.normal(0, 5, (1, k)), rng.normal(0, 3, (n, k))
    table = examples + probes + noise
    assert table.mean(axis=1).var(ddof=1) == pytest.approx(1 + 9 / k, rel=0.15)
    assert sampling.part_of_examples(table).var(ddof=1) == pytest.approx(1, rel=0.2)
    assert sampling.part_of_examples(table).mean() == pytest.approx(table.mean())
    np.testing.assert_allclose(sampling.part_of_examples(np.repeat(examples, k, axis=1)), examples[:, 0])
    assert sampling.part_of_examples(noise - noise.mean(axis=1, keepdims=True)).std() < 1e-12


def test_the_excess_of_a_norm_is_that_of_many_draws():
    rng, n, mean = np.random.default_rng(2), 25, np.zeros(20)
    mean[0] = 1.5
    scale = np.linspace(0.2, 1.5, 20)
    draws = (mean + scale * rng.normal(size=(20_000, 20)) / np.sqrt(n)).astype(float)  # means of n vectors
    norms = np.linalg.norm(draws, axis=1)
    stated = [sampling.excess_of_norm(norm, float(np.sum(scale[1:] ** 2)), n) for norm in norms]
    assert norms.mean() - 1.5 == pytest.approx(np.mean(stated), rel=0.1)
    assert sampling.excess_of_norm(0.1, 100.0, 4) == 0.1  # all of it may be noise


def drawn_matrices(rng, mean, n):
    noise = rng.normal(size=(n, *mean.shape))
    return mean + (noise + noise.transpose(0, 2, 1)) / 2  # off the diagonal the variance is 1/2


def test_the_excess_of_an_eigenvalue_is_that_of_many_draws():
    rng, n, mean = np.random.default_rng(3), 60, np.diag([3.0, 2.0, 0.0, 0.0, 0.0, 0.0])
    tops = [np.linalg.eigvalsh(drawn_matrices(rng, mean, n).mean(axis=0))[-1] for _ in range(3000)]
    exact = (0.5 / (3 - 2) + 4 * 0.5 / 3) / n
    assert np.mean(tops) - 3 == pytest.approx(exact, rel=0.15)
    many = drawn_matrices(rng, mean, 20_000)
    probes = np.sign(rng.normal(size=(6, 8)))
    few = np.arange(20_000) % 333 == 0  # the same variances, of n examples
    curvatures, probed = many[few][:n, 0, :2], many[few][:n, 0] @ probes
    found = sampling.excess_of_eigenvalue(np.array([3.0, 2.0]), curvatures, probed)
    assert found == pytest.approx(exact, rel=0.3)
    blind = sampling.excess_of_eigenvalue(np.array([3.0]), curvatures[:, :1], probed)
    assert blind < found  # a close eigenvalue that is not known makes the statement too small
    low = sampling.excess_of_eigenvalue(np.array([-3.0]), curvatures[:, :1], probed)
    assert low == -blind  # the smallest eigenvalue comes out too small


def test_equal_eigenvalues_are_pushed_apart_by_what_sampling_mixes_them():
    rng, n, mean = np.random.default_rng(4), 100, np.diag([3.0, 3.0])
    stated, tops = [], []
    for _ in range(500):
        each = drawn_matrices(rng, mean, n)
        values, vectors = np.linalg.eigh(each.mean(axis=0))
        curvatures = np.einsum("p,npq,qk->nk", vectors[:, -1], each, vectors[:, ::-1])
        probed = np.einsum("p,npq,qk->nk", vectors[:, -1], each, np.array([[1.0, 1.0], [1.0, -1.0]]))
        stated.append(sampling.excess_of_eigenvalue(values[::-1], curvatures, probed))
        tops.append(values[-1] - 3)
    assert np.mean(tops) / 3 < np.mean(stated) < np.mean(tops)  # a lower estimate: second order says less than all
    assert max(stated) <= 1.5 * np.sqrt(0.5 / n)  # and never without bound, however close they come
