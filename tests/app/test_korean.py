"""Every page in Korean, empty and with results: no English sentence is left on it.

English stay: what the engine says where it is introduced as English, names (models, variants, methods, people and their
papers), units and code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import main as frame
from app.catalog import DataSpec, PointSpec
from app.texts import LANGUAGE, designs_ko, said
from app.work import jobs
from app.workspace.curves import TrainingResult
from estimators import (
    CheckResult,
    CriticalPointFinder,
    CurvatureEstimator,
    CurvatureTracker,
    SaddleEscaper,
    pooled_digits,
    random_critical_points,
    small_net,
)
from estimators.experiments import CLAIMS, STUDIES, read_records
from tests.app.pages import test_architectures as architectures
from tests.app.pages import test_averaging as averaging
from tests.app.pages import test_connectivity as connectivity
from tests.app.pages import test_known as known
from tests.app.pages import test_sharpness as sharpness
from tests.app.pages import test_surface as surface

KOREAN = re.compile("[가-힣]")
STAYS = re.compile(
    r"`[^`]*`"  # code
    r"|:small\[:gray\[[^\]]*\]\]"  # the source of a definition
    r"|엔진의 메시지\(영어\):.*"  # the engine, introduced
    r"|as built|without skips|without norm"  # names of variants
    r"|[A-Z][\w’'-]+(?: (?:&|and|et al\.?|[A-Z][\w’'-]+))*,? \(?\d{4}\)?",  # people and a year
    re.DOTALL,
)
SENTENCE = re.compile(r"\b[A-Za-z]{2,}(?:,? [a-z]{2,}){2,}")
WORDS = ("title", "description", "text", "labelExpr", "label")


def strings(value: Any) -> Iterator[str]:
    """Return the words of a chart: titles, descriptions, names in scales and in its rows."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str) and " " in value and "datum" not in value:
        yield value


def shown(at: AppTest) -> Iterator[str]:
    """Return every word on a page."""
    for element in (*at.main, *at.sidebar):
        for name in ("value", "label", "help", "placeholder", "body", "proto"):
            found = getattr(element, name, None)
            if isinstance(found, str):
                yield found
        yield from (str(option) for option in getattr(element, "options", ()))
    for table in at.dataframe:
        yield from map(str, table.value.columns)
        yield from (cell for cell in table.value.to_numpy().ravel() if isinstance(cell, str))
    for chart in at.get("vega_lite_chart"):
        yield from strings(json.loads(chart.proto.spec))


def left_in_english(at: AppTest) -> list[str]:
    """Return what is on a page and should not be."""
    bare = {STAYS.sub("", words) for words in shown(at)}
    return sorted({words for words in bare if SENTENCE.search(words)})


def walk(page: str) -> AppTest:
    def draw(name):
        import importlib

        from app.main import module_of

        importlib.import_module(module_of(name)).render()

    at = AppTest.from_function(draw, args=(page,), default_timeout=60).run()
    assert not at.exception
    return at


@pytest.fixture(autouse=True)
def korean(monkeypatch):
    monkeypatch.setenv(LANGUAGE, "ko")


def curves() -> TrainingResult:
    history = {
        name: np.array([2.0, 1.0]) for name in ("epoch", "loss", "held_out_loss", "accuracy", "held_out_accuracy")
    }
    return TrainingResult(history, "kept", "mine", settings={"accuracy": 0.9, "held_out_examples": 360})


def curvature() -> Any:
    return (
        CurvatureEstimator(n_eigenvalues=2, per_layer=True, sampling=True)
        .fit(small_net(hidden=2), pooled_digits(n_samples=40))
        .result_
    )


def tracked() -> Any:
    net = small_net(hidden=2)
    return CurvatureTracker(n_probes=2).fit([net, net], pooled_digits(n_samples=40), lr=[0.1, 0.0]).result_


def critical() -> Any:
    finder = CriticalPointFinder(indices=(0, 1), n_starts=3, max_steps=60, l2=1e-2)
    return finder.fit(small_net(hidden=2), pooled_digits(n_samples=40)).result_


def checked() -> CheckResult:
    found = "loss found from random starts"
    rungs = [known.row(rung=k, expected=1 + k, measured=1 + k) for k in range(3)]
    return CheckResult(rows=[*rungs, known.row(rung=0, quantity=found), known.row(right=False, landscape="saddle")])


