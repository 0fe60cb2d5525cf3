"""P(minimum): laws, exact small cases and the Monte-Carlo that is drawn against them."""

import numpy as np
import pytest

from estimators.core.evidence.intervals import wilson_interval
from estimators.core.spectrum.random_matrix import (
    minimum_probability,
    p_minimum_goe,
    p_minimum_independent,
    sample_goe,
)

# P(all eigenvalues > 0) of small GOE matrices; beyond d = 3 only the asymptotic law has a short form
GOE_EXACT = {1: 0.5, 2: (2 - np.sqrt(2)) / 4, 3: (np.pi - 2 * np.sqrt(2)) / (4 * np.pi)}


def test_laws():
    assert p_minimum_independent(3) == 0.125
    np.testing.assert_allclose(p_minimum_independent(np.array([1, 10])), [0.5, 1 / 1024])
    assert p_minimum_goe(1) == pytest.approx(3**-0.25)
    assert p_minimum_goe(4) == pytest.approx(3.0**-4)


def test_monte_carlo_matches_the_exact_small_cases():
    found = minimum_probability((1, 2, 3), n_samples=40_000, confidence=0.999)
    for i, d in enumerate((1, 2, 3)):
        assert found.low[i] <= GOE_EXACT[d] <= found.high[i]
    assert found.high[2] - found.low[2] < 0.01
    np.testing.assert_array_equal(found.n_samples, 40_000)
    np.testing.assert_allclose(found.index_mean, 0.5, atol=0.01)


def test_monte_carlo_falls_faster_than_independent_signs_and_like_the_law():
    found = minimum_probability((3, 4, 5), n_samples=60_000)
    assert (found.high < found.independent).all()
    slopes = np.diff(np.log(found.probability)) / np.diff(found.dimensions.astype(float) ** 2)
    # The exponent of the law is ln 3 / 4 = 0.275; at small d the correction is still visible.
    np.testing.assert_allclose(slopes, -np.log(3) / 4, rtol=0.35)


def test_no_success_gives_an_upper_bound_not_zero():
    found = minimum_probability((9,), n_samples=500)
    assert found.n_minima[0] == 0 and found.low[0] == 0
    assert 0.004 < found.high[0] < 0.01


def test_a_shift_turns_saddles_into_minima():
    found = minimum_probability((30,), n_samples=200, shift=2.6)
    assert found.probability[0] > 0.95
    assert minimum_probability((30,), n_samples=200).n_minima[0] == 0


def test_scale_of_the_ensemble():
    draws = sample_goe(200, 3, np.random.default_rng(0))
    np.testing.assert_array_equal(draws, draws.transpose(0, 2, 1))
    assert np.abs(np.linalg.eigvalsh(draws)).max() == pytest.approx(2, abs=0.15)
    assert draws[:, 0, 1:].var() == pytest.approx(1 / 200, rel=0.2)


def test_wilson_covers():
    rng = np.random.default_rng(0)
    for p in (0.01, 0.3):
        drawn, counts = np.unique(rng.binomial(200, p, 2000), return_counts=True)
        low, high = np.transpose([wilson_interval(k, 200) for k in drawn])
        assert 0.92 < np.average((low <= p) & (p <= high), weights=counts) < 0.99
    assert wilson_interval(0, 50)[0] == 0 and wilson_interval(50, 50)[1] == 1


def test_live_partial_results_progress_and_cancel():
    partial, steps = [], []
    minimum_probability(
        (2, 3),
        n_samples=500,
        chunk=200,
        on_partial=partial.append,
        on_step=lambda done, total: steps.append((done, total)),
    )
    assert [p.n_samples.tolist() for p in partial] == [[200, 200], [400, 400], [500, 500]]
    assert steps[-1] == (1000, 1000)

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        minimum_probability((2,), on_step=stop)


def test_chunks_do_not_change_the_draws():
    one = minimum_probability((2, 4), n_samples=1000, chunk=1000, random_state=7)
    two = minimum_probability((2, 4), n_samples=1000, chunk=130, random_state=7)
    np.testing.assert_array_equal(one.n_minima, two.n_minima)


@pytest.mark.parametrize("dimensions", [(), (0, 1), (2.5,)])
def test_bad_dimensions(dimensions):
    with pytest.raises(ValueError, match="dimensions must be positive integers"):
        minimum_probability(dimensions)


def test_bad_sample_count():
    with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
        minimum_probability((2,), n_samples=0)


def test_result_that_can_be_kept(tmp_path):
    from estimators import Result, random_critical_points

    partial = []
    found = random_critical_points((1, 2), n_samples=3000, on_partial=partial.append)
    direct = minimum_probability((1, 2), n_samples=3000)
    np.testing.assert_array_equal(found.n_minima, direct.n_minima)
    assert partial[0].n_samples.tolist() == [2000, 2000]
    loaded = Result.load(found.save(tmp_path / "goe.npz"))
    np.testing.assert_array_equal(loaded.high, found.high)
