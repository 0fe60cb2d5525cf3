"""The command `loss-atlas`: its options, what it writes without a browser, and in which language."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
import torch

import estimators
from app import __main__ as launcher
from app import demo
from app.texts import LANGUAGE
from app.workspace import runs
from estimators import (
    CheckResult,
    Landscape,
    ModeConnector,
    SharpnessEstimator,
    SurfaceMapper,
    SurfaceResult,
    SWAAverager,
    cache_info,
    load_data,
    load_model,
    train,
)

KOREAN = re.compile("[가-힣]")


@pytest.fixture(autouse=True)
def english(monkeypatch):
    monkeypatch.setenv(LANGUAGE, "en")


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        launcher.main(arguments)
    said = capsys.readouterr().err
    assert left.value.code == 2 and "Traceback" not in said
    return said


def test_the_version_is_said(capsys):
    with pytest.raises(SystemExit) as left:
        launcher.main(["--version"])
    assert left.value.code == 0 and re.fullmatch(r"loss-atlas \d+\.\d+.*\n", capsys.readouterr().out)


def test_folders_and_device_are_known_to_what_runs_later(tmp_path, monkeypatch):
    for name in ("LOSS_ATLAS_WORKSPACE", "LOSS_ATLAS_CACHE", "LOSS_ATLAS_DEVICE"):
        monkeypatch.setenv(name, "auto" if name.endswith("DEVICE") else str(tmp_path))
    arguments = ["--cache-dir", str(tmp_path / "c"), "--workspace", str(tmp_path / "w"), "--device", "meta"]
    launcher.settle(launcher.command_line().parse_args(arguments))
    from app import workspace

    assert cache_info().folder.startswith(str(tmp_path / "c")) and workspace.root() == tmp_path / "w"
    monkeypatch.setenv("LOSS_ATLAS_DEVICE", "cpu")
    assert (
        Landscape(load_model("test_vit", num_classes=10, image_size=32), load_data("digits", n_samples=4)).device.type
        == "cpu"
    )


def test_a_device_this_machine_lacks_is_a_sentence(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, message in (
        ("cuda", "got 'cuda' without CUDA"),
        ("gpu", "device must be 'auto', 'cpu' or 'cuda', got 'gpu'"),
    ):
        with pytest.raises(SystemExit):
            launcher.main(["--device", device])
        assert message in capsys.readouterr().err
    assert "LOSS_ATLAS_DEVICE" not in os.environ


def test_the_demo_writes_its_report(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "report", lambda: "<html>the report</html>")
    assert launcher.main(["demo", "--output", str(tmp_path / "r.html")]) == 0
    assert (tmp_path / "r.html").read_text() == "<html>the report</html>"
    assert str(tmp_path / "r.html") in capsys.readouterr().out


def test_both_names_of_the_browser_switch_are_known():
    for name in ("--no-browser", "--headless"):
        assert launcher.command_line().parse_args([name]).headless


@pytest.mark.parametrize("arguments", [["--language", "ko", "check"], ["check", "--language", "ko"]])
def test_options_are_taken_before_a_command_and_after_it(arguments):
    options = launcher.command_line().parse_args(arguments)
    assert (options.command, options.language, options.device) == ("check", "ko", None)


# ---- known landscapes ----


def test_the_check_speaks_korean(monkeypatch, capsys):
    def checked(on_progress):
        on_progress(0, 1, "Linear autoencoder")
        row = {"landscape": "linear_autoencoder", "quantity": "loss", "rung": 2, "error_of": "residual", "right": True}
        return CheckResult(rows=[row | dict.fromkeys(("expected", "measured", "difference", "error"), 1.0)])

    monkeypatch.setattr(estimators, "check_installation", checked)
    assert launcher.main(["check", "--language", "ko"]) == 0
    said = capsys.readouterr()
    assert "선형 오토인코더 (1개 중 1번째)" in said.err
    head, _, landscape, row, _, end = said.out.splitlines()
    assert all(KOREAN.search(line) for line in (head, landscape, row, end))
    assert not re.search("[a-z]{4}", head + row + end)


# ---- reports ----


def kept(title, scale=1.0):
    axis = np.linspace(-1.0, 1.0, 5)
    losses = scale * (1 + axis[:, None] ** 2 + axis**2)
    result = SurfaceResult(axes=(axis, axis), losses=losses, evaluated=np.ones((5, 5), bool), axis_titles=["a", "b"])
    return runs.Run.get(runs.save_run("surface", title, result, {"script": "print()"}, seconds=1.0))


def test_saved_runs_are_written_into_one_file_chosen_by_their_words(tmp_path, capsys):
    kept("Surface of one")
    kept("Surface of two", 2.0)
    kept("Surface of three").change(tags=["two"])
    file = tmp_path / "report.html"
    for words, titles in (([], ["one", "two", "three"]), (["TWO"], ["two", "three"]), (["two", "three"], ["three"])):
        assert launcher.main(["report", *words, "--output", str(file)]) == 0
        assert capsys.readouterr().out == f"{file}\n"
        assert sorted(re.findall(r"<h2>Surface of (\w+)", file.read_text())) == sorted(titles)
    assert "report must find a saved run, got none with the words ['four']" in refused(capsys, "report", "four")
    assert launcher.main(["report", "--language", "ko", "--output", str(file)]) == 0
    assert "<html lang='ko'>" in file.read_text() and "<h2>나란히" in file.read_text()


@pytest.fixture(scope="module")
def found():
    """What the demo measures, on a few images."""
    data, test = load_data("digits", n_samples=64), load_data("digits", split="test", n_samples=64)
    starts = [load_model("test_resnet", num_classes=10, image_size=32, random_state=seed) for seed in (0, 1)]
    trained = [train(start, data, epochs=1, held_out=test) for start in starts]
    a, b = (run.model for run in trained)
    measures = ("sharpness", "average", "lambda_max", "trace", "profile")
    probe = SharpnessEstimator(measures=measures, n_steps=1, n_restarts=1, n_draws=4, n_probes=2)
    return demo.Found(
        [run.history for run in trained],
        [probe.fit(model, data).result_ for model in (a, b)],
        SurfaceMapper(resolution=5, mode="exact").fit(a, data).result_,
        ModeConnector(path="linear", n_points=5).fit((a, b), data).result_,
        SWAAverager().train(starts[0], data, epochs=4, held_out=test, trace=False).result_,
    )


def test_the_demo_speaks_both_languages(found, monkeypatch):
    english = demo.lay_out(found, 12.0)
    monkeypatch.setenv(LANGUAGE, "ko")
    korean = demo.lay_out(found, 12.0)
    assert "<html lang='en'>" in english and not KOREAN.search(english)
    assert "<html lang='ko'>" in korean
    for layout in (english, korean):
        assert layout.count("<h2>") == 5 and layout.count("<svg") == 4 and layout.count("<table>") == 3
        assert "src=" not in layout and "href=" not in re.sub('xlink:href="#|href="#', "", layout)
    words = re.sub(r"<style>.*?</style>|<[^>]*>", " ", korean, flags=re.S)
    left = set(re.findall(r"\b[a-z]{5,}\b", words)) - {"digits", "train", "frozen", "recompute", "filter"}  # code
    assert not left, f"still English: {left}"
