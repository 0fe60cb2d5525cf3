"""The subject in a real browser: in the URL whole, kept from page to page and over a reload; pages in small windows."""

from __future__ import annotations

import pytest

from tests.browser.driving import PATIENCE, go, rested

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
MEASURING = ("surface", "stationary", "sharpness", "connectivity", "averaging", "escape", "architectures")
CHOSEN = "subject.from=timm&subject.architecture=resnet18&subject.seed=3&subject.samples=64&subject.precision=float64"


def bar(page):
    return page.locator(".st-key-subject").first


def says_what_was_chosen(page):
    for words in ("resnet18", "seed 3", "64 images at 32 px", "float64"):
        expect(bar(page)).to_contain_text(words, timeout=PATIENCE)


def test_a_url_opens_what_it_names_and_pages_and_reloads_keep_it(app, page):
    address, _ = app
    page.goto(f"{address}/surface?{CHOSEN}")
    says_what_was_chosen(page)
    go(page, "Sharpness")
    says_what_was_chosen(page)
    page.reload()
    says_what_was_chosen(page)
    go(page, "Runs")
    go(page, "Stationary points")
    says_what_was_chosen(page)
    assert "subject.architecture=resnet18" in page.url and "subject.seed=3" in page.url


def test_words_typed_as_in_an_editor_take_the_best_match(app, page):
    address, _ = app
    page.goto(f"{address}/surface?subject.from=timm&subject.samples=16")
    rested(page)
    page.get_by_role("button", name="Model", exact=True).click()
    box = page.get_by_role("combobox", name="Architecture")
    box.click()
    box.fill("18 resnet")
    box.press("Enter")
    expect(bar(page)).to_contain_text("resnet18", timeout=PATIENCE)
    rested(page)
    assert "subject.architecture=resnet18" in page.url


@pytest.mark.parametrize("name", MEASURING)
def test_the_button_is_in_the_first_screen(app, page, name):
    address, _ = app
    page.goto(f"{address}/{name}?subject.from=timm&subject.samples=16")
    rested(page)
    button = page.locator('[data-testid="stMain"] button[kind="primary"]').first
    expect(button).to_be_visible(timeout=PATIENCE)
    box = button.bounding_box()
    assert box["y"] + box["height"] < 900, f"{name}: {box}"


# The picture stands below its inputs, as soon as the page's style is there.
BELOW = """() => {
  const [inputs, result] = ["-inputs", "-result"].map(end => document.querySelector(`[class*="${end}"]`));
  return result.getBoundingClientRect().top >= inputs.getBoundingClientRect().bottom - 1;
}"""


@pytest.mark.parametrize("width", [800, 400])
def test_nothing_is_one_letter_wide_in_a_small_window(app, page, width):
    address, _ = app
    page.set_viewport_size({"width": width, "height": 900})
    for name in MEASURING:
        page.goto(f"{address}/{name}?subject.from=timm&subject.samples=16")
        rested(page)
        narrow = page.evaluate(
            """() => [...document.querySelectorAll(
                '[data-testid="stMain"] label, [data-testid="stMain"] p, [data-testid="stMain"] button')]
                .map(e => [e.innerText.trim(), e.getBoundingClientRect()])
                .filter(([words, box]) => words.length > 8 && box.width > 0 && box.width < 40)
                .map(([words, box]) => `${words}: ${box.width}`)"""
        )
        assert narrow == [], f"{name} at {width} px"
        if width == 800:
            page.wait_for_function(BELOW, timeout=PATIENCE)
