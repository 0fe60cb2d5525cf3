"""Every text the app shows, one module a page, keyed.

A page's module holds one dictionary per language (``EN``, later ``KO``) from a key to a sentence.
``texts("surface")`` returns a function from a key to that sentence; braces in it are filled with
keyword arguments. A key missing in the chosen language falls back to English, so that a translation
can grow sentence by sentence. This package knows nothing of Streamlit or torch: charts use it too.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import lru_cache

LANGUAGES = ("en", "ko")


def language() -> str:
    """Return the interface language, from the environment variable ``LOSS_ATLAS_LANGUAGE`` (default ``en``)."""
    chosen = os.environ.get("LOSS_ATLAS_LANGUAGE", "en").lower()
    return chosen if chosen in LANGUAGES else "en"


@lru_cache(maxsize=64)
def _table(page: str, lang: str) -> dict[str, str]:
    module = importlib.import_module(f"app.texts.{page}")
    return {**module.EN, **getattr(module, lang.upper(), {})}


def texts(page: str) -> Callable[..., str]:
    """Return the texts of one page.

    Parameters
    ----------
    page : str
        Name of a module in ``app/texts``.

    Returns
    -------
    callable
        ``t(key, **values)`` gives the sentence with its braces filled. An unknown key raises ``KeyError``:
        a missing sentence is a mistake of ours, not something to show to a person.
    """

    def text(key: str, **values: object) -> str:
        sentence = _table(page, language())[key]
        return sentence.format(**values) if values else sentence

    return text
