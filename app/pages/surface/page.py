"""Surface: the loss on a line, plane or volume through the weights."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from app import export, widgets
from app.catalog import DataSpec, PointSpec
from app.pages.surface import view as surface_view
from app.state import bound, kept, recall, remember
from app.texts import texts
from app.work import jobs
from app.workspace import library

PAGE = "surface"
LARGEST = 201 * 201
KINDS = ("random", "hessian", "trajectory", "models", "linear")
NORMALIZATIONS = ("filter", "layer", "model", "none")
USUAL_ADAPTIVE = 220
DEFINITIONS = ("filter", "centre", "axes", "adaptive", "trajectory", "basin", "convexity")


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        kind = str(
            st.selectbox(
                text("directions"),
                KINDS,
                format_func=lambda k: text(f"directions.{k}"),
                help=text("directions.help"),
                **bound(PAGE, "directions"),
            )
        )
        labels = {"models": ("a", "b", "c"), "linear": ("a", "b")}.get(kind)
        named = None if labels is None else tuple(text(f"model.{m}") for m in labels)
        chosen = widgets.inputs(PAGE, named, epochs=True)
        params, sizes = settings(kind)
        extra = extras(chosen, kind)
        ready = chosen.ready and _fits(chosen, kind)
        points = 1
        for n in sizes:
            points *= n
        points *= params.get("n_seeds", 1)
        if points > LARGEST:
            st.error(text("too_large", points=points, limit=LARGEST))
        elif ready:
            _say_cost(chosen, params, points, 2 if extra["held_out"] else 1, bool(extra["marked"]))
        if widgets.run_button(PAGE, text("run"), ready=ready and points <= LARGEST):
            start(chosen, kind, params, extra)
        _open_saved()
    with right:
        saved = recall(PAGE, "opened")
        newest = jobs.latest(PAGE)
        if saved is not None and (newest is None or newest.id == saved["job"]):
            st.caption(text("open.done", name=saved["name"]))
            surface_view.draw(saved["result"])
        else:
            widgets.job_panel(PAGE, surface_view.draw)
        widgets.definitions(text, DEFINITIONS)


def settings(kind: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Write the settings of the map; return arguments of ``SurfaceMapper`` and the points along each direction."""
    text = texts(PAGE)
    params: dict[str, Any] = {"directions": kind}
    dims = 1 if kind == "linear" else 2
    if kind in ("random", "hessian"):
        dims = int(
            st.segmented_control(
                text("dims"), [1, 2, 3], format_func=lambda d: text(f"dims.{d}"), default=2, required=True,
                width="stretch", **bound(PAGE, "dims"),
            )
        )  # fmt: skip
    params["n_dims"] = dims
    if kind == "random":
        picked = st.selectbox(
            text("normalization"), NORMALIZATIONS, format_func=lambda n: text(f"normalization.{n}"),
            **bound(PAGE, "normalization"),
        )  # fmt: skip
        params["normalization"] = None if picked == "none" else str(picked)
        if dims == 1:
            seeds = st.number_input(text("seeds"), 1, 32, 5, help=text("seeds.help"), **bound(PAGE, "seeds"))
            params["n_seeds"] = int(seeds)
    if kind == "hessian" and dims > 1:
        params["eigenvectors"] = str(
            st.segmented_control(
                text("eigenvectors"), ["largest", "extremes"], format_func=lambda e: text(f"eigenvectors.{e}"),
                default="largest", required=True, width="stretch", **bound(PAGE, "eigenvectors"),
            )
        )  # fmt: skip
    mode = st.segmented_control(
        text("mode"), ["adaptive", "exact"], format_func=lambda m: text(f"mode.{m}"), default="adaptive",
        required=True, help=text("mode.help"), width="stretch", **bound(PAGE, "mode"),
    )  # fmt: skip
    params["mode"] = str(mode)
    row = st.columns(2)
    side = int(row[0].number_input(text("resolution"), 3, 10_000, 41, step=2, **bound(PAGE, "resolution")))
    span = row[1].number_input(
        text("span"), min_value=0.001, value=1.0, step=0.25, format="%.3g", help=text("span.help"),
        **bound(PAGE, "span"),
    )  # fmt: skip
    params["span"] = float(span)
    sizes = [side] * dims
    with st.expander(text("more"), icon=":material/tune:"):
        if kind in ("random", "hessian") and st.toggle(text("span.auto"), **bound(PAGE, "span.auto")):
            params["span"] = "auto"
        own = dims > 1 and st.toggle(text("resolution.own"), **bound(PAGE, "resolution.own"))
        asked = [k for k in range(1, dims) if own or k == 2]  # a volume has slices of its own number
        for column, k in zip(st.columns(len(asked)) if asked else [], asked, strict=True):
            label, start_at = text(f"resolution.{k + 1}"), side if k == 1 else 5
            sizes[k] = int(column.number_input(label, 3, 10_000, start_at, **bound(PAGE, f"resolution.{k + 1}")))
        if mode == "adaptive":
            percent = st.number_input(
                text("tolerance"), min_value=0.1, max_value=20.0, value=1.0, step=0.5, **bound(PAGE, "tolerance")
            )
            params["tolerance"] = float(percent) / 100
        pattern = st.text_input(text("parameters"), help=text("parameters.help"), **kept(PAGE, "parameters")).strip()
        if pattern:
            params["parameters"] = pattern
    params["resolution"] = side if len(set(sizes)) == 1 else tuple(sizes)
    return params, tuple(sizes)


