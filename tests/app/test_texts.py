"""The app's texts: the same keys and braces in every language, and no English left where Korean was asked for."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from string import Formatter

import pytest
from streamlit.testing.v1 import AppTest

from app import main as frame
from app import texts as package
from app.texts import engine, texts

APP = Path(frame.__file__).parent
KOREAN = re.compile("[가-힣]")
# What stays as it is: where a definition comes from, and words that are names, symbols, units or code.
SOURCES = re.compile(r"^def\.\w+\.source$")
ENGLISH = re.compile(r"\b(?!nats\b|timm\b)[a-z]{4,}\b")


def modules() -> list[str]:
    found = sorted({*APP.glob("texts/[!_]*.py"), *APP.glob("pages/*/*texts.py")})
    return [".".join(p.relative_to(APP.parent).with_suffix("").parts) for p in found if not p.stem.endswith("_ko")]


def table(module: str, name: str) -> dict[str, str]:
    return getattr(importlib.import_module(module), name)


def braces(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


@pytest.mark.parametrize("module", modules())
def test_korean_has_the_keys_and_the_braces_of_english(module):
    english, korean = table(module, "EN"), table(f"{module}_ko", "KO")
    assert list(korean) == list(english)
    assert {key: braces(korean[key]) for key in english} == {key: braces(english[key]) for key in english}


@pytest.mark.parametrize("module", modules())
def test_korean_is_korean(module):
    korean = {key: words for key, words in table(f"{module}_ko", "KO").items() if not SOURCES.match(key)}
    bare = {key: re.sub(r"\{[^}]*\}|`[^`]*`", "", words) for key, words in korean.items()}
    assert {key: words for key, words in bare.items() if not KOREAN.search(words) and ENGLISH.search(words)} == {}


def test_a_key_nobody_wrote_is_an_error():
    with pytest.raises(KeyError):
        texts("home")("a key nobody wrote")


# ---- what the engine says ----


def spoken() -> str:
    """Return every string of the engine and the catalog, the pieces of formatted ones on lines of their own."""
    found = []
    for path in (*(APP.parent / "estimators").rglob("*.py"), APP / "catalog.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        found += [value for value in constants if isinstance(value, str)]
    return "\n".join(found)


def test_the_engine_still_says_what_is_translated():
    everything = spoken()
    pieces = {piece.strip() for key in engine.EN for piece in re.split(r"\{\w+\}|[,;:()%]|\. |\band\b", key)}
    assert [piece for piece in pieces if len(piece) > 12 and piece not in everything] == []


def test_what_the_engine_says_is_put_together_from_its_parts(monkeypatch):
    monkeypatch.setenv(package.LANGUAGE, "ko")
    measured = "SGD: left from r = 0 in 3 of 10 runs, control stayed in its one; Adam: not run from r = 0"
    korean = "SGD: r = 0에서 10번 중 3번 떠남, 대조군의 한 번: 머묾; Adam: r = 0에서 돌리지 않음"
    assert package.said(measured) == korean
    assert package.said("First random direction (filter norms)") == "첫째 무작위 방향 (필터 노름)"
    assert package.said("what nobody has translated") == "what nobody has translated"
    assert package.from_engine("lr must be > 0, got 0.") == "엔진의 메시지(영어): lr must be \\> 0, got 0."


def test_people_read_settings_by_their_names_in_the_app():
    note = "The rise is below the rounding of the loss at this radius: raise rho, or use float64."
    assert "raise the radius ρ" in package.said(note)
    assert package.from_engine("lr must be > 0, got 0.") == "lr must be \\> 0, got 0."


# ---- choosing the language ----


def app() -> AppTest:
    return AppTest.from_file(frame.__file__, default_timeout=60)


@pytest.fixture(autouse=True)
def forget_the_session():
    yield
    package.follow(lambda: None)


def test_the_language_is_switched_in_the_sidebar_and_stands_in_the_url():
    at = app().run()
    assert at.caption[-1].value and not KOREAN.search(at.header[0].value + at.caption[-1].value)
    at.get_by_key("language").set_value("ko").run()
    assert not at.exception
    assert KOREAN.search(at.caption[-1].value)
    assert at.query_params["language"] == "ko"


def test_the_url_brings_the_language_back_and_an_unknown_one_is_english():
    for asked, korean in (("ko", True), ("xx", False)):
        at = app()
        at.query_params["language"] = asked
        at.run()
        assert not at.exception
        assert bool(KOREAN.search(at.caption[-1].value)) is korean


def test_the_launcher_sets_the_language(monkeypatch):
    from app import __main__ as launcher

    monkeypatch.setenv(package.LANGUAGE, "en")
    launcher.settle(launcher.command_line().parse_args(["--language", "ko"]))
    assert package.language() == "ko"
    with pytest.raises(SystemExit):
        launcher.command_line().parse_args(["--language", "tlh"])


def test_choices_stay_when_the_language_changes():
    at = app()
    at.query_params["language"] = "en"
    at.run()
    at.get_by_key("home.view").set_value("map").run()
    at.get_by_key("language").set_value("ko").run()
    assert not at.exception
    assert at.get_by_key("home.view").value == "map"
    assert at.session_state["home.view"] == "map"
