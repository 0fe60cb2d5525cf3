"""The main job without a browser: train two networks on digits, measure, map, connect, average, report.

``loss-atlas demo`` writes one self-contained HTML file and prints its path. Its sizes are chosen for a minute on two
cores: few examples, short trainings, wide tolerances.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.charts.connectivity import profile
from app.charts.relief import relief
from app.charts.surface import heat_map
from app.pages.sharpness.charts import rise_profile
from app.report import document, figure, section, settings, table
from app.texts import said, texts
from app.widgets.numbers import known
from estimators import ModeConnector, SharpnessEstimator, SurfaceMapper, SWAAverager, load_data, load_model, train

text = texts("demo")


@dataclass(frozen=True)
class Found:
    """What was measured: the curves of two trainings, and a result of each estimator (sharpness: of both networks)."""

    histories: list[Mapping[str, Any]]
    sharpness: list[Any]
    surface: Any
    path: Any
    average: Any


def write(output: Path) -> int:
    """Write the report into a file and print its path; the exit status, 0."""
    output.write_text(report(), encoding="utf-8")
    print(output.resolve())
    return 0


def report() -> str:
    """Measure everything and give the report as HTML."""
    started = time.perf_counter()
    found = measure()
    return lay_out(found, time.perf_counter() - started)


def measure() -> Found:
    """Measure everything on two freshly trained networks."""
    everything, test = load_data("digits"), load_data("digits", split="test")
    data, held_out = everything.subset(256), test.subset(180)
    runs = []
    for seed in (0, 1):
        step("train", seed=seed)
        model = load_model("test_resnet", num_classes=10, image_size=32, random_state=seed)
        runs.append(train(model, everything, epochs=6, held_out=test, random_state=seed))
    a, b = runs[0].model, runs[1].model
    step("sharpness")
    measures = ("sharpness", "average", "lambda_max", "trace", "profile")
    probe = SharpnessEstimator(
        measures=measures, n_steps=12, n_restarts=4, n_draws=8, n_probes=4, tol=1e-2, profile_radii=(0.0125, 0.025, 0.1)
    )
    sharpness = [probe.fit(model, data.subset(128)).result_ for model in (a, b)]
    step("surface")
    surface = SurfaceMapper(mode="adaptive", resolution=41).fit(a, data).result_
    step("path")
    path = ModeConnector(path="bezier", n_points=15, epochs=20).fit((a, b), data, held_out=held_out).result_
    step("average")
    start = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    average = SWAAverager().train(start, everything, epochs=8, held_out=test, trace=False).result_
    return Found([run.history for run in runs], sharpness, surface, path, average)


def lay_out(found: Found, seconds: float) -> str:
    """Lay out what was measured as HTML."""
    surface, path = found.surface, found.path
    mapped = {"points": surface.n_evaluated, "all": surface.losses.size, "error": surface.largest_error}
    barriers = {"straight": path.straight_barrier, "curve": path.barrier}
    rises = [(seed(k), one) for k, one in enumerate(found.sharpness)]
    last = {seed(k): {name: values[-1] for name, values in one.items()} for k, one in enumerate(found.histories)}
    ends = {said(row["name"]): row for row in found.average.report if row["role"] != "member"}
    parts = [
        ("networks", {}, table({name: accuracies(row, "loss") for name, row in last.items()})),
        (
            "sharpness",
            {},
            table({name: measures(one) for name, one in rises})
            + figure(rise_profile(rises))
            + settings(found.sharpness[0].settings),
        ),
        ("surface", mapped, figure(heat_map(surface)) + figure(relief(surface)) + settings(surface.settings)),
        ("path", barriers, figure(profile(path)) + settings(path.settings)),
        (
            "swa",
            {},
            table({name: accuracies(row, "train_loss") for name, row in ends.items()})
            + settings(found.average.settings),
        ),
    ]
    sections = [section(text(name), text(f"{name}.about", **values), body) for name, values, body in parts]
    return document(text("title"), text("made", seconds=seconds), sections)


def accuracies(row: Mapping[str, Any], train_loss: str) -> dict[str, str]:
    """Return a row of the tables of networks."""
    return {
        text("train_loss"): f"{row[train_loss]:.4f}",
        text("held_out_loss"): f"{row['held_out_loss']:.4f}",
        text("held_out_accuracy"): f"{row['held_out_accuracy']:.1%}",
    }


def measures(found: Any) -> dict[str, str]:
    """Return the sharpness of one network, each number with its error."""
    error = {name: found.uncertainty_of(name)[1] for name in ("average_sharpness", "trace")}

    def with_residual(value: float, residual: float) -> str:
        return text("residual", value=f"{value:.3g}", residual=f"{residual:.1g}")

    return {
        text("worst"): f"≥ {found.sharpness:.4f} ({found.restart_spread:.1%})",
        text("average"): f"{found.average_sharpness:.4f} ± {error['average_sharpness']:.4f}",
        text("lambda_max"): known(found, "lambda_max", with_residual),
        text("trace"): f"{found.trace:.3g} ± {error['trace']:.2g}",
    }


def seed(k: int) -> str:
    """Return what a network is called."""
    return text("seed", seed=k)


def step(name: str, **values: Any) -> None:
    """Say what happens now."""
    print(f"… {text(f'step.{name}', **values)}", flush=True)
