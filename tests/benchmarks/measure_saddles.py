"""Measure what docs/saddles.md states: critical points of two small networks, and how optimisers leave saddles.

Numbers of steps and losses, no timings, so that any machine gives the same. Prints Markdown::

    python tests/benchmarks/measure_saddles.py > tables.md
"""

from __future__ import annotations

import sys
import time

import numpy as np

from estimators import CriticalPointFinder, SaddleEscaper, load_data, load_model, pooled_digits, small_net
from estimators.core.saddles.optimizers import OPTIMIZERS

NETS = {"4-4-3 (35 weights)": 4, "4-3-3 (27 weights)": 3}
RACES = {
    "strict saddle of the 4-4-3 network": {"saddle": "strict"},
    "one unit of it embedded": {"saddle": "embedding", "unit": 0},
    "all four units embedded": {"saddle": "embedding"},
    "its origin": {"saddle": "origin"},
    "surface: strict saddle": {"saddle": "strict_surface"},
    "surface: monkey saddle": {"saddle": "monkey_saddle"},
    "surface: degenerate valley": {"saddle": "degenerate_valley"},
}


def critical_points() -> None:
    """Print success rates by index and the correlation of index with loss."""
    print("## Critical points\n")
    data = pooled_digits()
    for name, hidden in NETS.items():
        found = CriticalPointFinder(n_starts=12, max_steps=120).fit(small_net(hidden=hidden), data).result_
        print(f"### {name}\n")
        print("| index | searches | gradient ≤ 1e-9 | right index | distinct | success (95 %) | loss, median (range) |")
        print("|---|---|---|---|---|---|---|")
        for row in found.success:
            losses = found.losses[found.distinct & (found.asked == row["index"])]
            print(
                f"| {row['index']} | {row['starts']} | {row['converged']} | {row['found']} | {row['distinct']} "
                f"| {row['rate']:.0%} ({row['low']:.0%}–{row['high']:.0%}) "
                f"| {np.median(losses):.3f} ({losses.min():.3f}–{losses.max():.3f}) |"
            )
        rho = found.spearman
        print(
            f"\nFound {found.found.sum()} of {len(found.found)}, {found.distinct.sum()} distinct, largest gradient "
            f"norm {found.gradient_norms[found.found].max():.1e}. Spearman correlation of index with loss over distinct "
            f"points: {rho['value']:.2f} (95 % {rho['low']:.2f} to {rho['high']:.2f}, n = {rho['n']}).\n"
        )
        sys.stdout.flush()


def steps(values: np.ndarray) -> str:
    """Give median and quartiles of leaving steps; "–" where half or more stayed."""
    low, middle, high = (float(np.quantile(values, q, method="inverted_cdf")) for q in (0.25, 0.5, 0.75))
    said = ["–" if np.isinf(v) else f"{v:.0f}" for v in (low, middle, high)]
    return "–" if np.isinf(low) else f"{said[1]} ({said[0]}–{said[2]})"


def race(title: str, escaper: SaddleEscaper, model: object = None, data: object = None) -> None:
    """Print the saddle, the leaving steps of each optimiser and the verdicts."""
    begun = time.process_time()
    result = escaper.fit(model, data).result_
    saddle = result.saddle
    print(f"### {title}\n")
    spectrum = np.asarray(saddle["eigenvalues"])
    print(
        f"Loss {saddle['loss']:.4f}, gradient norm {saddle['gradient_norm']:.1e}, {saddle['index']} negative and "
        f"{saddle['n_zero']} zero of {len(spectrum)} eigenvalues{'' if saddle['complete_spectrum'] else ' computed'} "
        f"({spectrum.min():.4f} to {spectrum.max():.4f}); η = {result.lr:.4g}, 2/λ₊ = {2 / spectrum.max():.3g}, "
        f"budget {result.max_steps}."
    )
    if saddle["kind"] == "embedding":
        print(
            f"Outputs against the network without the units: changed by {saddle['outputs_against_removed']:.1e}; "
            f"against the network as given: {saddle['outputs_against_original']:.2g}."
        )
    heads = " | ".join(f"r = {r:g}: left, steps, theory" for r in result.radii)
    print(f"\n| optimiser | {heads} | first moves · negative mode | diverged |\n|{'---|' * (len(result.radii) + 3)}")
    for i, name in enumerate(result.optimizers):
        cells = []
        for j in range(len(result.radii)):
            runs, theory = result.escape_steps[i, j], float(np.median(result.theory_steps[i, j]))
            predicted = "" if np.isnan(theory) else f", {'∞' if np.isinf(theory) else f'{theory:.0f}'}"
            cells.append(f"{np.isfinite(runs).mean():.0%}, {steps(runs)}{predicted}")
        aligned = result.alignment[i, -1]
        aligned = aligned[np.isfinite(aligned)]
        said = f"{np.median(aligned):.2f}" if len(aligned) else "–"
        print(f"| {OPTIMIZERS[name].title} | {' | '.join(cells)} | {said} | {result.diverged[i].mean():.0%} |")
    print("\n| mechanism | measured | verdict |\n|---|---|---|")
    for row in result.mechanisms:
        print(f"| {row['mechanism']} | {row['measured']} | {row['verdict']} |")
    print(f"\n<!-- {title}: {time.process_time() - begun:.0f} s of processor time -->\n")
    sys.stdout.flush()


def main() -> None:
    """Run everything."""
    critical_points()
    print("## Leaving\n")
    data = pooled_digits()
    for title, params in RACES.items():
        race(title, SaddleEscaper(**params), small_net(), data)
    chosen = {"optimizers": ("gd", "momentum", "nesterov", "large_step"), "radii": (1e-3,), "n_seeds": 3}
    race(
        "strict saddle, a tenth of the step (the large step is then stable)",
        SaddleEscaper(lr=0.06, max_steps=6000, **chosen),
        small_net(),
        data,
    )
    race(
        "test_vit: the MLP of block 0 embedded",
        SaddleEscaper(
            saddle="embedding", n_seeds=3, max_steps=200, radii=(0.0, 1e-1), threshold=1e-2, precision="float32"
        ),
        load_model("test_vit", num_classes=10, image_size=32),
        load_data("digits", n_samples=64),
    )


if __name__ == "__main__":
    main()
