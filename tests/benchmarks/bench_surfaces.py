"""Time a point of a surface against the bare forward pass and against public peers, all in one process.

``python -m tests.benchmarks.bench_surfaces [--side 9] [--rounds 3] [--examples 512] [--part speed,...]``

speed     `test_resnet`: a point of `SurfaceMapper` against the bare channels-last forward pass and loss of the network
          with its batch norms folded into constants, and against loss-landscapes 3.0.6, loss-landscape-3d 0.1.3 and
          landscaper 1.3.1 on a grid of the same size. Contenders take turns, the median over rounds counts.
networks  the same ratios for `resnet18` and `test_vit`, on a grid of at most 5 × 5.
bfloat16  time of a point and the largest deviation from float32 on the grid.
linear    time per point and example as the points and the examples grow.
adaptive  evaluations and time of an adaptive 41 × 41 map against 1,681 points of the fastest peer.

The peers live in `.venv-peers` (`make bench-setup`); one that cannot be imported is named and left out. Times mean
something only on an idle machine.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from estimators import Examples, Landscape, SurfaceMapper, load_data, load_model, train
from estimators.core.network.folding import FoldedConvolution, fold_batch_norm

PARTS = ("speed", "networks", "bfloat16", "linear", "adaptive")
LIMIT_BARE, LIMIT_PEER, LIMIT_LINEAR, LIMIT_ADAPTIVE = 1.03, 0.45, 0.10, 10.0
Contender = Callable[[int], int]  # side of the grid -> points evaluated


def folded_constants(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Give the network in channels-last with its batch norms folded once, as plain convolutions."""
    copied = copy.deepcopy(model).eval().to(memory_format=torch.channels_last)
    module, _ = fold_batch_norm(copied, example)
    for name, child in list(module.named_modules()):
        if isinstance(child, FoldedConvolution):
            conv, norm = child.conv, child.norm
            with torch.no_grad():
                scale = child.inverse_deviation * (1.0 if norm.weight is None else norm.weight)
                shift = child.shift + (0.0 if conv.bias is None else conv.bias)
                plain = nn.Conv2d(
                    conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                    conv.groups,
                )  # fmt: skip
                plain.weight.copy_(conv.weight * scale.view(-1, 1, 1, 1))
                plain.bias.copy_(shift * scale + (0.0 if norm.bias is None else norm.bias))
            module.set_submodule(name, plain.to(memory_format=torch.channels_last))
    return module.eval()


def ours(model: nn.Module, data: Examples, **settings: object) -> Contender:
    land = Landscape(model, data, **settings)  # built once, as one map does
    mapper = SurfaceMapper(resolution=3, **settings).fit(model, data)
    anchors = mapper._planes[0].anchors()

    def run(side: int) -> int:
        axis = np.linspace(-1, 1, side)
        grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
        mapper._evaluate(land, anchors, mapper._planes[0].coefficients(grid))
        return len(grid)

    return run


def bare(model: nn.Module, data: Examples) -> Contender:
    inputs, targets = data.inputs.to(memory_format=torch.channels_last), data.targets
    module = folded_constants(model, inputs[:8])
    with torch.no_grad():
        difference = (module(inputs[:8]) - copy.deepcopy(model).eval()(inputs[:8])).abs().max()
    assert difference < 1e-3, difference

    def run(side: int) -> int:
        with torch.no_grad():
            for _ in range(side * side):
                cross_entropy(module(inputs), targets).item()
        return side * side

    return run


def loss_landscapes_peer(model: nn.Module, data: Examples) -> Contender:
    import loss_landscapes
    from loss_landscapes.metrics import Loss

    metric = Loss(nn.CrossEntropyLoss(), data.inputs, data.targets)
    fresh = copy.deepcopy(model).eval()

    def run(side: int) -> int:
        with torch.no_grad():
            loss_landscapes.random_plane(fresh, metric, distance=1, steps=side, normalization="filter")
        return side * side

    return run


def loss_landscape_3d_peer(model: nn.Module, data: Examples) -> Contender:
    from loss_landscape_3d import LossLandscapeCalculator
    from loss_landscape_3d.directions import generate_random_directions

    fresh = copy.deepcopy(model).eval()
    loader = DataLoader(TensorDataset(data.inputs, data.targets), batch_size=len(data))
    calculator = LossLandscapeCalculator(fresh, loader, nn.CrossEntropyLoss())
    with torch.random.fork_rng(devices=[]):
        directions = generate_random_directions(fresh)
    centre = {k: v.clone() for k, v in fresh.state_dict().items()}

    def run(side: int) -> int:
        axis = np.linspace(-1, 1, side)
        calculator.calculate(axis, axis, *directions, centre)
        return side * side

    return run


def landscaper_peer(model: nn.Module, data: Examples) -> Contender:
    from landscaper.compute import compute_loss_landscape as compute

    fresh = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    directions = [[torch.randn(p.shape, generator=generator) for p in fresh.parameters()] for _ in range(2)]

    def loss(network: nn.Module, batch: Examples) -> float:
        return cross_entropy(network(batch.inputs), batch.targets).item()

    def run(side: int) -> int:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            compute(fresh, data, directions, loss, steps=side, distance=1.0, dim=2, device="cpu")
        return side * side

    return run


PEERS = {
    "loss-landscapes 3.0.6": loss_landscapes_peer,
    "loss-landscape-3d 0.1.3": loss_landscape_3d_peer,
    "landscaper 1.3.1": landscaper_peer,
}


def contenders(model: nn.Module, data: Examples) -> dict[str, Contender]:
    """Make the contenders that can be made here; name the others."""
    made: dict[str, Contender] = {"Loss Atlas": ours(model, data), "bare forward": bare(model, data)}
    for name, make in PEERS.items():
        try:
            made[name] = make(model, data)
        except ImportError as error:
            print(f"  {name}: left out ({error})")
    return made


