"""What a run takes, said before it: memory from the shapes, its work, and the time of that where somebody asked.

Nothing of a model's size is built to say so. Timing a pass builds the model, so it is a job like others: it is asked
for, has its place in the queue and can be cancelled. What a run may take is chosen in the same place.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import streamlit as st

from app.catalog import DataSpec, PointSpec
from app.texts import from_engine, plain, texts
from app.widgets.form import Form
from app.widgets.frame import opening
from app.widgets.jobs import POLL_SECONDS, duration, status
from app.work import jobs

if TYPE_CHECKING:
    from estimators import Work

BUDGETS = {"done": None, "minute": 60.0, "minutes": 300.0}  # seconds
PAGE = "cost"
FRESH = 600.0  # seconds for which a time holds, while the machine is about as busy as it was
_SETTINGS = ("loss", "batch_size", "device", "precision", "batch_norm", "several_networks")


def time_budget(page: str, text: str | None = None) -> float | None:
    """Ask how long a run may take; return seconds, or None for as long as it needs."""
    chosen: str = Form(page, text).switch("time_budget")
    return BUDGETS[chosen]


def cost(
    work: int | Work,
    spec: PointSpec,
    data: DataSpec,
    settings: dict[str, Any],
    *,
    budget: float | None = None,
    several_networks: bool = False,
    networks: int = 1,
    vectors: int = 8,
    derivatives: bool = False,
    train_batch_size: int = 64,
) -> bool:
    """Say what a run takes; tell whether it fits into memory.

    Parameters
    ----------
    work : int or Work
        Evaluations of the loss, or those with gradients, products and epochs.
    spec, data
        What is evaluated on what.
    settings : dict
        Those of :func:`app.widgets.subject`.
    budget : float, optional
        Seconds after which it stops.
    several_networks : bool, default=False
        Whether the points come from several networks, which decides what an automatic batch-norm policy is.
    networks : int, default=1
        Networks in memory at once.
    vectors : int, default=8
        Vectors of the length of θ in memory at once.
    derivatives : bool, default=False
        Whether gradients or products are taken.
    train_batch_size : int, default=64
        Examples in a step of training.
    """
    fits = _memory(spec, data, settings, networks, vectors, derivatives)  # which has opened torch
    from estimators import Work

    text, taken = texts("common"), work if isinstance(work, Work) else Work(evaluations=work)
    counts = {name: round(count) for name, count in asdict(taken).items() if count}

    def say(pace: Work | None) -> str:
        said = {name: text(f"cost.{name}", count=count) for name, count in counts.items()}
        if pace is None:
            return ", ".join(said.values())
        parts = " + ".join(f"{words} × {1000 * getattr(pace, name):.3g} ms" for name, words in said.items())
        seconds = taken.seconds(pace)
        stops = text("cost.stops", budget=duration(budget)) if budget is not None and budget < seconds else ""
        return text("cost", parts=parts, total=duration(seconds)) + stops

    named = {name: settings[name] for name in _SETTINGS if name in settings}
    how = named | {"several_networks": several_networks, "train_batch_size": train_batch_size}
    identity = (spec, data, tuple(counts), tuple(sorted((k, str(v)) for k, v in how.items())))
    title = texts("common")("cost.title", model=spec.label)
    timed(identity, title, lambda handle: _pace(handle, spec, data, how, taken), say, ready=fits)
    return fits


def _memory(
    spec: PointSpec, data: DataSpec, settings: dict[str, Any], networks: int, vectors: int, derivatives: bool
) -> bool:
    """Say what will be in memory, and what to lower where that is too much."""
    text = texts("common")
    batch = min(settings.get("batch_size", 512), data.n_samples or data.available)
    kind = (spec.architecture, spec.num_classes, data.image_size, batch, derivatives)
    with opening():
        size = footprint_of(*kind, settings.get("precision", "float32"))
        from estimators import free_memory

        free = free_memory(settings.get("device", "auto"))
    if isinstance(size, str):
        st.caption(from_engine(size))
        return True
    total = size.total(vectors, networks)
    parts = {"activations": size.activations, "vectors": vectors * size.vector}
    parts["weights"] = total - sum(parts.values())
    said = {name: in_bytes(value) for name, value in (parts | {"total": total, "free": free}).items()}
    st.caption(text("cost.memory", parameters=size.n_parameters, batch=batch, **said))
    if total <= free:
        return True
    largest = max(parts, key=lambda name: parts[name])
    st.error(text("cost.too_large", **said, cure=text(f"cost.cure.{largest}")))
    return False


@lru_cache(maxsize=64)
def footprint_of(name: str, classes: int, side: int, batch: int, derivatives: bool, precision: str) -> Any:
    """Return what a model takes, or the sentence why that can't be told from its shapes."""
    from estimators import footprint

    kind: dict[str, Any] = {"num_classes": classes, "image_size": side, "batch_size": batch, "precision": precision}
    try:
        return footprint(name, **kind, derivatives=derivatives)
    except ValueError as error:
        return str(error)


