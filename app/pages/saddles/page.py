"""Saddle escape: optimisers started on and beside a saddle of a real loss, and when they leave."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import widgets
from app.catalog import DataSpec, PointSpec
from app.pages.saddles import charts
from app.texts import from_engine, said, texts
from app.widgets.cost import timed
from app.widgets.jobs import duration
from app.work import jobs
from app.work.work import restartable

PAGE = "escape"
SEARCHED, SURFACES = ("strict", "embedding", "origin"), ("strict_surface", "monkey_saddle", "degenerate_valley")
DEFINITIONS = ("strict", "noise", "embedding", "fair")
SMALL, MINE = "small", "mine"
RADII = 3  # distances from the saddle that a race starts at
PLANE = 220  # evaluations of the plane between the modes
MODES = 60  # products that find the modes of the origin; three times as many where nothing ends the search
RACING = {"precision": "float64", "batch_norm": "frozen"}  # how a race evaluates a network, whatever is chosen
TRIED = (2, 42)  # steps of the two short races that a long one is timed by
OPTIMIZERS = texts(PAGE).options("optimizer")


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        saddle = widgets.Form(PAGE).choice("saddle")
        st.caption(text(f"about.{saddle}"))
        network = choose_network(saddle)
        params = settings(saddle, network)
        ready = params is not None and network["ready"]
        if ready and params is not None:
            ready = say_cost(saddle, network, params)
        if widgets.run_button(PAGE, text("run"), ready=ready) and params is not None:
            start(saddle, network, params)
    widgets.answer(right, PAGE, draw, DEFINITIONS, empty=text("empty"), unfold=True)


def choose_network(saddle: str) -> dict[str, Any]:
    """Write the choice of the network, where the saddle needs one."""
    if saddle in SURFACES:
        return {"kind": None, "ready": True}
    form = widgets.Form(PAGE)
    if form.switch("network") == SMALL:
        return {"kind": SMALL, "ready": True, "hidden": form.integer("hidden", 4, 1, 40)}
    chosen = widgets.subject(policies=("auto", "frozen"))
    return {"kind": MINE, "ready": chosen.ready, "chosen": chosen}


def settings(saddle: str, network: dict[str, Any]) -> dict[str, Any] | None:
    """Write the race's settings; return the estimator's keyword arguments, None while something is missing."""
    text, form = texts(PAGE), widgets.Form(PAGE)
    params: dict[str, Any] = {}
    large = network["kind"] == MINE
    if saddle == "embedding":
        left, right = form.columns(2)
        params["layer"] = left.integer("layer", 0, 0, 100)
        if right.switch("unit", ("all", "one")) == "one":
            params["unit"] = form.integer("number", 0, 0, 100_000, label="unit.number")
    left, right = form.columns(2)
    params["n_seeds"] = left.integer("seeds", 3 if large else 10, 1, 100)
    params["max_steps"] = right.integer("steps", 100 if large else 2000, 1, 100_000, step=100)
    with st.expander(text("more"), icon=":material/tune:"):
        names = form.several("optimizers", OPTIMIZERS, words=charts.name_of)
        if not form.toggle("auto", True):
            params["lr"] = form.real("lr", 0.1, 1e-6, 100.0)
        params["threshold"] = form.real("threshold", 1e-4, 1e-9, 10.0, format="%.3g")
        if saddle not in SURFACES:
            params["l2"] = form.real("l2", 1e-3, 0.0, 1.0)
    if not names:
        st.error(text("optimizers.none"))
        return None
    params["optimizers"] = "all" if len(names) == len(OPTIMIZERS) else names
    return params


def say_cost(saddle: str, network: dict[str, Any], params: dict[str, Any]) -> bool:
    """Say what a race takes; tell whether it fits into memory."""
    text = texts(PAGE)
    rows, steps = RADII * params["n_seeds"], len(rules(params)) * params["max_steps"]
    if network["kind"] == MINE:
        chosen = network["chosen"]
        more = {"vectors": 12 + 4 * rows, "derivatives": True}
        return widgets.cost(taken(params), chosen.point, chosen.data, chosen.settings | RACING, **more)

    def seconds(handle: jobs.Handle) -> float:
        few, more = (_seconds(handle, saddle, network, {**params, "max_steps": n}) for n in TRIED)
        return few + max(more - few, 0.0) / (TRIED[1] - TRIED[0]) * (params["max_steps"] - TRIED[0])

    def say(known: float | None) -> str:
        said = text("cost", evaluations=steps, rows=rows)
        return said if known is None else text("cost.time", said=said, total=duration(known))

    identity = (saddle, network["kind"], network.get("hidden"), tuple(sorted(map(str, params.items()))))
    timed(identity, text("cost.title", saddle=text(f"saddle.{saddle}")), seconds, say)
    return True


def rules(params: dict[str, Any]) -> tuple[str, ...]:
    """Return the optimisers of a race."""
    return OPTIMIZERS if params["optimizers"] == "all" else params["optimizers"]


def taken(params: dict[str, Any]) -> Any:
    """Count what a race of a large network takes, about, where no row escapes before its end."""
    with widgets.opening():
        from estimators import Work

    gradients = RADII * params["n_seeds"] * len(rules(params)) * params["max_steps"]
    return Work(evaluations=PLANE, gradients=gradients, products=MODES)


def _seconds(handle: jobs.Handle, saddle: str, network: dict[str, Any], params: dict[str, Any]) -> float:
    """Run a short race and time it."""
    from estimators import SaddleEscaper

    began = time.perf_counter()
    SaddleEscaper(**params, saddle=saddle).fit(*_loaded((), None, network.get("hidden")), on_progress=handle.progress)
    return time.perf_counter() - began


def _loaded(points: Sequence[PointSpec], data: DataSpec | None, hidden: int | None) -> tuple[Any, Any]:
    """Return the network and its data; nothing for a surface that is a formula."""
    from estimators import pooled_digits, small_net

    if points and data is not None:
        return points[0].load(), data.load()
    return (small_net(hidden=hidden), pooled_digits()) if hidden is not None else (None, None)


def start(saddle: str, network: dict[str, Any], params: dict[str, Any]) -> None:
    """Queue the race."""
    from estimators import SaddleEscaper

    text, chosen = texts(PAGE), network.get("chosen")
    engine = {k: v for k, v in chosen.settings.items() if k not in ("batch_norm", "precision")} if chosen else {}
    program: dict[str, Any] = {"fit": ""}
    if network["kind"] == MINE:
        program = {"points": [("model", chosen.point)], "data": chosen.data}
    elif network["kind"] == SMALL:
        program["fit"], program["imports"] = "model, data", ("pooled_digits", "small_net")
        program["setup"] = f"model = small_net(hidden={network['hidden']})\ndata = pooled_digits()"
    count = len(OPTIMIZERS) if params["optimizers"] == "all" else len(params["optimizers"])
    widgets.start_fit(
        PAGE,
        text("job", saddle=text(f"saddle.{saddle}"), n=count),
        SaddleEscaper(**params, saddle=saddle, memory="default", **engine),
        work=race,
        given={"hidden": network.get("hidden")},
        show="result.escape_steps_",
        **program,
    )


@restartable
def race(
    handle: jobs.Handle,
    estimator: Any,
    points: tuple[PointSpec, ...],
    data: DataSpec | None,
    held_out: None,
    hidden: int | None,
) -> Any:
    """Let the optimisers leave the saddle; runs in the worker thread."""
    return estimator.fit(*_loaded(points, data, hidden), **handle.reports).result_


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts(PAGE)
    if not result.saddle["found"]:
        st.warning(text("not_found.help", note=from_engine(result.saddle["note"])), title=text("not_found"))
        draw_saddle(result)
        return
    drawn = []
    if result.optimizers:
        form = widgets.Form(PAGE)
        places, starts = range(len(result.radii)), [radius_name(float(radius)) for radius in result.radii]
        radius = form.switch("radius", places, places[-1], words=lambda j: starts[j])
        if result.plane:
            drawn.append(widgets.picture(text("heading.paths"), charts.paths(result, radius)))
            moved = zip(result.optimizers, result.moved, strict=True)
            still = [charts.name_of(n) for n, m in moved if not m[radius].any()]
            st.caption(text("paths.note", rest=", ".join(still) or text("paths.all_moved")))
            evaluated, total = result.plane.get("n_evaluated", 0), result.plane["losses"].size
            if 0 < evaluated < total:
                error = result.plane["largest_error"]
                st.caption(text("paths.interpolated", evaluated=int(evaluated), total=total, error=float(error)))
        claims(result)
        widgets.heading(text("heading.curves"))
        drawn.append(charts.loss_curves(result, radius, log=form.log()))
        widgets.show_chart(drawn[-1])
        widgets.picture(text("heading.times"), charts.escape_times(result, radius))
        notes(result)
    draw_saddle(result)
    table = numbers(result)
    if len(table):
        widgets.show_table(table, fold=text("heading.numbers"))
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, drawn[0] if drawn else None, table=table, name="saddle-escape")


def radius_name(radius: float) -> str:
    """Return what a start distance is called."""
    text = texts(PAGE)
    return text("radius.on") if radius == 0 else text("radius.at", radius=f"{radius:g}")


def notes(result: Any) -> None:
    """Write what has to be known to read the leaving times."""
    text = texts(PAGE)
    growth = result.growth_per_step
    if np.isfinite(growth):
        adaptive = float(result.settings.get("adaptive_lr", np.nan))
        st.caption(text("times.note", budget=result.max_steps, growth=growth, lr=result.lr, adaptive=adaptive))
    if result.rest_radius > 0:
        st.caption(text("rest.note", rest=result.rest_radius))
    largest = float(np.max(result.saddle["eigenvalues"]))
    if "large_step" in result.optimizers and largest > 0 and 10 * result.lr > 2 / largest:
        widgets.note(text("unstable", step=10 * result.lr, limit=2 / largest))
    burst = [n for n, d in zip(result.optimizers, result.diverged, strict=True) if d.any()]
    if burst:
        share = float(np.mean([result.diverged[result.optimizers.index(n)].mean() for n in burst]))
        st.error(text("diverged", names=", ".join(map(charts.name_of, burst)), share=f"{share:.0%}"))


def claims(result: Any) -> None:
    """Write the lecture's mechanisms with what was measured and the verdict by rule."""
    if not result.mechanisms:
        return
    text, common = texts(PAGE), texts("common")
    widgets.heading(text("heading.claims"))
    rows = [
        {
            text("table.mechanism"): text(f"mechanism.{row['mechanism']}"),
            text("table.claim"): said(row["claim"]),
            text("table.measured"): measured(row["measured"]),
            text("table.verdict"): common(f"verdict.{row['verdict']}"),
            text("table.reason"): said(row["reason"]),
        }
        for row in result.mechanisms
    ]
    for row in result.mechanisms:
        widgets.verdict(row["verdict"], f"**{text('mechanism.' + row['mechanism'])}.** {said(row['claim'])}  \n"
                        f":small[:gray[{measured(row['measured'])}. {said(row['reason']).capitalize()}.]]")  # fmt: skip
    widgets.show_table(pd.DataFrame(rows), fold=text("table.all"))


