"""Full disks and folders that can't be written to: one sentence, and nothing that was there is lost."""

import os
import re

import numpy as np
import pytest
import torch
from joblib._store_backends import CacheWarning

from estimators import SurfaceResult, clear_cache, save_checkpoint, write_mesh
from estimators.cache import cached_call, check_memory, recall
from estimators.temporary import temporary_folder
from estimators.writing import WriteError, whole
from tests.faults import full_disk, unusable

SENTENCE = re.compile(r"A file must go where there is room and permission for it, got [^\n]+ at '[^\n]+': [^\n]+\.$")


def surface(side=30):
    rng = np.random.default_rng(0)
    axis = np.linspace(-1, 1, side)
    return SurfaceResult(axes=(axis, axis), losses=rng.random((side, side)))


def save_result(path):
    return surface().save(path)


def save_mesh(path):
    pytest.importorskip("meshio")
    return write_mesh(surface(), path.with_suffix(".obj"))


def save_weights(path):
    return save_checkpoint(path.with_suffix(".safetensors"), {"w": torch.arange(5000.0)})


WRITERS = pytest.mark.parametrize("write", [save_result, save_mesh, save_weights])


@WRITERS
def test_on_a_full_disk_the_old_file_stays_and_a_sentence_says_why(write, tmp_path):
    before = write(tmp_path / "kept.npz").read_bytes()
    names = os.listdir(tmp_path)
    with full_disk(100), pytest.raises(OSError) as caught:
        write(tmp_path / "kept.npz")
    assert SENTENCE.match(str(caught.value)) and "File too large" in str(caught.value)
    assert isinstance(caught.value, WriteError) and caught.value.errno
    assert os.listdir(tmp_path) == names  # nothing half written beside it
    assert (tmp_path / names[0]).read_bytes() == before


@WRITERS
def test_where_no_folder_can_be_made_is_a_sentence(write, tmp_path):
    with pytest.raises(WriteError, match="choose a folder that this program may write to") as caught:
        write(unusable(tmp_path) / "r.npz")
    assert SENTENCE.match(str(caught.value))


def test_no_room_for_temporary_files_is_a_sentence(tmp_path, monkeypatch):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(unusable(tmp_path)))
    with pytest.raises(WriteError) as caught:
        temporary_folder()
    assert SENTENCE.match(str(caught.value))


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with whole(tmp_path / "r") as first, whole(tmp_path / "r") as second:
        first.write_bytes(b"1")
        second.write_bytes(b"2")
        assert first != second
    assert (tmp_path / "r").read_bytes() == b"1" and len(os.listdir(tmp_path)) == 1


def number(value):
    return np.arange(1000.0) + value


def test_an_answer_that_finds_no_room_is_given_all_the_same(tmp_path):
    memory = check_memory(tmp_path)
    cached_call(memory, number, "kept", 1)
    with full_disk(100), pytest.warns(CacheWarning, match=r"Cache: an answer could not be kept in .* The work goes on"):
        answer = cached_call(memory, number, "more", 2)
    np.testing.assert_array_equal(answer, number(2))
    np.testing.assert_array_equal(recall(memory, number, "kept"), number(1))
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_cache_that_can_not_be_made_answers_nothing_and_says_so(tmp_path):
    with pytest.warns(CacheWarning, match="Cache: the folder .* can't be used"):
        memory = check_memory(unusable(tmp_path, "cache"))
    with pytest.warns(CacheWarning, match="could not be kept"):
        np.testing.assert_array_equal(cached_call(memory, number, "k", 3), number(3))


def test_answers_that_can_not_be_removed_are_told(tmp_path, monkeypatch):
    import shutil

    cached_call(check_memory(tmp_path), number, "kept", 1)
    monkeypatch.setattr(shutil, "rmtree", lambda *args, **more: None)  # a folder without permission
    with pytest.warns(CacheWarning, match="1 answers in .* could not be removed"):
        clear_cache(tmp_path)


def test_a_clock_set_forward_does_not_empty_the_cache(tmp_path, monkeypatch):
    import time

    cached_call(check_memory(tmp_path), number, "kept", 1)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 400 * 86400)
    entry = next(tmp_path.rglob("*.npz"))
    stamp = next(tmp_path.rglob(".trimmed"))

    def later(path, at):
        os.utime(path, (at, at))

    import datetime

    class Forward(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(time.time(), tz)

    import joblib._store_backends as stores

    monkeypatch.setattr(stores.datetime, "datetime", Forward)
    cached_call(check_memory(str(tmp_path)), number, "at the wrong time", 2)  # a store of its own looks at the limits
    assert entry.exists()
    later(stamp, now + 400 * 86400)
    monkeypatch.undo()  # the clock is right again, and the last look lies ahead
    cached_call(check_memory(str(tmp_path)), number, "again", 3)
    assert entry.exists() and stamp.stat().st_mtime < now + 86400
