"""Every text the app shows, keyed: what pages share in this folder, the rest beside each page.

A page's ``texts.py`` holds one dictionary per language (``EN``, later ``KO``) from a key to a sentence.
``texts("surface")`` returns a function from a key to that sentence; braces in it are filled with
keyword arguments. A key missing in the chosen language falls back to English, so that a translation
can grow sentence by sentence. This package knows nothing of Streamlit or torch: charts use it too.
"""

from __future__ import annotations

import importlib
import os
import re
from functools import lru_cache

from app.pages import FOLDERS

LANGUAGES = ("en", "ko")
SHARED = ("common",)


def language() -> str:
    """Return the interface language, from the environment variable ``LOSS_ATLAS_LANGUAGE`` (default ``en``)."""
    chosen = os.environ.get("LOSS_ATLAS_LANGUAGE", "en").lower()
    return chosen if chosen in LANGUAGES else "en"


def _module(name: str) -> str:
    if name in SHARED:
        return f"app.texts.{name}"
    page, _, view = name.partition(".")
    return f"app.pages.{FOLDERS.get(page, page)}.{view + '_' if view else ''}texts"


@lru_cache(maxsize=64)
def _table(page: str, lang: str) -> dict[str, str]:
    module = importlib.import_module(_module(page))
    return {**module.EN, **getattr(module, lang.upper(), {})}


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


def texts(page: str) -> Texts:
    """Return the texts of one page.

    Parameters
    ----------
    page : str
        Name of a page, or of a view of it with texts of its own ("stationary.critical"), or one of ``SHARED``.
    """
    return Texts(page)