def measured(words: str) -> str:
    """Return what was measured, optimisers by their names."""
    keys = "|".join(OPTIMIZERS)
    return re.sub(rf"\b({keys}): ", lambda found: f"{charts.name_of(found[1])}: ", said(words))


def draw_saddle(result: Any) -> None:
    """Write what is known about the saddle itself."""
    text = texts(PAGE)
    saddle = result.saddle
    widgets.heading(text("heading.saddle"))
    values = np.asarray(saddle["eigenvalues"], float)
    how = "of" if saddle["complete_spectrum"] else "least"
    index = text(f"metric.index.{how}", index=saddle["index"], n=len(values))
    with st.container(horizontal=True):
        st.metric(text("metric.loss"), f"{saddle['loss']:.4g}")
        st.metric(text("metric.gradient"), f"{saddle['gradient_norm']:.1e}")
        st.metric(text("metric.index"), index)
        st.metric(text("metric.lowest"), f"{values.min():.3g}")
        st.metric(text("metric.largest"), f"{values.max():.3g}")
    if len(values) > 2:
        widgets.show_chart(charts.spectrum(result))
    if saddle["found"]:
        st.caption(from_engine(saddle["note"]))
    if saddle["kind"] == "strict":
        st.caption(text("strict.found", found=saddle["n_found"], starts=saddle["n_starts"]))
    if saddle["kind"] == "embedding":
        removed, original = saddle["outputs_against_removed"], saddle["outputs_against_original"]
        rest = saddle["rest_gradient_norm"]
        st.caption(text("embedding.change", removed=removed, original=original, rest=rest))


