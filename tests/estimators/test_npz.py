"""Result files of unknown origin: broken, hostile, or changed after they were saved."""

import json
import re
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from estimators import Result, SurfaceResult
from estimators.npz import SMALL, read_npz
from tests import fuzz

MESSAGE = re.compile(
    r"A result must be an NPZ file saved by Loss Atlas, got '[^\n]*: [^\n]*\. Export it again from the Runs page"
)


def surface(side=21):
    rng = np.random.default_rng(0)
    return SurfaceResult(
        axes=(np.linspace(-1, 1, side), np.linspace(-1, 1, side)),
        losses=rng.random((side, side)),
        evaluated=np.ones((side, side), bool),
        markers=[{"label": "α", "x": 0.5}],
        notes=["a"],
        settings={"seed": 0},
    )


@pytest.fixture
def good(tmp_path):
    return surface().save(tmp_path / "good.npz").read_bytes()


def refused(path):
    """Load; return the message of a refusal, None when the file opened."""
    try:
        Result.load(path)
    except ValueError as error:
        return str(error)
    return None


def test_300_broken_and_hostile_files_are_a_sentence_or_the_same_result(tmp_path, good):
    want, path = surface(), tmp_path / "it.npz"
    trap = Path(fuzz.TRAP)
    trap.unlink(missing_ok=True)
    opened = 0
    for number, content in enumerate(fuzz.files([good], fuzz.hostile_npz(), 300)):
        path.write_bytes(content)
        start = time.perf_counter()
        message = refused(path)
        assert time.perf_counter() - start < 10, number
        if message is None:
            found = Result.load(path)
            opened += 1
            assert not fuzz.has_checksum(content) or (found.losses == want.losses).all()
        else:
            assert MESSAGE.match(message), (number, message)
            assert len(message) < 500
    assert 1 <= opened < 30  # what changed nothing that is read
    assert not trap.exists()


@pytest.mark.parametrize("make", [fuzz.bomb, fuzz.lying_bomb], ids=["bomb", "lying bomb"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path, make):
    path = tmp_path / "bomb.npz"
    path.write_bytes(make(300 << 20))
    tracemalloc.start()
    try:
        message = refused(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message and MESSAGE.match(message)
    assert path.stat().st_size < 400_000 and peak < 30e6


def test_what_is_larger_than_any_file_may_unpack_to_is_saved_so_that_it_opens(tmp_path, monkeypatch):
    import estimators.npz
    import estimators.results

    monkeypatch.setattr(estimators.npz, "SMALL", 1 << 16)
    monkeypatch.setattr(estimators.results, "SMALL", 1 << 16)
    flat = SurfaceResult(losses=np.zeros((200, 200)), evaluated=np.zeros((200, 200), bool))
    np.testing.assert_array_equal(Result.load(flat.save(tmp_path / "flat.npz")).losses, flat.losses)
    assert SMALL == 256 * 2**20


def rewritten(good, tmp_path, change):
    """Write the arrays of a good file anew, with another one among them; every checksum of the archive is right."""
    (tmp_path / "in.npz").write_bytes(good)
    arrays = read_npz(tmp_path / "in.npz")
    change(arrays)
    path = tmp_path / "out.npz"
    np.savez(path, **arrays)
    return path


def test_a_value_changed_inside_is_told_and_a_file_packed_anew_is_not(tmp_path, good):
    def swap(arrays):
        arrays["losses"][3, 4] += 1e-12

    def edit(arrays):
        arrays["__header__"] = np.array(str(arrays["__header__"]).replace('"seed", 0', '"seed", 1'))

    def drop(arrays):
        del arrays["evaluated"]

    for change in (swap, edit, drop):
        message = refused(rewritten(good, tmp_path, change))
        assert message and "changed after it was saved" in message
    assert refused(rewritten(good, tmp_path, lambda arrays: None)) is None


def test_a_file_from_before_there_was_a_checksum_opens(tmp_path, good):
    def strip(arrays):
        header = json.loads(str(arrays["__header__"]))
        del header["sha256"]
        arrays["__header__"] = np.array(json.dumps(header))

    found = Result.load(rewritten(good, tmp_path, strip))
    np.testing.assert_array_equal(found.losses, surface().losses)


def test_a_file_that_says_something_else_than_its_class_holds_is_refused(tmp_path):
    path = tmp_path / "it.npz"
    for header, why in (
        ({"class": "SurfaceResult", "fields": {"losses": "high"}}, "its field losses is of another type, str"),
        ({"class": "SurfaceResult", "fields": {"notes": [3]}}, "its field notes is of another type, list"),
        ({"class": "N" * 999, "fields": {}}, "it is of a kind that is not known here, N"),
    ):
        path.write_bytes(fuzz.result_file(header, losses=np.zeros(3)))
        message = refused(path)
        assert message and why in message and len(message) < 400


def test_arrays_come_as_they_were_written(tmp_path):
    path = tmp_path / "a.npz"
    kept = {
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.empty((0, 5)),
        "scalar": np.array(3),
        "big": np.arange(3, dtype=">i4"),
        "text": np.array(["α", "b"]),
        "c": np.array([1j]),
        "no": np.array([True, False]),
    }
    np.savez(path, **kept)
    found = read_npz(path)
    assert set(found) == set(kept)
    for name, array in kept.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].flags.writeable
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == len(kept)
