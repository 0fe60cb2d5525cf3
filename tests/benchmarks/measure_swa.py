"""Measure averaging against plain SGD on noisy digits over ten seeds and write docs/swa.md.

    python tests/benchmarks/measure_swa.py [--seeds 10] [--epochs 40] [--label-noise 0.2] [--memory FOLDER]

Finished seeds are kept in the memory folder, so an interrupted measurement goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

from estimators import load_model
from estimators.experiments.swa_comparison import GROUPS, SIGMA, SwaComparisonResult, noisy_digits, swa_experiment

READING = "## What it shows\n"  # from here on the document is kept by hand
NAMES = {"sgd": "SGD", "swa": "SWA", "ema": "EMA"}
QUANTITIES = {
    "train_loss": ("training loss (nats, noisy labels)", ".4f"),
    "held_out_accuracy": ("held-out accuracy (share)", ".4f"),
    "held_out_loss": ("held-out loss (nats)", ".4f"),
    "lambda_max": ("λ_max of the training loss", ".2f"),
    "average_sharpness": (f"average-case sharpness (nats, σ = {SIGMA} of each filter)", ".3f"),
    "distance": ("distance from the SGD end point", ".2f"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, nargs="+", default=[40])
    parser.add_argument("--label-noise", type=float, default=0.2)
    parser.add_argument("--pixel-noise", type=float, default=0.0)
    parser.add_argument("--memory", default=None)
    parser.add_argument("--out", type=Path, default=Path("docs/swa.md"))
    args = parser.parse_args()
    sections = []
    for epochs in args.epochs:
        begun = time.time()
        result = swa_experiment(
            make_model,
            partial(noisy_digits, label_noise=args.label_noise, pixel_noise=args.pixel_noise),
            n_seeds=args.seeds,
            epochs=epochs,
            memory=args.memory,
            on_progress=lambda done, total, message: print(f"{done / total:6.1%}  {message}", flush=True),
        )
        print(f"{epochs} epochs: {time.time() - begun:.0f} s")
        sections.append(section(result, epochs))
    noise = f"{args.label_noise:.0%} of the training labels replaced by a wrong class"
    if args.pixel_noise:
        noise += f", Gaussian pixel noise of {args.pixel_noise:g} on both sets"
    _, mark, reading = (args.out.read_text() if args.out.exists() else "").partition(READING)
    args.out.write_text(page(sections, noise, args.seeds, "\n" + READING + reading if mark else ""))
    print(f"wrote {args.out}")


def make_model(seed: int) -> torch.nn.Module:
    return load_model("test_resnet", num_classes=10, image_size=32, random_state=seed)


def section(result: SwaComparisonResult, epochs: int) -> str:
    """Write the two tables of one length of training."""
    lines = [f"## {epochs} epochs", "", "Mean ± standard deviation over seeds.", ""]
    lines += ["| | " + " | ".join(NAMES[g] for g in GROUPS) + " |", "|---|" + "---:|" * len(GROUPS)]
    for row in result.summary():
        if row["quantity"] in QUANTITIES:
            title, form = QUANTITIES[row["quantity"]]
            cells = [f"{row[f'{g}_mean']:{form}} ± {row[f'{g}_std']:{form}}" for g in GROUPS]
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    lines += ["", "Paired by seed: each average against the end of plain SGD, with a 95 % interval.", ""]
    lines += ["| average | quantity | claim | effect | interval | verdict |", "|---|---|---|---:|---:|---|"]
    lines += [claim(c) for c in result.claims]
    lines += ["", *(f"* {note}" for note in result.notes)]
    return "\n".join(lines).rstrip() + "\n"


def claim(c: dict[str, Any]) -> str:
    title = QUANTITIES[c["key"]][0].partition(" (")[0]
    shown = (lambda v: f"× {v:.3f}") if c["ratio"] else (lambda v: f"{v:+.4f}")
    return (
        f"| {NAMES[c['group']]} | {title} | {c['claimed']} | {shown(c['effect'])} | "
        f"{shown(c['low'])} to {shown(c['high'])} | {c['verdict']} |"
    )


def page(sections: list[str], noise: str, seeds: int, reading: str) -> str:
    """Write the whole document, with the reading of the numbers that is kept by hand at its end."""
    return (
        "# Weight averaging against plain SGD\n\n"
        "Made by `tests/benchmarks/measure_swa.py`; run it again to get the same tables.\n\n"
        f"`test_resnet` at 32 px on 300 digits with {noise}; the 360 held-out digits have true labels. {seeds} "
        "seeds, each with its own examples, noise, initial weights and order of the data. Batch size 64, Nesterov "
        "momentum 0.9, weight decay 5·10⁻⁴, learning rate 0.1. The two runs of a seed share every step until "
        "75 % of the epochs: SGD then follows its cosine to zero; the other goes to a constant 0.05, and its "
        "points after each epoch are averaged (SWA). EMA follows every step of that second run with decay 0.999 and "
        "a warm-up. Batch-norm statistics are estimated again at every point that is measured.\n\n"
        + "\n".join(sections)
        + reading
    )


if __name__ == "__main__":
    main()
