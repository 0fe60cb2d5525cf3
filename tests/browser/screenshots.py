"""Pictures of every page, light and dark, wide and narrow, to look at them as a critic.

Usage: ``python tests/browser/screenshots.py FOLDER [--workspace DIR] [--pages home,surface] [--run]``
With ``--run`` it trains two networks first and presses each page's main button.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent))
from driving import FLAGS, browser_path, running_app

PAGES = (
    "home", "tour", "known", "lecture", "workbench", "surface", "stationary", "sharpness", "connectivity", "averaging",
    "escape", "architectures", "runs",
)  # fmt: skip
APP = "[data-testid='stApp']"
SIZES = {"wide": (1440, 900), "narrow": (420, 900)}


def settle(page: Page, seconds: float = 60.0) -> None:
    """Wait until Streamlit has finished drawing and no spinner or skeleton is left."""
    page.wait_for_selector('[data-testid="stMain"] [data-testid="stHeading"]', timeout=seconds * 1000)
    page.wait_for_selector(f"{APP}[data-test-script-state='notRunning']", timeout=seconds * 1000)
    page.wait_for_timeout(700)


def picture(page: Page, path: Path) -> None:
    """Take a picture of the whole page, as long as it is."""
    main = page.locator('[data-testid="stMain"]')
    height = int(main.evaluate("e => Math.min(e.scrollHeight, 5000)")) if main.count() else 900
    width = page.viewport_size["width"]
    page.set_viewport_size({"width": width, "height": max(height, 700)})
    page.wait_for_timeout(900)
    page.screenshot(path=str(path))
    page.set_viewport_size({"width": width, "height": 900})


def run_jobs(page: Page, address: str, pages: list[str], seconds: float) -> None:
    """Train two networks, then press the main button of every page and wait for its result."""
    page.goto(f"{address}/surface")
    settle(page)
    quick = page.get_by_role("button", name="Train two small networks")
    if quick.count():
        quick.click()
        page.wait_for_timeout(3000)
        while page.get_by_text("You can change pages").count():
            page.wait_for_timeout(1000)
    for name in pages:
        if name in ("home", "runs", "workbench"):
            continue
        page.goto(f"{address}/{name}")
        settle(page)
        button = page.locator('button[kind="primary"]:not([disabled])').first
        if not button.count():
            print(f"{name}: no button to press", flush=True)
            continue
        button.click()
        page.wait_for_timeout(2500)
        waited = 2.5
        while page.get_by_role("button", name="Cancel").count() and waited < seconds:
            page.wait_for_timeout(1000)
            waited += 1
        print(f"{name}: {waited:.0f} s", flush=True)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--pages", default=",".join(PAGES))
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--themes", default="light,dark")
    parser.add_argument("--sizes", default="wide,narrow")
    parser.add_argument("--seconds", type=float, default=180.0)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    workspace = options.workspace or Path(tempfile.mkdtemp(prefix="loss-atlas-pictures-"))
    pages = options.pages.split(",")
    with running_app(workspace) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        if options.run:
            run_jobs(browser.new_page(viewport={"width": 1440, "height": 900}), address, pages, options.seconds)
        for theme in options.themes.split(","):
            for size in options.sizes.split(","):
                width, height = SIZES[size]
                view = {"width": width, "height": height}
                context = browser.new_context(viewport=view, color_scheme=theme)
                page = context.new_page()
                for name in pages:
                    page.goto(f"{address}/{'' if name == 'home' else name}")
                    settle(page)
                    picture(page, options.folder / f"{name}-{theme}-{size}.png")
                    print(options.folder / f"{name}-{theme}-{size}.png", flush=True)
                context.close()
        browser.close()


if __name__ == "__main__":
    main()
