"""How far to trust a slice: measured on request, under the map."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from app import widgets
from app.pages.surface import charts
from app.texts import from_engine, texts
from app.widgets.jobs import aside
from app.work import jobs

PAGE = "surface"
JOB = "_surface_trust"  # a leading underscore keeps a job out of the sidebar


def block(mapper: Any) -> None:
    """Offer the measurement of a fitted map; show what it gave."""
    text = texts(PAGE)
    if mapper is None:
        return
    with st.expander(text("trust"), icon=":material/balance:"):
        st.caption(text("trust.help"))
        st.button(text("trust.run"), key=f"{PAGE}.trust", icon=":material/play_arrow:", on_click=_start, args=(mapper,))
        aside(JOB, jobs.shown(PAGE), lambda job: draw(job.result))


def _start(mapper: Any) -> None:
    def work(handle: jobs.Handle) -> Any:
        return mapper.trust(on_progress=handle.progress)

    owner = jobs.shown(PAGE)
    jobs.submit(JOB, texts(PAGE)("trust"), work, config={"of": owner.id if owner is not None else ""}, keep=False)


def draw(trust: Any) -> None:
    """Draw the sentence, the shares, the curvatures and the band of other draws."""
    text = texts(PAGE)
    st.markdown(f"**{from_engine(trust.sentence)}**")
    shares, curvatures = share_table(trust), curvature_table(trust)
    left, right = st.columns(2)
    with left:
        widgets.heading(text("trust.shares"))
        widgets.show_table(shares)
    with right:
        widgets.heading(text("trust.curvatures"))
        widgets.show_table(curvatures)
        st.caption(text("trust.curvatures.help"))
    widgets.heading(text("trust.band"))
    chart = charts.other_draws(trust)
    widgets.show_chart(chart)
    if trust.band_normalization == "none":
        st.caption(text("trust.band.plain"))
    widgets.downloads(trust, chart, name="slice-trust", key="surface-trust")


def share_table(trust: Any) -> pd.DataFrame:
    """Return what lies in the slice, beside what a random slice would hold."""
    text = texts(PAGE)
    rows = [(text("trust.gradient"), trust.gradient_share)]
    for k, (value, share) in enumerate(zip(trust.eigenvalues, trust.eigenvector_shares, strict=True)):
        rows.append((text("trust.eigenvector", k=k + 1, value=f"{value:.4g}"), share))
    if np.isfinite(trust.trajectory_share):
        rows.append((text("trust.trajectory"), trust.trajectory_share))
    return pd.DataFrame(
        {
            text("trust.of"): [name for name, _ in rows],
            text("trust.share"): [f"{share:.3%}" for _, share in rows],
            text("trust.chance"): [f"{trust.chance:.3%}" for _ in rows],
        }
    )


def curvature_table(trust: Any) -> pd.DataFrame:
    """Return the curvature along each direction: of the picture, and of the Hessian."""
    text = texts(PAGE)
    return pd.DataFrame(
        {
            text("trust.direction"): range(1, len(trust.slice_curvatures) + 1),
            text("trust.slice"): [f"{value:.4g}" for value in trust.slice_curvatures],
            text("trust.hessian"): [f"{value:.4g}" for value in trust.hessian_curvatures],
        }
    )
