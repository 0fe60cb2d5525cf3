"""Surface: the loss on a line, plane or volume through the weights."""

from __future__ import annotations

from math import prod
from typing import Any

import streamlit as st

from app import widgets
from app.catalog import DataSpec, PointSpec
from app.names import distinct, names_apart
from app.pages.surface import view
from app.state import recall, remember
from app.texts import plain, texts
from app.work import jobs
from app.work.work import restartable
from app.workspace import library

PAGE = "surface"
LARGEST = 201 * 201
LARGEST_FILE = 256  # MB
DEFINITIONS = ("filter", "centre", "axes", "adaptive", "trajectory", "basin", "convexity")


def render() -> None:
    """Draw the page."""
    text = texts(PAGE)
    left, right = widgets.page_header(PAGE, text)
    with left:
        kind = widgets.Form(PAGE).choice("directions")
        others = {"models": ("b", "c"), "linear": ("b",)}.get(kind, ())
        chosen = widgets.subject().beside({role: text(f"model.{role}") for role in others}, PAGE)
        params, sizes = settings(kind, chosen.settings["precision"])
        extra = extras(chosen)
        ready = chosen.ready and _fits(chosen, kind)
        points = prod(sizes) * params.get("n_seeds", 1)
        if points > LARGEST:
            st.error(text("too_large", points=points, limit=LARGEST))
        elif ready:
            ready = _say_cost(chosen, params, sizes, extra)
        if widgets.run_button(PAGE, text("run"), ready=ready and points <= LARGEST):
            start(chosen, kind, params, extra)
        _open_saved()
    with right:
        saved = recall(PAGE, "opened")
        newest = jobs.latest(PAGE)
        if saved is not None and (newest is None or newest.id == saved["job"]):
            st.caption(text("open.done", name=plain(saved["name"])))
            view.draw(saved["result"])
        else:
            widgets.job_panel(PAGE, view.draw)
        widgets.definitions(text, DEFINITIONS)


