"""How often two errors hold what they promise: the tables "Adaptive maps" and "Saddle index" of docs/trust.md.

    python -m tests.benchmarks.measure_coverage [--part maps index]

Ten exact maps that no margin of `estimators/core/planes/refinement.py` was set or judged on (other networks, seeds,
directions and losses than `make_maps.py`, `make_unseen_maps.py` and `tests/analytic_maps.py`) are mapped again
adaptively, and the saddle index by quadrature is set beside the full spectrum of 24 small networks. Rows that are done
are kept in a record: the same command goes on with the others, and writes the part of the page between its two marks
when they are complete. About five minutes on an idle core.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from estimators import CurvatureEstimator, Examples, SurfaceMapper, load_data, train
from estimators.core.planes.refinement import refine
from tests.benchmarks.make_unseen_maps import mlp, small_cnn
from tests.benchmarks.pages import Row, recorded, write

SIDE, TOLERANCE = 41, 0.01
Array = NDArray[np.float64]

# -- ten maps -----------------------------------------------------------------------------------------------


class Square(nn.Module):
    """x², whose powers of powers leave float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square()


class Rounded(nn.Module):
    """A network whose weights are rounded to multiples of 1/16 wherever it stands."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        weights = {name: (16 * p).round() / 16 for name, p in self.inside.named_parameters()}
        return torch.func.functional_call(self.inside, weights, (x,))


def scaled(model: nn.Module, factor: float) -> nn.Module:
    """Multiply every weight, so that activations saturate."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor)
    return model


