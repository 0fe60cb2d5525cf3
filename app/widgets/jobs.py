"""The page's newest job, while it lives and after: progress, time left, cancel, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import export
from app.catalog import DataSpec, PointSpec
from app.state import key, recall, remember
from app.texts import from_engine, plain, texts
from app.widgets.form import Form
from app.widgets.frame import definitions, page_header
from app.work import jobs

Render = Callable[[DeltaGenerator, DeltaGenerator], None]

POLL_SECONDS = 1.0
FIRST_POLL_SECONDS = 0.3  # until there is a first picture; nothing is drawn before it, so looking is cheap


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
    """Show the newest job of a page.

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
    watched = job.id if job.live else None
    waiting = job.live and job.partial is None

    @st.fragment(run_every=None if not job.live else FIRST_POLL_SECONDS if waiting else POLL_SECONDS)
    def panel() -> None:
        now = jobs.latest(page)
        if now is None:
            return
        if watched == now.id and not now.live:
            st.rerun()  # a whole run: no timer any more, and lists elsewhere see the result
        if waiting and watched == now.id and now.partial is not None:
            st.rerun()  # a whole run: from here on the slower timer
        status(now)
        shown = now.result if now.result is not None else now.partial
        if shown is not None:
            draw(shown)

    panel()


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


def start_fit(
    page: str,
    title: str,
    estimator: Any,
    *,
    points: Sequence[tuple[str, PointSpec]] = (),
    data: DataSpec | None = None,
    run: Callable[..., Any] | None = None,
    extra: Mapping[str, Any] | None = None,
    **program: Any,
) -> jobs.Job:
    """Queue a fit, with the script and the settings that reproduce it.

    Parameters
    ----------
    page, title : str
        As for :func:`app.work.jobs.submit`.
    estimator : LandscapeEstimator
        Its ``result_`` is the job's.
    points, data
        What it is fitted on, and what the script loads.
    run : callable, optional
        ``run(on_progress=..., on_partial=...)`` fits it in the worker thread, where nothing of Streamlit may be
        called; ``estimator.fit(first point, data)`` by default.
    extra : mapping, optional
        What else the run notes about how it was made.
    **program
        More for :func:`app.export.script`: ``fit``, ``show``, ``setup``, ``held_out``, ``imports``, ``call``.
    """

    def work(handle: jobs.Handle) -> Any:
        if run is not None:
            run(**handle.reports)
        else:
            estimator.fit(points[0][1].load(), data.load() if data is not None else None, **handle.reports)
        return estimator.result_

    script = export.script(estimator, points=points, data=data, **program)
    config = export.config(estimator, points=points, data=data, script=script, extra=extra)
    return jobs.submit(page, title, work, config=config)


def status(job: jobs.Job) -> None:
    """Write the state of one job: bar and cancel button while it lives, a sentence if it ended badly."""
    text = texts("common")
    if job.live:
        bar, button = st.columns([5, 1], vertical_alignment="center")
        ahead = [j for j in jobs.live() if j.id != job.id and j.created < job.created]
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
        st.error(
            from_engine(job.error) if job.error else text("job.failed"),
            title=text("job.failed_title", title=plain(job.title)),
            icon=":material/error:",
        )
    elif job.state == jobs.CANCELLED:
        kept = text("job.cancelled_kept") if job.partial is not None else ""
        st.info(text("job.cancelled", title=plain(job.title)) + " " + kept, icon=":material/cancel:")
    if job.note:
        st.warning(from_engine(job.note), icon=":material/warning:")


def activity() -> None:
    """Say in the sidebar what is running, on every page; refresh the page when something has ended."""
    watched = tuple(job.id for job in _shown())
    if not watched:
        return

    @st.fragment(run_every=POLL_SECONDS)
    def panel() -> None:
        running = _shown()
        if tuple(job.id for job in running) != watched:
            st.rerun()
        text = texts("common")
        for job in running:
            st.progress(job.fraction, text=f":small[{plain(job.title)}]")
        st.caption(text("activity", count=len(running)))

    panel()


def _shown() -> list[jobs.Job]:
    """Return the live jobs a person started; measuring jobs of the app itself begin with an underscore."""
    return [job for job in jobs.live() if not job.page.startswith("_")]


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
