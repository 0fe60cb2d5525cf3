"""The subject: chosen once, the same on every page, found by words, and what a result says of it."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from app import catalog
from app.texts import texts
from app.work import jobs
from app.workspace import library, runs
from estimators import load_model, save_checkpoint
from tests.app.test_frame import finish, page

TEXT = texts("common")
MEASURING = ("surface", "stationary", "sharpness", "connectivity")


def kept(folder, name="net", seed=0, architecture="test_resnet"):
    model = load_model(architecture, num_classes=10, image_size=32, random_state=seed)
    path = save_checkpoint(folder / f"{name}-{seed}.safetensors", model.state_dict())
    meta = {"name": name, "architecture": architecture, "num_classes": 10, "image_size": 32}
    return library.add_checkpoint(path, {**meta, "start": {"seed": seed}, "data": {"source": "digits"}})


def chosen(at, **values):
    for name, value in {"from": "timm", "samples": 16, **values}.items():
        at.session_state[f"subject.{name}"] = value
    return at


def line(at):
    """Return the bar's own words."""
    return next(m.value for m in at.markdown if "batch norm:" in m.value)


@pytest.mark.parametrize("name", MEASURING)
def test_every_measuring_page_reads_the_same_inputs(name):
    at = chosen(page(name), architecture="test_vit", seed=3, loss="cross_entropy", label_smoothing=0.1).run()
    assert not at.exception
    said = line(at)
    assert "test_vit" in said and "seed 3" in said and "16 images at 32 px" in said
    assert "Cross-entropy (label_smoothing=0.1)" in said and "automatic" in said and "float32" in said
    assert not any(key.startswith(f"{name}.samples") or key.startswith(f"{name}.m.") for key in at.session_state)


def test_typed_words_take_the_best_match_and_never_make_up_a_name():
    at = chosen(page("surface")).run()

    def type_in(words):
        box = at.selectbox(key="subject.architecture")
        box.options.append(words)  # as the browser does for words that are no option
        box.set_value(words).run()

    type_in("18 resnet")
    assert at.session_state["subject.architecture"] == catalog.matching("18 resnet")[0]
    assert not at.error and any("fits" in c.value and "resnet18" in c.value for c in at.caption)
    type_in("no such network")
    assert "no such network" in at.error[0].value and at.button(key="surface.run").disabled


def test_the_loss_reaches_the_measurement_and_its_script():
    at = chosen(page("sharpness"), loss="huber", delta=0.5)
    at.session_state["sharpness.measures"] = ["average"]
    at.session_state["sharpness.n_draws"] = 4
    at.run()
    assert any(TEXT("loss.unit") == c.value for c in at.caption)
    at.button(key="sharpness.run").click().run()
    finish(at)
    job = jobs.latest("sharpness")
    assert job.error is None and job.result.settings["loss"] == "huber(delta=0.5)"
    assert "loss='huber(delta=0.5)'" in job.config["script"]


def test_a_policy_that_a_page_cannot_take_is_refused_in_words(tmp_path):
    kept(tmp_path), kept(tmp_path, seed=1)
    at = page("connectivity")
    at.session_state["subject.batch_norm"] = "frozen"
    at.run()
    assert "must be “Automatic”, “Recomputed at each point”" in at.error[0].value
    assert at.button(key="connectivity.run").disabled


def test_defaults_never_start_in_an_error(tmp_path):
    """Models of two kinds and of equal names: what stands beside another is of its kind and is not it."""
    kept(tmp_path, "a third kind", seed=3, architecture="test_vit")  # the oldest, by time or by name
    for seed in range(3):
        kept(tmp_path, seed=seed)
    for name, directions in (("surface", "models"), ("surface", "linear"), ("connectivity", "")):
        at = page(name)
        at.session_state["subject.samples"] = 16
        if directions:
            at.session_state["surface.directions"] = directions
        at.run()
        assert not at.exception and not at.error and not at.warning, (name, directions)
        assert not at.button(key=f"{name}.run").disabled
    names = at.selectbox(key="subject.checkpoint").options
    assert len(set(names)) == 4, "equal names are told apart"


def test_two_checkpoints_of_one_name_are_two_models_on_a_map(tmp_path):
    kept(tmp_path, seed=0), kept(tmp_path, seed=1)
    at = page("surface")
    at.session_state["subject.samples"] = 8
    at.session_state["surface.directions"] = "linear"
    at.session_state["surface.resolution"] = 3
    at.run()
    at.button(key="surface.run").click().run()
    finish(at)
    assert jobs.latest("surface").error is None
    assert sorted(m["label"] for m in jobs.latest("surface").result.markers) == ["net, seed 0", "net, seed 1"]


