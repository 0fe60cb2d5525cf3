"""What workers are sent, how often they open it, and what becomes of them and of the work when somebody is killed."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import cloudpickle
import joblib
import numpy as np
import pytest
import torch
from torch import nn

from estimators import Landscape, points, workers
from estimators.cache import check_memory
from estimators.points import evaluate_points
from estimators.workers import Parcel, WorkerLost, spread


@pytest.fixture
def line():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 32), nn.ReLU(), nn.Linear(32, 10))
    land = Landscape(model, (torch.randn(64, 3, 32, 32), torch.arange(64) % 10))
    anchors = torch.stack([land.theta, *torch.randn(2, land.n_parameters)])
    side = np.linspace(-1, 1, 9)
    return land, anchors, np.array([(1.0, x, y) for x in side for y in side])


def opened(content, item):
    """Who worked, and how many parcels that process holds open."""
    return os.getpid(), id(content), len(workers._ready)


def stubborn(content, item):
    time.sleep(0.05)
    if item == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


class TestWhatTravels:
    def test_bytes_of_a_map(self, line, monkeypatch):
        """At most 1.2 × (landscape + anchors) to each worker and 100 kB a piece."""
        land, anchors, table = line
        sent, parcels = [], []
        original = workers.delayed

        def counting(function):
            def job(*args):
                sent.append(len(cloudpickle.dumps(args)))
                parcels.append(args[1].path)
                return original(function)(*args)

            return job

        monkeypatch.setattr(workers, "delayed", counting)
        with joblib.parallel_config(backend="loky"):
            found = evaluate_points(land, anchors, table, n_jobs=2)
            again = evaluate_points(land, anchors, table[::-1], n_jobs=2)
        inputs, targets = land.data.inputs, land.data.targets
        needed = 4 * land.n_parameters + inputs.nbytes + targets.nbytes + anchors.nbytes
        assert max(sent) < 10_000 and len(set(parcels)) == 1
        assert needed < os.path.getsize(parcels[0]) < 1.2 * needed
        np.testing.assert_array_equal(found.losses, land.evaluate(anchors, table).losses)
        np.testing.assert_array_equal(again.losses, found.losses[::-1])

    def test_the_file_goes_with_the_landscape(self, line):
        land, anchors, table = line
        evaluate_points(land, anchors, table[:4], n_jobs=2)
        path = land.parcel[1].write()
        assert os.path.exists(path)
        land.parcel = None
        assert not os.path.exists(path)

    def test_other_anchors_are_another_parcel_and_a_sibling_has_its_own(self, line):
        land, anchors, table = line
        other = land.on((torch.randn(8, 3, 32, 32), torch.arange(8)))
        for which in (land, other):
            for scale in (1.0, 2.0):
                found = evaluate_points(which, scale * anchors, table[:6], n_jobs=2).losses
                np.testing.assert_array_equal(found, which.evaluate(scale * anchors, table[:6]).losses)

    def test_each_process_opens_it_once(self):
        parcel = Parcel({"a": torch.ones(1000)})
        with joblib.parallel_config(backend="loky"):
            seen = set(spread(opened, parcel, range(24), 2))
        assert 1 <= len(seen) <= 2 and len({pid for pid, *_ in seen}) == len(seen)

    @pytest.mark.parametrize("kind", ["_Arrived", "_Reference"])
    def test_a_parcel_can_travel_on(self, kind, tmp_path):
        parcel = Parcel([1, 2], prepare=tuple)
        sent = parcel if kind == "_Arrived" else workers._Reference("t", parcel.write(), 0, None)
        for _ in range(2):
            sent = cloudpickle.loads(cloudpickle.dumps(sent))
            assert type(sent).__name__ == kind and sent.open() == (1, 2)

    def test_dask_sends_to_each_worker_once(self, line):
        dask, distributed = pytest.importorskip("dask"), pytest.importorskip("distributed")
        land, anchors, table = line
        expected = land.evaluate(anchors, table).losses
        options = {"processes": True, "n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
        # Dask's memory manager looks every two seconds, and drops copies that no task waits for
        alone = dask.config.set({"distributed.scheduler.active-memory-manager.start": False})
        with alone, distributed.Client(**options) as client, joblib.parallel_config(backend="dask"):
            for _ in range(2):  # the second call finds it there
                np.testing.assert_array_equal(evaluate_points(land, anchors, table).losses, expected)
            held = client.run(lambda dask_worker: [k for k in dask_worker.data if "Parcel" in str(k)])
            ready = client.run(lambda: len(workers._ready))
        assert [len(keys) for keys in held.values()] == [1, 1]
        assert set(ready.values()) <= {0, 1} and sum(ready.values()) >= 1


class TestPieces:
    def work(self, line, n=81, **settings):
        land, anchors, table = line
        ignore = settings.get("on_progress", lambda *_: None)
        return points._Work(land, anchors, table[:n], check_memory(settings.get("memory")), ignore, None, 32)

    def sizes(self, work, workers_, monkeypatch, pace=None):
        taken = []

        def answer(function, parcel, items, n_jobs):
            work.pace = pace
            for start, rows in items:
                taken.append(len(rows))
                yield start, work.land.evaluate(work.anchors, rows), (pace or 0.01) * len(rows)

        monkeypatch.setattr(points, "spread", answer)
        work.run_elsewhere(2, workers_)
        assert work.known.all()
        return taken

    def test_many_workers_get_small_pieces(self, line, monkeypatch):
        assert max(self.sizes(self.work(line), 1000, monkeypatch, pace=0.5)) == 1

    def test_a_piece_lasts_a_second(self, line, monkeypatch):
        assert max(self.sizes(self.work(line), 2, monkeypatch, pace=0.2)) <= 5

    def test_fast_points_are_not_sent_one_by_one(self, line, monkeypatch):
        assert min(self.sizes(self.work(line), 1000, monkeypatch, pace=1e-4)[:1]) == 32

    def test_several_points_in_a_pass_stay_together(self, line, monkeypatch):
        land, anchors, table = line
        torch.manual_seed(0)
        many = Landscape(land.model_at(), land.data, points_per_pass=8)
        assert self.sizes(self.work((many, anchors, table)), 1000, monkeypatch, pace=1.0) == [32, 32, 17]

    def test_an_unfinished_chunk_is_kept_in_pieces(self, line, tmp_path, monkeypatch):
        """A kill costs the pieces of the last seconds, not a chunk of slow points."""
        land, anchors, table = line
        monkeypatch.setattr(points, "_PIECE", 0.0)
        monkeypatch.setattr(points, "_WRITTEN_EVERY", 0.0)
        memory, asked = check_memory(tmp_path), []

        class Killed(BaseException):
            pass

        def stop(done, total, message):
            if done == 20:
                raise Killed

        with pytest.raises(Killed):
            evaluate_points(land, anchors, table, memory=memory, on_progress=stop)
        evaluate = land.evaluate
        monkeypatch.setattr(land, "evaluate", lambda a, rows: (asked.append(len(rows)), evaluate(a, rows))[1])
        stored = []
        result = evaluate_points(
            land, anchors, table, memory=memory, on_chunk=lambda w, e, old: stored.append((len(e.losses), old))
        )
        assert stored[0] == (20, True) and sum(asked) == 61
        monkeypatch.undo()
        np.testing.assert_array_equal(result.losses, land.evaluate(anchors, table).losses)
        whole = []
        evaluate_points(land, anchors, table, memory=memory, on_chunk=lambda w, e, old: whole.append(old))
        assert whole == [True, True, True]


class TestKills:
    def test_a_killed_worker_ends_the_work_with_a_sentence(self):
        began = time.monotonic()
        with joblib.parallel_config(backend="loky"), pytest.raises(WorkerLost, match="call fit again"):
            list(spread(stubborn, Parcel(None), range(40), 2))
        assert time.monotonic() - began < 120  # two minutes were not enough before

    def test_what_was_finished_is_kept_and_the_rest_follows(self, line, tmp_path, monkeypatch):
        land, anchors, table = line
        memory = check_memory(tmp_path)

        def kill_one(done, total, message):
            if done < total and "cache" not in message:
                os.kill(_loky_processes()[0].pid, signal.SIGKILL)

        monkeypatch.setattr(points, "_PIECE", 0.0)
        with joblib.parallel_config(backend="loky"):
            with pytest.raises(WorkerLost):
                evaluate_points(land, anchors, table, memory=memory, n_jobs=2, on_progress=kill_one)
            stored = []
            found = evaluate_points(
                land, anchors, table, memory=memory, n_jobs=2, on_chunk=lambda w, e, old: stored.append(old)
            )
        assert stored[0] is True
        np.testing.assert_array_equal(found.losses, land.evaluate(anchors, table).losses)

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    def test_no_worker_outlives_its_parent(self, tmp_path):
        script = textwrap.dedent(
            """
            import os, time
            from estimators.workers import Parcel, spread

            def work(content, item):
                time.sleep(0.05)
                return os.getpid()

            if __name__ == "__main__":
                for pid in spread(work, Parcel(list(range(1000))), range(10_000), 2):
                    print(pid, flush=True)
            """
        )
        (tmp_path / "script.py").write_text(script)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
        parent = subprocess.Popen(
            [sys.executable, "script.py"], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
        )
        pids: set[int] = set()
        reader = threading.Thread(target=lambda: pids.update(int(line) for line in parent.stdout), daemon=True)
        reader.start()
        deadline = time.monotonic() + 200
        while len(pids) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        parent.kill()
        parent.wait()
        assert len(pids) == 2 and [p.name for p in tmp_path.glob("*.parcel")]
        deadline = time.monotonic() + 60
        while (any(_runs(p) for p in pids) or list(tmp_path.glob("*.parcel"))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not [p for p in pids if _runs(p)] and not list(tmp_path.glob("*.parcel"))


def _loky_processes():
    from joblib.externals.loky.reusable_executor import _executor

    return list(_executor._processes.values())


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
