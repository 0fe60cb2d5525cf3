"""The experiments behind docs/architectures.html: what is compared, on what, and how often.

Every experiment is one fit of `ArchitectureComparer` or `WidthSweep` through a cache, so that a stopped run goes
on where it was: ``python tests/benchmarks/architecture_experiments.py FOLDER [--seeds N] [name ...]``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimators import ArchitectureComparer, Result, load_data
from estimators.experiments.width_sweep import WidthSweep
from estimators.variants import Variant


@dataclass(frozen=True)
class Experiment:
    """One experiment: a fit on the digits, and what the report calls it."""

    title: str
    n_samples: int
    fit: Callable[..., Any]


def _compare(variants: tuple[Variant, ...], **options: Any) -> Callable[..., Any]:
    def fit(memory: str, data: Any, held_out: Any, report: Callable, seeds: int | None = None) -> Any:
        comparer = ArchitectureComparer(memory=memory, **(options | ({} if seeds is None else {"n_seeds": seeds})))
        return comparer.fit(variants, data, held_out=held_out, on_progress=report).result_

    return fit


def _sweep(memory: str, data: Any, held_out: Any, report: Callable, seeds: int | None = None) -> Any:
    sweep = WidthSweep(n_seeds=3 if seeds is None else seeds, epochs=16, zero_level=0.05, memory=memory)
    return sweep.fit("thin_resnet", data, held_out=held_out, on_progress=report).result_


RATES = (0.02, 0.1, 0.5)
EXPERIMENTS = {
    "skips": Experiment(
        "Skip connections in a 59-layer ResNet",
        512,
        _compare(
            (
                Variant("with skips", "deep_thin_resnet"),
                Variant("without skips", "deep_thin_resnet", ("without_skips",)),
            ),
            n_seeds=3,
            epochs=20,
            resolution=21,
            measures=("largest_eigenvalue",),
        ),
    ),
    "batch_size": Experiment(
        "Batch size 16 against 512 at equal training loss",
        512,
        _compare(
            tuple(
                Variant(
                    f"batch {size}",
                    "test_resnet",
                    (),
                    {
                        "batch_size": size,
                        "lr": 0.05,
                        "epochs": epochs,
                        "schedule": "constant",
                        "stop_at_loss": 0.02,
                    },
                )
                for size, epochs in ((16, 40), (512, 200))
            ),
            n_seeds=5,
            maps="none",
            measures=("largest_eigenvalue", "worst_case"),
        ),
    ),
    "norm": Experiment(
        "Batch norm against none at three learning rates",
        256,
        _compare(
            tuple(
                Variant(f"{name}, rate {lr:g}", "test_resnet", changes, {"lr": lr, "epochs": 16})
                for lr in RATES
                for name, changes in (("batch norm", ()), ("no norm", ("without_norm",)))
            ),
            n_seeds=3,
            maps="none",
            measures=("largest_eigenvalue",),
        ),
    ),
    "dropout": Experiment(
        "Dropout 0 against 0.3",
        256,
        _compare(
            tuple(
                Variant(f"dropout {p:g}", "test_resnet", (f"with_dropout={p:g}",), {"epochs": 12}) for p in (0.0, 0.3)
            ),
            n_seeds=5,
            maps="none",
            measures=("largest_eigenvalue", "worst_case"),
        ),
    ),
    "width": Experiment("Width ×¼ to ×8", 512, _sweep),
}


def run(folder: Path, names: list[str], seeds: int | None = None) -> None:
    """Run the named experiments and save each result as NPZ beside the cache; `seeds` replaces their number."""
    held_out = load_data("digits", split="test")
    for name in names:
        start = time.process_time()
        data = load_data("digits", n_samples=EXPERIMENTS[name].n_samples, split="train")
        last = [""]

        def report(done: int, total: int, message: str, last: list[str] = last, name: str = name) -> None:
            label = message.partition(":")[0]
            if label != last[0]:
                last[0] = label
                print(f"{name} {done}/{total} {label}", flush=True)

        result = EXPERIMENTS[name].fit(str(folder / "cache"), data, held_out, report, seeds)
        result.save(folder / f"{name}.npz")
        print(f"{name} done, {time.process_time() - start:.0f} s of processor time", flush=True)


def load(folder: Path) -> dict[str, Any]:
    """Read the saved results, in the order of the report."""
    return {name: Result.load(folder / f"{name}.npz") for name in EXPERIMENTS if (folder / f"{name}.npz").exists()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("names", nargs="*", choices=[[], *EXPERIMENTS])
    arguments = parser.parse_args()
    run(arguments.folder, arguments.names or list(EXPERIMENTS), arguments.seeds)
