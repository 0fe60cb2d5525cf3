"""Budgets of time, asked against used, and what was announced against what was taken: tables of docs/trust.md.

    python -m tests.benchmarks.measure_budgets FOLDER

FOLDER holds `cifar10/` and `checkpoints/`, see `bench_public.py`. For an idle machine of two cores, where it takes about
seven minutes; rows that are done are kept in a record (remove build/budgets*.jsonl to measure anew), and the tables go
between their marks of the page.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from estimators import (
    CurvatureEstimator,
    Examples,
    Landscape,
    SharpnessEstimator,
    SurfaceMapper,
    load_data,
    load_model,
    pace_of,
    train,
)
from tests.benchmarks.bench_public import load
from tests.benchmarks.pages import Row, recorded, write

Problem = tuple[nn.Module, Examples]
ENDS: Row = {"n_eigenvalues": 1, "n_lanczos": 0, "n_probes": 2, "compare_traces": False}


@cache
def public(folder: Path, n: int) -> Problem:
    """Read the public ResNet-20 and n of the training images it is measured on."""
    data = load_data(folder / "cifar10", split="train", image_size=32, n_samples=n, random_state=0)
    return load(folder, "resnet20"), data


@cache
def digits() -> Problem:
    """Train timm's test_resnet on 512 digits."""
    data = load_data("digits", n_samples=512)
    return train(load_model("test_resnet", num_classes=10, random_state=0), data, epochs=6, random_state=0).model, data


def within(problem: Callable[[], Problem], estimator: Any) -> Row:
    """Fit within the estimator's budget; the model and data are there before the clock starts."""
    model, data = problem()
    began = time.perf_counter()
    found = estimator.fit(model, data).result_
    return {
        "asked": estimator.time_budget,
        "used": time.perf_counter() - began,
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
            f"λ_max {found.lambda_max:.4g} ± {found.lambda_max_residual:.2g}": found.lambda_max,
            f"trace {found.trace:.4g} ± {found.trace_stderr:.2g}": found.trace,
        }
        return ", ".join(words for words, value in told.items() if np.isfinite(value))
    error = f", error about {found.largest_error:.2%}" if np.isfinite(found.largest_error) else ""
    return f"{found.n_evaluated:,} of {found.losses.size:,} points{error}"


def announced(problem: Callable[[], Problem], estimator: Any) -> Row:
    """Announce what a fit takes from a measured pass, then take it."""
    model, data = problem()
    work = estimator.cost()
    expected = work.seconds(pace_of(Landscape(model, data), work))
    began = time.perf_counter()
    estimator.fit(model, data)
    return {"announced": expected, "taken": time.perf_counter() - began}


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    many, some = partial(public, folder, 2000), partial(public, folder, 500)
    budgets = {
        "ends of ResNet-20, 2,000 images": (many, CurvatureEstimator(**ENDS, time_budget=15)),
        "the same ": (many, CurvatureEstimator(**ENDS, time_budget=30)),
        "the same  ": (many, CurvatureEstimator(**ENDS, time_budget=60)),
        "the same   ": (many, CurvatureEstimator(**ENDS, time_budget=120)),
        "spectrum of test_resnet, 512 digits": (digits, CurvatureEstimator(time_budget=20)),
        "sharpness of test_resnet, all measures": (digits, SharpnessEstimator(time_budget=20)),
        "λ_max and trace of ResNet-20, 500 images": (
            some,
            SharpnessEstimator(measures=("lambda_max", "trace"), time_budget=30),
        ),
        "adaptive map of ResNet-20, 500 images": (some, SurfaceMapper(mode="adaptive", time_budget=20)),
        "exact map of test_resnet, 512 digits": (digits, SurfaceMapper(time_budget=15)),
    }
    rows = recorded("budgets", [(name, partial(within, *case)) for name, case in budgets.items()])
    table = [
        {
            "task": name.strip(),
            "asked": f"{row['asked']:g} s",
            "used": f"{row['used']:.1f} s",
            "found": row["found"],
            "left out or cut": "; ".join(row["unfinished"]) or "–",
        }
        for name, row in rows.items()
    ]
    write("budgets", table)
    whole = {
        "one eigenvalue at each end": CurvatureEstimator(**ENDS),
        "three eigenvalues, density of four probes": CurvatureEstimator(
            n_eigenvalues=3, n_probes=4, n_lanczos=20, compare_traces=False
        ),
        "worst case and mean rise": SharpnessEstimator(measures=("sharpness", "average")),
        "λ_max and trace": SharpnessEstimator(measures=("lambda_max", "trace")),
        "exact map, 21 × 21": SurfaceMapper(resolution=21),
        "adaptive map, 41 × 41": SurfaceMapper(mode="adaptive"),
    }
    rows = recorded("budgets-announced", [(name, partial(announced, digits, e)) for name, e in whole.items()])
    table = [
        {
            "task": name,
            "announced": f"{row['announced']:.1f} s",
            "taken": f"{row['taken']:.1f} s",
            "ratio": f"{row['announced'] / row['taken']:.2f}",
        }
        for name, row in rows.items()
    ]
    write("announced", table)


if __name__ == "__main__":
    main()
