"""Inputs of a page, a line each: words come from the page's texts by key, values live in the URL."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import streamlit as st

from app.state import bound, kept, note
from app.state import key as key_of
from app.texts import Texts, texts

Option = TypeVar("Option")
Number = TypeVar("Number", int, float)


class Form:
    """Write inputs whose label, help and options are looked up by key.

    The label of input ``name`` is the text ``name``, its help the text ``name.help`` where there is one, and the
    words of an option the text ``name.option`` where there is one, otherwise the option itself. A view that has its
    words among its page's texts (``Form("stationary.random", "stationary")``) looks for ``random.name`` first; what
    a page does not say (the words of a scale, say) is looked for in the common texts.

    A choice without ``options`` offers those that have words, in their order.

    Every method takes ``label`` (the key to look up where it is not ``name``), ``private`` (keep the value for the
    session, out of the URL: paths, long texts) and what else the widget of Streamlit takes (``width``, ``disabled``).

    Parameters
    ----------
    page : str
        Page, or view of it, whose URL parameters these inputs are.
    text : str, optional
        Whose texts to use; the page's own by default.
    place : container, optional
        Where to write; the script's place by default.

    Examples
    --------
    >>> form = Form("sharpness")  # doctest: +SKIP
    >>> rho, norm = form.real("rho", 0.05, 1e-6), form.choice("norm", ("l2", "linf"))  # doctest: +SKIP
    """

    def __init__(self, page: str, text: str | None = None, place: Any = st) -> None:
        self.page, self._text, self._place = page, text or page, place

    def at(self, place: Any) -> Form:
        """Give the same form, writing into a column or container."""
        return Form(self.page, self._text, place)

    def columns(self, spec: int | Sequence[float], **layout: Any) -> list[Form]:
        """Give a form for each column of a new row."""
        return [self.at(column) for column in self._place.columns(spec, **layout)]

    def integer(self, name: str, value: int, least: int | None = None, most: int | None = None, **more: Any) -> int:
        """Ask for a whole number."""
        return int(self._ask(self._place.number_input, name, value=value, min_value=least, max_value=most, **more))

    def real(
        self, name: str, value: float, least: float | None = None, most: float | None = None, **more: Any
    ) -> float:
        """Ask for a number."""
        limits = {"value": value, "min_value": least, "max_value": most, "format": "%.4g"}
        return float(self._ask(self._place.number_input, name, **{**limits, **more}))

    def percent(
        self, name: str, value: float, least: float | None = 0.0, most: float | None = 100.0, **more: Any
    ) -> float:
        """Ask for a share in percent; return it as a share of one."""
        return self.real(name, value, least, most, **more) / 100

    def slider(self, name: str, value: Number, least: Number, most: Number, **more: Any) -> Number:
        """Ask for a number between two others."""
        asked = self._ask(self._place.slider, name, value=value, min_value=least, max_value=most, **more)
        return type(value)(asked)

    def text(self, name: str, **more: Any) -> str:
        """Ask for words; blanks around them are dropped."""
        return str(self._ask(self._place.text_input, name, **more) or "").strip()

    def toggle(self, name: str, value: bool = False, **more: Any) -> bool:
        """Ask yes or no."""
        return bool(self._ask(self._place.toggle, name, value=value, **more))

    def choice(
        self, name: str, options: Iterable[Option] | None = None, default: Option | None = None, **more: Any
    ) -> Option:
        """Ask for one of several, in a list that opens; ``words(option)`` names them where texts cannot."""
        listed = self._listed(name, options, **more)
        start = {"index": 0 if default is None else listed.index(default)}
        chosen: Option = self._choose(self._place.selectbox, name, options=listed, **{**start, **more})
        return chosen

    def switch(
        self,
        name: str,
        options: Iterable[Option] | None = None,
        default: Option | None = None,
        *,
        preset: bool = False,
        **more: Any,
    ) -> Option:
        """Ask for one of a few, all in sight; ``preset`` says that the session holds a value set from outside."""
        listed = self._listed(name, options, **more)
        # Streamlit wants either a default or a value set from outside, not both.
        start = {} if preset else {"default": listed[0] if default is None else default}
        chosen: Option = self._choose(
            self._place.segmented_control, name, options=listed, required=True, **start, **more
        )
        return chosen

    def log(self, name: str = "scale", **more: Any) -> bool:
        """Ask for a logarithmic or a linear scale; tell whether it is logarithmic."""
        return self.switch(name, ("log", "linear"), **more) == "log"

    def several(
        self, name: str, options: Iterable[Option] | None = None, default: Sequence[Option] | None = None, **more: Any
    ) -> tuple[Option, ...]:
        """Ask for any number of a few, all chosen at first; they come back in the order of ``options``."""
        listed = self._listed(name, options, **more)
        start = listed if default is None else list(default)
        chosen = self._choose(self._place.pills, name, options=listed, selection_mode="multi", default=start, **more)
        return tuple(option for option in listed if option in (chosen or []))

    def many(
        self, name: str, options: Iterable[Option], default: Sequence[Option] = (), **more: Any
    ) -> tuple[Option, ...]:
        """Ask for any number of many, in a list that opens; they come back in the order they were chosen in."""
        listed = list(options)
        chosen = self._choose(self._place.multiselect, name, options=listed, default=list(default), **more)
        return tuple(option for option in chosen if option in listed)

    def _listed(self, name: str, options: Iterable[Any] | None, label: str = "", **more: Any) -> list[Any]:
        """Return the options of a choice, those that have words where none are given."""
        text, key = self._found(label or name)
        return list(text.options(key) if options is None else options)

    def _choose(
        self, widget: Callable[..., Any], name: str, words: Callable[[Any], str] | None = None, **more: Any
    ) -> Any:
        key = more.get("label") or name
        places = (self._found(key), (texts("common"), key))

        def said(option: Any) -> str:
            return next((text(f"{full}.{option}") for text, full in places if f"{full}.{option}" in text), str(option))

        return self._ask(widget, name, format_func=words or said, **more)

    def _ask(
        self, widget: Callable[..., Any], name: str, *, label: str = "", private: bool = False, **more: Any
    ) -> Any:
        text, key = self._found(label or name)
        words = {"label": text(key), "help": text(f"{key}.help") if f"{key}.help" in text else None}
        given = widget(**{**words, **(kept if private else bound)(self.page, name), **more})
        note(key_of(self.page, name))
        return given

    def _found(self, key: str) -> tuple[Texts, str]:
        """Return the texts that name a key, and its name there."""
        own, view = texts(self._text), self.page.removeprefix(f"{self._text}.")
        return next(((own, full) for full in (f"{view}.{key}", key) if full in own), (texts("common"), key))
