"""What the subject is: the network's parts and the examples themselves, shown when somebody opens them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app.catalog import DataSpec, PointSpec
from app.texts import from_engine, plain, texts
from app.widgets.frame import opening

THUMBNAILS = 24
LARGEST_SIDE = 96  # pixels of a thumbnail


def buttons() -> tuple[Any, Any]:
    """Write what opens the two cards."""
    text = texts("common")
    return tuple(  # type: ignore[return-value]
        st.popover(text(name), icon=f":material/{icon}:", key=f"subject.{name}", on_change="rerun")
        for name, icon in (("card", "account_tree"), ("preview", "grid_view"))
    )


def draw(card: Any, preview: Any, point: PointSpec | None, data: DataSpec | None) -> None:
    """Fill those cards that are open."""
    if card.open:
        with card:
            _model(point)
    if preview.open:
        with preview:
            _examples(data)


def _model(point: PointSpec | None) -> None:
    text = texts("common")
    if point is None:
        st.caption(text("card.none"))
        return
    with opening():
        found = _card(point.architecture, point.num_classes, point.image_size)
    if isinstance(found, str):
        st.caption(from_engine(found))
        return
    norms = ", ".join(f"{count} {kind}" for kind, count in found.norms.items()) or text("card.no_norms")
    st.markdown(text("card.head", name=plain(found.name), parameters=found.n_parameters))
    st.markdown(text("card.parts", skips=found.n_skips, norms=norms))
    st.caption(text("card.licence", licence=plain(found.licence)) if found.licence else text("card.no_licence"))
    rows = {
        text("card.layer"): [
            "\u2003" * layer.name.count(".") + layer.name.rpartition(".")[2] for layer in found.layers
        ],
        text("card.kind"): [layer.kind for layer in found.layers],
        text("card.parameters"): [layer.n_parameters for layer in found.layers],
    }
    localized = {text("card.parameters"): st.column_config.NumberColumn(format="localized")}
    st.dataframe(pd.DataFrame(rows), hide_index=True, height=320, column_config=localized, alt=text("card"))


@lru_cache(maxsize=16)
def _card(name: str, classes: int, side: int) -> Any:
    from estimators import model_card

    try:
        return model_card(name, num_classes=classes or None, image_size=side or None)
    except ValueError as error:
        return str(error)


def _examples(data: DataSpec | None) -> None:
    text = texts("common")
    if data is None:
        st.caption(text("preview.none"))
        return
    with opening():
        pictures, labels, counts = _thumbnails(data)
    if isinstance(pictures, str):
        st.caption(from_engine(pictures))
        return
    st.caption(text("preview.head", shown=len(labels), all=sum(counts)))
    st.image(list(pictures), caption=[plain(label) for label in labels], width=56)
    names = data.class_names
    table = pd.DataFrame({text("preview.class"): list(names), text("preview.count"): counts})
    st.dataframe(table, hide_index=True, height=240, alt=text("preview"))


@st.cache_data(max_entries=4, show_spinner=False)
def _thumbnails(data: DataSpec) -> tuple[Any, list[str], list[int]]:
    """Return some of the examples as a person sees them, their classes, and how many there are of each class."""
    try:
        examples = replace(data, image_size=min(data.image_size, LARGEST_SIDE), mean=None, std=None).load()
    except (ValueError, TypeError, OSError) as error:
        return str(error), [], []
    targets, names = np.asarray(examples.targets), data.class_names
    # one of each class in turn, so that every class is seen
    nth = {k: iter(np.flatnonzero(targets == k)) for k in range(len(names))}
    chosen: list[int] = []
    while len(chosen) < THUMBNAILS and nth:
        for k in list(nth):
            found = next(nth[k], None)
            if found is None:
                del nth[k]
            else:
                chosen.append(int(found))
    chosen = chosen[:THUMBNAILS]
    images = np.asarray(examples.images[chosen]).transpose(0, 2, 3, 1)
    low, high = images.min(axis=(1, 2, 3), keepdims=True), images.max(axis=(1, 2, 3), keepdims=True)
    shown = (255 * (images - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    count = Counter(targets.tolist())
    return shown, [names[targets[i]] for i in chosen], [count[k] for k in range(len(names))]
