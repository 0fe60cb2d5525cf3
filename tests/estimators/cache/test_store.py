"""A cache that is damaged, exchanged, planted, full or old gives no wrong answer and loses no run."""

import datetime
import errno
import os
import pickle
import shutil
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib._store_backends import CacheWarning
from torch import nn

from estimators import Evaluation, Landscape
from estimators.cache._calls import cache_info, cached_call, check_memory, clear_cache, machinery, recall, reduce_cache
from estimators.cache._store import decode, encode
from estimators.core.paths.bends import TrainedBends
from estimators.points import evaluate_points

NAME = "0" * 64


def same(a, b):
    if isinstance(a, torch.Tensor | np.ndarray):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and a.tolist() == b.tolist()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and same(vars(a), vars(b))
    return type(a) is type(b) and (a == b or a != a)


ANSWER = {
    "array": np.arange(6.0).reshape(2, 3),
    "column order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "scalars": [1, 2.5, float("nan"), float("-inf"), -0.0, True, None, "words ∂", 3 + 1j],
    "numpy": (np.float32(1.5), np.int64(3), np.bool_(True), np.array(2.0), np.zeros((0, 4))),
    "tensors": [torch.arange(3.0), torch.ones(2, 2, dtype=torch.bfloat16), torch.tensor(1), torch.zeros(0, 3)],
    "a dataclass": TrainedBends(torch.ones(1, 2), np.zeros(3), np.ones(3), 0),
    3: {"nested": ({"deep": [np.array(["a", "bc"])]},)},
    ("a", 1): Evaluation(np.ones(2), np.zeros(2)),
}


def test_answers_come_back_as_they_were():
    assert same(decode(encode(ANSWER, NAME), NAME), ANSWER)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.array([None]), nn.Linear(1, 1), lambda x: x, Path()])
def test_what_would_need_pickle_is_not_written(value):
    with pytest.raises(TypeError):
        encode({"a": value}, NAME)


def test_an_entry_is_an_npz_file_without_pickle():
    import io

    raw = encode(ANSWER, NAME)
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        assert {"header", "a0"} <= set(archive.files)
    assert b"pickle" not in raw


def test_every_single_damage_is_seen():
    raw = encode(ANSWER, NAME)
    generator = np.random.default_rng(0)
    for bit in generator.choice(8 * len(raw), 400, replace=False):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(ValueError):
            decode(bytes(damaged), NAME)
    for length in [0, 1, 100, len(raw) - 1, *generator.integers(0, len(raw), 50)]:
        with pytest.raises(ValueError):
            decode(raw[:length], NAME)
    with pytest.raises(ValueError):
        decode(raw + b"\0", NAME)
    with pytest.raises(ValueError):
        decode(raw, "1" * 64)


# -- a run over a damaged cache -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def line():
    torch.manual_seed(0)
    land = Landscape(
        nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)), (torch.randn(20, 4), torch.arange(20) % 3)
    )
    anchors = torch.stack([land.theta, torch.randn(land.n_parameters)])
    table = np.c_[np.ones(320), np.linspace(-1, 1, 320)]
    return land, anchors, table, evaluate_points(land, anchors, table).losses


@pytest.fixture
def filled(line, tmp_path):
    land, anchors, table, losses = line
    memory = check_memory(tmp_path)
    np.testing.assert_array_equal(evaluate_points(land, anchors, table, memory=memory).losses, losses)
    return tmp_path, memory, sorted(tmp_path.rglob("*.npz"))


def run(line, memory):
    """Give how many chunks came from the cache; the answer must be the right one."""
    land, anchors, table, losses = line
    origins = []
    found = evaluate_points(land, anchors, table, memory=memory, on_chunk=lambda w, e, stored: origins.append(stored))
    np.testing.assert_array_equal(found.losses, losses)
    return sum(origins)


def test_one_flipped_bit_anywhere_is_computed_anew_and_rewritten(line, filled):
    _, memory, files = filled
    assert run(line, memory) == 10
    generator = np.random.default_rng(0)
    for _ in range(120):
        file = files[generator.integers(len(files))]
        raw = bytearray(file.read_bytes())
        raw[generator.integers(len(raw))] ^= 1 << int(generator.integers(8))
        file.write_bytes(raw)
        assert run(line, memory) == 9
    assert run(line, memory) == 10


