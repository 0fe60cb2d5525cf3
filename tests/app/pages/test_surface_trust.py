"""How far to trust a slice: the block under a map, its tables and its chart."""

from __future__ import annotations

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest
from torch import nn

from app.pages.surface import charts, trust, view
from app.texts import texts
from app.work import jobs
from estimators import SurfaceMapper

TEXT = texts("surface")


def draw():
    from app.pages.surface import page as surface

    surface.render()


@pytest.fixture(scope="module")
def mapper(digits):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 10))
    return SurfaceMapper(resolution=5, normalization="layer").fit(model, digits.subset(64))


@pytest.fixture(scope="module")
def measured(mapper):
    return mapper.trust(n_eigenvectors=2, n_draws=3)


def test_a_map_is_measured_on_request_and_its_sentence_is_shown(mapper):
    job = jobs.adopt("surface", "a map", mapper.result_, {})
    view.keep_fitted(job.id, mapper)
    at = AppTest.from_function(draw, default_timeout=120).run()
    assert "the picture shows" not in " ".join(str(e.value) for e in at.markdown)
    at.button(key="surface.trust").click().run()
    assert jobs.get_queue().wait(120)
    at.run()
    assert not at.exception
    found = jobs.latest(trust.JOB).result
    assert f"**{found.sentence}**" in [e.value for e in at.markdown]
    tables = [list(frame.value.columns) for frame in at.dataframe]
    assert [TEXT("trust.of"), TEXT("trust.share"), TEXT("trust.chance")] in tables
    jobs.adopt("surface", "another map", mapper.result_, {})  # what was measured belongs to its own map
    at.run()
    assert f"**{found.sentence}**" not in [e.value for e in at.markdown]


def test_the_tables_hold_what_was_measured(measured):
    shares = trust.share_table(measured)
    assert shares[TEXT("trust.share")].tolist() == [
        f"{v:.3%}" for v in (measured.gradient_share, *measured.eigenvector_shares)
    ]
    assert set(shares[TEXT("trust.chance")]) == {f"{2 / 130:.3%}"}
    curvatures = trust.curvature_table(measured)
    assert curvatures[TEXT("trust.hessian")].tolist() == [f"{v:.4g}" for v in measured.hessian_curvatures]


def test_the_band_is_that_of_the_other_draws(measured):
    chart = charts.other_draws(measured, log=True)
    (rows,) = (
        rows for rows in chart.to_dict()["datasets"].values() if {row["kind"] for row in rows} >= {TEXT("trust.own")}
    )
    others = [row for row in rows if row["kind"] == TEXT("trust.others")]
    np.testing.assert_allclose([row["high"] for row in others], measured.band_losses.max(0))
    np.testing.assert_allclose([row["middle"] for row in others], np.median(measured.band_losses, 0))
    assert "along 3 other random directions" in chart.description
