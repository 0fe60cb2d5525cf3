"""How much the numbers of a result would change with other examples: an interval beside each, apart from its ±."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.texts import said, texts
from app.widgets.frame import show_table
from app.widgets.numbers import known


def over_examples(result: Any, words: Callable[[str], str]) -> None:
    """Write the table of the errors over examples that a result states; nothing where it states none.

    Parameters
    ----------
    result : Result
    words : callable
        The page's words for a field.
    """
    if not result.sampling:
        return
    text, table = texts("common"), sampling_table(result, words)
    _, error = result.uncertainty_of(next(iter(result.sampling)), "sampling")
    with st.expander(text("over"), icon=":material/table:"):
        show_table(table)
        st.caption(text("over.help", count=error.n_examples, more=error.n_to_halve))


def sampling_table(result: Any, words: Callable[[str], str]) -> pd.DataFrame:
    """Return a row a number: with its method's error, its interval over examples, and what to make of that."""
    text, rows = texts("common"), []
    for name in result.sampling:
        _, error = result.uncertainty_of(name, "sampling")
        write = _writer(name)
        remarks = [text("over.given", what=said(error.given))] if error.given else []
        if not np.isfinite(error.bias):
            remarks.append(text("over.bias.unknown"))
        elif error.bias:
            remarks.append(text("over.bias.high" if error.bias > 0 else "over.bias.low", by=write(abs(error.bias))))
        if error.rests_on_one:
            remarks.append(text("over.alone", share=error.largest_share))
        if not (error.promised or error.given):
            remarks.append(text("over.rough"))
        value = write(getattr(result, name)) if result.uncertainty_of(name) is None else known(result, name)
        rows.append([words(name), value, _ends(name, error.low, error.high) or "–", "; ".join(remarks)])
    return pd.DataFrame(rows, columns=[text(f"over.{column}") for column in ("number", "value", "interval", "remark")])


def interval_under(sampling: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what shows the interval over examples of one number under it, for ``st.metric``; nothing without one."""
    told = sampling.get(name)
    ends = told and _ends(name, told["low"], told["high"])
    if not ends:
        return {}
    return {"delta": texts("common")("over.short", ends=ends), "delta_color": "off", "delta_arrow": "off"}


def _ends(name: str, low: float, high: float) -> str:
    """Return an interval in words; empty where it is not known."""
    write = _writer(name)
    words = texts("common")("over.between", low=write(low), high=write(high))
    return words.replace("-", "−") if np.isfinite(low) and np.isfinite(high) else ""


def _writer(name: str) -> Callable[[float], str]:
    return "{:.1%}".format if name == "accuracy" else "{:.3g}".format