def mapped() -> Any:
    titles = ["First random direction (filter norms)", "Second random direction (filter norms)"]
    return surface.surface(
        9, axis_titles=titles, notes=["the grid steps over it, the loss of the plane at its place is 2"]
    )


# What is shown: the page, the page of its jobs, a result, and what chooses the view it is in.
RESULTS = {
    "workbench": ("workbench", "workbench", curves, {}),
    "surface": ("surface", "surface", mapped, {}),
    "stationary": ("stationary", "stationary", curvature, {}),
    "stationary, training": ("stationary", "stationary.training", tracked, {"stationary.view": "training"}),
    "stationary, random": (
        "stationary", "stationary.random", lambda: random_critical_points((1, 2, 9), n_samples=300),
        {"stationary.view": "random"},
    ),
    "stationary, critical": ("stationary", "stationary.critical", critical, {"stationary.view": "critical"}),
    "sharpness": ("sharpness", "sharpness", sharpness.measured, {}),
    "sharpness, batch": ("sharpness", "sharpness.batch", sharpness.experiment_result, {"sharpness.view": "batch"}),
    "connectivity": ("connectivity", "connectivity", connectivity.path_result, {}),
    "connectivity, map": ("connectivity", "connectivity.map", connectivity.map_result, {"connectivity.view": "map"}),
    "connectivity, cases": (
        "connectivity", "connectivity.cases", connectivity.cases_result, {"connectivity.view": "cases"}
    ),
    "averaging": ("averaging", "averaging", averaging.averaged, {}),
    "averaging, soup": ("averaging", "averaging.soup", averaging.averaged, {"averaging.view": "soup"}),
    "escape": (
        "escape", "escape", lambda: SaddleEscaper(saddle="strict_surface", max_steps=60, n_seeds=2).fit().result_, {}
    ),
    "architectures": ("architectures", "architectures", architectures.comparison, {}),
    "architectures, claims": (
        "architectures", "architectures", architectures.comparison, {"architectures.view": "claims"}
    ),
    "architectures, width": ("architectures", "architectures", architectures.sweep, {}),
    "known": ("known", "known", checked, {}),
}  # fmt: skip


@pytest.mark.parametrize("page", [page for _, page, _ in frame.PAGES])
def test_no_english_is_left_on_an_empty_page(page):
    at = walk(page)
    assert KOREAN.search(at.header[0].value) or page == "home"
    assert left_in_english(at) == []


@pytest.mark.parametrize("name", RESULTS)
def test_no_english_is_left_beside_a_result(name):
    page, owner, make, state = RESULTS[name]
    config = {"points": {"model": PointSpec().as_dict()}, "data": DataSpec().as_dict()}
    job = jobs.adopt(owner, "제목", make(), config)

    def draw(name, state):
        import importlib

        import streamlit as st

        from app.main import module_of

        for key, value in state.items():
            st.session_state.setdefault(key, value)
        importlib.import_module(module_of(name)).render()

    at = AppTest.from_function(draw, args=(page, state), default_timeout=60).run()
    assert not at.exception
    assert jobs.latest(owner) is job
    assert list(at.get("vega_lite_chart")) or any("badge" in m.value for m in at.markdown), "no result on the page"
    assert left_in_english(at) == []


def test_every_design_of_the_lecture_is_translated_and_nothing_else_is():
    fields = ("contrast", "equal", "controls", "unit", "test", "smallest", "against", "untested")
    sentences = {str(getattr(claim, name) or "") for claim in CLAIMS.values() for name in fields}
    sentences |= {study.title for study in STUDIES.values()} | {record.setting for record in read_records().values()}
    known = {words for words in sentences if words and KOREAN.search(said(words))}
    assert sentences - known <= {""}
    patterns = {words for words in designs_ko.KO if "{" in words}  # settings of records, whose counts vary
    assert set(designs_ko.KO) - patterns <= sentences


def test_english_would_be_found():
    def draw():
        import streamlit as st

        st.caption("엔진의 메시지(영어): lr must be positive and small. `code is not a sentence`")
        st.caption("Li et al. 2018을 보세요")
        st.caption("This is an English sentence.")

    assert left_in_english(AppTest.from_function(draw).run()) == ["This is an English sentence."]
