"""Every text the app shows, keyed: what pages share in this folder, the rest beside each page.

A page's ``texts.py`` holds the dictionary ``EN`` from a key to a sentence, ``texts_ko.py`` beside it ``KO`` with the same
keys. ``texts("surface")`` returns a function from a key to the sentence in the language of whoever looks; braces in it
are filled with keyword arguments. What the engine says (errors, notes, progress), names of models and the code names of
settings are English in every language. This package knows nothing of Streamlit or torch: charts use it too.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from app.pages import FOLDERS

LANGUAGES = {"en": "English", "ko": "한국어"}
LANGUAGE = "LOSS_ATLAS_LANGUAGE"  # the environment variable that the launcher sets
SHARED = ("common", "charts", "engine", "designs", "demo")

# What a result was computed with, as far as it is said under its picture.
_MADE_WITH = (
    "model", "data", "n_examples", "batch_norm", "normalization", "loss", "precision", "bfloat16_deviation",
    "backbone", "random_state", "device",
)  # fmt: skip

_sessions: list[Callable[[], str | None]] = []


def follow(session: Callable[[], str | None]) -> None:
    """Let every text be in the language that ``session()`` gives; None stands for that of the launcher."""
    _sessions[:] = [session]


def default_language() -> str:
    """Return the language the launcher was given, English without one."""
    chosen = os.environ.get(LANGUAGE, "en").lower()
    return chosen if chosen in LANGUAGES else "en"


def language() -> str:
    """Return the language of whoever looks."""
    return next((chosen for session in _sessions if (chosen := session())), default_language())


def module_of(name: str, lang: str) -> str:
    """Return the module that holds texts: of a page, of a view of it, or of what pages share."""
    page, _, view = name.partition(".")
    suffix = "" if lang == "en" else f"_{lang}"
    if name in SHARED:
        return f"app.texts.{name}{suffix}"
    return f"app.pages.{FOLDERS.get(page, page)}.{view + '_' if view else ''}texts{suffix}"


@lru_cache(maxsize=128)
def _table(name: str, lang: str) -> dict[str, str]:
    table: dict[str, str] = getattr(importlib.import_module(module_of(name, lang)), lang.upper())
    return table


class Texts:
    """The texts of one page: called with a key they give its sentence, and ``key in texts`` tells whether there is one."""

    def __init__(self, page: str) -> None:
        self._page = page

    def __call__(self, key: str, **values: object) -> str:
        """Return the sentence of a key with its braces filled.

        Raises
        ------
        KeyError
            For an unknown key: a missing sentence is a mistake of ours, not something to show to a person.
        """
        sentence = _table(self._page, language())[key]
        return sentence.format(**values) if values else sentence

    def options(self, key: str) -> tuple[str, ...]:
        """Return the options of a choice, in the order of their words: those ``key.OPTION`` there are texts of."""
        found = [name.removeprefix(f"{key}.") for name in _table(self._page, "en") if name.startswith(f"{key}.")]
        return tuple(option for option in found if "." not in option and option != "help")

    def __contains__(self, key: str) -> bool:
        return key in _table(self._page, language())


_MARKS = re.compile(r"[\\`*\[\]<>$~#|]")


def plain(words: object, most: int = 2000, lines: int = 40) -> str:
    r"""Return words that a file, a folder or a person gave as Markdown that shows them and does nothing else.

    No image is fetched from another host, no colour set, no markup read; long ones are cut, and every line stays one.

    Examples
    --------
    >>> plain("![x](http://a.b/c.png) of test_resnet")
    '!\\[x\\](http://a.b/c.png) of test_resnet'
    """
    said = str(words)
    listed = said[:most].splitlines()
    cut = "…" if len(said) > most or len(listed) > lines else ""
    return _MARKS.sub(lambda found: "\\" + found[0], "  \n".join(listed[:lines])) + cut


def said(words: str) -> str:
    """Return what the engine said in the language of whoever looks, with settings called as they are in the app.

    The sentences stand in ``engine.py`` and ``designs_ko.py``; what matches none of them is returned as it is.

    Examples
    --------
    >>> said("The loss under noise is not finite for some draws: lower sigma.")
    'The loss under noise is not finite for some draws: lower the noise σ.'
    """
    return _said(words, language())


@lru_cache(maxsize=4096)
def _said(words: str, lang: str) -> str:
    for pattern, sentence in _sentences(lang):
        found = pattern.fullmatch(words)
        if found:
            return sentence.format(**{name: _said(part, lang) for name, part in found.groupdict().items()})
    parts = words.split("; ")
    return "; ".join(_said(part, lang) for part in parts) if len(parts) > 1 else words


@lru_cache(maxsize=len(LANGUAGES))
def _sentences(lang: str) -> list[tuple[re.Pattern[str], str]]:
    """Return patterns of the engine's sentences with what to say for each, those that leave least open first."""
    table = _table("engine", lang) | (_table("designs", lang) if lang != "en" else {})
    closed = sorted(table, key=lambda key: len(re.sub(r"{\w+}", "", key)), reverse=True)
    return [
        (re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^;]+?)", re.escape(key)), re.DOTALL), table[key]) for key in closed
    ]


def made_with(settings: Mapping[str, Any]) -> str:
    """Return in one line what a result was computed with: network, data, examples, batch-norm policy, seed."""
    text, values = texts("common"), {name: said(v) if isinstance(v, str) else v for name, v in settings.items()}
    if values.get("data") and values.get("split"):
        values["data"] = f"{values['data']} ({values['split']})"
    if values.get("batch_norm_chosen_by") == "auto":
        values["batch_norm"] = text("setting.batch_norm.auto", value=values["batch_norm"])
    known = (name for name in _MADE_WITH if values.get(name) is not None)
    return " · ".join(text(f"setting.{name}", value=values[name]) for name in known)


def from_engine(words: object) -> str:
    """Return what the engine said as Markdown; where it has no other words, an introduction says that it is English."""
    told = said(str(words))
    return plain(told) if told != str(words) else texts("common")("engine.says", message=plain(told))


def texts(page: str) -> Texts:
    """Return the texts of one page.

    Parameters
    ----------
    page : str
        Name of a page, or of a view of it with texts of its own ("stationary.critical"), or one of ``SHARED``.
    """
    return Texts(page)
