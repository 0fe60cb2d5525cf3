"""How often the intervals over examples hold the value on all digits: the table "Sampling" of docs/trust.md.

    python -m tests.benchmarks.measure_sampling [--networks tanh | resnet] [--draws 200] [--examples 128]

Each draw takes digits of the 1,797 with replacement, so that all of them are a population without end, and measures
fixed, trained networks on them. Draws that are done are kept in a record (build/sampling-*.jsonl): the same command goes
on with the others, and writes the part of the page between its two marks when they are complete. The convolutional
networks take about a quarter of an hour of one core.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from estimators import (
    CurvatureEstimator,
    Examples,
    ModeConnector,
    SamplingError,
    SharpnessEstimator,
    SurfaceMapper,
    load_data,
    load_model,
    pooled_digits,
    train,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE, RECORDS = ROOT / "docs" / "trust.md", ROOT / "build"
NODE = (0.5, -0.5)  # of a map with two random directions
CURVED = 4  # draws of which one gets λ_max of the convolutional network too

Row = dict[str, dict[str, Any]]  # quantity → value and attributes of its SamplingError


Networks = tuple[nn.Module, nn.Module, Examples]


@cache
def tanh_networks() -> Networks:
    """Train two tanh networks (16–8–10, 226 weights) on every other digit, pooled to 4 × 4 pixels; give all digits too."""
    data = pooled_digits(side=4, n_classes=10, n_samples=1797)
    half = data.take(slice(None, None, 2))
    nets = []
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 10)).double()
        nets.append(train(net, half, epochs=20, lr=0.05, random_state=seed).model)
    return nets[0], nets[1], data


def measure_tanh(a: nn.Module, b: nn.Module, data: Examples, number: int) -> Row:
    """Measure every quantity that has an error over examples."""
    shared: dict[str, Any] = {"sampling": True, "precision": "float64"}
    curved = CurvatureEstimator(n_eigenvalues=5, n_lanczos=0, n_probes=4, compare_traces=False, **shared).fit(a, data)
    around = SharpnessEstimator(
        measures=("sharpness", "average"), rho=0.1, n_steps=10, n_restarts=3, n_draws=8, n_probes=4, **shared
    ).fit(a, data)
    path = ModeConnector(n_points=11, compare=False, **shared).fit((a, b), data)
    node = SurfaceMapper(resolution=3, **shared).fit(a, data).probe(NODE)
    return told(curved.result_, around.result_, path.result_) | told_at(node)


@cache
def resnets() -> Networks:
    """Train two of timm's test_resnet, with batch norm, for two epochs of every other digit at 16 × 16 pixels; give all digits too."""
    data = load_data("digits", image_size=16, n_samples=1797)
    half, nets = data.take(slice(None, None, 2)), []
    for seed in (0, 1):
        net = load_model("test_resnet", num_classes=10, random_state=seed)
        nets.append(train(net, half, epochs=2, random_state=seed).model)
    return nets[0], nets[1], data


def measure_resnets(a: nn.Module, b: nn.Module, data: Examples, number: int) -> Row:
    """Measure the point, its mean rise, a path with statistics recomputed and a node of a map; λ_max on a quarter of the draws."""
    measures = ("average", "lambda_max") if number < 0 or number % CURVED == 0 else ("average",)
    around = SharpnessEstimator(measures=measures, n_draws=8, n_probes=4, sampling=True).fit(a, data)
    path = ModeConnector(n_points=11, compare=False, sampling=True).fit((a, b), data)
    node = SurfaceMapper(resolution=3, sampling=True).fit(a, data).probe(NODE)
    return told(around.result_, path.result_) | told_at(node)


def told(*results: Any) -> Row:
    """Collect what results say of other examples."""
    return {
        name: {"value": float(getattr(result, name)), **error}
        for result in results
        for name, error in result.sampling.items()
    }


