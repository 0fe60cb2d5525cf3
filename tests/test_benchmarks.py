"""The frame of `make bench`: its environment, its time, and what it says of the machine. No timing is tested."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks import bench_gpu, machine, rejudge_reports
from tests.benchmarks.machine import Reading, others, verdict

ROOT = Path(__file__).resolve().parents[1]
# topopy, which landscaper needs, asks for numpy < 2 and networkx < 3; the newest pandas for numpy >= 2.
OLDER = {"numpy", "networkx", "pandas"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(path: str) -> dict[str, str]:
    rows = (line.partition("==") for line in (ROOT / path).read_text().split())
    return {canonical(name): version for name, _, version in rows}


def test_the_peers_have_their_own_pins_and_ours_runs_there_on_what_it_is_tested_with():
    here, there = pins("constraints.txt"), pins("tests/benchmarks/constraints.txt")
    assert {name for name in here.keys() & there.keys() if here[name] != there[name]} == OLDER
    assert int(there["numpy"].split(".")[0]) < 2 and int(there["networkx"].split(".")[0]) < 3
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["bench"]
    asked = dict(re.fullmatch(r"([\w-]+)[=>]=(.+)", peer).groups() for peer in extra)
    assert {name for name in asked if canonical(name) not in there} == set()
    exact = {peer.split("==")[0]: peer.split("==")[1] for peer in extra if "==" in peer}
    assert {name: there[canonical(name)] for name in exact} == exact


def test_processor_time_of_others_is_told_from_ours(monkeypatch):
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 2)
    before, after = Reading(100, 50, 1, 10), Reading(110, 65, 2, 22)  # 15 s busy, 12 of them ours, of 20
    share, sentence = others(before, after)
    assert share == pytest.approx(0.2)
    assert "15% of the processors" in sentence and "5%" in sentence
    assert verdict(share).startswith("LOADED: others took 20%")
    assert verdict(others(before, Reading(110, 62, 1, 22))[0]) == "idle"
    assert verdict(others(None, after)[0]) == "load unknown"


def test_the_table_names_machine_versions_and_load(monkeypatch):
    table = machine.describe(seconds=0.01)
    for row in ("processor", "instructions", "versions", "before the run", "machine"):
        assert f"\n| {row} | " in table
    assert f"torch {machine.metadata.version('torch')}" in table


def test_a_step_gets_the_time_that_is_left():
    assert bench.run("machine", [], 0) == "left out: the time is used up"
    assert bench.run("machine", [], 0.01) == "stopped: the time is used up"
    assert bench.run("no_such_module", [], 60) == "failed with exit status 1"


def test_a_failed_step_is_named_and_the_others_run(monkeypatch, capfd):
    monkeypatch.setattr(bench, "describe", lambda: "the machine")
    monkeypatch.setattr(bench, "STEPS", (("First", "no_such_module", "", ""), ("Second", "", "", "")))
    monkeypatch.setattr(sys, "argv", ["bench"])
    seen = []
    monkeypatch.setattr(
        bench, "run", lambda module, *_: seen.append(module) or (module and "failed with exit status 1")
    )
    assert bench.main() == 1
    out = capfd.readouterr().out
    assert seen == ["no_such_module", ""] and "First: failed with exit status 1" in out and "### Second" in out


def test_the_checks_of_make_gpu_pass_in_a_rehearsal_on_the_cpu():
    found = list(bench_gpu.checks("cpu", 16, ("test_resnet",)))
    assert [check.name for check in found if not check.passed] == []
    assert len(found) == 14 and any("halved to 4" in check.name for check in found)


def test_a_path_that_stays_where_it_was_fails_a_check(monkeypatch):
    from estimators.core.network.working_copy import Network

    data = bench_gpu.load_data("digits", n_samples=16)
    model = bench_gpu.load_model("test_resnet", num_classes=10, image_size=32)
    wanted = bench_gpu.Landscape(model, data, device="cpu", batch_norm="frozen")
    losses = wanted.evaluate(*bench_gpu.plane(wanted)).losses
    monkeypatch.setattr(Network, "combine", lambda *args: None)  # a recording that reads an old buffer, say
    first = next(bench_gpu._values("test_resnet", model, data, "cpu", losses))
    assert not first.passed and first.error > 0.1
    assert not bench_gpu.Check("no number", float("nan"), 1.0).passed


def test_without_a_card_it_says_how_to_rehearse(monkeypatch, capsys):
    monkeypatch.setattr(bench_gpu.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_gpu"])
    assert bench_gpu.main() == 2
    assert "Use --device cpu for a rehearsal" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["swa", "batch_size", "saddles"])
def test_older_reports_say_what_their_numbers_say_by_the_rules_of_today(name):
    judge, text = getattr(rejudge_reports, name), (rejudge_reports.DOCS / f"{name.replace('_', '-')}.md").read_text()
    assert judge(text) == text
    by_hand = "| Momentum |"  # of the summary of docs/saddles.md
    rows = [line for line in text.splitlines() if line.endswith("| supported |") and not line.startswith(by_hand)]
    for row in rows[:5]:
        assert judge(text.replace(row, row.replace("| supported |", "| not supported |"))) == text
    assert rows
