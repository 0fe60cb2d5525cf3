"""The subject: one network on fixed examples under one loss, chosen once and the same on every page that measures it.

Its inputs have the same keys everywhere, so that the URL holds all of it, a reload keeps it and a page inherits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from app.catalog import DataSpec, PointSpec, is_named
from app.state import asked, fill, key, recall, remember
from app.texts import plain, said, texts
from app.widgets import cards
from app.widgets.data import DIGITS, FOLDER, NAMED, data_picker
from app.widgets.form import Form
from app.widgets.frame import go_to
from app.widgets.pickers import LIBRARY, point_picker
from app.workspace import library

NAME, _DRAWN = "subject", "_subject"
POLICIES = ("auto", "frozen", "recompute", "batch")
LOSSES = ("cross_entropy", "bce", "mse", "huber")
IN_NATS = ("cross_entropy", "bce")


@dataclass(frozen=True)
class Subject:
    """What was chosen, further networks of the page included; a part is None while it is missing or wrong."""

    points: tuple[PointSpec | None, ...]
    data: DataSpec | None
    settings: dict[str, Any]

    @property
    def point(self) -> PointSpec | None:
        """The network."""
        return self.points[0]

    @property
    def ready(self) -> bool:
        """Whether every part is there and valid."""
        return self.data is not None and all(point is not None for point in self.points)

    def beside(self, others: Mapping[str, str], page: str) -> Subject:
        """Ask for further networks to compare this one with: a picker for each role, under its heading."""
        points = list(self.points)
        for role, label in others.items():
            points.append(point_picker(f"{page}.{role}", self.data, label=label, epochs=True, beside=points))
        return replace(self, points=tuple(points))


@dataclass(frozen=True)
class _Bar:
    """What :func:`subject_bar` drew: the choices, and the places whose words depend on the page."""

    point: PointSpec | None
    data: DataSpec | None
    settings: dict[str, Any]
    line: Any
    about_point: Any
    said: Any


def subject_bar() -> None:
    """Draw the inputs of the subject, in the frame: there they are the same inputs on every page."""
    text = texts("common")
    _say_in_url()
    with st.container(key="subject"):
        with st.container(horizontal=True, vertical_alignment="center"):
            line = st.container(key="subject-line", width="stretch").empty()
            model, images, engine = (
                st.popover(text(name), icon=f":material/{icon}:")
                for name, icon in (("model", "deployed_code"), ("data", "imagesmode"), ("engine", "tune"))
            )
            card, preview = cards.buttons()
        about_point, said = st.empty(), st.container()
    with images:
        data = data_picker(NAME, said=said)
    with model:
        point = point_picker(NAME, data, epochs=True, said=about_point.container())
    with engine:
        settings = engine_settings()
    if data is not None and point is not None:
        data = data.for_point(point)
    remember(NAME, "inputs", [name for name in asked() if name.startswith(f"{NAME}.")])
    cards.draw(card, preview, point, data)
    line.markdown(_in_words(point, data, settings))
    st.session_state[_DRAWN] = _Bar(point, data, settings, line, about_point, said)


def _say_in_url() -> None:
    """Set the inputs to what they are where the URL lacks them: a link to another page begins with an empty one."""
    for name in recall(NAME, "inputs", ()):
        if name not in st.query_params and name in st.session_state:
            st.session_state[name] = st.session_state[name]


def subject(*, several: bool = False, policies: tuple[str, ...] = POLICIES) -> Subject:
    """Return the subject of the page; the bar says it, and what is wrong with it.

    Parameters
    ----------
    several : bool, default=False
        Whether the page chooses its networks itself; it then takes the examples and the engine's settings alone.
    policies : tuple of str
        The batch-norm policies that the page's estimator takes.
    """
    if _DRAWN not in st.session_state:  # a page without its frame
        subject_bar()
    bar: _Bar = st.session_state.pop(_DRAWN)
    text, point, data = texts("common"), None if several else bar.point, bar.data
    if several:  # what is said of the network does not concern this page
        bar.about_point.empty()
        bar.line.markdown(f"{_in_words(None, data, bar.settings)} · {text('subject.several')}")
    policy = bar.settings["batch_norm"]
    if policy not in policies:
        allowed = ", ".join(f"“{text(f'batch_norm.{name}')}”" for name in policies)
        bar.said.error(text("batch_norm.wrong", allowed=allowed, chosen=text(f"batch_norm.{policy}")))
        data = None
    return Subject((point,), data, bar.settings)


def measure_button(page: str, checkpoint: str) -> None:
    """Offer to make a checkpoint of the library the subject, with the data it was trained on, and go to its surface."""
    if st.button(texts("common")("subject.take"), key=f"{page}.take.{checkpoint}", icon=":material/terrain:"):
        entry = library.Checkpoint.get(checkpoint)
        data = DataSpec(**{"image_size": entry.image_size, **entry.info.get("data", {})})
        chosen = {"from": LIBRARY, "checkpoint": entry.id, "image_size": data.image_size}
        if data.source == DIGITS:
            chosen |= {"data": DIGITS}
        elif is_named(data.source):
            chosen |= {"data": NAMED, "data.name": data.source, "data.root": data.root}
        else:
            chosen |= {"data": FOLDER, "data.path": data.source}
        fill({key(NAME, name): value for name, value in chosen.items()})
        go_to("surface")


def engine_settings() -> dict[str, Any]:
    """Choose what every estimator takes: loss, batch norm, precision, batch size, seed."""
    form = Form(NAME, "common")
    loss, more = form.choice("loss", LOSSES), {}
    if loss == "cross_entropy":
        more = {"label_smoothing": form.real("label_smoothing", 0.0, 0.0, 0.99, step=0.05)}
    elif loss == "huber":
        more = {"delta": form.real("delta", 1.0, 1e-6)}
    if loss not in IN_NATS:
        st.caption(texts("common")("loss.unit"))
    plain_ones = {"label_smoothing": 0.0, "delta": 1.0}
    listed = ", ".join(f"{name}={value!r}" for name, value in more.items() if value != plain_ones[name])
    return {
        "loss": f"{loss}({listed})" if listed else loss,
        "batch_norm": form.choice("batch_norm", POLICIES),
        "precision": form.choice("precision", ("float32", "float64", "bfloat16")),
        "batch_size": form.integer("batch_size", 512, 1, step=64),
        "random_state": form.integer("random_state", 0, 0),
    }


def _in_words(point: PointSpec | None, data: DataSpec | None, settings: dict[str, Any]) -> str:
    """Return the subject in one line."""
    text = texts("common")
    parts = []
    if point is not None:
        parts.append(f"**{plain(said(point.label))}**" + (f" · {point.architecture}" if point.name else ""))
    if data is not None:
        parts.append(text("subject.data", data=plain(said(data.label))))
    loss, _, rest = settings["loss"].partition("(")
    parts.append(text(f"loss.{loss}") + (f" ({rest}" if rest else ""))
    policy = text(f"batch_norm.{settings['batch_norm']}").partition(":")[0].lower()
    parts.append(text("setting.batch_norm", value=policy))
    parts += [settings["precision"], text("setting.random_state", value=settings["random_state"])]
    return " · ".join(parts)
