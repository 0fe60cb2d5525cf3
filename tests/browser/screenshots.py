"""Pictures of every page with real results: light, dark and narrow, to look at them as a critic.

    python -m tests.browser.screenshots                               # all of them into build/shots
    python -m tests.browser.screenshots --only surface,escape --looks dark
    python -m tests.browser.screenshots --language ko --looks light
    python -m tests.browser.screenshots --assets                      # the first screens that README shows

The results are computed once and kept in ``build/shots/workspace``; a later call takes its pictures of the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from app.texts import texts
from tests.browser.driving import FLAGS, ROOT, browser_path, running_app, settle
from tests.browser.results import ASKED, Asked, few, make

FOLDER = ROOT / "build" / "shots"
LOOKS = {"light": (1440, "light"), "dark": (1440, "dark"), "narrow": (800, "light")}
BESIDE = Asked("surface", settings=few(256))  # another map, for runs to be compared
SHOWN = ("home", "stationary-point", "stationary-critical")  # in README
HEIGHT, LONGEST = 900, 6000  # of the window, and of a picture


def picture(page: Page, path: Path) -> None:
    """Take a picture of the whole page, as long as it is."""
    width = page.viewport_size["width"]
    long = page.locator('[data-testid="stMain"]').evaluate("e => e.scrollHeight")
    page.set_viewport_size({"width": width, "height": min(max(int(long), HEIGHT), LONGEST)})
    settle(page)
    page.screenshot(path=str(path))
    page.set_viewport_size({"width": width, "height": HEIGHT})
    print(path, flush=True)


def first_screen(page: Page, path: Path) -> None:
    """Take a picture of what is in sight, for README."""
    Image.open(BytesIO(page.screenshot())).convert("RGB").save(path, quality=88, method=6)
    print(path, f"{path.stat().st_size / 1024:.0f} kB", flush=True)


def compared(page: Page, words: str, count: int) -> None:
    """Find runs by a word and select the first of them."""
    page.get_by_role("searchbox", name=texts("runs")("search")).fill(words)
    page.keyboard.press("Enter")
    settle(page)
    box = page.get_by_test_id("stDataFrame").first.bounding_box()
    for row in range(count):
        page.mouse.click(box["x"] + 20, box["y"] + 55 + 35 * row)
        settle(page)


def nothing(page: Page) -> None:
    """Take the page as it opens."""


def views() -> dict[str, tuple[str, Callable[[Page], None]]]:
    """Return every picture's name, its address, and what is done there first."""
    plain = ("home", "tour", "lecture", "workbench", "runs")
    found = {name: (f"/{'' if name == 'home' else name}?", nothing) for name in plain}
    found |= {one.name: (one.address, nothing) for one in ASKED}
    found["runs-maps"] = ("/runs?", partial(compared, words="surface", count=2))
    return found | {"runs-mixed": ("/runs?", partial(compared, words="seed 1", count=4))}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--only", default=",".join(views()))
    parser.add_argument("--looks", default=",".join(LOOKS))
    parser.add_argument("--language", default="en")
    parser.add_argument("--assets", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    workspace = options.folder / "workspace"
    if options.assets:
        options.only, options.looks = ",".join(SHOWN), "light"
    with running_app(workspace) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path(), args=list(FLAGS))
        make(browser.new_page(viewport={"width": 1440, "height": HEIGHT}), address, workspace, (BESIDE, *ASKED))
        for look in options.looks.split(","):
            width, scheme = LOOKS[look]
            context = browser.new_context(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
            page = context.new_page()
            for name in options.only.split(","):
                where, first = views()[name]
                page.goto(f"{address}{where}&language={options.language}")
                settle(page)
                first(page)
                if options.assets:
                    first_screen(page, ROOT / "assets" / f"{name}.webp")
                else:
                    picture(page, options.folder / f"{name}-{look}-{options.language}.png")
            context.close()
        browser.close()


if __name__ == "__main__":
    main()
