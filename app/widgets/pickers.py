"""Choosing a model, weights and data, with every message beside the input it is about."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import catalog
from app.catalog import DataSpec, PointSpec
from app.texts import texts
from app.widgets.form import Form
from app.workspace import library

LIBRARY, TIMM, FILE = "library", "timm", "file"


@dataclass(frozen=True)
class Inputs:
    """What was chosen; ``ready`` is False while something is missing or wrong."""

    points: tuple[PointSpec | None, ...]
    data: DataSpec | None
    settings: dict[str, Any]

    @property
    def point(self) -> PointSpec | None:
        """The first model."""
        return self.points[0]

    @property
    def ready(self) -> bool:
        """Whether every part is there and valid."""
        return self.data is not None and all(point is not None for point in self.points)


def inputs(
    page: str,
    labels: tuple[str, ...] | None = None,
    *,
    epochs: bool = False,
    policies: tuple[str, ...] = ("auto", "frozen", "recompute", "batch"),
) -> Inputs:
    """Write model pickers, the data picker and the engine settings of a page.

    Parameters
    ----------
    page : str
    labels : tuple of str, optional
        One heading for each model; one model called "Model" by default.
    epochs : bool, default=False
        Offer the training epochs of a library checkpoint too.
    policies : tuple of str
        Batch-norm policies the page's estimator takes, its usual one first.
    """
    text = texts("common")
    labels = labels or (text("model"),)
    model_slot = st.container()
    data = data_picker(page)
    with model_slot:
        points = tuple(
            point_picker(page, data, label=label, role="abcdef"[number] if len(labels) > 1 else "m", epochs=epochs)
            for number, label in enumerate(labels)
        )
    if data is not None and points[0] is not None:
        data = data.for_point(points[0])
    settings = engine_settings(page, policies)
    return Inputs(points, data, settings)


# ---- one model ----


def point_picker(
    page: str,
    data: DataSpec | None,
    *,
    label: str = "",
    role: str = "m",
    epochs: bool = False,
    default: str = LIBRARY,
) -> PointSpec | None:
    """Choose one point; None while the choice is incomplete or wrong (the reason is written there).

    Parameters
    ----------
    page, role : str
        Together they tell several pickers apart.
    data : DataSpec or None
        Gives the number of classes and the image size of a fresh timm model.
    label : str
        Heading.
    epochs : bool, default=False
        Offer the training epochs of a library checkpoint.
    default : {"library", "timm", "file"}
        Where to look first.
    """
    text = texts("common")
    st.markdown(f"**{label or text('model')}**")
    form = Form(f"{page}.{role}", "common")
    source = form.switch("from", (LIBRARY, TIMM, FILE), default, label_visibility="collapsed", width="stretch")
    if source == TIMM:
        return _timm_point(page, data, role)
    if source == FILE:
        return file_point(page, data, role)
    return _library_point(page, data, role, epochs)


def _library_point(page: str, data: DataSpec | None, role: str, epochs: bool) -> PointSpec | None:
    text = texts("common")
    found = library.list_checkpoints()
    if not found:
        st.caption(text("library.empty"))
        quick_start(page, role)
        return None
    entry = checkpoint_picker(f"{page}.{role}", found, start=min(1, len(found) - 1) if role == "b" else 0)
    if entry is None:
        st.error(text("library.gone"))
        return None
    epoch = None
    if epochs and entry.trajectory:
        steps = [path.stem for path in entry.trajectory]
        last = text("library.final")
        picked = Form(f"{page}.{role}", "common").choice("epoch", [last, *reversed(steps)], label="library.epoch")
        epoch = None if picked == last else picked
    if data is not None:
        classes = len(catalog.class_names(data.source))
        if entry.num_classes and classes > entry.num_classes:
            st.error(text("library.classes", have=entry.num_classes, need=classes))
            return None
        trained_on = entry.info.get("data", {}).get("source")
        if trained_on and trained_on != data.source:
            st.warning(text("library.other_data", trained=trained_on, chosen=data.source))
    return PointSpec.from_checkpoint(entry, epoch)


def checkpoint_picker(page: str, entries: Sequence[library.Checkpoint], start: int = 0) -> library.Checkpoint | None:
    """Choose one checkpoint of several; None when the one in the URL is not there any more."""
    found = {entry.id: entry for entry in entries}
    form = Form(page, "common")
    chosen = form.choice(
        "checkpoint", found, list(found)[start], label="library.choose", label_visibility="collapsed",
        words=lambda i: found[i].label if i in found else str(i),
    )  # fmt: skip
    return found.get(chosen)


def architecture_picker(page: str, role: str = "m") -> str | None:
    """Choose a timm architecture by family and name; a name timm does not know is answered with near ones."""
    text = texts("common")
    with st.spinner(text("starting_engine")) if not catalog.ready() else nullcontext():
        table = catalog.families()
    form = Form(f"{page}.{role}", "common")
    family = form.choice("family", table, words=lambda f: f"{f} ({len(table[f])})")
    names = table.get(family, table[catalog.SMALL])
    name = form.choice("architecture", names, accept_new_options=True, private=True, words=str)
    problem = catalog.check_architecture(str(name or ""))
    if problem:
        st.error(problem)
        return None
    return str(name)


def _timm_point(page: str, data: DataSpec | None, role: str) -> PointSpec | None:
    text = texts("common")
    name = architecture_picker(page, role)
    form = Form(f"{page}.{role}", "common")
    weights = form.switch("weights", (catalog.RANDOM, catalog.PRETRAINED), width="stretch")
    seed = 0
    if weights == catalog.PRETRAINED:
        st.caption(text("weights.pretrained.help"))
    else:
        seed = form.integer("seed", 0, 0)
    if name is None or data is None:
        return None
    return PointSpec(name, weights, len(catalog.class_names(data.source)), data.image_size, seed)


def file_point(page: str, data: DataSpec | None, role: str) -> PointSpec | None:
    """Choose an architecture and a checkpoint file of it; every mismatch is listed beside the file."""
    text = texts("common")
    name = architecture_picker(page, role)
    upload = st.file_uploader(
        text("file"), type=["safetensors", "pt", "pth", "bin", "ckpt", "th", "tar"], key=f"{page}.{role}.file"
    )
    if upload is None:
        st.caption(text("file.help"))
        return None
    if name is None or data is None:
        return None
    path = library.store_upload(upload.getvalue(), upload.name)
    point = PointSpec(
        name,
        f"file:{path}",
        len(catalog.class_names(data.source)),
        data.image_size,
        0,
        f"{upload.name} ({name})",
    )
    problem, notes = tried(point)
    if problem:
        st.error(problem)
        return None
    if notes:
        st.caption(text("file.notes", notes="; ".join(notes)))
    return point


@st.cache_data(max_entries=32, show_spinner=False)
def tried(point: PointSpec) -> tuple[str | None, list[str]]:
    """Return what keeps a file from being loaded, all mismatches listed (None when it fits), and what was noted."""
    try:
        return None, point.load().provenance["notes"]
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        return str(error), []


def quick_start(page: str, role: str = "m") -> None:
    """Offer to train two small networks on digits, so that every page has something to measure."""
    from app.work import training as training_jobs

    text = texts("common")
    if st.button(text("quick_start"), key=f"{page}.{role}.quick", icon=":material/bolt:", width="stretch"):
        training_jobs.submit_quick_start()
        st.rerun()
    st.caption(text("quick_start.help"))


# ---- data and engine ----


def data_picker(
    page: str,
    *,
    split: str = "train",
    samples: int = 512,
    splits: tuple[str, ...] = ("train", "test", "all"),
) -> DataSpec | None:
    """Choose the examples the loss is measured on; None, with the reason beside it, while that is wrong."""
    text = texts("common")
    st.markdown(f"**{text('data')}**")
    form = Form(page, "common")
    kind = form.switch("data", ("digits", "folder"), label_visibility="collapsed", width="stretch")
    source = "digits"
    if kind == "folder":
        source = form.text("data.path", placeholder="/home/me/pictures", private=True)
        problem = catalog.check_source(source) if source else text("data.path.missing")
        if problem:
            (st.error if source else st.caption)(problem)
    left, middle, right = form.columns([1.35, 1, 1])
    used = left.choice("split", splits, split)
    count = middle.integer("samples", samples, 2, step=64)
    size = right.integer("image_size", 32, 8, 1024, step=8)
    if kind == "folder":
        if not source or problem:
            return None
        missing = catalog.check_source(source, used)
        if missing:
            st.error(missing)
            return None
    there = catalog.available(source, used)
    if count > there:
        st.caption(text("samples.all", count=there))
    return DataSpec(source, used, count if count < there else None, size)


def engine_settings(page: str, policies: tuple[str, ...] = ("auto", "frozen", "recompute", "batch")) -> dict[str, Any]:
    """Choose, in a fold, what every estimator takes: batch norm (of ``policies``), precision, batch size, seed."""
    form = Form(page, "common")
    with st.expander(texts("common")("engine"), icon=":material/tune:"):
        policy = form.choice("batch_norm", policies)
        precision = form.choice("precision", ("float32", "float64", "bfloat16"))
        left, right = form.columns(2)
        return {
            "batch_norm": policy,
            "precision": precision,
            "batch_size": left.integer("batch_size", 512, 1, step=64),
            "random_state": right.integer("seed", 0, 0, label="random_state"),
        }
