"""Measure the flat/sharp table of small against large batches over seeds and write docs/batch-size.md.

    python tests/benchmarks/measure_batch_size.py [--seeds 5] [--small 16] [--large 512] [--memory FOLDER]

Both train `test_resnet` from the same weights on 512 digits to the same training loss. Finished runs are kept in the
memory folder, so that an interrupted measurement goes on where it was.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from estimators import load_data, load_model
from estimators.experiments.batch_size import BatchSizeResult, batch_size_experiment

TITLES = {
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "held_out_loss": "held-out loss",
    "lambda_max": "λ_max",
    "trace": "trace",
    "sharpness": "worst rise",
    "average_sharpness": "average rise",
    "gap_loss": "generalisation gap (loss)",
    "held_out_accuracy": "held-out accuracy",
    "pac_bayes_bound": "PAC-Bayes bound on the error",
    "sigma_tolerated": "σ tolerated",
}


def report(result: BatchSizeResult) -> str:
    """Give mean ± standard deviation of both sides and the verdict on each claim, as Markdown."""
    settings = result.settings
    lines = [
        "# Small batches against large ones\n",
        f"Written by `tests/benchmarks/measure_batch_size.py`. `test_resnet`, {settings['n_examples']} digits, SGD with "
        f"momentum {settings['momentum']:g}, rate {settings['lr']:g} for both, no weight decay; both sides of a pair start "
        f"from the same weights and stop at a training loss of {settings['target_loss']:g}. {settings['n_seeds']} pairs; "
        f"held-out values on {settings['n_held_out']} digits. Mean ± standard deviation over seeds; the effect is the "
        "ratio or difference of large to small with its 95 % interval over pairs, not adjusted for the number of rows.\n",
        f"| quantity | batch {settings['small']} | batch {settings['large']} | effect | claimed | verdict |",
        "|---|---|---|---|---|---|",
    ]
    claims = {claim["key"]: claim for claim in result.claims}
    for row in result.summary():
        claim = claims.get(row["quantity"])
        said = "– | – | –"
        if claim is not None:
            kind = "×" if claim["ratio"] else "+"
            said = (
                f"{kind} {claim['effect']:.3g} ({claim['low']:.3g} to {claim['high']:.3g}) | {claim['claimed']} "
                f"| {claim['verdict']}"
            )
        sides = " | ".join(f"{row[f'{side}_mean']:.4g} ± {row[f'{side}_std']:.2g}" for side in ("small", "large"))
        lines.append(f"| {TITLES[row['quantity']]} | {sides} | {said} |")
    flat = claims.get("flat_generalises")
    if flat is not None:
        lines.append(
            f"\nKendall's τ of λ_max and the gap over all {flat['n']} runs: {flat['effect']:.2f} "
            f"({flat['low']:.2f} to {flat['high']:.2f}): {flat['verdict']}."
        )
    lines += ["", *(f"- {note}" for note in result.notes)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--small", type=int, default=16)
    parser.add_argument("--large", type=int, default=512)
    parser.add_argument("--memory", default=None)
    parser.add_argument("--out", type=Path, default=Path("docs/batch-size.md"))
    options = parser.parse_args()
    started = time.process_time()
    result = batch_size_experiment(
        start,
        load_data("digits", n_samples=512, split="train"),
        load_data("digits", split="test"),
        small=options.small,
        large=options.large,
        n_seeds=options.seeds,
        memory=options.memory,
        on_partial=lambda found: print(f"{len(found.rows)} runs, {time.process_time() - started:.0f} s", flush=True),
    )
    options.out.write_text(report(result))
    print(options.out.read_text())


def start(seed: int):
    """Make the network that a pair starts from."""
    return load_model("test_resnet", num_classes=10, image_size=32, random_state=seed)


if __name__ == "__main__":
    main()
