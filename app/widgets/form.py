"""Inputs of a page, a line each: words come from the page's texts by key, values live in the URL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.state import bound
from app.texts import texts


class Form:
    """Write inputs whose label, help and options are looked up by key.

    The label of input ``name`` is the text ``name``, its help the text ``name.help`` where there is one, and the
    words of an option the text ``name.option`` where there is one, otherwise the option itself.

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

    def columns(self, spec: int | Sequence[float]) -> list[Form]:
        """Give a form for each column of a new row."""
        return [self.at(column) for column in self._place.columns(spec)]

    def integer(
        self,
        name: str,
        value: int,
        least: int | None = None,
        most: int | None = None,
        *,
        step: int = 1,
        label: str = "",
    ) -> int:
        """Ask for a whole number."""
        return int(
            self._place.number_input(value=value, min_value=least, max_value=most, step=step, **self._of(name, label))
        )

    def real(
        self,
        name: str,
        value: float,
        least: float | None = None,
        most: float | None = None,
        *,
        step: float | None = None,
        format: str = "%.4g",
        label: str = "",
    ) -> float:
        """Ask for a number."""
        given = self._place.number_input(
            value=value, min_value=least, max_value=most, step=step, format=format, **self._of(name, label)
        )
        return float(given)

    def toggle(self, name: str, value: bool = False, *, label: str = "") -> bool:
        """Ask yes or no."""
        return bool(self._place.toggle(value=value, **self._of(name, label)))

    def choice(self, name: str, options: Sequence[str], default: str | None = None, *, label: str = "") -> str:
        """Ask for one of several, in a list that opens."""
        index = 0 if default is None else list(options).index(default)
        return str(self._place.selectbox(options=list(options), index=index, **self._of(name, label, choose=True)))

    def switch(
        self, name: str, options: Sequence[str], default: str | None = None, *, label: str = "", **layout: Any
    ) -> str:
        """Ask for one of a few, all in sight; ``layout`` goes to ``st.segmented_control``."""
        chosen = self._place.segmented_control(
            options=list(options),
            default=default or options[0],
            required=True,
            **self._of(name, label, choose=True),
            **layout,
        )
        return str(chosen)

    def several(
        self, name: str, options: Sequence[str], default: Sequence[str] | None = None, *, label: str = ""
    ) -> tuple[str, ...]:
        """Ask for any number of a few; they come back in the order of ``options``."""
        chosen = self._place.pills(
            options=list(options),
            selection_mode="multi",
            default=list(options if default is None else default),
            **self._of(name, label, choose=True),
        )
        return tuple(option for option in options if option in (chosen or []))

    def _of(self, name: str, label: str, choose: bool = False) -> dict[str, Any]:
        text = texts(self._text)
        label = label or name

        def words(option: Any) -> str:
            return text(f"{label}.{option}") if f"{label}.{option}" in text else str(option)

        return {
            "label": text(label),
            "help": text(f"{label}.help") if f"{label}.help" in text else None,
            **({"format_func": words} if choose else {}),
            **bound(self.page, name),
        }
