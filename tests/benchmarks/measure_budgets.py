"""Budgets of time, asked against used, and what was announced against what was taken: tables of docs/trust.md.

    python -m tests.benchmarks.measure_budgets FOLDER

FOLDER holds `cifar10/` and `checkpoints/`, see `bench_public.py`. For an idle machine of two cores, where it takes about
ten minutes; rows that are done are kept in a record (remove build/budgets*.jsonl to measure anew), and the tables go
between their marks of the page. `--only ends` measures the rows whose name holds the word and prints them, and neither
reads nor writes a record: beside other work the seconds of the processor are what to look at.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import nn

from app.pages.averaging import page as averaging
from app.pages.averaging import soup as averaging_soup
from app.pages.connectivity import page as connectivity
from app.pages.curvature import training as curvature_training
from app.pages.saddles import page as saddles
from estimators import (
    CurvatureEstimator,
    CurvatureTracker,
    Examples,
    MinimaMapper,
    ModeConnector,
    SaddleEscaper,
    SharpnessEstimator,
    SurfaceMapper,
    SWAAverager,
    TrainingRun,
    Work,
    load_data,
    load_model,
    train,
)
from tests.benchmarks.bench_public import load
from tests.benchmarks.pages import Row, recorded, write

cost = importlib.import_module("app.widgets.cost")  # the package hands out the function of that name
Problem = tuple[nn.Module, Examples]
ENDS: Row = {"n_eigenvalues": 1, "n_lanczos": 0, "n_probes": 2, "compare_traces": False}


@cache
def public(folder: Path, n: int) -> Problem:
    """Read the public ResNet-20 and n of the training images it is measured on."""
    data = load_data(folder / "cifar10", split="train", image_size=32, n_samples=n, random_state=0)
    return load(folder, "resnet20"), data


@cache
def trained(seed: int = 0) -> tuple[TrainingRun, Examples]:
    """Train timm's test_resnet on 512 digits."""
    data = load_data("digits", n_samples=512)
    model = load_model("test_resnet", num_classes=10, random_state=seed)
    return train(model, data, epochs=6, random_state=seed), data


def digits() -> Problem:
    """Give that network and its digits."""
    run, data = trained()
    return run.model, data


def within(problem: Callable[[], Problem], estimator: Any) -> Row:
    """Fit within the estimator's budget; the model and data are there before the clock starts."""
    model, data = problem()
    began, busy = time.perf_counter(), time.process_time()
    found = estimator.fit(model, data).result_
    return {
        "asked": estimator.time_budget,
        "used": time.perf_counter() - began,
        "of the processor": time.process_time() - busy,
        "found": described(found),
        "unfinished": found.unfinished,
    }


def described(found: Any) -> str:
    """Say in a few words what came out."""
    if hasattr(found, "eigenvalues") and hasattr(found, "trace"):
        ends = [
            f"{words} {found.bound_on(name)}{value:.4g} (residual {found.uncertainty_of(name)[1]:.2g})"
            for words, name in (("λ_max", "lambda_max"), ("λ_min", "lambda_min"))
            if np.isfinite(value := getattr(found, name))
        ] or ["no end"]
        trace = f", trace {found.trace:.4g} ± {found.trace_stderr:.2g}" if np.isfinite(found.trace) else ""
        index = f", index {found.saddle_index:.3f} ± {found.saddle_index_stderr:.2g}"
        return ", ".join(ends) + trace + (index if np.isfinite(found.saddle_index) else "")
    if hasattr(found, "sharpness"):
        told = {
            f"rise {found.sharpness:.4g} ({len(found.restarts)} starts)": found.sharpness,
            f"mean rise {found.average_sharpness:.3g} ± {found.average_sharpness_stderr:.2g}": found.average_sharpness,
            f"λ_max {found.bound_on('lambda_max')}{found.lambda_max:.4g} (residual {found.lambda_max_residual:.2g})": (
                found.lambda_max
            ),
            f"trace {found.trace:.4g} ± {found.trace_stderr:.2g}": found.trace,
        }
        return ", ".join(words for words, value in told.items() if np.isfinite(value))
    error = f", error about {found.largest_error:.2%}" if np.isfinite(found.largest_error) else ""
    return f"{found.n_evaluated:,} of {found.losses.size:,} points{error}"


Job = tuple[Work, Callable[[], Any], dict[str, Any]]  # what is announced, what is done, and how the app times it


def announced(make: Callable[[], Job]) -> Row:
    """Announce what a job takes from a measured pass, as the app does, then take it."""
    work, job, how = make()
    began = time.perf_counter()
    expected = work.seconds(paced(work, **how))
    timed = time.perf_counter()
    job()
    return {"announced": expected, "taken": time.perf_counter() - timed, "timing": timed - began}


def paced(work: Work, several_networks: bool = False, train_batch_size: int = 64, **settings: Any) -> Work:
    """Time one of each kind of pass."""
    spec, data = SimpleNamespace(load=lambda: digits()[0]), SimpleNamespace(load=lambda: digits()[1])
    settings |= {"several_networks": several_networks, "train_batch_size": train_batch_size}
    return cost._pace(SimpleNamespace(progress=lambda *_: None), spec, data, settings, work)


def fit(estimator: Any) -> Job:
    """Fit an estimator that counts its own work."""
    return estimator.cost(), lambda: estimator.fit(*digits()), {}


