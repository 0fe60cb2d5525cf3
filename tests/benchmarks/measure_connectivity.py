"""Barriers between networks trained here, what matching units does to them, and what a path costs.

Usage: ``python tests/benchmarks/measure_connectivity.py [barriers] [alignment] [speed] [--seeds 5] [--memory DIR]``

- ``barriers``: pairs of ``test_resnet`` on digits: different starts (straight, matched, Bézier, chain), one start
  with two orders of the data, two children of one parent;
- ``alignment``: the fall of the straight barrier by weight matching, and the largest change of B's outputs;
- ``speed``: a 21-point path with recomputed statistics against 21 bare forward passes (trust it on a quiet machine).
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn

from estimators import ModeConnector, load_data, load_model, train
from estimators.experiments.connectivity_cases import JOINTS, ConnectivityCases

MODELS = {  # the networks of the alignment table: arguments of load_model, and of train
    "test_resnet": ({}, {"lr": 0.1}),
    "test_convnext": ({}, {"lr": 2e-3, "optimizer": "adamw", "epochs": 12}),
    "test_vit": ({}, {"lr": 2e-3, "optimizer": "adamw", "epochs": 12}),
    "resnet18": ({}, {"lr": 0.05, "epochs": 4}),
    # timm's own vgg11_bn, with a narrower pair of fully connected layers (128 of 129 million weights otherwise)
    "vgg11_bn": ({"mlp_ratio": 0.0625}, {"lr": 0.005, "epochs": 4}),
}


def mlp(width: int, seed: int) -> nn.Module:
    """Three linear layers on the pixels of 8 × 8 digits."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = (nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        return nn.Sequential(nn.Flatten(), *layers)


def barriers(seeds: int, memory: str | None, n_points: int) -> None:
    """Print mean, spread and range of the barriers of each case."""
    data, held_out = load_data("digits"), load_data("digits", split="test")
    print(f"\nBarriers (nats), test_resnet on digits, {seeds} pairs, {n_points} points\n")
    print("| case | joined by | mean | ± spread | range | held-out accuracy of the ends |")
    print("|---|---|---|---|---|---|")
    for case, joints in (
        ("different starts", tuple(JOINTS)),
        ("same start", ("linear",)),
        ("fine-tuned", ("linear",)),
    ):
        found = ConnectivityCases(
            cases=(case,), joints=joints, n_seeds=seeds, n_points=n_points, memory=memory, verbose=1
        ).fit("test_resnet", data, held_out=held_out)
        for row in found.summary_:
            ends = [r["held_out_accuracy"] for r in found.rows_ if r["path"] == row["path"]]
            print(
                f"| {case} | {row['path']} | {row['mean']:.4f} | {row['std']:.4f} | {row['low']:.4f} – "
                f"{row['high']:.4f} | {np.mean(ends):.1%} |",
                flush=True,
            )
        for verdict in found.verdicts_:
            print(f"  {verdict['verdict']}: {verdict['claim']} ({verdict['reason']})", flush=True)


def alignment(seeds: int, names: list[str], n_points: int) -> None:
    """Print the straight barrier before and after matching, for MLPs and timm models."""
    print("\nWeight matching: straight barrier (nats) before and after\n")
    print("| network | pair | before | after | change | cosine | B's outputs changed by | groups | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    pixels = load_data("digits", image_size=8)
    gray = (pixels.inputs[:, :1].contiguous(), pixels.targets)
    for width in (512, 64):
        if f"mlp{width}" in names:
            for seed in range(seeds):
                pair = [train(mlp(width, s), gray, epochs=30, random_state=s).model for s in (2 * seed, 2 * seed + 1)]
                _alignment_row(f"3-layer MLP, width {width}", seed, pair, gray, n_points)
    for name, (model, training) in MODELS.items():
        if name in names:
            full, some = load_data("digits"), load_data("digits", n_samples=256)
            pair = [
                train(load_model(name, num_classes=10, random_state=s, **model), full, random_state=s, **training).model
                for s in (0, 1)
            ]
            _alignment_row(name, 0, pair, some, n_points)


def _alignment_row(name: str, seed: int, pair: list, data: object, n_points: int) -> None:
    started = time.perf_counter()
    found = ModeConnector(align="weights", n_points=n_points).fit(pair, data).result_
    change = found.barrier / found.straight_barrier - 1 if found.straight_barrier > 0 else float("nan")
    print(
        f"| {name} | {seed} | {found.straight_barrier:.3f} | {found.barrier:.4f} | {change:+.1%} | "
        f"{found.similarity_before:.2f} → {found.similarity_after:.2f} | {found.alignment_change:.1e} | "
        f"{len(found.groups)} | {time.perf_counter() - started:.0f} |",
        flush=True,
    )


def speed(repeats: int) -> None:
    """Print the cost of a 21-point path in bare forward passes."""
    data = load_data("digits", n_samples=512)
    a, b = (load_model("test_resnet", num_classes=10, random_state=s) for s in (0, 1))
    x = data.inputs.contiguous(memory_format=torch.channels_last)
    bare = a.eval().to(memory_format=torch.channels_last)
    connector = ModeConnector(n_points=21)
    connector.fit((a, b), data)
    anchors, coefficients = connector._anchors(), connector._coefficients(connector.t_)
    paths, passes = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        connector._evaluate(connector._land, anchors, coefficients)
        paths.append(time.perf_counter() - started)
        started = time.perf_counter()
        with torch.no_grad():
            for _ in range(21):
                bare(x)
        passes.append(time.perf_counter() - started)
    print(
        f"\n21-point path, statistics recomputed: {1000 * min(paths):.0f} ms; 21 bare forward passes: "
        f"{1000 * min(passes):.0f} ms; ratio {min(paths) / min(passes):.2f} (at most 2.3 asked for)"
    )


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[], help="barriers, alignment, speed; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--points", type=int, default=21)
    parser.add_argument("--networks", default=",".join(["mlp512", "mlp64", *MODELS]))
    parser.add_argument("--memory", default=None, help="folder that keeps trained networks and paths")
    options = parser.parse_args()
    parts = options.parts or ["barriers", "alignment", "speed"]
    if "alignment" in parts:
        alignment(options.seeds, options.networks.split(","), options.points)
    if "barriers" in parts:
        barriers(options.seeds, options.memory, options.points)
    if "speed" in parts:
        speed(5)


if __name__ == "__main__":
    main()