def time_each(made: dict[str, Contender], side: int, rounds: int) -> dict[str, float]:
    """Median milliseconds a point, contenders taking turns after a warm-up."""
    made = dict(made)
    for name, run in list(made.items()):
        try:
            run(3)
        except (ArithmeticError, RuntimeError) as error:
            if name not in PEERS:
                raise
            print(f"  {name}: left out, it fails here ({type(error).__name__}: {error})")
            del made[name]
    taken: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(rounds):
        for name, run in made.items():
            started = time.perf_counter()
            points = run(side)
            taken[name].append(1000 * (time.perf_counter() - started) / points)
    return {name: statistics.median(values) for name, values in taken.items()}


def report(title: str, times: dict[str, float]) -> float:
    """Print times and ratios; return the fastest peer's time, NaN without one."""
    own = times["Loss Atlas"]
    fastest = min((name for name in times if name in PEERS), key=times.__getitem__, default="")
    asked = {"bare forward": f"≤ {LIMIT_BARE}", fastest: f"≤ {LIMIT_PEER}"}
    print(f"\n| {title} | ms a point | ours / it | asked |\n|---|---:|---:|---:|")
    for name, value in times.items():
        print(f"| {name} | {value:.2f} | {own / value:.3f} | {asked.get(name, '')} |")
    print(flush=True)
    return times.get(fastest, float("nan"))


def bfloat16(model: nn.Module, data: Examples, side: int, rounds: int) -> None:
    """Print what bfloat16 saves and by how much it deviates."""
    times = time_each({p: ours(model, data, precision=p) for p in ("float32", "bfloat16")}, side, rounds)
    maps = [SurfaceMapper(resolution=2 * side - 1, precision=p).fit(model, data).losses_ for p in times]
    deviation = np.abs(maps[1] - maps[0]) / np.abs(maps[0])
    print("| test_resnet | ms a point | / float32 | largest deviation | median deviation |\n|---|---:|---:|---:|---:|")
    print(f"| float32 | {times['float32']:.2f} | 1 | | |")
    ratio = times["bfloat16"] / times["float32"]
    print(
        f"| bfloat16 | {times['bfloat16']:.2f} | {ratio:.2f} | {deviation.max():.2%} | {np.median(deviation):.2%} |\n"
    )


def linear(model: nn.Module, data: Examples, side: int, rounds: int) -> None:
    """Print the time of a point as the points grow, and of a point and example as the examples grow."""
    run = ours(model, data)
    sides = (side, 2 * side)
    by_points = [time_each({"x": run}, s, rounds)["x"] for s in sides]
    sizes = [len(data) // 2, len(data), 2 * len(data)]
    made = {str(n): ours(model, load_data("digits", n_samples=n)) for n in sizes}
    by_size = [1000 * value / int(n) for n, value in time_each(made, side, rounds).items()]
    print("| linear growth | measured | spread | asked |\n|---|---|---:|---:|")
    for title, unit, values in (
        (" and ".join(f"{s * s}" for s in sides) + " points", "ms a point", by_points),
        (", ".join(map(str, sizes)) + " examples", "µs a point and example", by_size),
    ):
        listed = ", ".join(f"{value:.2f}" for value in values)
        print(f"| {title} | {listed} {unit} | {max(values) / min(values) - 1:.1%} | ≤ {LIMIT_LINEAR:.0%} |")
    print(flush=True)


def adaptive(model: nn.Module, data: Examples, peer: float) -> None:
    """Print what an adaptive map takes, against the fastest peer's time of a point (NaN: unknown)."""
    print("| adaptive 41 × 41 | seconds | evaluations | estimated error | fastest peer's 1,681 points / it | asked |")
    print("|---|---:|---:|---:|---:|---:|")
    for precision in ("float32", "auto"):
        started = time.perf_counter()
        fitted = SurfaceMapper(mode="adaptive", precision=precision).fit(model, data)
        seconds = time.perf_counter() - started
        taken = "" if precision == "float32" else f" (took {fitted.result_.settings['precision']})"
        print(
            f"| test_resnet, {len(data)} digits, {precision}{taken} | {seconds:.1f} | {fitted.n_evaluated_} "
            f"| {fitted.largest_error_:.2%} | {1681 * peer / 1000 / seconds:.1f} | ≥ {LIMIT_ADAPTIVE:.0f} |"
        )
    print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--examples", type=int, default=512)
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    options = parser.parse_args()
    parts = options.part.split(",")
    unknown = set(parts) - set(PARTS)
    if unknown:
        parser.error(f"part must be one or more of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}.")
    side, rounds = options.side, options.rounds
    few = min(side, 5)
    data = load_data("digits", n_samples=options.examples)
    model = train(load_model("test_resnet", num_classes=10), data, epochs=4).model
    peer = float("nan")
    if "speed" in parts:
        peer = report(
            f"test_resnet, {len(data)} digits, {side} × {side}", time_each(contenders(model, data), side, rounds)
        )
    if "networks" in parts:
        for name, kwargs in (("resnet18", {"zero_init_last": False}), ("test_vit", {"image_size": 32})):
            made = contenders(load_model(name, num_classes=10, **kwargs).eval(), data)
            report(f"{name}, {len(data)} digits, {few} × {few}", time_each(made, few, rounds))
    if "bfloat16" in parts:
        bfloat16(model, data, few, rounds)
    if "linear" in parts:
        linear(model, data, side, rounds)
    if "adaptive" in parts:
        adaptive(model, data, peer)


if __name__ == "__main__":
    main()