def path(**settings: Any) -> Job:
    """Join two networks, and measure the path on an eighth as many other digits too."""
    run, data = trained()
    ends = run.model, trained(1)[0].model
    held_out = load_data("digits", split="test", n_samples=128)
    how = {"several_networks": True, "train_batch_size": ModeConnector().train_batch_size}
    shown = {"n_points": ModeConnector().n_points, "plane_resolution": 0, "ensemble_points": 0}
    counted = connectivity.taken({**shown, **settings})
    return counted, lambda: ModeConnector(**settings).fit(ends, data, held_out=held_out), how


def average() -> Job:
    """Train with and without averaging."""
    model, data = load_model("test_resnet", num_classes=10, random_state=0), trained()[1]
    training, extras = {"epochs": 6, "batch_size": 64}, {"plane_resolution": 9, "sharpness": False}
    how, held_out = {"several_networks": True}, load_data("digits", split="test", n_samples=128)
    asked = {"held_out": held_out, "compare": True, **training, **extras}
    return averaging.taken(training, extras), lambda: SWAAverager().train(model, data, **asked), how


def soup() -> Job:
    """Average the checkpoints of a training."""
    run, data = trained()
    average = SWAAverager(method="greedy_soup")
    work = Work(evaluations=averaging_soup.taken(len(run.checkpoints), average.method))
    return work, lambda: average.fit(run.checkpoints, data, model=run.model), SEVERAL


def minima() -> Job:
    """Join three networks pair by pair."""
    run, data = trained()
    models, mapper = [run.model, *(trained(seed)[0].model for seed in (1, 2))], MinimaMapper()
    return mapper.cost(len(models)), lambda: mapper.fit(models, data), SEVERAL


def tracked() -> Job:
    """Measure the curvature at three checkpoints of a training."""
    run, data = trained()
    some = run.checkpoints[::3]
    work = Work(products=len(some) * curvature_training.PRODUCTS)
    return work, lambda: CurvatureTracker().fit(some, data, model=run.model), {}


def escape() -> Job:
    """Let three rules leave the saddle at the origin."""
    params = {"optimizers": ("gd", "sgd", "momentum"), "n_seeds": 1, "max_steps": 30}
    return saddles.taken(params), lambda: SaddleEscaper(saddle="origin", **params).fit(*digits()), saddles.RACING


SEVERAL = {"several_networks": True}


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="a word in the names of the rows to measure")
    folder, only = (chosen := parser.parse_args()).folder, chosen.only

    def measured(name: str, cases: dict[str, Callable[[], Row]]) -> dict[str, Row]:
        if not only:
            return recorded(name, cases.items())
        rows = {case: measure() for case, measure in cases.items() if only in case}
        print(*rows.items(), sep="\n", flush=True)
        return rows

    many, some = partial(public, folder, 2000), partial(public, folder, 500)
    budgets = {
        **{
            f"ends of ResNet-20, 2,000 images, {seconds} s": (many, CurvatureEstimator(**ENDS, time_budget=seconds))
            for seconds in (15, 30, 60, 120)
        },
        "spectrum of test_resnet, 512 digits": (digits, CurvatureEstimator(time_budget=20)),
        "sharpness of test_resnet, all measures": (digits, SharpnessEstimator(time_budget=20)),
        "λ_max and trace of ResNet-20, 500 images": (
            some,
            SharpnessEstimator(measures=("lambda_max", "trace"), time_budget=30),
        ),
        "adaptive map of ResNet-20, 500 images": (some, SurfaceMapper(mode="adaptive", time_budget=20)),
        "exact map of test_resnet, 512 digits": (digits, SurfaceMapper(time_budget=15)),
    }
    rows = measured("budgets", {name: partial(within, *case) for name, case in budgets.items()})
    if not only:
        table = [
            {
                "task": name,
                "asked": f"{row['asked']:g} s",
                "used": f"{row['used']:.1f} s",
                "found": row["found"],
                "left out or cut": "; ".join(row["unfinished"]) or "–",
            }
            for name, row in rows.items()
        ]
        write("budgets", table)
    jobs: dict[str, Callable[[], Job]] = {
        "curvature: one eigenvalue at each end": partial(fit, CurvatureEstimator(**ENDS)),
        "curvature: three, and density of four probes": partial(
            fit, CurvatureEstimator(n_eigenvalues=3, n_probes=4, n_lanczos=20, compare_traces=False)
        ),
        "sharpness: worst case and mean rise": partial(fit, SharpnessEstimator(measures=("sharpness", "average"))),
        "sharpness: λ_max and trace": partial(fit, SharpnessEstimator(measures=("lambda_max", "trace"))),
        "map: exact, 21 × 21": partial(fit, SurfaceMapper(resolution=21)),
        "map: adaptive, 41 × 41": partial(fit, SurfaceMapper(mode="adaptive")),
        "map: along two eigenvectors, 11 × 11": partial(fit, SurfaceMapper(directions="hessian", resolution=11)),
        "path: straight, 21 positions": partial(path, path="linear"),
        "path: curve, 5 epochs": partial(path, path="bezier", epochs=5),
        "average: 6 epochs with and without": average,
        "average: greedy soup of 7": soup,
        "minima: 3 networks": minima,
        "training: curvature at 3 checkpoints": tracked,
        "escape: 3 rules, 3 rows, 30 steps": escape,
    }
    rows = measured("budgets-announced", {name: partial(announced, make) for name, make in jobs.items()})
    if not only:
        table = [
            {
                "task": name,
                "announced": f"{row['announced']:.1f} s",
                "taken": f"{row['taken']:.1f} s",
                "ratio": f"{row['announced'] / row['taken']:.2f}",
                "timing it took": f"{row['timing']:.1f} s",
            }
            for name, row in rows.items()
        ]
        write("announced", table)


if __name__ == "__main__":
    main()
