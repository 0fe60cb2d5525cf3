"""What the page Surface shows of a result: the map and its relief, one cell, the way on."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import streamlit as st

from app import widgets
from app.charts import grid
from app.charts import surface as charts
from app.charts.relief import LARGEST as RELIEF_SIDE
from app.charts.theme import SCHEMES
from app.pages.surface import numbers, trust
from app.state import key, recall, remember
from app.texts import plain, said, texts
from app.widgets.jobs import POLL_SECONDS
from app.work import jobs
from app.work.work import Work, restartable

PAGE = "surface"
HEIGHT = 500  # of the map: axis and colour bar lie inside it
SLIDERS = 80  # of that under the relief, to turn it
GROWING = 41  # nodes on a side of a map that is drawn anew every two seconds
CELL = "_surface_cell"  # a leading underscore keeps a job out of the sidebar
_MAX_FITTED = 4
_MAX_SLICES = 5


@st.cache_resource(show_spinner=False)
def _fitted() -> OrderedDict[str, Any]:
    """Return the mappers behind the latest maps, by job; what a single point is measured with."""
    return OrderedDict()


def keep_fitted(job_id: str, mapper: Any) -> None:
    """Keep the mapper behind a map; the oldest goes when there are more than four."""
    table = _fitted()
    table[job_id] = mapper
    while len(table) > _MAX_FITTED:
        table.popitem(last=False)


def fitted_of(result: Any) -> tuple[jobs.Job | None, Any]:
    """Return the job a shown result came from and its mapper; None for a result from a file."""
    opened = recall(PAGE, "opened")
    job = jobs.shown(PAGE)
    if job is None or (opened is not None and opened["result"] is result):
        return None, None
    mapper = None if job.live else _fitted().get(job.id)
    return job, mapper if hasattr(mapper, "result_") else None  # also of a map that was stopped half-way


def forget_cell() -> None:
    """Let the picked cell go, when another map comes."""
    remember(PAGE, "cell", None)


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment, so these widgets rerun only this panel."""
    text = texts(PAGE)
    job, mapper = fitted_of(result)
    growing = job is not None and job.live
    look = _controls(result)
    dims = len(result.axes)
    if dims == 1:
        chart = charts.profile(result, quantity=look["quantity"], log=look["log"])
        widgets.show_chart(chart)
    elif dims == 3:
        chart = _slices(result, look)
    else:
        chart = _plane(result, look, growing=growing)
    if job is not None and not growing and not result.converged:
        st.info(text("unfinished"), icon=":material/incomplete_circle:")
    if dims == 2:
        _cell(result, job, mapper, look)
    numbers.metrics(result)
    if mapper is not None and job is not None and not np.all(result.evaluated):
        st.button(text("finish"), on_click=_finish, args=(job,), icon=":material/grid_on:", key=f"{PAGE}.finish")
    numbers.models(result)
    trust.block(mapper)
    if dims == 2:
        if not growing:  # of what is still being measured nothing is read off, at every redraw
            numbers.analysis(result, mapper)
        numbers.compare(result, job, look)
    widgets.settings_line(result)
    widgets.take_along(
        PAGE, result, chart, name="surface", table=numbers.table(result), more=numbers.meshes(result, look),
        script=None if job is not None else "",
    )  # fmt: skip
    numbers.mesh_note(result)


def _controls(result: Any) -> dict[str, Any]:
    """Write what changes the picture without computing anything; return the choices."""
    form, dims = widgets.Form(PAGE), len(result.axes)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity = form.choice("quantity", charts.quantities(result), width=130)
        look: dict[str, Any] = {"quantity": quantity, "log": form.log()}
        if dims > 1:
            look["scheme"] = SCHEMES[form.choice("scheme", SCHEMES, width=105)]
            look["levels"] = form.slider("levels", 12, 0, 30, width=95)
            look["clip"] = form.slider("clip", 1.0, 0.5, 1.0, step=0.01, width=125)
    return look


