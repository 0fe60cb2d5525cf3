"""Write docs/rate-batch.md, the grid of learning rate over batch size, from its saved result.

    python -m tests.benchmarks.measure_claims rate_batch
    python -m tests.benchmarks.measure_rate_batch

The first trains the grid and saves it, the second judges it by the rules of today and writes its cells and contrasts.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from estimators import Result
from estimators.experiments import RateBatchResult
from estimators.experiments.rate_batch import judge
from tests.benchmarks.measure_batch_size import TITLES

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULT, OUT = DOCS / "claims" / "rate_batch.npz", DOCS / "rate-batch.md"
CONTRASTS = {
    "ratio": "smallest ratio against largest, at equal batch size",
    "batch": "largest batch against smallest, at equal ratio",
    "both": "largest batch against smallest, at one learning rate",
    "exponent of the ratio": "exponent of the ratio",
    "exponent of the batch": "exponent of the batch size",
}
CLAIMED = {"larger": "larger", "smaller": "smaller", "equal": "no difference that matters"}


def report(result: RateBatchResult, minutes: float) -> str:
    """Give the grid's means and the verdict on each contrast, as Markdown."""
    settings = result.settings
    lines = [
        "# Rate over batch size, or the batch size?\n",
        "The lecture says in one place that large batches find sharp minima, and in another that the ratio of learning rate "
        "and batch size decides. A comparison of two batch sizes at one learning rate changes both. This grid changes one at "
        "a time.\n",
        f"Written by `python -m tests.benchmarks.measure_rate_batch`. `test_resnet`, {settings['n_examples']} digits, SGD with "
        f"momentum {settings['momentum']:g}, no weight decay; all cells of a seed start from the same weights and stop at a "
        f"training loss of {settings['target_loss']:g}. {settings['n_seeds']} seeds, the independent units; held-out accuracy "
        f"on {settings['n_held_out']} digits, with intervals over seeds and digits. Verdicts are corrected for the number of "
        "rows (Holm). The smallest effects that matter: a factor of 1.5, and one point of accuracy.\n",
        "| batch | rate/batch | learning rate | runs at the target | epochs | training loss | λ_max | average rise | held-out accuracy |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size in result.batches:
        for ratio in result.ratios:
            cell = result.cell(size, ratio)
            good = [row for row in cell if row["reached"]]
            shown = [f"{len(good)} of {len(cell)}"]
            for key in ("epochs", "train_loss", "lambda_max", "average_sharpness", "held_out_accuracy"):
                values = [row[key] for row in good]
                shown.append(f"{np.mean(values):.3g} ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else "–")
            lines.append(f"| {size} | {ratio:.3g} | {ratio * size:.3g} | {' | '.join(shown)} |")
    lines += [
        "",
        "| contrast | quantity | claimed | effect | 95 % interval | seeds | verdict |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for claim in result.claims:
        sign = "× " if claim["ratio"] else ""
        low, high = (f"{sign}{claim[k]:.3g}" for k in ("low", "high"))
        lines.append(
            f"| {CONTRASTS[claim['contrast']]} | {TITLES.get(claim['key'], 'average rise')} | {CLAIMED[claim['claimed']]} "
            f"| {sign}{claim['effect']:.3g} | {low} to {high} | {claim['n']} | {claim['verdict']} |"
        )
    lines += ["", *(f"- {note}" for note in result.notes), f"- {minutes:.0f} minutes of processor time."]
    return "\n".join(lines) + "\n"


def main() -> None:
    result = Result.load(RESULT)
    claims, notes = judge(result.rows, result.batches, result.ratios)
    judged = replace(result, claims=claims, notes=notes)
    OUT.write_text(report(judged, result.settings["measured"]["minutes"]), encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
