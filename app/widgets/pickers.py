"""Choosing a model, weights and data, with every message beside the input it is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import streamlit as st

from app import catalog
from app.catalog import DataSpec, PointSpec
from app.texts import from_engine, plain, texts
from app.widgets.form import Form
from app.workspace import library

CLASSES_NAMED = 12
LIBRARY, TIMM, FILE = "library", "timm", "file"
CHECKPOINT_TYPES = ["safetensors", "pt", "pth", "bin", "ckpt", "th", "tar", "pkl"]
LARGEST_CHECKPOINT = 4096  # MB


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
            st.warning(text("library.other_data", trained=plain(trained_on), chosen=plain(data.source)))
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
        st.error(from_engine(problem))
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
    point = PointSpec(name, weights, len(catalog.class_names(data.source)), data.image_size, seed)
    if catalog.is_shared(name):  # what such a name stands for is only known once it has been fetched
        problem, _, _ = tried(point)
        if problem:
            st.error(from_engine(problem))
            return None
    return point


def file_point(page: str, data: DataSpec | None, role: str) -> PointSpec | None:
    """Choose an architecture and a checkpoint file of it; what keeps it from fitting is said beside the file."""
    text = texts("common")
    name = architecture_picker(page, role)
    form = Form(f"{page}.{role}", "common")
    path, label = _file(form, f"{page}.{role}.file")
    if path is None:
        st.caption(text("file.help"))
        return None
    entries, made_as, problem = _described(path, _stamp(path))
    if problem:
        library.drop_upload(path)
        st.error(from_engine(problem))
        return None
    # What is chosen of one file is not chosen of another.
    own = Form(f"{page}.{role}.{crc32(str(path).encode()):08x}", "common")
    entry = own.choice("entry", entries, words=str, private=True) if len(entries) > 1 else ""
    if made_as and name and made_as != name:
        st.caption(text("file.made_as", architecture=plain(made_as)))
    if name is None or data is None:
        return None
    return _fitted(own, PointSpec(name, f"file:{path}", 0, data.image_size, 0, f"{label} ({name})", entry), data)


def _file(form: Form, key: str) -> tuple[Path | None, str]:
    """Ask for a file, to be sent or on this computer; give its path and what a person calls it."""
    text = texts("common")
    if form.switch("given", ("upload", "path"), label_visibility="collapsed") == "upload":
        upload = st.file_uploader(text("file"), type=CHECKPOINT_TYPES, max_upload_size=LARGEST_CHECKPOINT, key=key)
        if upload is None:
            return None, ""
        try:
            return library.store_upload(upload.getvalue(), upload.name), upload.name
        except OSError as error:  # a full disk
            st.error(from_engine(error))
            return None, ""
    typed = form.text("file_path", placeholder="/home/me/last.pth.tar", private=True)
    path = Path(typed).expanduser()
    return (path, path.name) if typed else (None, "")


def _fitted(form: Form, point: PointSpec, data: DataSpec) -> PointSpec | None:
    """Load a file once to see that it fits; offer a fresh head where its own tells other classes apart."""
    text = texts("common")
    need = len(catalog.class_names(data.source))
    problem, notes, have = tried(point, _stamp(point.checkpoint))
    if (have is not None and have != need) or "new_head" in (problem or ""):
        if form.toggle("new_head", label="file.new_head", private=True):
            point = replace(point, num_classes=need, new_head=True)
            problem, notes, have = tried(point, _stamp(point.checkpoint))
        elif have is not None:
            st.caption(text("file.classes", have=have, need=need))
    if problem is not None or have is None:
        st.error(from_engine(problem or ""))
        return None
    if need > have:
        st.error(text("library.classes", have=have, need=need))
        return None
    if notes:
        st.caption(text("file.notes", notes=plain("; ".join(notes))))
    return replace(point, num_classes=have)


def _stamp(path: Path | None) -> tuple[int, int]:
    """Tell one state of a file from another, so that nothing stale is remembered of it."""
    try:
        found = path.stat() if path is not None else None
    except (OSError, ValueError):
        found = None
    return (found.st_mtime_ns, found.st_size) if found else (0, 0)


@st.cache_data(max_entries=32, show_spinner=False)
def _described(path: Path, stamp: tuple[int, int]) -> tuple[tuple[str, ...], str | None, str | None]:
    """Return the sets of weights in a file, the architecture it notes, and what keeps it from being opened."""
    from estimators import CheckpointError, describe_checkpoint

    try:
        found = describe_checkpoint(path)
    except CheckpointError as error:
        return (), None, str(error)
    return found.entries, found.architecture, None


@st.cache_data(max_entries=32, ttl=300, show_spinner=False)  # a network may come back
def tried(point: PointSpec, stamp: tuple[int, int] = (0, 0)) -> tuple[str | None, list[str], int | None]:
    """Return what keeps weights from being loaded (None when they fit), what was noted, and the number of classes."""
    try:
        model = point.load()
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        return str(error), [], None
    classes = getattr(model, "num_classes", point.num_classes)
    return None, model.provenance["notes"], classes


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
    source, unreadable = "digits", "raise"
    if kind == "folder":
        source = form.text("data.path", placeholder="/home/me/pictures", private=True)
        problem = catalog.check_source(source) if source else text("data.path.missing")
        if problem:
            (st.error if source else st.caption)(plain(problem))
    left, middle, right = form.columns([1.35, 1, 1])
    used = left.choice("split", splits, split)
    count = middle.integer("samples", samples, 2, step=64)
    size = right.integer("image_size", 32, 8, 1024, step=8)
    if kind == "folder":
        if not source or problem:
            return None
        missing = catalog.check_source(source, used)
        if missing:
            st.error(from_engine(missing))
            return None
        _say_what_was_found(source, used)
        if form.toggle("unreadable"):
            unreadable = "skip"
    there = catalog.available(source, used)
    if count > there:
        st.caption(text("samples.all", count=there))
    return DataSpec(source, used, count if count < there else None, size, unreadable=unreadable)


def _say_what_was_found(source: str, split: str) -> None:
    """Say which classes a folder was taken to hold, how many images each, and what may have been meant otherwise."""
    text, found = texts("common"), catalog.listed(source, split)
    counts = Counter(found.targets.tolist())
    names = [f"{name} {counts[i]:,}" for i, name in enumerate(found.class_names[:CLASSES_NAMED])]
    more = ", …" if len(found.class_names) > CLASSES_NAMED else ""
    said = text("data.found", count=len(found.class_names), images=len(found), names=", ".join(names) + more)
    held_out = text("data.held_out") if found.held_out and split != "all" else ""
    st.text("\n".join([f"{said} {held_out}".strip(), *found.notes]))  # names from files are no Markdown


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