def in_bytes(count: float) -> str:
    """Return a size as a person says it."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.3g} MB"


# ---- time, where somebody asks ----


@st.cache_resource(show_spinner=False)
def _measured() -> dict[Any, tuple[Any, float, float]]:
    """Return times by what was measured, each with when that was and how busy the machine was."""
    return {}


def _busy() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def fresh(identity: Any) -> tuple[Any, float] | None:
    """Return a time that still holds and its age in seconds; None where it has to be measured again."""
    found = _measured().get(identity)
    if found is None:
        return None
    value, then, busy = found
    age = time.time() - then
    return (value, age) if age < FRESH and abs(_busy() - busy) < max(1.0, 0.5 * busy) else None


def timed(
    identity: Any,
    title: str,
    measure: Callable[[jobs.Handle], Any],
    say: Callable[[Any], str],
    *,
    ready: bool = True,
) -> None:
    """Say how long a run takes where that is known, with a button to measure it.

    Parameters
    ----------
    identity : hashable
        What the time is of.
    title : str
        What the measuring is called in the queue.
    measure : callable
        ``measure(handle)`` gives the time; it runs as a job.
    say : callable
        Gives the sentence for a time, or for None.
    ready : bool, default=True
        Whether it can be measured.
    """

    def mine() -> jobs.Job | None:
        newest = jobs.latest(PAGE)
        return newest if newest is not None and newest.config.get("identity") == identity else None

    def work(handle: jobs.Handle) -> Any:
        busy, value = _busy(), measure(handle)
        _measured()[identity] = (value, time.time(), busy)
        return value

    def start() -> None:
        jobs.submit(PAGE, title, work, config={"identity": identity}, keep=False)

    first = mine()
    watched = first is not None and first.live

    @st.fragment(run_every=POLL_SECONDS if watched else None)
    def line() -> None:
        text, job, known = texts("common"), mine(), fresh(identity)
        if job is not None and job.live:
            if not watched:
                st.rerun()  # a whole run: with a timer from here on
            st.caption(say(None))
            status(job)
            return
        if watched:
            st.rerun()  # a whole run: without it
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(say(known and known[0]), width="content")
            label = text("cost.again", age=duration(known[1])) if known else text("cost.measure")
            st.button(label, key=f"cost.{hash(identity)}", on_click=start, type="tertiary", disabled=not ready)
        if job is not None and job.error and not known:
            st.caption(text("cost.unknown", why=plain(job.error)))

    line()


def _pace(handle: jobs.Handle, spec: PointSpec, data: DataSpec, settings: dict[str, Any], work: Work) -> Work:
    """Time one evaluation, gradient, product or epoch, of those the work has.

    Derivatives are taken of one network at a time, with the batch-norm policy of that, whatever the points are of.
    """
    from estimators import Landscape, Work, pace_of

    handle.progress(0, 1)
    model, examples = spec.load(), data.load()
    named = {name: value for name, value in settings.items() if name in _SETTINGS}
    batch, several = settings["train_batch_size"], settings["several_networks"]
    points = Work(evaluations=work.evaluations)
    parts = ((points, several), (replace(work, evaluations=0.0), False))
    pace = Work()
    for part, networks in parts:
        if part.passes:
            land = Landscape(model, examples, **named | {"several_networks": networks})
            pace += pace_of(land, part, train_batch_size=batch, on_step=handle.progress)
    return pace
