"""Choosing the examples: digits, a folder of images, or a data set by one of timm's names."""

from __future__ import annotations

from collections import Counter
from typing import Any

import streamlit as st

from app import catalog
from app.catalog import DataSpec
from app.texts import from_engine, plain, texts
from app.widgets.form import Form

CLASSES_NAMED = 12
DIGITS, FOLDER, NAMED = "digits", "folder", "named"


def data_picker(
    page: str,
    *,
    samples: int = 512,
    splits: tuple[str, ...] = ("train", "test", "all"),
    said: Any = st,
) -> DataSpec | None:
    """Choose the examples the loss is measured on; None, with the reason beside it, while that is wrong.

    Parameters
    ----------
    page : str
        Tells several pickers apart.
    samples : int, default=512
        How many are drawn at first.
    splits : tuple of str
        Those to choose from.
    said : container, optional
        Where what is wrong is written; beside the input by default.
    """
    form = Form(page, "common")
    kind = form.switch("data", (DIGITS, FOLDER, NAMED), label_visibility="collapsed", width="stretch")
    source, root, unreadable = "digits", "", "raise"
    if kind == FOLDER:
        source = form.text("data.path", placeholder="/home/me/pictures")
    elif kind == NAMED:
        source = form.text("data.name", placeholder="torch/cifar10")
        root = form.text("data.root", placeholder="/home/me/data")
        if source and not catalog.is_named(source):
            said.error(texts("common")("data.name.wrong", value=plain(source)))
            source = ""
    left, middle, right = form.columns([1.35, 1, 1])
    used = left.choice("split", splits if kind != NAMED else [split for split in splits if split != "all"])
    count = middle.integer("samples", samples, 2, step=64)
    size = right.integer("image_size", 32, 8, 1024, step=8)
    if not source:
        said.caption(texts("common")("data.path.missing" if kind == FOLDER else "data.name.missing"))
        return None
    if kind != DIGITS:
        problem = catalog.check_source(source, used, root)
        if problem:
            said.error(from_engine(problem))
            return None
        _say_what_was_found(source, used, root, said)
    if kind == FOLDER and form.toggle("unreadable"):
        unreadable = "skip"
    there = catalog.available(source, used, root)
    if count > there:
        st.caption(texts("common")("samples.all", count=there))
    return DataSpec(source, used, count if count < there else None, size, unreadable=unreadable, root=root)


def _say_what_was_found(source: str, split: str, root: str, said: Any) -> None:
    """Say which classes a source was taken to hold, how many images each, and what may have been meant otherwise."""
    text, found = texts("common"), catalog.listed(source, split, root)
    counts = Counter(found.targets.tolist())
    names = [f"{name} {counts[i]:,}" for i, name in enumerate(found.class_names[:CLASSES_NAMED])]
    more = ", …" if len(found.class_names) > CLASSES_NAMED else ""
    words = text("data.found", count=len(found.class_names), images=len(found), names=", ".join(names) + more)
    held_out = text("data.held_out") if found.held_out and split != "all" else ""
    st.text(f"{words} {held_out}".strip())  # names from files are no Markdown
    if found.notes:
        said.warning(text("data.level", notes=plain(" ".join(found.notes))))
