"""Every page before axe-core, empty in both languages and with results in both colours: nothing serious or critical."""

from __future__ import annotations

import pytest

from app.main import PAGES
from app.texts import LANGUAGES
from tests.browser.driving import settle
from tests.browser.results import ASKED

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(1200)]
PATIENCE = 120_000  # ms
# Streamlit's own: headings between the items of its navigation list.
THEIRS = [["[data-testid='stSidebarNav']"]]


def findings(page) -> list[str]:
    """Return what axe-core finds serious: its rule, the element, and what it says of it."""
    options = {"resultTypes": ["violations"]}
    found = axe.Axe().run(page, context={"exclude": THEIRS}, options=options).response["violations"]
    grave = [rule for rule in found if rule["impact"] in ("serious", "critical")]
    return [
        f"{rule['id']}: {node['html'][:160]} {node['any'][0]['message'] if node['any'] else ''}"
        for rule in grave
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("language", LANGUAGES)
def test_axe_finds_nothing_serious_on_any_page(app, page, language):
    address, _ = app
    found = {}
    for _, name, _ in PAGES:
        page.goto(f"{address}/{'' if name == 'home' else name}?language={language}")
        page.wait_for_selector("[data-testid='stMain'] [data-testid='stHeading']", timeout=PATIENCE)
        page.wait_for_selector("[data-testid='stApp'][data-test-script-state='notRunning']", timeout=PATIENCE)
        found.update(dict.fromkeys(findings(page), name))
    assert not found, "\n".join(f"{page} · {said}" for said, page in found.items())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_result(filled, page, scheme):
    page.emulate_media(color_scheme=scheme)
    found = {}
    for asked in ASKED:
        page.goto(filled + asked.address)
        settle(page)
        found.update(dict.fromkeys(findings(page), asked.name))
    assert not found, "\n".join(f"{name} · {said}" for said, name in found.items())
