"""What people come for, from the first look to the result in their hands, each in a real browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlparse

import numpy as np
import pytest

from app.pages.tour.stops import STOPS
from app.texts import texts
from tests.browser.driving import (
    CHART,
    PATIENCE,
    ROOT,
    choose,
    go,
    no_error_shown,
    press,
    rested,
    runs,
    tour,
    until,
    watched,
    write,
)

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]
SMALL = "subject.from=timm&subject.samples=32"
MAP = "Map the surface"


def titled(workspace: Path, *words: str) -> dict[Path, dict]:
    """Give the saved runs whose titles hold all these words."""
    return {folder: run for folder, run in runs(workspace).items() if all(word in run["title"] for word in words)}


def test_first_visit_and_the_whole_tour(app, page):
    address, _ = app
    seen = []
    for stop in tour(page, address):
        no_error_shown(page)
        seen.append(stop)
    assert seen == list(STOPS)
    expect(page.get_by_role("link", name=texts("tour")("end"))).to_be_visible(timeout=PATIENCE)


def test_train_map_measure_compare_four_and_take_a_report_offline(app, open_page, browser, tmp_path):
    address, workspace = app
    page = open_page()
    page.goto(f"{address}/workbench?workbench.epochs=1&workbench.samples=128")
    rested(page)
    page.get_by_label("Name in the library").first.fill("mine")
    page.keyboard.press("Enter")
    press(page, "Train")
    # until then the button is that of the training before, the tour's
    expect(page.get_by_test_id("stAlert").filter(has_text="mine").first).to_be_visible(timeout=PATIENCE)
    rested(page)
    press(page, "Measure it")

    page.get_by_role("heading", name="Surface", exact=True).wait_for(timeout=PATIENCE)
    expect(page.locator(".st-key-subject").first).to_contain_text("mine", timeout=PATIENCE)
    for side in (5, 7):
        write(page, "Points on a side", side)
        press(page, MAP)
        until(page, lambda side=side: titled(workspace, "mine", f"{side} × {side}"), f"a map of {side} × {side}")
        page.wait_for_selector(CHART, timeout=PATIENCE)

    go(page, "Sharpness")
    quick = {"subject.samples": 64, "sharpness.n_steps": 2, "sharpness.n_restarts": 1, "sharpness.n_draws": 4}
    page.goto(f"{address}/sharpness?{urlencode(dict(parse_qsl(urlparse(page.url).query)) | quick)}")
    rested(page)
    press(page, "Measure")
    until(page, lambda: titled(workspace, "Sharpness of mine"), "the sharpness")
    expect(page.get_by_test_id("stMain").get_by_text("Rise against radius", exact=True)).to_be_visible(timeout=PATIENCE)
    no_error_shown(page)

    go(page, "Runs")
    write(page, "Search", "mine")
    table = page.get_by_test_id("stDataFrame").first.bounding_box()
    page.mouse.click(table["x"] + 20, table["y"] + 17)  # the checkbox of the head: every row
    for heading in ("Maps on one colour scale", "Curves", "What was set otherwise"):
        expect(page.get_by_text(heading, exact=True).first).to_be_visible(timeout=PATIENCE)
    no_error_shown(page)
    with page.expect_download(timeout=PATIENCE) as download:
        press(page, "Report")
    report = tmp_path / "report.html"
    download.value.save_as(report)
    with watched(browser, offline=True) as reader:
        reader.goto(report.as_uri())
        assert reader.get_by_role("heading", level=1).inner_text() == "4 runs of Loss Atlas"
        assert reader.locator("svg").count() >= 6  # one a run, maps together, curves together
        assert reader.locator("pre").count() == 4  # and the program of each
        for title in [run["title"] for run in titled(workspace, "mine").values()]:
            expect(reader.get_by_role("heading", name=title).first).to_be_visible()


def test_import_a_file_measure_it_and_run_the_copied_script(app, open_page, tmp_path):
    import timm
    import torch

    address, workspace = app
    torch.manual_seed(5)
    made = timm.create_model("test_resnet", num_classes=10)
    foreign = tmp_path / "foreign.pth.tar"  # as a loop of one's own writes them, wrapped in DataParallel
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{key}": value for key, value in made.state_dict().items()}}, foreign
    )

    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto(f"{address}/workbench")
    rested(page)
    page.get_by_text("Add a checkpoint file", exact=True).click()
    page.get_by_test_id("stFileUploaderDropzoneInput").first.set_input_files(foreign)
    page.get_by_test_id("stExpander").get_by_label("Name in the library").first.fill("foreign")
    page.keyboard.press("Enter")
    press(page, "Add to the library")
    expect(page.get_by_text("“foreign” is in the library.")).to_be_visible(timeout=PATIENCE)

    page.goto(f"{address}/surface?subject.samples=64&surface.resolution=5")  # the newest of the library comes first
    expect(page.locator(".st-key-subject").first).to_contain_text("foreign", timeout=PATIENCE)
    rested(page)
    press(page, MAP)
    until(page, lambda: titled(workspace, "foreign"), "the map")
    press(page, "Copy as Python")
    page.get_by_test_id("stCode").hover()
    page.get_by_role("button", name="Copy to clipboard").click()
    script = page.evaluate("navigator.clipboard.readText()")
    numbers = tmp_path / "numbers.npy"
    program = f"{script}\nimport numpy\nnumpy.save({str(numbers)!r}, result.losses_)\n"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=300)
    (folder,) = titled(workspace, "foreign")
    with np.load(folder / "result.npz") as in_app:
        np.testing.assert_allclose(np.load(numbers), in_app["losses"], rtol=1e-6)


def test_of_three_in_the_queue_the_second_is_cancelled(app, page):
    address, workspace = app
    page.goto(f"{address}/surface?{SMALL}&subject.seed=11&surface.resolution=101")
    rested(page)
    choose(page, "Every point")
    for side in (101, 99, 3):
        write(page, "Points on a side", side)
        press(page, MAP)
        rested(page)
    side_bar = page.get_by_test_id("stSidebar")
    expect(side_bar.get_by_text("1 running, 2 waiting")).to_be_visible(timeout=PATIENCE)
    second = side_bar.locator('[class*="st-key-stop-"]').nth(1)
    second.get_by_role("button").click()
    expect(side_bar.get_by_text("1 running, 1 waiting")).to_be_visible(timeout=PATIENCE)
    first = side_bar.locator('[class*="st-key-stop-"]').first
    first.get_by_role("button").click()  # it is long, and has shown that it goes on
    until(page, lambda: titled(workspace, "seed 11", "3 × 3"), "the third")
    assert not titled(workspace, "seed 11", "99 × 99")
    expect(side_bar.locator('[class*="st-key-stop-"]')).to_have_count(0, timeout=PATIENCE)
    no_error_shown(page)


def test_two_tabs_see_one_queue_and_one_result(app, open_page):
    address, workspace = app
    asking, looking = open_page(), open_page()
    asking.goto(f"{address}/surface?{SMALL}&subject.seed=12&surface.resolution=31")
    rested(asking)
    choose(asking, "Every point")
    press(asking, MAP)
    looking.goto(f"{address}/surface?{SMALL}&subject.seed=13")
    title = "seed 12"
    expect(looking.get_by_test_id("stSidebar").get_by_text(title).first).to_be_visible(timeout=PATIENCE)
    until(looking, lambda: titled(workspace, title, "31 × 31"), "the map")
    for page in (asking, looking):
        expect(page.get_by_test_id("stSidebar").get_by_text("You can change pages")).to_have_count(0, timeout=PATIENCE)
        expect(page.get_by_test_id("stMain").get_by_text(title).first).to_be_visible(timeout=PATIENCE)
        page.wait_for_selector(CHART, timeout=PATIENCE)
        no_error_shown(page)
    # The other tab keeps its own subject, and says that the result is of another.
    expect(looking.locator(".st-key-subject").first).to_contain_text("seed 13")
    expect(looking.get_by_text("The settings differ from this result")).to_be_visible(timeout=PATIENCE)


def tab_to(page, wanted):
    """Press Tab until an element has the focus."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if wanted.count() and wanted.first.evaluate("e => e === document.activeElement"):
            return
    pytest.fail(f"{wanted} cannot be reached with Tab")


