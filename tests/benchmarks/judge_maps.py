"""Judge adaptive mode on exact maps: how often the worst error keeps to the tolerance where that is claimed.

python -m tests.benchmarks.judge_maps [--set tuned judged rough]

`tuned` are the maps on which the stop rule was set (ten stored by `make_maps.py`, those of `make_unseen_maps.py --set
tuned`, and analytic ones); `judged` the unseen ones. Errors are of the log-loss, as a share of its range.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from estimators.core.planes.refinement import Refinement, refine
from tests import analytic_maps

FOLDER = Path(__file__).parents[1] / "data" / "maps"


def maps_of(kind: str) -> dict[str, NDArray[np.float64]]:
    """Give the maps of a set by name."""
    files = sorted((FOLDER / kind).glob("*.npz"))
    if kind == "tuned":
        files = [*sorted(FOLDER.glob("*.npz")), *files]
    stored = {f"{f.parent.name}/{f.stem}": np.load(f)["losses"].astype(np.float64) for f in files}
    return stored | {f"analytic {name}": losses for name, losses in getattr(analytic_maps, kind)().items()}


def judge(losses: NDArray[np.float64], tolerance: float = 0.01) -> tuple[Refinement, float, float]:
    """Refine a known map; give the last round, its worst error, and the share of cells within their estimate."""
    *_, last = refine(lambda at: losses[at[:, 0], at[:, 1]], losses.shape, tolerance=tolerance)
    both = np.isfinite(losses) & np.isfinite(last.values)
    logs = np.log(losses, where=both, out=np.zeros(losses.shape))
    error = np.abs(np.log(last.values, where=both, out=np.zeros(losses.shape)) - logs)
    covered = (error[both] <= last.error_estimate[both] + 1e-12).mean()
    return last, float(error.max() / np.ptp(logs[both])), float(covered)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", nargs="*", default=["tuned", "judged", "rough"])
    for kind in parser.parse_args().set:
        rows = []
        for name, losses in maps_of(kind).items():
            started = time.process_time()
            last, worst, covered = judge(losses)
            seconds = time.process_time() - started
            rows.append((last.n_evaluated, last.converged, worst, covered))
            print(
                f"{name:34s} {last.n_evaluated:5d} evaluations, worst error {worst:.2%}{' !' if worst > 0.01 else '  '}"
                f" covered {covered:.1%} {'converged' if last.converged else 'open'}{', rough' if last.rough else ''}"
                f" {seconds:.2f} s",
                flush=True,
            )
        counts, converged, errors, covered = map(np.array, zip(*rows, strict=True))
        kept = errors[converged] <= 0.01
        print(
            f"{kind}: {kept.sum()} of {converged.sum()} maps that claim it keep to 1 %, the worst has {errors.max():.2%}; "
            f"median {np.median(counts):.0f} evaluations; at least {covered.min():.1%} of the cells within their "
            "estimate\n"
        )


if __name__ == "__main__":
    main()