def test_exchanged_and_truncated_entries_are_computed_anew(line, filled):
    _, memory, files = filled
    contents = [file.read_bytes() for file in files]
    for shift in range(1, 10):
        for i, file in enumerate(files):
            file.write_bytes(contents[(i + shift) % len(files)])
        assert run(line, memory) == 0
    for length in (0, 1, 10, 500):
        files[0].write_bytes(contents[0][:length])
        assert run(line, memory) == 9
    files[0].unlink()
    files[0].mkdir()
    (files[0] / "inner").touch()
    assert run(line, memory) == 9
    assert run(line, memory) == 10


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_planted_pickles_never_run(line, filled):
    folder, memory, files = filled
    trap = folder / "trap"
    planted = pickle.dumps(Planted(trap))
    files[0].write_bytes(planted)
    np.savez(files[1], header=np.array([Planted(trap)], dtype=object), allow_pickle=True)
    joblib.dump(Planted(trap), files[2])
    for name in ("output.pkl", "metadata.json", "func_code.py"):
        for place in (folder, folder / "joblib", files[0].parent):
            (place / name).write_bytes(planted)
    assert run(line, memory) == 7
    assert run(line, check_memory(folder)) == 10
    assert not trap.exists()


def test_no_file_beside_the_entries_matters(line, filled):
    folder, _, files = filled
    beside = [p for p in folder.rglob("*") if p.is_file() and p not in files]
    for content in (b"", b"\xff\xfe broken", b"def f(): pass"):
        for file in beside:
            file.write_bytes(content)
        assert run(line, check_memory(folder)) == 10
    for file in beside:
        file.unlink()
    assert run(line, check_memory(folder)) == 10


def test_an_answer_sealed_for_another_function_or_key_is_no_answer(tmp_path):
    memory = check_memory(tmp_path)

    def one():
        return 1

    def two():
        return 2

    assert cached_call(memory, one, "k") == 1
    assert cached_call(memory, two, "k") == 2
    first, second = sorted(tmp_path.rglob("*.npz"))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert (cached_call(memory, one, "k"), cached_call(memory, two, "k")) == (1, 2)


# -- versions -----------------------------------------------------------------------------------------


def test_another_version_or_source_or_torch_finds_nothing(line, filled, monkeypatch):
    from estimators.cache import _calls as cache

    _, memory, _ = filled
    monkeypatch.setattr(cache, "SCHEMA", 1)
    machinery.cache_clear()
    assert run(line, memory) == 0
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__version__", "1.0")
    machinery.cache_clear()
    assert run(line, memory) == 0
    monkeypatch.undo()
    machinery.cache_clear()
    assert run(line, memory) == 10


