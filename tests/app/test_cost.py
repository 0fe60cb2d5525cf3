"""What a run takes is said before it, nothing heavy is built to say so, and time is measured where somebody asks."""

from __future__ import annotations

import importlib
import threading
import time

import pytest
from streamlit.testing.v1 import AppTest

from app.texts import texts
from app.work import jobs

TEXT = texts("common")
module = importlib.import_module("app.widgets.cost")  # the package hands out the function of that name
LARGE = "vit_large_patch16_224"


def page(name="surface"):
    def render(name):
        import importlib

        from app.main import module_of

        importlib.import_module(module_of(name)).render()

    return AppTest.from_function(render, kwargs={"name": name}, default_timeout=60)


def with_model(name, architecture, **values):
    at = page(name)
    at.session_state["subject.from"] = "timm"
    at.session_state["subject.architecture"] = architecture
    for key, value in values.items():
        at.session_state[f"subject.{key}"] = value
    return at


def said(at):
    return " ".join(c.value for c in at.caption)


@pytest.fixture(autouse=True)
def no_times():
    module._measured().clear()


def test_choosing_a_large_model_queues_nothing_and_says_what_it_takes():
    at = with_model("surface", LARGE, samples=64).run()
    assert not at.exception
    assert jobs.get_queue().jobs() == []
    assert "303,115,274 parameters" in said(at)
    assert "GB** of" in said(at)
    assert "evaluations × " not in said(at), "no time was asked for"


@pytest.mark.parametrize(
    ("architecture", "sizes", "cure"),
    [(LARGE, {}, "vectors"), ("resnet50", {"samples": 1437, "image_size": 224}, "activations")],
)
def test_what_does_not_fit_is_refused_with_what_to_lower(monkeypatch, architecture, sizes, cure):
    monkeypatch.setattr("estimators.free_memory", lambda device="auto": 2 * 10**9)
    at = with_model("surface", architecture, **sizes).run()
    assert any(TEXT(f"cost.cure.{cure}") in e.value and "2.0 GB are free" in e.value for e in at.error)
    assert at.button(key="surface.run").disabled
    assert jobs.get_queue().jobs() == []


def test_vectors_are_counted_where_many_are_kept(monkeypatch):
    monkeypatch.setattr("estimators.free_memory", lambda device="auto": 9 * 10**9)
    at = with_model("stationary", LARGE, samples=4).run()
    assert any(TEXT("cost.cure.vectors") in e.value for e in at.error)
    assert at.button(key="stationary.run").disabled


def measure_button(at):
    return next(b for b in at.button if b.key and b.key.startswith("cost."))


def test_time_is_measured_when_asked_and_holds_while_the_machine_is_as_busy(monkeypatch):
    monkeypatch.setattr(module, "_busy", lambda: 1.0)
    at = with_model("surface", "test_resnet", samples=16).run()
    measure_button(at).click().run()
    assert [job.page for job in jobs.get_queue().jobs()] == ["cost"]
    assert jobs.get_queue().wait(60)
    at.run()
    assert "evaluations × " in said(at)
    assert "ago" in measure_button(at).label
    monkeypatch.setattr(module, "_busy", lambda: 5.0)  # what was quick on a quiet machine is not now
    at.run()
    assert "evaluations × " not in said(at)
    assert measure_button(at).label == TEXT("cost.measure")
    monkeypatch.setattr(module, "_busy", lambda: 1.0)
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + module.FRESH + 1)
    at.run()
    assert "evaluations × " not in said(at)


def test_measuring_can_be_cancelled_and_says_why_it_failed(monkeypatch):
    go = threading.Event()
    jobs.submit("surface", "before it", lambda handle: go.wait(60), keep=False)
    at = with_model("surface", "test_resnet", samples=16).run()
    measure_button(at).click().run()
    job = jobs.latest("cost")
    at.button(key=f"cancel-{job.id}").click().run()
    go.set()
    assert jobs.get_queue().wait(60)
    assert job.state == "cancelled"
    assert "evaluations × " not in said(at.run())

    def broken(*_):
        raise ValueError("no such thing")

    monkeypatch.setattr(module, "_pace", broken)
    measure_button(at).click().run()
    assert jobs.get_queue().wait(60)
    assert TEXT("cost.unknown", why="no such thing") in said(at.run())


def test_a_race_tells_its_time_when_asked():
    at = page("escape")
    at.session_state["escape.saddle"] = "strict_surface"
    at.session_state["escape.steps"] = 100
    at.run()
    assert jobs.get_queue().jobs() == []
    measure_button(at).click().run()
    assert jobs.get_queue().wait(60)
    assert jobs.latest("cost").state == "done", jobs.latest("cost").error
    assert "About **" in said(at.run())


def test_announced_evaluations_are_those_taken():
    """Exact maps to the last one; adaptive ones count each slice of a volume and each profile."""
    from estimators import SurfaceMapper, load_data, load_model

    model, data = load_model("test_resnet", num_classes=10, image_size=32), load_data("digits", n_samples=8)
    for params in (
        {"mode": "exact", "n_dims": 3, "resolution": (5, 5, 3)},
        {"mode": "exact", "n_dims": 1, "n_seeds": 2, "resolution": 7},
        {"mode": "adaptive", "n_dims": 3, "resolution": (5, 5, 3)},
    ):
        mapper = SurfaceMapper(**params)
        assert mapper.cost().evaluations == mapper.fit(model, data).n_evaluated_
    assert SurfaceMapper(mode="adaptive").cost().evaluations == 220
    volume = SurfaceMapper(mode="adaptive", n_dims=3, resolution=(41, 41, 5))
    assert volume.cost().evaluations == 1100  # the five slices that took 990 where 218 were announced


def test_lines_between_networks_are_announced_with_what_their_highest_points_take(monkeypatch):
    from app.pages.averaging import soup
    from estimators import Landscape, MinimaMapper, SWAAverager, load_data, load_model

    data, evaluate, taken = load_data("digits", n_samples=32), Landscape.evaluate, []
    nets = [load_model("test_resnet", num_classes=10, image_size=32, random_state=seed) for seed in range(4)]
    monkeypatch.setattr(Landscape, "evaluate", lambda *args: taken.append(len(args[2])) or evaluate(*args))
    MinimaMapper().fit(nets, data)
    assert 1 / 1.5 < MinimaMapper().cost(4).evaluations / sum(taken) < 1.5
    taken.clear()
    SWAAverager(method="uniform_soup").fit(nets, data)
    assert 1 / 1.5 < soup.taken(4, "uniform_soup") / sum(taken) < 1.5


def test_products_are_timed_as_products_and_a_limit_is_said(monkeypatch):
    at = with_model("stationary", "test_resnet", samples=16).run()
    assert "Hessian-vector products" in said(at)
    from estimators import Work

    monkeypatch.setattr(module, "_pace", lambda *_: Work(products=2.0))
    measure_button(at).click().run()
    assert jobs.get_queue().wait(60)
    at.run()
    assert "Hessian-vector products × 2e+03 ms ≈ **" in said(at) and "stopped after" not in said(at)
    at.session_state["stationary.time_budget"] = "minute"
    at.run()
    assert TEXT("cost.stops", budget="1 min 00 s") in said(at)
