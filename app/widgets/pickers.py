"""Choosing a network: one of the library, one of timm, or a file, with every message beside its input."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import streamlit as st

from app import catalog
from app.catalog import DataSpec, PointSpec
from app.names import names_apart
from app.state import key, recall, remember
from app.texts import from_engine, plain, texts
from app.widgets.form import Form
from app.workspace import library

LIBRARY, TIMM, FILE = "library", "timm", "file"
CHECKPOINT_TYPES = ["safetensors", "pt", "pth", "bin", "ckpt", "th", "tar", "pkl"]
LARGEST_CHECKPOINT = 4096  # MB
OTHERS_NAMED = 4


def point_picker(
    page: str,
    data: DataSpec | None,
    *,
    label: str = "",
    epochs: bool = False,
    default: str = LIBRARY,
    beside: Sequence[PointSpec | None] = (),
    said: Any = st,
) -> PointSpec | None:
    """Choose one point; None while the choice is incomplete or wrong (the reason is written there).

    Parameters
    ----------
    page : str
        Tells several pickers apart: the page, or ``PAGE.ROLE``.
    data : DataSpec or None
        Gives the number of classes and the image size of a fresh timm model.
    label : str
        Heading.
    epochs : bool, default=False
        Offer the training epochs of a library checkpoint.
    default : {"library", "timm", "file"}
        Where to look first.
    beside : sequence of PointSpec
        What it is compared with: the choice begins with another checkpoint of the same architecture.
    said : container, optional
        Where what is wrong is written; beside the input by default.
    """
    form = Form(page, "common")
    with st.container(gap="xsmall"):  # a heading is near to what it is the heading of
        if label:
            st.markdown(f"**{label}**")
        source = form.switch("from", (LIBRARY, TIMM, FILE), default, label_visibility="collapsed", width="stretch")
    if source == TIMM:
        return _timm_point(page, data, said)
    if source == FILE:
        return file_point(page, data, said)
    return _library_point(page, data, epochs, beside, said)


def _library_point(
    page: str, data: DataSpec | None, epochs: bool, beside: Sequence[PointSpec | None], said: Any
) -> PointSpec | None:
    text = texts("common")
    found = library.list_checkpoints()
    if not found:
        with said.container():
            st.caption(text("library.empty"))
            quick_start(page)
        return None
    entry = checkpoint_picker(page, found, first=_other(found, [point for point in beside if point is not None]))
    if entry is None:
        said.error(text("library.gone"))
        return None
    epoch = None
    if epochs and entry.trajectory:
        steps = [path.stem for path in entry.trajectory]
        last = text("library.final")
        picked = Form(page, "common").choice("epoch", [last, *reversed(steps)], label="library.epoch")
        epoch = None if picked == last else picked
    if data is not None:
        classes = len(data.class_names)
        if entry.num_classes and classes > entry.num_classes:
            said.error(text("library.classes", have=entry.num_classes, need=classes))
            return None
        trained_on = entry.info.get("data", {}).get("source")
        if trained_on and trained_on != data.source:
            said.warning(text("library.other_data", trained=plain(trained_on), chosen=plain(data.source)))
    return PointSpec.from_checkpoint(entry, epoch)


def _other(found: Sequence[library.Checkpoint], beside: Sequence[PointSpec]) -> int:
    """Return the place of the first checkpoint that can stand beside others: of their kind, and none of them."""
    taken = {point.weights.partition(":")[2].partition("/")[0] for point in beside}
    kinds = {point.architecture for point in beside}
    fits = (i for i, c in enumerate(found) if c.id not in taken and (not kinds or c.architecture in kinds))
    return next(fits, 0)


def checkpoint_picker(page: str, entries: Sequence[library.Checkpoint], first: int = 0) -> library.Checkpoint | None:
    """Choose one checkpoint of several; None when it is not there any more."""
    found, names = {entry.id: entry for entry in entries}, names_apart(entries)
    # Set from here, not by a default of the widget: a default is left out of the URL, and another checkpoint is the
    # first one tomorrow.
    st.session_state.setdefault(key(page, "checkpoint"), list(found)[first])
    chosen = Form(page, "common").choice(
        "checkpoint", found, label="library.choose", label_visibility="collapsed", index=None,
        words=lambda i: found[i].label.replace(found[i].name, names[i], 1) if i in found else str(i),
    )  # fmt: skip
    return found.get(chosen)


def architecture_picker(page: str, said: Any = st) -> str | None:
    """Choose a timm architecture as in an editor: words in any order, Enter takes the best match.

    A name is never made up: what matches nothing is answered with near ones.
    """
    text = texts("common")
    with st.spinner(text("starting_engine")) if not catalog.ready() else nullcontext():
        names = catalog.architectures()
    own = key(page, "architecture")

    def take_best() -> None:
        words = str(st.session_state[own] or "")
        matches = catalog.matching(words)
        remember(page, "typed", (words, matches[1 : 1 + OTHERS_NAMED], len(matches) - 1))
        if matches:
            st.session_state[own] = matches[0]

    form = Form(page, "common")
    name = str(form.choice("architecture", names, accept_new_options=True, words=str, on_change=take_best) or "")
    problem = catalog.check_architecture(name)
    if problem:
        said.error(from_engine(problem))
        return None
    words, others, count = recall(page, "typed", ("", (), 0))
    if others and words != name:
        st.caption(text("architecture.also", words=plain(words), count=count, names=", ".join(others)))
    return name


def _timm_point(page: str, data: DataSpec | None, said: Any) -> PointSpec | None:
    text = texts("common")
    name = architecture_picker(page, said)
    form = Form(page, "common")
    weights = form.switch("weights", (catalog.RANDOM, catalog.PRETRAINED), width="stretch")
    seed = 0
    if weights == catalog.PRETRAINED:
        st.caption(text("weights.pretrained.help"))
    else:
        seed = form.integer("seed", 0, 0)
    if name is None or data is None:
        return None
    point = PointSpec(name, weights, len(data.class_names), data.image_size, seed)
    if catalog.is_shared(name):  # what such a name stands for is only known once it has been fetched
        problem, _, _ = tried(point)
        if problem:
            said.error(from_engine(problem))
            return None
    return point


def file_point(page: str, data: DataSpec | None, said: Any = st) -> PointSpec | None:
    """Choose an architecture and a checkpoint file of it; what keeps it from fitting is said beside the file."""
    text = texts("common")
    name = architecture_picker(page, said)
    form = Form(page, "common")
    path, label = _file(form, f"{page}.file", said)
    if path is None:
        st.caption(text("file.help"))
        return None
    entries, made_as, problem = _described(path, _stamp(path))
    if problem:
        library.drop_upload(path)
        said.error(from_engine(problem))
        return None
    # What is chosen of one file is not chosen of another.
    own = Form(f"{page}.{crc32(str(path).encode()):08x}", "common")
    entry = own.choice("entry", entries, words=str) if len(entries) > 1 else ""
    if made_as and name and made_as != name:
        st.caption(text("file.made_as", architecture=plain(made_as)))
    if name is None or data is None:
        return None
    point = PointSpec(name, f"file:{path}", 0, data.image_size, 0, f"{label} ({name})", entry)
    return _fitted(own, point, data, said)


def _file(form: Form, key: str, said: Any) -> tuple[Path | None, str]:
    """Ask for a file, to be sent or on this computer; give its path and what a person calls it."""
    text = texts("common")
    if form.switch("given", ("upload", "path"), label_visibility="collapsed") == "upload":
        upload = st.file_uploader(text("file"), type=CHECKPOINT_TYPES, max_upload_size=LARGEST_CHECKPOINT, key=key)
        if upload is None:
            return None, ""
        try:
            return library.store_upload(upload.getvalue(), upload.name), upload.name
        except OSError as error:  # a full disk
            said.error(from_engine(error))
            return None, ""
    typed = form.text("file_path", placeholder="/home/me/last.pth.tar")
    path = Path(typed).expanduser()
    return (path, path.name) if typed else (None, "")


def _fitted(form: Form, point: PointSpec, data: DataSpec, said: Any) -> PointSpec | None:
    """Load a file once to see that it fits; offer a fresh head where its own tells other classes apart."""
    text = texts("common")
    need = len(data.class_names)
    problem, notes, have = tried(point, _stamp(point.checkpoint))
    if (have is not None and have != need) or "new_head" in (problem or ""):
        if form.toggle("new_head", label="file.new_head"):
            point = replace(point, num_classes=need, new_head=True)
            problem, notes, have = tried(point, _stamp(point.checkpoint))
        elif have is not None:
            st.caption(text("file.classes", have=have, need=need))
    if problem is not None or have is None:
        said.error(from_engine(problem or ""))
        return None
    if need > have:
        said.error(text("library.classes", have=have, need=need))
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


def quick_start(page: str) -> None:
    """Offer to train two small networks on digits, so that every page has something to measure."""
    from app.work import training as training_jobs

    text = texts("common")
    if st.button(text("quick_start"), key=f"{page}.quick", icon=":material/bolt:", width=360):
        training_jobs.submit_quick_start()
        st.rerun()
    st.caption(text("quick_start.help"))