def settings(kind: str, precision: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Write the settings of the map; return arguments of ``SurfaceMapper`` and the points along each direction.

    In float32 an adaptive map may choose a faster precision than the subject's by itself.
    """
    form = widgets.Form(PAGE)
    params: dict[str, Any] = {"directions": kind}
    dims = 1 if kind == "linear" else 2
    if kind in ("random", "hessian"):
        dims = form.switch("dims", (1, 2, 3), 2, width="stretch")
    params["n_dims"] = dims
    if kind == "random":
        picked = form.choice("normalization")
        params["normalization"] = None if picked == "none" else picked
        if dims == 1:
            params["n_seeds"] = form.integer("seeds", 5, 1, 32)
    if kind == "hessian" and dims > 1:
        params["eigenvectors"] = form.switch("eigenvectors", width="stretch")
    params["mode"] = form.switch("mode", width="stretch")
    left, right = form.columns(2)
    side = left.integer("resolution", 41, 3, 10_000, step=2)
    params["span"] = right.real("span", 1.0, 0.001, step=0.25, format="%.3g")
    sizes = [side] * dims
    with st.expander(texts(PAGE)("more"), icon=":material/tune:"):
        if kind in ("random", "hessian") and form.toggle("span.auto"):
            params["span"] = "auto"
        own = dims > 1 and form.toggle("resolution.own")
        asked = [k for k in range(1, dims) if own or k == 2]  # a volume has slices of its own number
        for column, k in zip(form.columns(len(asked)) if asked else [], asked, strict=True):
            sizes[k] = column.integer(f"resolution.{k + 1}", side if k == 1 else 5, 3, 10_000)
        if params["mode"] == "adaptive":
            params["tolerance"] = form.percent("tolerance", 1.0, 0.1, 20.0, step=0.5)
            if precision == "float32" and form.toggle("precision.auto"):
                params["precision"] = "auto"
        params["sampling"] = form.toggle("sampling", True)
        pattern = form.text("parameters", private=True)
        if pattern:
            params["parameters"] = pattern
        params["time_budget"] = widgets.time_budget(PAGE)
    params["resolution"] = side if len(set(sizes)) == 1 else tuple(sizes)
    return params, tuple(sizes)


def extras(chosen: widgets.Subject) -> dict[str, Any]:
    """Ask for held-out data and for further models on the map."""
    form, marked = widgets.Form(PAGE), ()
    with st.expander(texts(PAGE)("also"), icon=":material/add_location:"):
        held_out = form.toggle("held_out")
        if chosen.point is not None:
            own = {p.weights.partition(":")[2].partition("/")[0] for p in chosen.points if p is not None}
            found = {c.id: c for c in library.list_checkpoints(chosen.point.architecture) if c.id not in own}
            names = names_apart(list(found.values()))
            if found:
                marked = form.many("marked", found, words=lambda i: names.get(i, i))
    return {"held_out": held_out, "marked": [found[i] for i in marked]}


def _fits(chosen: widgets.Subject, kind: str) -> bool:
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


def _say_cost(chosen: widgets.Subject, params: dict[str, Any], sizes: tuple[int, ...], extra: dict[str, Any]) -> bool:
    with widgets.opening():
        from estimators import SurfaceMapper, Work

    every, work = prod(sizes) * params.get("n_seeds", 1), SurfaceMapper(**params).cost()
    if work.evaluations < every:
        st.caption(texts(PAGE)("adaptive_cost", points=int(work.evaluations), all=every))
    if extra["held_out"]:
        work += Work(evaluations=work.evaluations)
    kind, networks = params["directions"], len(chosen.points)
    members = chosen.point.trajectory if kind == "trajectory" else ()
    return widgets.cost(
        work, chosen.point, chosen.data, chosen.settings,
        budget=params["time_budget"],
        several_networks=bool(extra["marked"]) or networks > 1 or kind == "trajectory",
        networks=networks + ("precision" in params),
        vectors=3 * (len(sizes) + 1) + (60 if work.products else 0) + len(members),
        derivatives=work.products > 0,
    )  # fmt: skip


def start(chosen: widgets.Subject, kind: str, params: dict[str, Any], extra: dict[str, Any]) -> None:
    """Queue the job. Everything the worker needs is decided here; it never calls ``st``."""
    from estimators import SurfaceMapper

    data, points = chosen.data, [p for p in chosen.points if p is not None]
    held_out = data.held_out(data.n_samples) if extra["held_out"] else None
    mapper = SurfaceMapper(memory="default", **(chosen.settings | params))
    paths = [str(p) for p in points[0].trajectory] if kind == "trajectory" else []
    called = names_apart(extra["marked"])
    marked = {called[c.id]: [str(p) for p in c.trajectory] or str(c.path) for c in extra["marked"]}
    names = ["model"] if len(points) == 1 else [f"model_{'abc'[k]}" for k in range(len(points))]
    setup, fit = "", f"[{', '.join(names)}], data" if len(names) > 1 else "model, data"
    if paths:
        setup, fit = f"checkpoints = {paths!r}\n", "checkpoints, data, architecture=model"
    if marked:
        setup += f"marked = {marked!r}\n"
        fit += ", marked=marked"
    fit += ", held_out=held_out" if held_out else ""
    size = params["resolution"]
    shape = " × ".join(str(n) for n in (size if isinstance(size, tuple) else [size] * params["n_dims"]))
    remember(PAGE, "opened", None)
    widgets.start_fit(
        PAGE, texts(PAGE)("job", model=points[0].label, shape=shape), mapper, data=data, held_out=held_out,
        points=list(zip(names, points, strict=True)), work=map_surface, given={"paths": paths, "marked": marked},
        fit=fit, setup=setup, show="result.losses_",
    )  # fmt: skip
    view.forget_cell()


@restartable
def map_surface(
    handle: jobs.Handle,
    estimator: Any,
    points: tuple[PointSpec, ...],
    data: DataSpec,
    held_out: DataSpec | None,
    paths: list[str],
    marked: dict[str, Any],
) -> Any:
    """Map the loss, and keep the fitted mapper for questions about its points; runs in the worker thread."""
    view.keep_fitted(handle.job.id, estimator)
    networks = [p.load() for p in points]
    names = distinct([p.label for p in points])
    model: Any = networks[0] if len(networks) == 1 else dict(zip(names, networks, strict=True))
    return estimator.fit(
        {points[0].label: paths} if paths else model,
        data.load(),
        held_out=held_out.load() if held_out else None,
        marked=marked or None,
        architecture=networks[0],
        **handle.reports,
    ).result_


def _open_saved() -> None:
    """Open a surface that was downloaded as NPZ; it stays until the next run."""
    text = texts(PAGE)
    with st.expander(text("open"), icon=":material/folder_open:"):
        upload = st.file_uploader(
            text("open"), type=["npz"], max_upload_size=LARGEST_FILE, key=f"{PAGE}.open", label_visibility="collapsed"
        )
    if upload is None or recall(PAGE, "opened.file") == upload.file_id:
        return
    from estimators import Result, SurfaceResult

    try:
        result = Result.load(upload, upload.name)
    except ValueError as error:
        st.error(text("open.wrong", why=plain(error)))
        return
    if not isinstance(result, SurfaceResult):
        st.error(text("open.wrong", why=type(result).__name__))
        return
    newest = jobs.latest(PAGE)
    remember(PAGE, "opened.file", upload.file_id)
    remember(PAGE, "opened", {"name": upload.name, "result": result, "job": newest.id if newest is not None else None})
    view.forget_cell()
