"""The page's newest job, while it lives and after: progress, time left, cancel, results as they come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import export
from app.catalog import DataSpec, PointSpec
from app.state import form, key, recall, remember
from app.texts import from_engine, plain, texts
from app.widgets.boundary import boundary
from app.widgets.form import Form
from app.widgets.frame import definitions, page_header
from app.widgets.heads import head
from app.work import jobs
from app.work.work import Work, restartable

Render = Callable[[DeltaGenerator, DeltaGenerator], None]

POLL_SECONDS = 1.0
FIRST_POLL_SECONDS = 0.3  # until there is a first picture
PICTURE_SECONDS = 2.0  # between two pictures of a job that runs; drawing takes from it


def duration(seconds: float | None) -> str:
    """Return seconds as a person says them."""
    if seconds is None:
        return "…"
    text = texts("common")
    if seconds < 60:
        return text("duration.seconds", seconds=f"{seconds:.{0 if seconds >= 9.5 else 1}f}")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return text("duration.minutes", minutes=minutes, seconds=rest)
    return text("duration.hours", hours=minutes // 60, minutes=minutes % 60)


def job_panel(
    page: str,
    draw: Callable[[Any], None],
    *,
    empty: str | None = None,
) -> None:
    """Show the newest job of a page; until it has something to draw, the picture of the one before it stays.

    Parameters
    ----------
    page : str
        As given to :func:`app.jobs.submit`.
    draw : callable
        ``draw(result)`` is called with partial results while the job runs and with the final one after. It
        runs inside a fragment: a widget in it reruns only this panel, so sliders that change the picture
        belong there. It must not write to containers made outside.
    empty : str, optional
        What to say before the first job.
    """
    job = jobs.latest(page)
    if job is None:
        with st.container(border=True, height=220, horizontal_alignment="center", vertical_alignment="center"):
            st.markdown(f":gray[:material/landscape: {empty or texts('common')('nothing_yet')}]", width="content")
        return
    live, first = job.live, job.live and job.partial is None

    @st.fragment(run_every=None if not live else FIRST_POLL_SECONDS if first else POLL_SECONDS)
    def state() -> None:
        now = jobs.latest(page)
        if now is None:
            return
        # A whole run: another timer from here on, and lists elsewhere see the result.
        if now is not job or (live and not now.live) or (first and now.partial is not None):
            st.rerun()
        status(now)

    @st.fragment(run_every=PICTURE_SECONDS if live and not first else None)
    def picture() -> None:
        now, shown = jobs.latest(page), jobs.shown(page)
        if shown is None:
            return
        with st.container():
            if now is not shown:
                st.caption(texts("common")("job.earlier", title=plain(shown.title)))
        with boundary(f"the picture of {page}"):
            head(shown)
            draw(shown.result if shown.result is not None else shown.partial)

    state()
    picture()


def answer(
    place: DeltaGenerator,
    page: str,
    draw: Callable[[Any], None],
    explained: Sequence[str],
    *,
    text: str | None = None,
    empty: str | None = None,
    unfold: bool = False,
) -> None:
    """Show the newest job of a page and, in a fold under it, what its numbers mean.

    Parameters
    ----------
    place : container
        The right column.
    page, draw, empty
        As for :func:`job_panel`.
    explained : sequence of str
        Definitions of the page's texts, ``def.NAME.*``.
    text : str, optional
        Whose texts; the page's own by default.
    unfold : bool, default=False
        Open the fold while there is no job.
    """
    with place:
        job_panel(page, draw, empty=empty)
        definitions(texts(text or page), explained, expanded=unfold and jobs.latest(page) is None)


@restartable
def fit_one(handle: jobs.Handle, estimator: Any, points: tuple[PointSpec, ...], data: DataSpec, held_out: None) -> Any:
    """Fit an estimator on one network and its data; the work of most pages."""
    return estimator.fit(points[0].load(), data.load(), **handle.reports).result_


def start_fit(
    page: str,
    title: str,
    estimator: Any,
    *,
    points: Sequence[tuple[str, PointSpec]] = (),
    data: DataSpec | None = None,
    held_out: DataSpec | None = None,
    work: Callable[..., Any] = fit_one,
    given: Mapping[str, Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    **program: Any,
) -> jobs.Job:
    """Queue a fit, with the script and the settings that reproduce it.

    Parameters
    ----------
    page, title : str
        As for :func:`app.work.jobs.submit`.
    estimator : LandscapeEstimator
        Not fitted yet.
    points, data, held_out
        What it is fitted on, and what the script loads.
    work : callable
        ``work(handle, estimator, points, data, held_out, **given) -> result`` fits it in the worker thread, where
        nothing of Streamlit may be called; a module-level function marked ``restartable``.
    given : mapping, optional
        What else the work needs: plain values and dataclasses of them.
    extra : mapping, optional
        What else the run notes about how it was made.
    **program
        More for :func:`app.export.script`: ``fit``, ``show``, ``setup``, ``imports``, ``call``.
    """
    specs = tuple(spec for _, spec in points)
    written = Work.of(work, estimator=estimator, points=specs, data=data, held_out=held_out, **(given or {}))
    script = export.script(estimator, points=points, data=data, held_out=held_out, **program)
    config = export.config(estimator, points=points, data=data, script=script, extra={**(extra or {}), "form": form()})
    return jobs.submit(page, title, written, config=config)


def status(job: jobs.Job) -> None:
    """Write the state of one job: bar and cancel button while it lives, a sentence if it ended badly."""
    text = texts("common")
    place = st.container()  # it stays when it is empty: what stands below would move under a press
    if job.live:
        bar, button = place.columns([5, 1], vertical_alignment="center")
        ahead = list(itertools.takewhile(lambda other: other is not job, jobs.live()))
        if job.state == jobs.QUEUED and ahead:
            words = text("job.waiting", count=len(ahead), title=plain(ahead[0].title))
        elif job.eta is None:
            words = text("job.running", title=plain(job.title), message=plain(job.message) or text("job.starting"))
        else:
            words = text("job.eta", title=plain(job.title), message=plain(job.message), eta=duration(job.eta))
        bar.progress(job.fraction, text=words)
        asked = job.cancel_event.is_set()
        button.button(
            text("job.cancelling") if asked else text("job.cancel"),
            key=f"cancel-{job.id}",
            on_click=job.cancel,
            disabled=asked,
            icon=":material/close:",
        )
    elif job.state == jobs.FAILED:
        place.error(
            from_engine(job.error) if job.error else text("job.failed"),
            title=text("job.failed_title", title=plain(job.title)),
            icon=":material/error:",
        )
    elif job.state == jobs.CANCELLED:
        kept = text("job.cancelled_kept") if job.partial is not None else ""
        place.info(text("job.cancelled", title=plain(job.title)) + " " + kept, icon=":material/cancel:")
    if job.note:
        place.warning(from_engine(job.note), icon=":material/warning:")


def aside(name: str, owner: jobs.Job | None, draw: Callable[[jobs.Job], None]) -> None:
    """Show what was measured last of a page's result, while that is the result that is shown.

    Parameters
    ----------
    name : str
        Of the jobs that measure it, each with the id of what it is of in ``config["of"]``.
    owner : Job or None
        The job whose result is shown.
    draw : callable
        ``draw(job)`` once the job has a result; runs in a fragment.
    """
    newest = jobs.latest(name)
    if newest is None or owner is None or newest.config.get("of") != owner.id:
        return

    @st.fragment(run_every=POLL_SECONDS if newest.live else None)
    def panel() -> None:
        now = jobs.latest(name)
        if now is None:
            return
        status(now)
        if now.result is not None:
            draw(now)

    panel()


def activity() -> None:
    """Show in the sidebar of every page what runs and waits; refresh the page when something asked for ends."""
    first = jobs.live()
    if not first:
        return
    asked = _asked_for(first)

    @st.fragment(run_every=POLL_SECONDS)
    def panel() -> None:
        live = jobs.live()
        if not live or _asked_for(live) != asked:
            st.rerun()
        running = sum(job.state == jobs.RUNNING for job in live)
        st.caption(texts("common")("activity", running=running, waiting=len(live) - running))
        for place, job in enumerate(live):
            _row(job, place, first_waiting=place == running)

    panel()


def _row(job: jobs.Job, place: int, *, first_waiting: bool) -> None:
    """Show one job of the queue, with a button to stop it and, while others wait before it, one to go ahead of them."""
    text, title = texts("common"), plain(job.title)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", wrap=False):
        if job.state == jobs.RUNNING:
            left = f" · {duration(job.eta)}" if job.eta is not None else ""
            st.progress(job.fraction, text=f":small[{title} · {job.fraction:.0%}{left}]")
        else:
            st.markdown(f":small[{place + 1}. {title}]", width="stretch")
            if not first_waiting:
                ahead = {"help": text("job.ahead"), "args": (job,), "on_click": jobs.get_queue().advance}
                st.button("", key=f"ahead-{job.id}", icon=":material/arrow_upward:", type="tertiary", **ahead)
        end = {"help": text("job.stop", title=title), "on_click": job.cancel, "disabled": job.cancel_event.is_set()}
        st.button("", key=f"stop-{job.id}", icon=":material/close:", type="tertiary", **end)


def _asked_for(live: Sequence[jobs.Job]) -> set[str]:
    """Return the ids of jobs a person started; those of the app's own looks begin with an underscore."""
    return {job.id for job in live if not job.page.startswith("_")}


def show_view(page: str, views: Mapping[str, tuple[str, Render]]) -> None:
    """Write the head of a page that has several views, and the one that is chosen.

    A run that was reopened since the last look opens its own.

    Parameters
    ----------
    page : str
        Its texts name the views: ``view.NAME``.
    views : mapping of str to (str, callable)
        For each view the page of its jobs, and what draws it into the left and the right column.
    """
    left, right = page_header(page, texts(page))
    with left:
        preset = _follow_newest(page, {name: where for name, (where, _) in views.items()})
        look: dict[str, Any] = {"label_visibility": "collapsed", "width": "stretch"}
        view = Form(page).switch("view", views, preset=preset, **look)
    views[view][1](left, right)


def _follow_newest(page: str, views: Mapping[str, str]) -> bool:
    """Open the view of a run that was reopened since the last look; tell whether it did."""
    found = [(job, view) for view, where in views.items() if (job := jobs.latest(where)) is not None]
    if not found:
        return False
    newest, view = max(found, key=lambda pair: pair[0].created)
    if recall(page, "newest") == newest.id:
        return False
    remember(page, "newest", newest.id)
    reopened = newest.run_id is not None and not newest.keep
    if reopened:
        st.session_state[key(page, "view")] = view
    return reopened
