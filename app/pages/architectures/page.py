"""Architectures: what skips, norms, dropout, width and batch size do to the landscape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from app import widgets
from app.catalog import DataSpec, PointSpec, check_architecture
from app.pages.architectures.views import draw_comparison, draw_width_sweep
from app.texts import from_engine, texts
from app.widgets import Form
from app.work import jobs
from app.work.work import restartable

PAGE = "architectures"
WIDTH_SWEEP = "width_sweep"
ARCHITECTURES = (
    "test_resnet",
    "deep_thin_resnet",
    "test_convnext",
    "test_vit",
    "test_efficientnet",
    "resnet18",
    "resnet26",
)
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# what the measures of one run take, about: eigenvalue and trace, the ascent, points of noise and rays
MEASURING = {"products": 60, "gradients": 20, "evaluations": 136}
OF_A_WIDTH = {"products": 30, "evaluations": 30}  # the trace, and a barrier of 11 points with as many re-estimates


def render() -> None:
    """Draw the page."""
    import estimators  # noqa: F401  the package first: half a module is seen while the warm-up imports it
    from estimators.variants import presets

    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        form = Form(PAGE)
        vary = form.choice("vary", (*presets(), WIDTH_SWEEP), words=lambda name: text(f"preset.{name}"))
        architecture = str(form.choice("architecture", ARCHITECTURES, accept_new_options=True) or "")
        problem = check_architecture(architecture)
        if problem:
            st.error(from_engine(problem))
        if vary == WIDTH_SWEEP:
            _width_inputs(architecture, ready=problem is None)
        else:
            _comparison_inputs(vary, presets(architecture)[vary], ready=problem is None)
    widgets.answer(right, PAGE, draw, ("skips", "gap", "lambda", "sharpness", "basin", "convex", "tau"))


def draw(result: Any) -> None:
    """Draw whichever of the two results the newest job has."""
    if hasattr(result, "factors"):
        draw_width_sweep(result, PAGE)
    else:
        job = jobs.shown(PAGE)
        draw_comparison(result, PAGE, job.config.get("runs") if job is not None else None)


def _comparison_inputs(vary: str, offered: tuple[Any, ...], *, ready: bool) -> None:
    text = texts(PAGE)
    form = Form(PAGE)
    chosen = form.several(f"variants.{vary}", [variant.name for variant in offered], label="variants", words=str)
    variants = [variant for variant in offered if variant.name in chosen]
    if not variants:
        st.error(text("variants.none"))
    row = form.columns(3)
    seeds, epochs = _budget(row)
    side = row[2].integer("resolution", 21, 3, 101, step=2)
    data, settings = _data_and_engine()
    if data is None or not variants or not ready:
        widgets.run_button(PAGE, text("run"), ready=False)
        return
    fits = _cost(variants, seeds, epochs, side, data, settings)
    if widgets.run_button(PAGE, text("run"), ready=fits):
        _start(vary, variants, seeds, epochs, side, data, settings)


def _width_inputs(architecture: str, *, ready: bool) -> None:
    text = texts(PAGE)
    form = Form(PAGE)
    chosen = form.several("factors", FACTORS, FACTORS[:4], words=lambda factor: f"× {factor:g}")
    seeds, epochs = _budget(form.columns(2))
    data, settings = _data_and_engine()
    ready = ready and data is not None and len(chosen) > 0
    if ready and data is not None:
        runs = sum(max(f * f, 0.1) for f in chosen) * seeds  # cost grows with the square of the width
        work = _work(epochs=epochs, **OF_A_WIDTH).times(runs)
        ready = widgets.cost(work, _point(architecture, data), data, settings, vectors=60, derivatives=True)
    if widgets.run_button(PAGE, text("run"), ready=ready) and data is not None:
        _start_width(architecture, chosen, seeds, epochs, data, settings)


def _budget(row: Sequence[Form]) -> tuple[int, int]:
    """Ask for seeds and epochs."""
    seeds, epochs = row[0].integer("seeds", 3, 1, 20), row[1].integer("epochs", 8, 1, 200)
    if seeds == 1:
        st.caption(texts(PAGE)("one_seed"))
    return seeds, epochs


def _data_and_engine() -> tuple[DataSpec | None, dict[str, Any]]:
    chosen = widgets.subject(several=True)
    data = chosen.data
    if data is not None and data.split == "all":
        st.error(texts(PAGE)("split.all"))
        data = None
    return data, chosen.settings


def _point(architecture: str, data: DataSpec) -> PointSpec:
    return PointSpec(architecture, num_classes=len(data.class_names), image_size=data.image_size)


def _cost(variants: list[Any], seeds: int, epochs: int, side: int, data: DataSpec, settings: dict[str, Any]) -> bool:
    text = texts(PAGE)
    runs = [_work(epochs=variant.settings(epochs=epochs)["epochs"], **MEASURING).times(seeds) for variant in variants]
    work = sum(runs, _work(evaluations=len(variants) * side * side))
    st.caption(text("plan", runs=len(variants) * seeds, maps=len(variants)))
    point = _point(variants[0].architecture, data)
    return widgets.cost(work, point, data, settings, vectors=60, derivatives=True)


def _work(**counts: float) -> Any:
    with widgets.opening():
        from estimators import Work

    return Work(**counts)


def _start(
    vary: str, variants: list[Any], seeds: int, epochs: int, side: int, data: DataSpec, settings: dict[str, Any]
) -> None:
    """Queue a comparison."""
    from estimators import ArchitectureComparer

    comparer = ArchitectureComparer(n_seeds=seeds, epochs=epochs, resolution=side, memory="default", **settings)
    architecture, text = variants[0].architecture, texts(PAGE)
    names = tuple(variant.name for variant in variants)
    widgets.start_fit(
        PAGE,
        text("job", what=text(f"preset.{vary}"), architecture=architecture, variants=len(variants), seeds=seeds),
        comparer,
        data=data,
        held_out=data.held_out(None),
        work=compare,
        given={"compared": variants},
        extra={"runs": len(variants) * seeds, "variants": [variant.as_dict() for variant in variants]},
        fit="variants, data, held_out=held_out",
        show="result.summary_",
        setup="from estimators.variants import presets\n"
        f"variants = [v for v in presets({architecture!r})[{vary!r}] if v.name in {names!r}]",
    )


def _start_width(
    architecture: str, factors: tuple[float, ...], seeds: int, epochs: int, data: DataSpec, settings: dict[str, Any]
) -> None:
    """Queue a width sweep."""
    from estimators.experiments import WidthSweep

    widgets.start_fit(
        PAGE,
        texts(PAGE)("job.width", architecture=architecture, widths=len(factors), seeds=seeds),
        WidthSweep(factors=factors, n_seeds=seeds, epochs=epochs, memory="default", **settings),
        data=data,
        held_out=data.held_out(None),
        work=compare,
        given={"compared": architecture},
        fit=f"{architecture!r}, data, held_out=held_out",
        show="result.summary_",
    )


@restartable
def compare(handle: jobs.Handle, estimator: Any, points: Any, data: DataSpec, held_out: DataSpec, compared: Any) -> Any:
    """Train and measure every variant, or every width of an architecture; runs in the worker thread."""
    return estimator.fit(compared, data.load(), held_out=held_out.load(), **handle.reports).result_