def extras(chosen: widgets.Inputs, kind: str) -> dict[str, Any]:
    """Ask for held-out data and for further models on the map."""
    text = texts(PAGE)
    held_out = st.toggle(text("held_out"), help=text("held_out.help"), **bound(PAGE, "held_out"))
    marked: list[library.Checkpoint] = []
    if chosen.point is not None:
        own = {p.weights.partition(":")[2].partition("/")[0] for p in chosen.points if p is not None}
        found = {c.id: c for c in library.list_checkpoints(chosen.point.architecture) if c.id not in own}
        if found:
            picked = st.multiselect(
                text("marked"), list(found), format_func=lambda i: found[i].label if i in found else i,
                help=text("marked.help"), **bound(PAGE, "marked"),
            )  # fmt: skip
            marked = [found[i] for i in picked if i in found]
    return {"held_out": held_out, "marked": marked}


def _fits(chosen: widgets.Inputs, kind: str) -> bool:
    text = texts(PAGE)
    if kind == "trajectory" and chosen.point is not None and len(chosen.point.trajectory) < 3:
        st.warning(text("no_trajectory"))
        return False
    if kind in ("models", "linear"):
        points = [p for p in chosen.points if p is not None]
        if len(set(points)) < len(chosen.points) or len({p.architecture for p in points}) > 1:
            st.warning(text("need_models", count=len(chosen.points)))
            return False
    return True


def _say_cost(chosen: widgets.Inputs, params: dict[str, Any], points: int, passes: int, marked: bool) -> None:
    if params["mode"] == "adaptive" and points > USUAL_ADAPTIVE:
        st.caption(texts(PAGE)("adaptive_cost", points=USUAL_ADAPTIVE, all=points))
        points = USUAL_ADAPTIVE
    several = marked or len(chosen.points) > 1 or params["directions"] == "trajectory"
    widgets.cost(points, chosen.point, chosen.data, chosen.settings, passes=passes, several_networks=several)


def start(chosen: widgets.Inputs, kind: str, params: dict[str, Any], extra: dict[str, Any]) -> None:
    """Queue the job. Everything the worker needs is decided here; it never calls ``st``."""
    from estimators import SurfaceMapper

    data: DataSpec = chosen.data
    points: list[PointSpec] = [p for p in chosen.points if p is not None]
    held_out = data.held_out(data.n_samples) if extra["held_out"] else None
    mapper = SurfaceMapper(memory="default", **params, **chosen.settings)
    paths = [str(p) for p in points[0].trajectory] if kind == "trajectory" else []
    marked = {c.name: [str(p) for p in c.trajectory] or str(c.path) for c in extra["marked"]}

    def work(handle: jobs.Handle) -> Any:
        networks = [p.load() for p in points]
        model: Any = networks[0] if len(networks) == 1 else {p.label: m for p, m in zip(points, networks, strict=True)}
        try:
            mapper.fit(
                {points[0].label: paths} if paths else model,
                data.load(),
                held_out=held_out.load() if held_out else None,
                marked=marked or None,
                architecture=networks[0],
                on_progress=handle.progress,
                on_partial=handle.partial,
            )
        finally:  # a map that was stopped half-way can still be probed and finished
            if hasattr(mapper, "result_"):
                surface_view.keep_fitted(handle.job.id, mapper)
        return mapper.result_

    names = ["model"] if len(points) == 1 else [f"model_{'abc'[k]}" for k in range(len(points))]
    setup, fit = "", f"[{', '.join(names)}], data" if len(names) > 1 else "model, data"
    if paths:
        setup, fit = f"checkpoints = {paths!r}\n", "checkpoints, data, architecture=model"
    if marked:
        setup += f"marked = {marked!r}\n"
        fit += ", marked=marked"
    fit += ", held_out=held_out" if held_out else ""
    named = list(zip(names, points, strict=True))
    script = export.script(
        mapper, points=named, data=data, held_out=held_out, fit=fit, show="result.losses_", setup=setup
    )
    config = export.config(mapper, points=named, data=data, script=script)
    size = params["resolution"]
    shape = " × ".join(str(n) for n in (size if isinstance(size, tuple) else [size] * params["n_dims"]))
    remember(PAGE, "opened", None)
    jobs.submit(PAGE, texts(PAGE)("job", model=points[0].label, shape=shape), work, config=config)
    surface_view.forget_cell()


def _open_saved() -> None:
    """Open a surface that was downloaded as NPZ; it stays until the next run."""
    text = texts(PAGE)
    with st.expander(text("open"), icon=":material/folder_open:"):
        upload = st.file_uploader(text("open"), type=["npz"], key=f"{PAGE}.open", label_visibility="collapsed")
    if upload is None or recall(PAGE, "opened.file") == upload.file_id:
        return
    from estimators import Result, SurfaceResult

    with TemporaryDirectory() as folder:
        path = Path(folder) / "surface.npz"
        path.write_bytes(upload.getvalue())
        try:
            result = Result.load(path)
        except ValueError as error:
            st.error(text("open.wrong", why=str(error)))
            return
    if not isinstance(result, SurfaceResult):
        st.error(text("open.wrong", why=type(result).__name__))
        return
    newest = jobs.latest(PAGE)
    remember(PAGE, "opened.file", upload.file_id)
    remember(PAGE, "opened", {"name": upload.name, "result": result, "job": newest.id if newest is not None else None})
    surface_view.forget_cell()
