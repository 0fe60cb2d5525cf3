"""What a run will cost, said before it: number of points × the measured time of one."""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from app.catalog import DataSpec, PointSpec
from app.texts import texts
from app.widgets.jobs import POLL_SECONDS, duration
from app.work import jobs

_PAGE = "_cost"  # a leading underscore keeps a job out of the sidebar


@st.cache_resource(show_spinner=False)
def _measured() -> dict[Any, float | str]:
    """Return milliseconds a point by what was measured; a string says why it could not be."""
    return {}


def cost(
    points: int,
    spec: PointSpec,
    data: DataSpec,
    settings: dict[str, Any],
    *,
    passes: float = 1.0,
    several_networks: bool = False,
) -> None:
    """Say how long ``points`` evaluations will take; one is measured in the background the first time.

    Parameters
    ----------
    points : int
        Evaluations of the loss.
    spec, data
        What is evaluated on what.
    settings : dict
        From :func:`app.widgets.engine_settings`.
    passes : float, default=1
        Forward passes a point costs (a gradient counts about 3, a Hessian-vector product about 10).
    several_networks : bool, default=False
        Whether the points come from several networks, which decides what an automatic batch-norm policy is.
    """
    settings = {**settings, "several_networks": several_networks}
    identity = (spec, data, tuple(sorted((k, str(v)) for k, v in settings.items())))
    table = _measured()
    if identity not in table:
        waiting = any(j.page == _PAGE and j.config.get("identity") == identity for j in jobs.live())
        if not waiting:
            jobs.submit(
                _PAGE,
                texts("common")("cost.title", model=spec.label),
                lambda handle: _measure(identity, spec, data, settings),
                config={"identity": identity},
                keep=False,
            )

    @st.fragment(run_every=POLL_SECONDS if identity not in table else None)
    def line() -> None:
        text, value = texts("common"), table.get(identity)
        if value is None:
            st.caption(text("cost.measuring", points=points))
        elif isinstance(value, str):
            st.caption(text("cost.unknown", points=points))
        else:
            one = value * passes
            st.caption(text("cost", points=points, ms=f"{one:.3g}", total=duration(points * one / 1000)))

    line()


def _measure(identity: Any, spec: PointSpec, data: DataSpec, settings: dict[str, Any]) -> float | str:
    """Measure one point in the worker thread and note it."""
    table = _measured()
    try:
        table[identity] = _milliseconds(spec, data, settings)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        table[identity] = str(error)  # the run itself will say it beside the picture
    return table[identity]


def _milliseconds(spec: PointSpec, data: DataSpec, settings: dict[str, Any]) -> float:
    """Time one evaluation: the best of three after a warm-up."""
    from estimators import Landscape

    accepted = ("loss", "batch_size", "device", "precision", "batch_norm", "several_networks")
    land = Landscape(spec.load(), data.load(), **{k: v for k, v in settings.items() if k in accepted})
    theta = land.theta
    times = []
    for _ in range(4):
        start = time.perf_counter()
        land.losses(theta[None])
        times.append(time.perf_counter() - start)
    return 1000 * min(times[1:])