def test_a_map_by_keyboard_alone(app, page):
    address, workspace = app
    page.goto(f"{address}/surface?{SMALL}&subject.seed=14&surface.resolution=5")
    rested(page)
    tab_to(page, page.get_by_role("button", name="Model", exact=True))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("combobox", name="Architecture"))
    page.keyboard.type("vit test")
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-subject").first).to_contain_text("test_vit", timeout=PATIENCE)
    rested(page)
    page.keyboard.press("Escape")
    tab_to(page, page.get_by_role("button", name=MAP))
    page.keyboard.press("Enter")
    until(page, lambda: titled(workspace, "test_vit", "seed 14"), "the map")
    page.wait_for_selector(CHART, timeout=PATIENCE)
    no_error_shown(page)


@pytest.mark.parametrize("width", [800, 400])
def test_a_map_in_a_small_window_lies_inside_it(app, open_page, width):
    address, workspace = app
    page = open_page(viewport={"width": width, "height": 900})
    page.goto(f"{address}/surface?{SMALL}&subject.seed={width}&surface.resolution=5")
    rested(page)
    press(page, MAP)
    until(page, lambda: titled(workspace, f"seed {width}"), "the map")
    page.wait_for_selector(CHART, timeout=PATIENCE)
    rested(page)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth <= e.clientWidth"), "the page is wider than the window"
    for box in [chart.bounding_box() for chart in page.locator(CHART).all()]:
        assert box["x"] >= 0 and box["x"] + box["width"] <= width + 1, box
    no_error_shown(page)