def test_the_source_of_the_package_is_in_the_key(tmp_path):
    root = Path(__file__).parents[3]
    shutil.copytree(root / "estimators", tmp_path / "estimators", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", "from estimators.cache import machinery; print(machinery())"]

    def printed():
        environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    before = printed()
    assert printed() == before
    file = tmp_path / "estimators" / "landscape.py"
    file.write_text(file.read_text() + "\n")
    os.utime(file, (1, 1))
    assert printed() != before


def test_code_that_changed_on_disk_after_it_was_loaded_answers_to_nobody(tmp_path):
    root = Path(__file__).parents[3]
    shutil.copytree(root / "estimators", tmp_path / "estimators", ignore=shutil.ignore_patterns("__pycache__"))
    script = (
        "import pathlib, estimators.cache as c; pathlib.Path('estimators/landscape.py').touch(); a = c.machinery();"
        "c.machinery.cache_clear(); print(a == c.machinery())"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", script]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_pickled_answers_of_version_one_are_not_believed_but_listed_and_cleared(line, tmp_path):
    def evaluate_chunk(key, live, named):
        return Evaluation(np.zeros(32), np.zeros(32))

    evaluate_chunk.__module__, evaluate_chunk.__qualname__ = "estimators.base", "evaluate_chunk"
    old = joblib.Memory(str(tmp_path), verbose=0).cache(evaluate_chunk, ignore=["live", "named"])
    for i in range(10):
        old(str(i), (), {})
    assert run(line, check_memory(tmp_path)) == 0
    assert cache_info(tmp_path).entries == 20
    clear_cache(tmp_path)
    assert cache_info(tmp_path).entries == 0
    assert not list(tmp_path.rglob("output.pkl"))


# -- joblib -------------------------------------------------------------------------------------------


def test_a_memory_of_joblib_lends_its_folder_and_nothing_in_it_is_unpickled(line, tmp_path):
    memory = joblib.Memory(tmp_path / "own", verbose=0)
    assert run(line, memory) == 0
    assert run(line, memory) == run(line, check_memory(tmp_path / "own")) == 10
    assert not list(tmp_path.rglob("output.pkl"))
    sealed = joblib.Memory(str(tmp_path / "own"), backend="loss-atlas", verbose=0)
    assert check_memory(sealed) is sealed and run(line, sealed) == 10


def test_joblib_itself_can_use_the_backend(tmp_path):
    memory = joblib.Memory(str(tmp_path), backend="loss-atlas", verbose=0)
    calls = []

    @memory.cache
    def square(x):
        calls.append(x)
        return {"square": x**2}

    assert square(3) == square(3) == {"square": 9}
    assert calls == [3]
    memory.reduce_size(items_limit=0)
    assert square(3) == {"square": 9} and calls == [3, 3]
    memory.clear(warn=False)
    assert square(3) == {"square": 9} and calls == [3, 3, 3]


# -- the folder ---------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_the_folder_is_the_users_alone(filled):
    folder, _, files = filled
    entries = folder / "joblib" / "entries"
    assert stat.S_IMODE(entries.stat().st_mode) == stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    entries.chmod(0o755)
    check_memory(folder)
    assert stat.S_IMODE(entries.stat().st_mode) == 0o700


def test_a_full_disk_is_said_and_the_answer_returned(line, tmp_path, monkeypatch):
    memory = check_memory(tmp_path)

    def full(self, content):
        open(self, "wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(CacheWarning, match="No space left"):
        assert run(line, memory) == 0
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.tmp"))
    assert run(line, memory) == 0


def test_a_folder_that_cannot_be_is_said_and_the_answer_returned(line, tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(CacheWarning):
        assert run(line, check_memory(tmp_path / "file" / "cache")) == 0


def test_what_cannot_be_stored_is_said_and_returned(tmp_path):
    def module():
        return nn.Linear(1, 1)

    with pytest.warns(CacheWarning, match="Linear"):
        assert isinstance(cached_call(check_memory(tmp_path), module, "k"), nn.Linear)


def test_writers_at_once_leave_whole_entries(tmp_path):
    script = textwrap.dedent(
        f"""
        import numpy as np
        from estimators.cache import cached_call, check_memory
        def f(i): return np.full(20000, i)
        memory = check_memory({str(tmp_path)!r})
        for i in range(60): assert (cached_call(memory, f, str(i), i) == i).all()
        """
    )
    running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert cache_info(tmp_path).entries == 60


# -- looking, bounding, clearing ----------------------------------------------------------------------


def number(i):
    return np.full(1000, i)


def aged(folder, days):
    for file, age in zip(sorted(folder.rglob("*.npz")), days, strict=True):
        then = time.time() - age * 86400
        os.utime(file, (then, then))


def test_a_cache_is_looked_at_reduced_and_cleared(tmp_path):
    memory = check_memory(tmp_path)
    for i in range(5):
        cached_call(memory, number, str(i), i)
    info = cache_info(memory)
    assert info.entries == 5 and 40_000 < info.size < 60_000
    aged(tmp_path, [400, 1, 2, 3, 4])
    assert (datetime.datetime.now() - cache_info(tmp_path).oldest).days in (399, 400)
    reduce_cache(tmp_path, age=datetime.timedelta(days=100))
    assert cache_info(tmp_path).entries == 4
    reduce_cache(tmp_path, size="20K")
    assert 0 < cache_info(tmp_path).size <= 20 * 1024
    with pytest.raises(ValueError, match="size must be a number with K, M or G, got 'much'"):
        reduce_cache(tmp_path, size="much")
    other = tmp_path / "joblib" / "of somebody else"
    other.mkdir()
    clear_cache(tmp_path)
    assert cache_info(tmp_path)[1:4] == (0, 0, None) and other.exists()
    assert cached_call(memory, number, "0", 0)[0] == 0
    assert cache_info(tmp_path).entries == 1


def test_what_was_used_longest_ago_goes_first(tmp_path):
    memory = check_memory(tmp_path)
    for i in range(4):
        cached_call(memory, number, str(i), i)
    aged(tmp_path, [4, 3, 2, 1])
    recall(memory, number, "0")  # a hit makes it the youngest
    reduce_cache(tmp_path, size=9_000)
    assert recall(memory, number, "0") is not None and cache_info(tmp_path).entries == 1
    assert recall(memory, number, "0")[0] == 0


def test_a_cache_keeps_itself_within_its_limits(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSS_ATLAS_CACHE_SIZE", "100K")
    memory = check_memory(tmp_path)
    for i in range(60):  # 500 kB
        cached_call(memory, number, str(i), i)
    assert cache_info(memory).size < 130_000
    for file in tmp_path.rglob("*.npz"):
        os.utime(file, (1, 1))
    (tmp_path / "joblib" / "entries" / ".trimmed").unlink()
    cached_call(check_memory(tmp_path), number, "young", 7)
    assert cache_info(tmp_path).entries == 1
