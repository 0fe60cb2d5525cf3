"""Real results for every page: small ones, asked for where a person asks, in the pages themselves.

What is set stands in the URL and the page's main button is pressed; the runs lie in the workspace, so a second call
asks for nothing again. Pictures are taken of them, and the tests look at them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from app.texts import texts
from tests.browser.driving import runs, settle, until

SECONDS = 600.0  # a machine shared with others is slow
SIDE = 16  # of an image; large enough for digits, and a quarter of the work
SMALL = {"subject.image_size": SIDE}


@dataclass(frozen=True)
class Asked:
    """One result: the page, its view where it has several, and the settings that keep it to seconds."""

    page: str
    view: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    first: bool = False  # whether the view is the one that its page opens with

    @property
    def run(self) -> str:
        """What its run is filed under."""
        return self.page if self.first or not self.view else f"{self.page}.{self.view}"

    @property
    def name(self) -> str:
        """What a file with its picture is called."""
        return f"{self.page}-{self.view}" if self.view else self.page

    @property
    def address(self) -> str:
        """Its place under the app's address, settings included."""
        said = {f"{self.page}.view": texts(self.page)(f"view.{self.view}")} if self.view else {}
        own = {name if "." in name else f"{self.run}.{name}": value for name, value in self.settings.items()}
        return f"/{self.page}?{urlencode(SMALL | said | own)}"


def few(count: int, **settings: Any) -> dict[str, Any]:
    """Return settings with the number of images that is measured on."""
    return {"subject.samples": count, **settings}


NETWORKS = tuple(
    Asked("workbench", settings={"samples": 256, "image_size": SIDE, "epochs": 6, "seed": seed, "order": seed})
    for seed in (0, 1)
)
ASKED = (
    Asked("surface", settings=few(64, directions=texts("surface")("directions.trajectory"), resolution=21)),
    Asked("stationary", "point", few(16, n_lanczos=10, n_probes=2, n_eigenvalues=2), first=True),
    Asked("stationary", "training", few(16, every=3)),
    Asked("stationary", "random", {"largest": 5, "samples": 2000}),
    Asked("stationary", "critical", {"hidden": 2, "largest": 2, "starts": 4}),
    Asked("sharpness", "point", few(32, n_steps=5, n_restarts=2, n_draws=8, m=16), first=True),
    Asked("sharpness", "batch", few(32, seeds=2, small=8, large=16, target=1.5)),
    Asked("connectivity", "path", few(64, epochs=4, n_points=11, plane=11), first=True),
    Asked("connectivity", "map", few(16, n_points=3)),
    Asked("connectivity", "cases", {"samples": 128, "seeds": 2, "train_epochs": 2, "fine_tune_epochs": 1, "epochs": 1}),
    Asked("averaging", "train", few(64, epochs=4, keep="false", with_sharp="false"), first=True),
    Asked("averaging", "soup", few(32, epochs="true", keep="false")),
    Asked("averaging", "seeds", {"n": 2, "epochs": 4, "samples": 40}),
    Asked("escape", settings={"seeds": 2, "steps": 200}),
    Asked("architectures", settings=few(16, seeds=2, epochs=1, resolution=5)),
    Asked("known"),
)


def make(page: Any, address: str, workspace: Path, asked: tuple[Asked, ...] = ASKED) -> None:
    """Ask for what the workspace lacks of two small networks and of these results; wait until all of it is there.

    Parameters
    ----------
    page : playwright page
    address, workspace
        Those of the running app.
    asked : tuple of Asked
    """
    for some in (NETWORKS, asked):
        there = _kept(workspace)
        for one in some:
            if there[one.run]:
                there[one.run] -= 1
                continue
            page.goto(address + one.address)
            settle(page)
            before = len(_known(workspace))
            page.locator('[data-testid="stMain"] button[kind="primary"]:enabled').first.click()
            until(page, lambda before=before: len(_known(workspace)) > before, f"a job for {one.name}", SECONDS)
        page.goto("about:blank")  # nobody looks on while they are computed
        wanted = Counter(one.run for one in some)
        until(page, lambda wanted=wanted: _all_there(workspace, wanted), "every result", SECONDS)


def _all_there(workspace: Path, wanted: Counter[str]) -> bool:
    """Tell whether these runs are kept; raise where nothing is left in the queue that could become one."""
    waits = any((workspace / "queue").glob("*/job.json"))  # looked at first: a job is kept before it leaves
    lacking = wanted - _kept(workspace)
    if lacking and not waits:
        raise RuntimeError(f"no result came of {', '.join(lacking)}: see {workspace / 'logs'}")
    return not lacking


def _kept(workspace: Path) -> Counter[str]:
    """Count the runs of each page."""
    return Counter(run["page"] for run in runs(workspace).values())


def _known(workspace: Path) -> set[str]:
    """Return the jobs that wait, run, or have ended as a run."""
    waiting = {path.parent.name for path in (workspace / "queue").glob("*/job.json")}
    return waiting | {run["job"] for run in runs(workspace).values()}
