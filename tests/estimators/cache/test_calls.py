import subprocess
import sys
import textwrap

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from estimators import Cancelled, Landscape
from estimators.cache import fingerprint
from estimators.cache._calls import cached_call, check_memory, default_cache_folder, is_cached
from estimators.points import CHUNK, evaluate_points


def double(x):
    double.calls += 1
    return 2 * x


double.calls = 0


def test_fingerprints_are_of_content():
    t = torch.randn(3, 4)
    assert fingerprint(t) == fingerprint(t.clone()) == fingerprint(t.T.contiguous().T)
    assert len({fingerprint(p) for p in (t, t.double(), t.reshape(4, 3), t.numpy().tolist(), [t], {"a": t})}) == 6
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)


def test_answers_are_stored_and_damage_is_repaired(tmp_path):
    memory = check_memory(tmp_path)
    key = fingerprint("key")
    double.calls = 0
    assert not is_cached(memory, double, key)
    assert cached_call(memory, double, key, 4) == cached_call(memory, double, key, 4) == 8
    assert double.calls == 1 and is_cached(memory, double, key)
    for file in tmp_path.rglob("*.npz"):
        file.write_bytes(b"damaged")
    assert cached_call(check_memory(tmp_path), double, key, 4) == 8
    assert double.calls == 2


def test_memory_argument(tmp_path, monkeypatch):
    monkeypatch.setenv("LOSS_ATLAS_CACHE", str(tmp_path))
    assert check_memory("default").location == str(tmp_path) == str(default_cache_folder())
    assert check_memory(None).location is None
    memory = joblib.Memory(tmp_path, verbose=0)
    assert check_memory(memory) is memory
    with pytest.raises(TypeError, match="memory must be None"):
        check_memory(3)


@pytest.fixture
def line():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    data = (torch.randn(20, 4), torch.arange(20) % 3)
    land = Landscape(model, data)
    return land, torch.stack([land.theta, torch.randn(land.n_parameters)]), np.c_[np.ones(100), np.linspace(-1, 1, 100)]


def test_a_cancelled_run_goes_on_where_it_was(line, tmp_path):
    land, anchors, table = line
    memory = check_memory(tmp_path)

    def stop(done, total, message):
        if done >= 2 * CHUNK:
            raise Cancelled

    with pytest.raises(Cancelled):
        evaluate_points(land, anchors, table, memory=memory, on_progress=stop)
    origins = []
    result = evaluate_points(land, anchors, table, memory=memory, on_chunk=lambda w, e, stored: origins.append(stored))
    assert origins == [True, True, False, False]
    np.testing.assert_array_equal(result.losses, land.evaluate(anchors, table).losses)


@pytest.mark.parametrize("backend", ["loky", "threading", "dask"])
def test_results_are_equal_for_every_backend(line, tmp_path, backend):
    land, anchors, table = line
    expected = evaluate_points(land, anchors, table).losses
    if backend == "dask":
        distributed = pytest.importorskip("distributed")
        options = {"processes": False, "n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
        with distributed.Client(**options), joblib.parallel_config(backend="dask"):
            found = evaluate_points(land, anchors, table, n_jobs=2).losses
    elif backend == "threading":
        with joblib.parallel_config(backend="threading"):
            found = evaluate_points(land, anchors, table, n_jobs=1).losses
    else:
        found = evaluate_points(land, anchors, table, memory=check_memory(tmp_path), n_jobs=2).losses
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_new_process_finds_the_answers(tmp_path):
    script = textwrap.dedent(
        f"""
        import numpy as np, torch
        from torch import nn
        from estimators import Landscape
        from estimators.points import evaluate_points
        from estimators.cache import check_memory
        torch.manual_seed(0)
        land = Landscape(nn.Linear(4, 3), (torch.randn(9, 4), torch.arange(9) % 3))
        origins = []
        table = np.linspace(0, 1, 40)[:, None]
        evaluate_points(land, land.theta[None], table, memory=check_memory({str(tmp_path)!r}),
                        on_chunk=lambda w, e, stored: origins.append(stored))
        print(origins)
        """
    )
    outputs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in "ab"]
    assert [o.stdout.strip() for o in outputs] == ["[False, False]", "[True, True]"]