def _plane(result: Any, look: dict[str, Any], *, growing: bool) -> Any:
    """Draw map and relief side by side, with one cursor; return what draws the map for files."""
    text = texts(PAGE)
    drawn = grid.coarser(result, GROWING) if growing else result
    shared = {name: look[name] for name in ("quantity", "log", "clip", "scheme")}
    cell = recall(PAGE, "cell")
    tall = grid.fitting_height(result, HEIGHT)
    # a flat plane takes the whole width, and its relief stands under it
    flat, relief = st.columns([1.1, 1]) if tall == HEIGHT else (st.container(), st.container())
    levels = look["levels"]
    chart = charts.heat_map(
        drawn, **shared, levels=levels, title=text("title.map"), cursor=cell, select="cell", height=tall
    )
    with flat:
        widgets.show_chart(chart, chart_key=key(PAGE, "map"), on_select=_pick)
    with relief:
        above = st.container()
        turn, tilt = widgets.Form(PAGE).columns(2)
        view = {
            "azimuth": turn.slider("azimuth", 35, 0, 355, step=5),
            "elevation": tilt.slider("elevation", 30, 5, 85, step=5),
            "cursor": cell,
            "height": HEIGHT - SLIDERS,
        }
        with above:
            widgets.show_chart(charts.relief(drawn, **shared, **view, title=text("title.relief"), legend=False))
    sides, largest = np.shape(result.losses), GROWING if growing else charts.LARGEST
    if max(sides) > largest:
        shown = " × ".join(str(len(grid.thin(n, largest))) for n in sides)
        st.caption(text("thinned.growing" if growing else "thinned", shown=shown, all=" × ".join(map(str, sides))))
    elif max(sides) > RELIEF_SIDE:
        st.caption(text("thinned.relief", shown=RELIEF_SIDE))
    # files carry the map without the cursor and without a selection
    return partial(charts.heat_map, result, **shared, levels=levels)


