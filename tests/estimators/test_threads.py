"""One landscape and many threads or processes: every backend gives the values of the plain loop, bit for bit."""

import sys
import threading

import joblib
import numpy as np
import pytest
import timm
import torch
from torch import nn

from estimators import Landscape, SurfaceMapper
from estimators.points import evaluate_points


@pytest.fixture(autouse=True)
def _switch_often():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(scope="module")
def network():
    """A real batch-norm network with statistics that are not 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("test_resnet", num_classes=10)
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.fixture(scope="module")
def few(digits):
    return digits.subset(32, random_state=0)


def plane(land):
    generator = torch.Generator().manual_seed(0)
    steps = [0.05 * torch.randn(land.n_parameters, generator=generator).to(land.theta) for _ in range(2)]
    anchors = torch.stack([land.theta, *steps])
    table = np.array([(1.0, x, y) for x in np.linspace(-1, 1, 7) for y in np.linspace(-1, 1, 7)])
    return anchors, table


def together(*tasks):
    """Run the tasks in threads of their own that start at once; what they raise is raised."""
    gate, errors = threading.Barrier(len(tasks)), []

    def run(task):
        try:
            gate.wait()
            task()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive(), "the threads wait for each other"
    if errors:
        raise errors[0]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr("estimators.points.CHUNK", 8)


@pytest.mark.parametrize(
    ("backend", "n_jobs"), [("threading", 2), ("threading", 4), ("loky", 2), ("multiprocessing", 2)]
)
def test_joblib_backends_give_equal_values(network, few, backend, n_jobs):
    land = Landscape(network, few)
    anchors, table = plane(land)
    expected = evaluate_points(land, anchors, table)
    with joblib.parallel_config(backend=backend):
        found = evaluate_points(land, anchors, table, n_jobs=n_jobs)
    np.testing.assert_array_equal(found.losses, expected.losses)
    np.testing.assert_array_equal(found.accuracies, expected.accuracies)


@pytest.mark.parametrize("processes", [False, True])
def test_dask_gives_equal_values(network, few, processes):
    distributed = pytest.importorskip("distributed")
    land = Landscape(network, few)
    anchors, table = plane(land)
    expected = evaluate_points(land, anchors, table).losses
    workers = {"n_workers": 2, "threads_per_worker": 1} if processes else {"n_workers": 1, "threads_per_worker": 4}
    with (
        distributed.Client(processes=processes, dashboard_address=None, **workers),
        joblib.parallel_config(backend="dask"),
    ):
        found = evaluate_points(land, anchors, table).losses
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batch_norm", ["frozen", "recompute"])
def test_values_and_derivatives_at_once(network, few, batch_norm):
    land = Landscape(network, few, batch_norm=batch_norm)
    other = land.on(few.subset(16, random_state=1))
    anchors, table = plane(land)
    table = table[:24]
    away = land.theta + anchors[1]
    work = {
        "evaluate": lambda: land.evaluate(anchors, table).losses,
        "sibling": lambda: other.evaluate(anchors, table).losses,
        "gradient": lambda: np.stack([land.gradient(t).numpy() for t in (away, land.theta, away)]),
        "product": lambda: np.stack([land.hvp(anchors[2], t).numpy() for t in (land.theta, away)]),
        "outputs": lambda: np.stack([other.outputs(t).numpy() for t in (away, land.theta) * 4]),
        "model": lambda: np.concatenate([v.numpy().ravel() for v in land.state_dict(away).values()]),
    }
    expected = {name: task() for name, task in work.items()}
    found = {}
    together(*(lambda name=name: found.update({name: work[name]()}) for name in work))
    for name in work:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_attention_keeps_its_kernels(few):
    """Which kernel computes attention is a choice for the whole process, which products make for themselves."""
    model = timm.create_model("test_vit", num_classes=10, img_size=32).eval()
    lands = [Landscape(model, few) for _ in range(2)]
    plain = Landscape(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)), few)
    directions = torch.ones_like(lands[0].theta)
    expected = lands[1].outputs()
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()
    seen = []

    def products():
        for _ in range(4):
            lands[0].hvp(directions, lands[0].theta * 1.01)
            lands[0].loss()
            plain.hvp(torch.ones_like(plain.theta), plain.theta * 1.01)

    def values():
        for i in range(60):
            lands[1].loss(lands[1].theta * (1 + i / 100))
            seen.append(lands[1].outputs())

    together(products, products, values)
    assert all(torch.equal(outputs, expected) for outputs in seen)
    assert (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()) == flags


def test_progress_may_wait_for_another_thread_that_uses_the_landscape(network, few):
    land = Landscape(network, few)
    anchors, table = plane(land)
    expected = land.evaluate(anchors, table[:4]).losses

    def look(done, total, message):
        together(lambda: land.loss(anchors[0] + anchors[1]))

    np.testing.assert_array_equal(land.evaluate(anchors, table[:4], on_progress=look).losses, expected)


def test_a_map_by_threads_is_the_map(network, few):
    settings = {"resolution": 9, "span": 0.5, "random_state": 0, "mode": "exact"}
    expected = SurfaceMapper(**settings).fit(network, few).losses_
    with joblib.parallel_config(backend="threading"):
        found = SurfaceMapper(**settings, n_jobs=3).fit(network, few).losses_
    np.testing.assert_array_equal(found, expected)