def test_a_result_says_what_it_is_and_when_the_settings_differ(tmp_path):
    entry = kept(tmp_path)
    at = page("surface")
    at.session_state["subject.samples"] = 8
    at.session_state["surface.resolution"] = 3
    at.run()
    at.button(key="surface.run").click().run()
    finish(at)
    job = jobs.latest("surface")
    (run,) = runs.list_runs()
    (head,) = (c.value for c in at.caption if "8 images at 32 px" in c.value and "random" in c.value)
    assert entry.name in head and run.created[:10] in head
    differs = f"{TEXT('head.differs')}"
    assert not any(differs in m.value for m in at.markdown)
    at.number_input(key="surface.resolution").set_value(5).run()
    assert any(differs in m.value for m in at.markdown)
    at.button(key=f"restore-{job.id}").click().run()
    assert at.number_input(key="surface.resolution").value == 3
    assert not any(differs in m.value for m in at.markdown)
    # another look at it changes no setting
    at.segmented_control(key="surface.scale").set_value("linear").run()
    assert not any(differs in m.value for m in at.markdown)


def test_reopening_a_run_sets_the_inputs_to_what_made_it(tmp_path):
    kept(tmp_path)
    at = page("surface")
    made_with = {"subject.samples": 8, "subject.loss": "mse", "surface.resolution": 3, "surface.span": 0.5}
    for name, value in made_with.items():
        at.session_state[name] = value
    at.run()
    at.button(key="surface.run").click().run()
    finish(at)
    (run,) = runs.list_runs()
    json.dumps(run.info["config"]["form"])

    def reopen_and_look(run_id):
        import streamlit as st

        from app.pages.runs.page import reopen
        from app.pages.surface.page import render
        from app.workspace import runs

        if st.session_state.get("reopened"):
            render()
        else:
            st.session_state["reopened"] = True
            reopen(runs.Run.get(run_id))

    fresh = AppTest.from_function(reopen_and_look, args=(run.id,), default_timeout=60).run().run()
    assert not fresh.exception
    assert {name: fresh.get_by_key(name).value for name in made_with} == made_with
    # once: what is changed after that stays
    fresh.number_input(key="surface.resolution").set_value(7).run()
    assert fresh.number_input(key="surface.resolution").value == 7


def test_a_trained_network_becomes_the_subject(tmp_path):
    kept(tmp_path, "older"), kept(tmp_path, "newer", seed=1)
    older = next(c for c in library.list_checkpoints() if c.name == "older")

    def draw(entry):
        from app.widgets import measure_button

        measure_button("t", entry)

    at = AppTest.from_function(draw, args=(older.id,), default_timeout=60).run()
    at.button[0].click().run()
    assert at.session_state["subject.checkpoint"] == older.id and at.session_state["subject.data"] == "digits"


def test_a_data_set_by_name_is_checked_listed_and_in_the_script(tmp_path):
    import numpy as np
    import torch
    from torchvision.datasets import MNIST

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 10)):
        images, labels = random.integers(0, 255, (count, 28, 28), dtype=np.uint8), np.arange(count) % 10
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            np.array([2051, count, 28, 28], ">i4").tobytes() + images.tobytes()
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            np.array([2049, count], ">i4").tobytes() + labels.astype(np.uint8).tobytes()
        )
    assert len(MNIST(str(tmp_path))) == 30
    at = chosen(page("surface"), data="named", **{"data.name": "torch/mnist", "data.root": str(tmp_path)}).run()
    assert not at.exception and not at.error
    assert at.text[0].value.startswith("10 classes, 30 images in this split: 0 - zero 3")
    assert "torch/mnist, train, 16 images" in line(at)
    spec = catalog.DataSpec("torch/mnist", n_samples=16, root=str(tmp_path))
    assert f"root={str(tmp_path)!r}" in spec.code() and len(spec.class_names) == 10 and spec.available == 30
    assert torch.is_tensor(spec.load().targets) and len(spec.load()) == 16
    wrong = chosen(page("surface"), data="named", **{"data.name": "torch/mnist", "data.root": "/nowhere"}).run()
    assert "that lies in root" in wrong.error[0].value and wrong.button(key="surface.run").disabled
    wrong = chosen(page("surface"), data="named", **{"data.name": "cifar"}).run()
    assert "must be one of timm's names" in wrong.error[0].value


def test_the_cards_say_what_network_and_which_examples():
    at = chosen(page("surface"), architecture="resnet18")
    at.session_state["subject.card"] = True
    at.session_state["subject.preview"] = True
    at.run()
    assert not at.exception
    said = " ".join(m.value for m in at.markdown)
    assert "11,181,642 parameters" in said and "Residual sums: 8 · Norms: 20 BatchNorm2d" in said
    layers, classes = at.dataframe[0].value, at.dataframe[1].value
    assert layers[TEXT("card.parameters")].max() < 11_181_642 and (layers[TEXT("card.kind")] == "BasicBlock").sum() == 8
    assert list(classes[TEXT("preview.class")]) == list("0123456789")
    assert classes[TEXT("preview.count")].sum() == 16