def _slices(result: Any, look: dict[str, Any]) -> Any:
    """Draw a volume as slices on one colour scale, two in a row; return the middle one."""
    text = texts(PAGE)
    quantity = look["quantity"]
    third = np.asarray(result.axes[2], float)
    chosen = grid.thin(len(third), _MAX_SLICES)
    values = charts.values_of(result, quantity)
    domain = charts.shared_domain([result], quantity, log=look["log"], clip=look["clip"])
    pictures = []
    for k in chosen:
        known = {"evaluated": np.asarray(result.evaluated)[:, :, k], quantity: values[:, :, k]}
        one = SimpleNamespace(axes=result.axes[:2], axis_titles=result.axis_titles[:2], **known)
        title = text("slice", title=said(result.axis_titles[2]).partition(" (")[0], value=f"{third[k]:.3g}")
        shared = {name: look[name] for name in ("quantity", "log", "levels", "scheme")}
        last = bool(k == chosen[-1])
        pictures.append(charts.heat_map(one, **shared, domain=domain, title=title, height=380, legend=last))
    widgets.in_pairs(pictures)
    return pictures[len(pictures) // 2]


def _pick() -> None:
    """Remember the clicked cell; a selection that was reset by a new picture changes nothing."""
    state = st.session_state.get(key(PAGE, "map"))
    selection = (state or {}).get("selection", {}).get("cell") or []
    if selection and "cx" in selection[0]:
        remember(PAGE, "cell", (float(selection[0]["cx"]), float(selection[0]["cy"])))


def _cell(result: Any, job: jobs.Job | None, mapper: Any, look: dict[str, Any]) -> None:
    """Show the picked cell: its value on the map, then what is measured there."""
    text = texts(PAGE)
    cell = recall(PAGE, "cell")
    if cell is None:
        st.caption(text("click"))
        return
    i, j = (int(np.abs(np.asarray(a) - c).argmin()) for a, c in zip(result.axes, cell, strict=True))
    was = "evaluated" if np.asarray(result.evaluated)[i, j] else "interpolated"
    with st.container(border=True):
        st.markdown(f"**{text('cell', x=f'{cell[0]:.3g}', y=f'{cell[1]:.3g}')}**")
        if mapper is None or job is None:
            value = f"{np.asarray(result.losses)[i, j]:.4g}"
            st.metric(text(f"cell.map.{was}"), value)
            if job is None or not job.live:
                st.caption(text("cell.gone"))
            return
        _probe(result, job, mapper, cell, float(np.asarray(result.losses)[i, j]), was)


def _probe(result: Any, job: jobs.Job, mapper: Any, cell: tuple[float, float], on_map: float, was: str) -> None:
    wanted = {"map": job.id, "x": cell[0], "y": cell[1]}
    found = jobs.latest(CELL)
    if found is None or found.config != wanted:
        found = jobs.submit(
            CELL, texts(PAGE)("cell", x=f"{cell[0]:.3g}", y=f"{cell[1]:.3g}"), lambda handle: mapper.probe(cell),
            config=wanted, keep=False,
        )  # fmt: skip

    @st.fragment(run_every=POLL_SECONDS if found.live else None)
    def measured() -> None:
        text, now = texts(PAGE), jobs.latest(CELL)
        with st.container(horizontal=True, vertical_alignment="center"):
            st.metric(text(f"cell.map.{was}"), f"{on_map:.4g}", width=185)
            if now is not None and now.result is not None:
                loss, rise = (widgets.interval_under(now.result["sampling"], name) for name in ("loss", "rise"))
                st.metric(text("cell.exact"), f"{now.result['loss']:.5g}", width=190, **loss)
                st.metric(text("cell.rise"), f"{now.result['rise']:.4g}", width=190, **rise)
                st.metric(text("cell.accuracy"), f"{now.result['accuracy']:.2%}", width=100)
                st.metric(text("cell.gradient"), f"{now.result['gradient_norm']:.4g}", width=115)
                st.metric(text("cell.slope"), f"{now.result['slope']:.4g}", width=130)
            elif now is not None and now.live:
                st.caption(text("cell.measuring"))
            else:
                st.caption(text("cell.failed", why=plain((now.error if now is not None else "") or "")))

    measured()
    st.button(
        texts(PAGE)("cell.closer"), on_click=_closer, args=(job, cell), icon=":material/zoom_in:",
        key=f"{PAGE}.closer",
    )  # fmt: skip


def _closer(job: jobs.Job, cell: tuple[float, float]) -> None:
    """Queue a map of the same plane around the cell, four times closer."""
    title = texts(PAGE)("job.closer", x=f"{cell[0]:.3g}", y=f"{cell[1]:.3g}")
    _submit_again(job, title, closer, f"result = result.look_closer({cell!r})", cell=cell)


@restartable
def closer(handle: jobs.Handle, of: Work, job: str, cell: tuple[float, float]) -> Any:
    """Map around a cell of the map that ``of`` makes; runs in the worker thread."""
    mapper = _fitted_again(handle, of, job).look_closer(cell, **handle.reports)
    keep_fitted(handle.job.id, mapper)
    return mapper.result_


def _finish(job: jobs.Job) -> None:
    """Queue the exact evaluation of what was interpolated."""
    _submit_again(job, job.title, finish, "result.finish()")


@restartable
def finish(handle: jobs.Handle, of: Work, job: str) -> Any:
    """Evaluate what the map that ``of`` makes has interpolated; runs in the worker thread."""
    mapper = _fitted_again(handle, of, job)
    mapper.finish(**handle.reports)
    keep_fitted(handle.job.id, mapper)
    return mapper.result_


def _fitted_again(handle: jobs.Handle, of: Work, job: str) -> Any:
    """Return the mapper of a job; where it is gone, the cache makes it again quickly."""
    if job not in _fitted():
        of(handle)
        job = handle.job.id
    return _fitted()[job]


def _submit_again(job: jobs.Job, title: str, work: Any, line: str, **given: Any) -> None:
    """Queue work on a fitted map; its script is the map's with one more line."""
    config = dict(job.config)
    before, _, last = config.get("script", "").rstrip("\n").rpartition("\n")
    config["script"] = f"{before}\n{line}\n{last}\n" if last.startswith("print(") else config.get("script", "")
    forget_cell()
    remember(PAGE, "opened", None)
    jobs.submit(PAGE, title, Work.of(work, of=job.work, job=job.id, **given), config=config)