def told_at(node: dict[str, Any]) -> Row:
    """Collect what a node of a map says of other examples."""
    return {f"map: {name}": {"value": node[name], **node["sampling"][name]} for name in ("loss", "rise")}


# what makes two networks with their population, what measures them, and where it is written down
CASES: dict[str, tuple[Callable[[], Networks], Callable[..., Row], str]] = {
    "tanh": (tanh_networks, measure_tanh, ""),
    "resnet": (resnets, measure_resnets, "resnet "),
}


def draw(data: Examples, n: int, seed: int) -> Examples:
    """Draw n examples with replacement."""
    return data.take(torch.from_numpy(np.random.default_rng(seed).integers(len(data), size=n)))


def recorded(networks: str, draws: int, examples: int) -> tuple[Row, list[Row]]:
    """Measure on all digits and on each draw, or read what the record holds of it."""
    make, measure, mark = CASES[networks]
    record = RECORDS / f"sampling-{mark.replace(' ', '-')}{examples}.jsonl"
    lines = record.read_text().splitlines() if record.is_file() else []
    known = {row["seed"]: row["found"] for row in map(json.loads, lines)}
    missing = [seed for seed in (-1, *range(draws)) if seed not in known]
    record.parent.mkdir(parents=True, exist_ok=True)
    for seed in missing:
        a, b, data = make()
        known[seed] = measure(a, b, data if seed < 0 else draw(data, examples, seed), seed)
        with record.open("a") as out:
            out.write(json.dumps({"seed": seed, "found": known[seed]}) + "\n")
        print(seed, flush=True)
    return known[-1], [known[seed] for seed in range(draws)]


def coverage(whole: Row, rows: list[Row]) -> list[dict[str, Any]]:
    """Set the intervals of the draws against the values on all digits, a row a quantity."""
    table = []
    for name, at_all in whole.items():
        found = [row[name] for row in rows if name in row and np.isfinite(row[name]["low"])]
        if not found:
            continue
        truth, values = float(at_all["value"]), np.array([row["value"] for row in found])
        errors = [SamplingError(**{part: row[part] for part in SamplingError._fields}) for row in found]
        biases = np.array([error.bias for error in errors])
        table.append(
            {
                "quantity": name.replace("_", " ") + (f" ({len(found)} draws)" if len(found) < len(rows) else ""),
                "on all digits": f"{truth:.4g}",
                "covered": f"{np.mean([e.low <= truth <= e.high for e in errors]):.1%}",
                "promised": f"{np.mean([e.promised for e in errors]):.0%}",
                "covered then": _share([e.low <= truth <= e.high for e in errors if e.promised]),
                "mean less all": f"{values.mean() - truth:+.2g}",
                "stated bias": f"{np.nanmean(biases):+.2g}" if np.isfinite(biases).any() else "–",
                "spread": f"{values.std(ddof=1):.2g}",
                "stated error": f"{np.sqrt(np.mean([e.stderr**2 for e in errors])):.2g}",
            }
        )
    return table


def _share(hits: list[bool]) -> str:
    return f"{np.mean(hits):.1%}" if hits else "–"


def markdown(table: list[dict[str, Any]]) -> str:
    """Write rows as a table."""
    lines = ["| " + " | ".join(table[0]) + " |", "|---" * len(table[0]) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row.values()) + " |" for row in table)]) + "\n"


def main() -> None:
    """Measure what is missing, then write the table into the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", choices=CASES, default="tanh")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--page", type=Path, default=PAGE)
    chosen = parser.parse_args()
    table = markdown(coverage(*recorded(chosen.networks, chosen.draws, chosen.examples)))
    start, end = f"<!-- sampling {CASES[chosen.networks][2]}{chosen.examples} -->\n", "<!-- end -->"
    before, found, rest = chosen.page.read_text().partition(start)
    if found:
        chosen.page.write_text(before + start + table + end + rest.partition(end)[2])
    print(table)


if __name__ == "__main__":
    main()
