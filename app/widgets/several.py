"""Choosing several checkpoints of one kind, or the training epochs of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import streamlit as st

from app.catalog import PointSpec
from app.names import names_apart
from app.texts import plain, texts
from app.widgets.form import Form
from app.widgets.pickers import quick_start
from app.workspace import library


def points_picker(
    page: str,
    epochs: Callable[[Sequence[Path]], Sequence[Path]],
    *,
    first: int,
    alone: bool = False,
) -> list[PointSpec]:
    """Choose checkpoints of one kind; an empty list, with the reason beside it, while there are too few.

    Parameters
    ----------
    page : str
        ``PAGE.VIEW``; the page's texts ``VIEW.models``, ``VIEW.epochs``, ``VIEW.mixed`` and ``VIEW.need`` are used.
    epochs : callable
        Gives those of a checkpoint's training epochs that can be taken; none where that makes no sense.
    first : int
        How many are chosen at the start.
    alone : bool, default=False
        Whether the epochs stand instead of the checkpoints, not beside them.
    """
    name, _, view = page.partition(".")
    text, form = texts(name), Form(page, name)
    found = {entry.id: entry for entry in library.list_checkpoints()}
    points: list[PointSpec] = []
    if found:
        names = names_apart(list(found.values()))
        same = [i for i, entry in found.items() if entry.architecture == next(iter(found.values())).architecture]
        chosen = form.many("models", found, same[:first], words=lambda i: names.get(i, i))
        entries = [found[i] for i in chosen]
        points = [PointSpec.from_checkpoint(entry) for entry in entries]
        kept = epochs(entries[0].trajectory) if entries else ()
        if kept and form.toggle("epochs"):
            steps = [PointSpec.from_checkpoint(entries[0], path.stem) for path in kept]
            points = steps if alone else points + steps
    kinds = sorted({f"{point.architecture} ({point.num_classes})" for point in points})
    if len(kinds) > 1:
        st.error(text(f"{view}.mixed", count=len(kinds), names=plain(", ".join(kinds))))
        return []
    if len(points) < 2:
        st.caption(text(f"{view}.need"))
        if len(found) < 2:
            quick_start(page)
        return []
    return points
