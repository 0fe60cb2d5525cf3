import pickle
import re
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np
import pytest

import estimators.experiments  # all results are known then
from estimators import (
    AverageResult,
    CriticalPointsResult,
    CurvatureResult,
    PathResult,
    Result,
    SharpnessResult,
    SurfaceResult,
)
from estimators.progress import progress_bar, subprogress
from estimators.results import REGISTRY, Kind


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample(Result):
    losses: np.ndarray
    axes: tuple
    table: list


@pytest.fixture
def sample():
    return Sample(
        settings={"seed": 0, "grid": np.arange(3)},
        losses=np.array([[1.0, np.nan], [np.inf, 2.0]]),
        axes=(np.linspace(0, 1, 3), np.arange(2.0)),
        table=[{"model": "a", "loss": np.float64(0.5), "values": np.ones(2)}, {"model": "b", "loss": None}],
    )


def test_round_trip_keeps_every_value(sample, tmp_path):
    back = Result.load(sample.save(tmp_path / "r.npz"))
    assert type(back) is Sample and isinstance(back.axes, tuple)
    np.testing.assert_array_equal(back.losses, sample.losses)
    np.testing.assert_array_equal(back.axes[0], sample.axes[0])
    np.testing.assert_array_equal(back.settings["grid"], np.arange(3))
    assert back.table[0]["loss"] == 0.5 and back.table[1] == {"model": "b", "loss": None}
    assert [p.name for p in tmp_path.iterdir()] == ["r.npz"]


def test_a_foreign_file_is_refused_and_nothing_is_unpickled(tmp_path, sample):
    path = tmp_path / "x.npz"
    np.savez(path, a=np.arange(3))
    with pytest.raises(ValueError, match="saved by Loss Atlas"):
        Result.load(path)
    path.write_bytes(b"junk")
    with pytest.raises(ValueError, match="saved by Loss Atlas"):
        Result.load(path)
    path.write_bytes(pickle.dumps(sample))
    with pytest.raises(ValueError, match="saved by Loss Atlas"):
        Result.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, sample, monkeypatch):
    path = sample.save(tmp_path / "r.npz")
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space left"):
        sample.save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_progress_maps_parts_and_draws_a_bar(capsys):
    seen = []
    half = subprogress(lambda d, t, m: seen.append((d, t, m)), 0.5, 1.0, "second")
    half(1, 2, "inner")
    half(2, 2, "inner")
    assert seen == [(750, 1000, "second"), (1000, 1000, "second")]
    bar = progress_bar("points")
    bar(1, 2, "a")
    bar(2, 2, "b")
    assert "points: 100%" in capsys.readouterr().err


TELLING = re.compile(r"(^|_)(stderrs?|residuals?|error|error_estimate|low|high|bracket)$")


def results_of_the_engine():
    assert estimators.experiments.CasesResult in REGISTRY.values()
    return [cls for cls in REGISTRY.values() if cls.__module__.startswith("estimators.")]


@pytest.mark.parametrize("cls", results_of_the_engine(), ids=lambda cls: cls.__name__)
def test_every_uncertainty_is_declared_and_of_something(cls):
    names = {f.name for f in fields(cls)}
    assert {name for name in names if TELLING.search(name)} <= set(cls.uncertainties)
    for own, told in cls.uncertainties.items():
        assert told.kind in get_args(Kind)
        assert own.partition(".")[0] in names and told.of.partition(".")[0] in names and own != told.of
    ends = [told.of for own, told in cls.uncertainties.items() if own.endswith(("low", "high"))]
    assert sorted(ends[::2]) == sorted(ends[1::2])  # both ends of each


def test_an_uncertainty_comes_with_its_kind():
    sharp = SharpnessResult(
        lambda_max_residual=0.1, average_sharpness_stderr=0.2, average_sharpness_low=1.0, average_sharpness_high=3.0
    )
    assert sharp.uncertainty_of("lambda_max") == ("residual", 0.1)
    assert sharp.uncertainty_of("average_sharpness") == ("stderr", 0.2)
    assert sharp.uncertainty_of("average_sharpness", "bracket") == ("bracket", (1.0, 3.0))
    assert sharp.uncertainty_of("loss") is None and sharp.uncertainty_of("trace", "bracket") is None
    assert PathResult(barrier_error=0.01).uncertainty_of("barrier") == ("estimate", 0.01)
    kind, values = SurfaceResult(error_estimate=np.ones((2, 3))).uncertainty_of("losses")
    assert kind == "estimate" and values.shape == (2, 3)
    curved = CurvatureResult(
        fractions=np.array([0.2, 0.3, 0.5]), fractions_stderr=np.full(3, 0.2), fractions_bracket=np.full(3, 0.1)
    )
    kind, (low, high) = curved.uncertainty_of("fractions", "bracket")
    assert kind == "bracket"
    np.testing.assert_allclose([low, high], [[0.1, 0.2, 0.4], [0.3, 0.4, 0.6]])
    assert curved.uncertainty_of("fractions")[0] == "stderr"


def test_uncertainties_in_rows_and_dicts_are_told_too():
    rows = [{"name": "a", "lambda_max": 2.0, "lambda_max_residual": 0.5}, {"name": "b", "lambda_max_residual": None}]
    kind, values = AverageResult(sharpness=rows).uncertainty_of("sharpness.lambda_max")
    assert kind == "residual"
    np.testing.assert_array_equal(values, [0.5, np.nan])
    traces = {"hessian": {"value": 2.0, "stderr": 0.5}, "ggn": {"value": 3.0, "stderr": 0.0}}
    told = CurvatureResult(traces=traces).uncertainty_of("traces.value")
    assert told == ("stderr", {"hessian": 0.5, "ggn": 0.0})
    nothing = np.empty(0)
    points = CriticalPointsResult(
        **{f.name: nothing for f in fields(CriticalPointsResult) if f.name not in ("settings", "spearman", "success")},
        spearman={"value": 0.5, "low": 0.1, "high": 0.8, "n": 9},
    )
    assert points.uncertainty_of("spearman.value") == ("bracket", (0.1, 0.8))