def permuted(model: nn.Module) -> nn.Module:
    """Reorder the hidden units of a perceptron of two layers: the same function elsewhere."""
    other = copy.deepcopy(model)
    first, second = (layer for layer in other if isinstance(layer, nn.Linear))
    order = torch.randperm(first.out_features, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first.weight.copy_(first.weight[order])
        first.bias.copy_(first.bias[order])
        second.weight.copy_(second.weight[:, order])
    return other


def learnt(model: nn.Module, data: Examples, seed: int, **options: Any) -> nn.Module:
    return train(model, data, **({"epochs": 12, "lr": 0.05, "random_state": seed} | options)).model


def hardtanh_cliffs(data: Examples) -> tuple[Any, Row]:
    return scaled(learnt(mlp((32, 32), nn.Hardtanh, 101), data, 101), 4.0), {"span": 2.0, "random_state": 31}


def models_cliffs(data: Examples) -> tuple[Any, Row]:
    nets = [learnt(mlp((64, 64, 64), nn.ReLU, 102 + k), data, k, epochs=30, lr=0.1) for k in range(3)]
    return nets, {"directions": "models", "span": 2.5}


def permutation_ridge(data: Examples) -> tuple[Any, Row]:
    one, other = (learnt(mlp((32,), nn.Tanh, 106 + k), data, k, epochs=25) for k in range(2))
    return [one, permuted(one), other], {"directions": "models"}


def sigmoid_plateaus(data: Examples) -> tuple[Any, Row]:
    net = learnt(mlp((24, 24), nn.Sigmoid, 108), data, 108, epochs=30, lr=0.01, optimizer="adamw")
    return scaled(net, 3.0), {"normalization": "layer", "span": 3.0, "random_state": 32}


def dead_plateau(data: Examples) -> tuple[Any, Row]:
    return mlp((12, 12, 12, 12), nn.ReLU, 109), {"normalization": "model", "span": 6.0, "random_state": 33}


def square_overflow(data: Examples) -> tuple[Any, Row]:
    net, settings = mlp((16, 16, 16, 16), Square, 110), {"random_state": 34}
    for span in np.geomspace(10.0, 1e6, 61):  # the first at which a corner leaves float32, and a little further
        if not np.isfinite(SurfaceMapper(resolution=3, span=span, **settings).fit(net, data.subset(8)).losses_).all():
            return net, {"span": 1.2 * span, **settings}
    raise AssertionError("no corner is infinite")


def rounded_steps(data: Examples) -> tuple[Any, Row]:
    return Rounded(learnt(mlp((24,), nn.ReLU, 111), data, 111)), {"span": 0.5, "random_state": 35}


def bfloat16_noise(data: Examples) -> tuple[Any, Row]:
    net = learnt(mlp((32, 32), nn.GELU, 112), data, 112, epochs=40)
    return net, {"precision": "bfloat16", "span": 0.02, "random_state": 36}


def untrained_saddle(data: Examples) -> tuple[Any, Row]:
    return mlp((20, 20), nn.GELU, 113), {"directions": "hessian", "eigenvectors": "extremes", "span": 4.0}


def batch_norm_run(data: Examples) -> tuple[Any, Row]:
    start = small_cnn(nn.BatchNorm2d, nn.SiLU, 114, pooled=True)
    run = train(start, data, epochs=15, lr=0.2, random_state=114)
    return run, {"directions": "trajectory", "batch_norm": "recompute"}


MAPS: dict[str, Callable[[Examples], tuple[Any, Row]]] = {
    "cliffs: Hardtanh MLP, weights × 4, random directions": hardtanh_cliffs,
    "cliffs: three ReLU MLPs trained to zero error, their plane, × 2.5": models_cliffs,
    "ridge: a tanh MLP, itself with hidden units reordered, another": permutation_ridge,
    "plateaus: sigmoid MLP, weights × 3, layer-normalised": sigmoid_plateaus,
    "plateau: untrained ReLU MLP of four layers, six times its norm away": dead_plateau,
    "overflow: untrained MLP with x² four times, corners leave float32": square_overflow,
    "noise: ReLU MLP with weights rounded to 1/16": rounded_steps,
    "noise: GELU MLP in bfloat16, within 0.02 filter norms": bfloat16_noise,
    "saddle: untrained GELU MLP, largest and most negative eigenvector": untrained_saddle,
    "valley: run of a batch-norm CNN at a large rate, statistics recomputed": batch_norm_run,
}


def exact_losses(make: Callable[[Examples], tuple[Any, Row]]) -> Array:
    """Map every point."""
    side = 32 if make is batch_norm_run else 8
    data = load_data("digits", image_size=side, n_samples=512, split="train")
    model, settings = make(data)
    return SurfaceMapper(resolution=SIDE, **settings).fit(model, data.subset(96)).losses_


def judged(losses: Array) -> Row:
    """Map a known map adaptively: cells that were not evaluated, their errors and those that were announced."""
    *_, last = refine(lambda at: losses[at[:, 0], at[:, 1]], losses.shape, tolerance=TOLERANCE)
    rest = ~last.evaluated
    both = rest & np.isfinite(losses) & np.isfinite(last.values)
    logs = np.log(losses, where=np.isfinite(losses), out=np.full(losses.shape, np.nan))
    with np.errstate(invalid="ignore"):
        error = np.abs(np.log(last.values) - logs)[both]
    told = last.error_estimate[both]
    missed = error > told
    open_ = np.isinf(last.error_estimate)  # whether it is finite is said not to be known
    return {
        "evaluated": last.n_evaluated,
        "converged": last.converged,
        "worst": float(error.max(initial=0.0) / np.ptp(logs[np.isfinite(logs)])),
        "cells": int(both.sum()),
        "missed": int(missed.sum()),
        "factors": (error[missed] / told[missed]).round(3).tolist(),
        "not_finite": int((~np.isfinite(losses)).sum()),
        "wrongly_finite": int((rest & ~open_ & (np.isfinite(losses) != np.isfinite(last.values))).sum()),
    }


# -- the saddle index ---------------------------------------------------------------------------------------

STATES = {"untrained": 0, "3 epochs": 3, "40 epochs": 40}


def index_cases() -> Iterator[tuple[str, Callable[[], Row]]]:
    """Name 24 networks of 938 and 954 weights and give what measures them."""
    for activation in (nn.Tanh, nn.ReLU, nn.GELU):
        for state, epochs in STATES.items():
            for seed in (201, 202):
                yield (
                    f"{activation.__name__} {state} {seed}",
                    partial(index_row, (16,), activation, epochs, seed, state),
                )
        for seed in (203, 204):
            yield f"{activation.__name__} deep {seed}", partial(index_row, (12, 12, 8), activation, 10, seed, "deep")


def index_row(widths: tuple[int, ...], activation: type[nn.Module], epochs: int, seed: int, state: str) -> Row:
    """Measure the index by quadrature and set the full spectrum beside it."""
    data = load_data("digits", image_size=4, n_samples=256, split="train", random_state=seed)
    model = small_mlp(widths, activation, seed)
    if epochs:
        model = learnt(model, data, seed, epochs=epochs)
    shared = {"compare_traces": False, "random_state": seed, "precision": "float64"}
    found = CurvatureEstimator(exact_below=0, **shared).fit(model, data).result_
    values = CurvatureEstimator(exact_below=10_000, **shared).fit(model, data).spectrum_
    return {
        "state": state,
        "weights": len(values),
        "index": found.saddle_index,
        "stderr": found.saddle_index_stderr,
        "bracket": float(found.fractions_bracket[0]),
        "true": float((values <= -found.zero_threshold).mean()),
    }


def small_mlp(widths: tuple[int, ...], activation: type[nn.Module], seed: int) -> nn.Module:
    """Give a perceptron of 4 × 4 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in zip((48, *widths), widths, strict=False):
            layers += [nn.Linear(a, b), activation()]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


# -- the tables ---------------------------------------------------------------------------------------------


def maps_table(rows: dict[str, Row]) -> list[Row]:
    """Write a line a map, and one of all."""
    table = []
    for name, row in rows.items():
        factors = row["factors"] or [float("nan")]
        table.append(
            {
                "map": name,
                "evaluated of 1,681": f"{row['evaluated']:,}",
                "says": "within 1 %" if row["converged"] else "open",
                "worst error": f"{row['worst']:.2%}",
                "cells within their estimate": f"{1 - row['missed'] / row['cells']:.1%}"
                if row["cells"]
                else "all exact",
                "the others miss by × (median, worst)": f"{np.median(factors):.2f}, {max(factors):.2f}"
                if row["factors"]
                else "–",
                "not finite (told wrongly)": f"{row['not_finite']} ({row['wrongly_finite']})",
            }
        )
    return table


def index_table(rows: dict[str, Row]) -> list[Row]:
    """Write a line a state of training, and one of all."""
    table = []
    for state in (*STATES, "deep", "all"):
        some = [row for row in rows.values() if state in (row["state"], "all")]
        off = np.array([row["index"] - row["true"] for row in some])
        error, half = (np.array([row[name] for row in some]) for name in ("stderr", "bracket"))
        directions = np.abs(off) * [row["weights"] for row in some]
        table.append(
            {
                "networks": f"{len(some)}, {state}",
                "true index": f"{min(r['true'] for r in some):.1%} to {max(r['true'] for r in some):.1%}",
                "within 1 standard error": f"{np.mean(np.abs(off) <= error):.0%}",
                "within 2": f"{np.mean(np.abs(off) <= 2 * error):.0%}",
                "within 2 and the bracket": f"{np.mean(np.abs(off) <= np.maximum(2 * error, half)):.0%}",
                "off by directions (median, worst)": f"{np.median(directions):.1f}, {directions.max():.1f}",
                "standard error (median, directions)": f"{np.median(error * [r['weights'] for r in some]):.1f}",
            }
        )
    return table


def main() -> None:
    """Measure what is missing, then write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="*", choices=("maps", "index"), default=["maps", "index"])
    parts = parser.parse_args().part
    if "maps" in parts:
        cases = [(name, lambda make=make: judged(exact_losses(make))) for name, make in MAPS.items()]
        write("maps", maps_table(recorded("coverage-maps", cases)))
    if "index" in parts:
        write("index", index_table(recorded("coverage-index", index_cases())))


if __name__ == "__main__":
    main()
