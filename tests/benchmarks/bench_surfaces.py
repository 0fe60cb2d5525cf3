"""Time a grid point against the bare forward pass and against public peers, in one process.

``python -m tests.benchmarks.bench_surfaces [--side 11]``. Every method evaluates the same number of points on the same
512 digits; the peers with their own loops (loss-landscapes 3.0.6, loss-landscape-3d 0.1.3, and landscaper 1.3.1's grid
function, whose topology imports do not install everywhere and are not timed). Times are medians over repeats, taken in
turns, so that a slow moment of the machine falls on all.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import sys
import time
from collections.abc import Callable
from unittest.mock import MagicMock

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from estimators import Landscape, load_data, load_model, train
from estimators.core.folding import fold_batch_norm


def main() -> None:
    """Print one table for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=11, help="points along each axis of a timed grid")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["test_resnet", "test_vit", "resnet18"])
    options = parser.parse_args()
    data = load_data("digits", n_samples=512)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, 512 digits at 32×32, "
        f"{options.side}×{options.side} points, median of {options.repeats}\n"
    )
    for name in options.models:
        model = load_model(name, num_classes=10, image_size=32)
        if name == "test_resnet":
            model = train(model, data, epochs=4).model
        table(name, model, data, options.side, options.repeats)
    linearity(options.repeats)


def table(name: str, model: torch.nn.Module, data, side: int, repeats: int) -> None:
    """Time every method on one model."""
    axis = np.linspace(-1, 1, side)
    coefficients = np.array([[1.0, a, b] for a in axis for b in axis])
    land = Landscape(model, data)
    directions = torch.randn(2, land.n_parameters, generator=torch.Generator().manual_seed(0)) * 0.01
    anchors = torch.stack([land.theta, *directions])
    half = Landscape(model, data, precision="bfloat16")
    methods: dict[str, Callable[[], object]] = {
        "bare forward + loss (folded, channels-last)": bare(model, data, side * side),
        "Loss Atlas, float32": lambda: land.evaluate(anchors, coefficients),
        "Loss Atlas, bfloat16": lambda: half.evaluate(anchors, coefficients),
        "loss-landscapes 3.0.6": loss_landscapes(model, data, side),
        "loss-landscape-3d 0.1.3": loss_landscape_3d(model, data, axis),
        "landscaper 1.3.1 (grid only)": landscaper(model, data, side),
    }
    times: dict[str, list[float]] = {label: [] for label in methods}
    for _ in range(repeats):
        for label, run in methods.items():
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                started = time.perf_counter()
                run()
                times[label].append((time.perf_counter() - started) / side**2 * 1000)
    medians = {label: statistics.median(values) for label, values in times.items()}
    base = medians["bare forward + loss (folded, channels-last)"]
    peer = min(v for label, v in medians.items() if "Atlas" not in label and "bare" not in label)
    exact, rough = land.evaluate(anchors, coefficients).losses, half.evaluate(anchors, coefficients).losses
    print(f"{name}: {land.n_parameters:,} parameters, {land.settings['fold']}")
    for label, value in medians.items():
        print(
            f"  {label:44s} {value:8.2f} ms a point   {value / base:5.2f} × bare   {value / peer:5.2f} × fastest peer"
        )
    print(f"  largest deviation of bfloat16: {np.nanmax(np.abs(rough - exact) / exact):.2%} of the loss\n")


def bare(model: torch.nn.Module, data, points: int) -> Callable[[], None]:
    """Run the folded network on the same tensors and take its loss, and nothing else."""
    network = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    inputs = data.inputs.to(memory_format=torch.channels_last)
    folded, _ = fold_batch_norm(network, inputs[:8])
    with torch.no_grad():
        for module in folded.modules():
            if type(module).__name__ == "FoldedConvolution":
                freeze(module)

    def run() -> None:
        with torch.no_grad():
            for _ in range(points):
                F.cross_entropy(folded(inputs), data.targets).item()

    return run


def freeze(module) -> None:
    """Fold once for all, as a deployed network would be."""
    conv, norm = module.conv, module.norm
    scale = norm.weight * module.inverse_deviation
    weight = (conv.weight * scale.view(-1, 1, 1, 1)).to(memory_format=torch.channels_last)
    bias = norm.bias + module.shift * scale
    module.forward = lambda x: conv._conv_forward(x, weight, bias)


def loss_landscapes(model, data, side: int) -> Callable[[], object]:
    """Peer: loss-landscapes' random plane."""
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(F.cross_entropy, data.inputs, data.targets)
    network = copy.deepcopy(model).eval()

    def run() -> object:
        with torch.no_grad():
            return loss_landscapes.random_plane(network, metric, 1, side, normalization="filter", deepcopy_model=True)

    return run


def loss_landscape_3d(model, data, axis: np.ndarray) -> Callable[[], object]:
    """Peer: loss-landscape-3d's grid calculator."""
    from loss_landscape_3d import LossLandscapeCalculator

    loader = DataLoader(TensorDataset(data.inputs, data.targets), batch_size=512)
    network = copy.deepcopy(model).eval()
    center = {k: v.clone() for k, v in network.state_dict().items()}
    steps = [{k: torch.randn_like(v) * 0.01 for k, v in network.named_parameters()} for _ in range(2)]
    calculator = LossLandscapeCalculator(network, loader, torch.nn.CrossEntropyLoss())
    return lambda: calculator.calculate(axis, axis, *steps, center)


def landscaper(model, data, side: int) -> Callable[[], object]:
    """Peer: landscaper's grid function, without its topology packages."""
    for missing in ("nglpy", "topopy"):
        try:
            __import__(missing)
        except ImportError:
            sys.modules[missing] = MagicMock()
    from landscaper.compute import compute_loss_landscape

    network = copy.deepcopy(model).eval()
    directions = [[torch.randn_like(p) for p in network.parameters()] for _ in range(2)]

    def scalar(m, batch) -> float:
        return F.cross_entropy(m(batch[0]), batch[1]).item()

    return lambda: compute_loss_landscape(
        network, (data.inputs, data.targets), directions, scalar, steps=side, distance=0.1, dim=2, device="cpu"
    )


def linearity(repeats: int) -> None:
    """Show that cost grows linearly with points and with examples."""
    model = load_model("test_resnet", num_classes=10)
    everything = load_data("digits", split="all")
    print("cost per point and example (should stay level)")
    for examples in (256, 512, 1024, 1536):
        land = Landscape(model, everything.subset(examples), batch_size=256)
        for points in (20, 80):
            times = []
            for _ in range(repeats):
                started = time.perf_counter()
                land.evaluate(land.theta[None], np.ones((points, 1)))
                times.append(time.perf_counter() - started)
            print(
                f"  {examples:5d} examples, {points:3d} points: {statistics.median(times) / points / examples * 1e6:.2f} µs"
            )


if __name__ == "__main__":
    main()
