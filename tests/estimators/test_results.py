import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from estimators import Result
from estimators.progress import part, progress_bar


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
    half = part(lambda d, t, m: seen.append((d, t, m)), 0.5, 1.0, "second")
    half(1, 2, "inner")
    half(2, 2, "inner")
    assert seen == [(750, 1000, "second"), (1000, 1000, "second")]
    bar = progress_bar("points")
    bar(1, 2, "a")
    bar(2, 2, "b")
    assert "points: 100%" in capsys.readouterr().err
