"""The page Lecture: every claim with its verdict, and a button that runs its experiment."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from app.pages.lecture import page
from app.texts import texts
from app.work import jobs
from estimators.experiments import CLAIMS, SECTIONS, STUDIES, read_records

TEXT = texts("lecture")


def draw_page():
    from app.pages.lecture import page as lecture

    lecture.render()


@pytest.fixture
def app():
    return AppTest.from_function(draw_page, default_timeout=60)


def test_every_claim_stands_in_its_section_with_its_verdict(app):
    app.run()
    seen = set()
    for section in range(1, 8):
        if section > 1:
            app.get_by_key("lecture.section").set_value(section).run()
        assert not app.exception
        said = "\n".join(m.value for m in app.markdown)
        own = [claim for claim in CLAIMS.values() if claim.section == section]
        for claim in own:
            assert claim.says in said and claim.contrast in said
        runs = [b for b in app.button if "run." in str(b.key)]
        assert len(runs) == sum(bool(claim.experiment) for claim in own)
        seen |= {claim.key for claim in own}
    assert seen == set(CLAIMS)


def test_the_page_says_the_claims_and_sections_of_the_registry():
    from app.pages.lecture import claims_texts

    assert {key: claim.says for key, claim in CLAIMS.items()} == claims_texts.EN
    assert {number: TEXT(f"section.{number}") for number in SECTIONS} == SECTIONS


def test_verdicts_come_from_the_records_and_the_rest_is_not_tested(app):
    records = read_records()
    for claim in CLAIMS.values():
        record = records.get(claim.experiment)
        expected = record.verdict(claim.key) if record and claim.key in record.claims else "not tested"
        assert page.verdict_here(claim) == expected
    tested = sum(page.verdict_here(claim) != "not tested" for claim in CLAIMS.values())
    app.run()
    assert any(c.value.startswith(f"{tested} of {len(CLAIMS)} claims tested") for c in app.caption)


def test_a_button_runs_the_experiment_and_judges_it(app):
    app.run()
    button = next(b for b in app.button if "run.minimum_rare" in str(b.key))
    button.click().run()
    assert jobs.get_queue().wait(60)
    app.run()
    assert not app.exception
    job = jobs.latest(page.PAGE)
    assert job.config["experiment"] == "random_matrices" and 'STUDIES["random_matrices"]' in job.config[
        "script"
    ].replace("'", '"')
    assert any(TEXT("heading.here", title=STUDIES["random_matrices"].title) in m.value for m in app.markdown)
    assert any(CLAIMS["coin_flips"].says in m.value for m in app.markdown), (
        "a claim of another section, by the same run"
    )