def numbers(result: Any) -> pd.DataFrame:
    """Return one row an optimiser and start distance."""
    text = texts(PAGE)

    def steps(value: float) -> str:
        return f"{value:.0f}" if np.isfinite(value) else text("numbers.never")

    def expected(value: float) -> str:
        return "–" if np.isnan(value) else f"{value:.0f}" if np.isfinite(value) else "∞"

    rows = []
    for i, optimizer in enumerate(result.optimizers):
        for j, radius in enumerate(result.radii):
            runs, alignment = result.escape_steps[i, j], result.alignment[i, j]
            low, middle, high = (float(np.quantile(runs, q, method="inverted_cdf")) for q in (0.25, 0.5, 0.75))
            aligned = alignment[np.isfinite(alignment)]
            row = {
                "optimizer": charts.name_of(optimizer),
                "start": radius_name(float(radius)),
                "median": steps(middle),
                "quartiles": f"{steps(low)} – {steps(high)}",
                "left": f"{np.isfinite(runs).mean():.0%}",
                "alignment": f"{np.median(aligned):.2f}" if len(aligned) else "–",
                "diverged": f"{result.diverged[i, j].mean():.0%}",
                "theory": expected(float(np.median(result.theory_steps[i, j]))),
            }
            rows.append({text(f"numbers.{name}"): value for name, value in row.items()})
    return pd.DataFrame(rows)
