"""Check every CUDA path against the CPU, then time it: ``make gpu``, or ``python -m tests.benchmarks.bench_gpu``.

Correctness comes first: values, recorded passes (CUDA graphs), several points a pass (vmap), halving when memory runs
out, streamed examples, re-estimated statistics, gradients, products, bfloat16 and TF32, each against float64 on the
CPU. Then times: a point and a product beside the bare forward pass and the public peers that are installed, several
points a pass, `resnet50` at 224 px, and the peak of memory. It ends within ``--minutes`` on one card; what no time is
left for is named. Exit status 1 says that a check failed.

``--device cpu`` runs the checks alone, on small sizes and without a card: a rehearsal, whose answers say nothing of CUDA.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from estimators import Examples, Landscape, load_data, load_model
from estimators.core.network.cuda_graph import CudaRecording
from tests.benchmarks.machine import processor, version

MINUTES = 7.5
NETWORKS = ("test_resnet", "test_vit", "test_convnext")
TIMED = (("test_resnet", 32, 512), ("test_vit", 32, 512), ("resnet18", 32, 512), ("resnet50", 224, 128))
N_POINTS = 20  # enough that a pass is recorded
PACKAGES = ("torch", "timm", "pyhessian", "hessian-eigenthings", "curvlinops-for-pytorch")


@dataclass(frozen=True)
class Check:
    """How far a path is from its reference, and how far it may be."""

    name: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether it is near enough; an error that is no number is not."""
        return self.error <= self.limit


# ---- correctness ----


def plane(land: Landscape, n: int = N_POINTS) -> tuple[list[Tensor], list[list[float]]]:
    """Give three anchors and n coefficients: points of a random plane through the weights, the weights first."""
    generator = torch.Generator().manual_seed(0)
    theta = land.theta.cpu().double()
    steps = [torch.randn(theta.shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    anchors = [theta, *(step * (0.3 * theta.norm() / step.norm()) for step in steps)]
    places = torch.rand(n, 2, generator=generator).mul(2).sub(1)
    places[0] = 0
    return [a.to(land.theta) for a in anchors], [[1.0, float(x), float(y)] for x, y in places]


def relative(found: object, wanted: object) -> float:
    """Largest difference in units of the spread of what is wanted: a value that stays where it was is far off."""
    a, b = (torch.as_tensor(v).detach().cpu().double() for v in (found, wanted))
    return float((a - b).abs().max() / (b.max() - b.min()))


def checks(device: str, n_examples: int, networks: tuple[str, ...] = NETWORKS) -> Iterator[Check]:
    """Compare every path with float64 on the CPU."""
    data = load_data("digits", n_samples=n_examples)
    for name in networks:
        model = load_model(name, num_classes=10, image_size=32)
        exact = Landscape(model, data, device="cpu", precision="float64", batch_norm="frozen")
        wanted = exact.evaluate(*plane(exact))
        yield from _values(name, model, data, device, wanted.losses)
        yield from _derivatives(name, model, data, device, exact)
    model = load_model(networks[0], num_classes=10, image_size=32)
    exact = Landscape(model, data, device="cpu", precision="float64", batch_norm="recompute")
    land = Landscape(model, data, device=device, batch_norm="recompute")
    found = land.evaluate(*plane(land, 4)).losses
    yield Check(
        f"{networks[0]}: re-estimated statistics", relative(found, exact.evaluate(*plane(exact, 4)).losses), 2e-3
    )


def _values(name: str, model: nn.Module, data: Examples, device: str, wanted: object) -> Iterator[Check]:
    land = Landscape(model, data, device=device, batch_norm="frozen", batch_size=len(data) // 2 + 1)
    anchors, places = plane(land)
    found = land.evaluate(anchors, places).losses
    recorded = " (recorded as a CUDA graph)" if isinstance(land._replay, CudaRecording) else ""
    yield Check(f"{name}: points{recorded}", relative(found, wanted), 1e-3)
    one = [land.loss(sum(w * a for w, a in zip(row, anchors, strict=True))) for row in places[:3]]
    yield Check(f"{name}: points one at a time beside the same in a row", relative(one, found[:3]), 1e-5)
    again = land.evaluate(anchors, places).losses
    yield Check(f"{name}: the same points again", relative(again, found), 0.0 if device == "cpu" else 1e-6)
    several = Landscape(model, data, device=device, batch_norm="frozen", points_per_pass=4)
    yield Check(f"{name}: four points a pass", relative(several.evaluate(anchors, places[:8]).losses, found[:8]), 1e-4)
    with short_of_memory(land, len(data) // 4):
        halved = land.evaluate(anchors, places[:3]).losses
    yield Check(f"{name}: batches halved to {land.batch_size} where memory runs out", relative(halved, found[:3]), 1e-5)
    yield Check(f"{name}: halving happened", 0.0 if land.batch_size <= len(data) // 4 else 1.0, 0.0)
    streamed = Landscape(model, data, device=device, batch_norm="frozen", batch_size=32)
    streamed._inputs, streamed._targets = (
        t.cpu().pin_memory() if device == "cuda" else t.clone() for t in (streamed._inputs, streamed._targets)
    )
    yield Check(f"{name}: examples streamed", relative(streamed.evaluate(anchors, places[:3]).losses, found[:3]), 1e-5)
    mixed = Landscape(model, data, device=device, precision="bfloat16", batch_norm="frozen")
    off = relative(mixed.evaluate(anchors, places).losses, found)
    yield Check(f"{name}: bfloat16 (says {mixed.settings['bfloat16_deviation']:.1e} at the weights)", off, 5e-2)
    with tf32():
        rough = Landscape(model, data, device=device, batch_norm="frozen")
        yield Check(f"{name}: TF32", relative(rough.evaluate(anchors, places).losses, found), 1e-2)
        if device == "cuda":
            yield Check(f"{name}: TF32 has keys of its own", float(rough.fingerprint == land.fingerprint), 0.0)


def _derivatives(name: str, model: nn.Module, data: Examples, device: str, exact: Landscape) -> Iterator[Check]:
    land = Landscape(model, data, device=device, batch_norm="frozen")
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(land.n_parameters, 3, generator=generator, dtype=torch.float64)
    yield Check(f"{name}: gradient", relative(land.gradient(), exact.gradient()), 1e-3)
    wanted = exact.hvp(v)
    found = land.hvp(v.to(land.theta))
    yield Check(f"{name}: three Hessian products", relative(found, wanted), 5e-3)
    yield Check(f"{name}: one product beside three", relative(land.hvp(v[:, 0].to(land.theta)), found[:, 0]), 1e-3)
    yield Check(
        f"{name}: Gauss-Newton product", relative(land.ggn_vp(v[:, 0].to(land.theta)), exact.ggn_vp(v[:, 0])), 5e-3
    )


@contextmanager
def short_of_memory(land: Landscape, largest: int) -> Iterator[None]:
    """Let passes of more than `largest` examples run out of memory, as the device says it."""
    network = land._network
    whole = network.forward

    def forward(x: Tensor) -> object:
        if len(x) > largest:
            raise torch.cuda.OutOfMemoryError("no memory for this many")
        return whole(x)

    land._replay = None  # a recording has its memory already
    network.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        del network.forward


@contextmanager
def tf32() -> Iterator[None]:
    """Allow TF32 in matrix products and convolutions."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


# ---- times ----


def milliseconds(run: Callable[[], object], repeats: int = 9) -> float:
    """Median time of a call, the device waited for; the first three calls do not count."""
    times = []
    for number in range(repeats + 3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        if number >= 3:
            times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times)


def timed(name: str, size: int, n_examples: int) -> Iterator[tuple[str, float, float]]:
    """Yield (what, milliseconds, peak of memory in MiB) for one network on random images."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(n_examples, 3, size, size, generator=generator), torch.arange(n_examples) % 10
    data = load_data((x, y))
    model = load_model(name, num_classes=10, image_size=size)
    bare = load_model(name, num_classes=10, image_size=size).cuda().to(memory_format=torch.channels_last)
    on_card = x.cuda().to(memory_format=torch.channels_last)

    def forward() -> None:
        with torch.no_grad():
            bare(on_card)

    yield measured("bare forward", forward)
    for precision in ("float32", "bfloat16"):
        land = Landscape(model, data, device="cuda", batch_norm="frozen", precision=precision)
        anchors, places = plane(land, 64)
        points = measured(f"a point, {precision}", lambda land=land, a=anchors, p=places: land.evaluate(a, p), each=64)
        yield points
    with tf32():
        land = Landscape(model, data, device="cuda", batch_norm="frozen")
        yield measured("a point, TF32", lambda: land.evaluate(anchors, places), each=64)
    if size <= 32:
        for k in (4, 16):
            several = Landscape(model, data, device="cuda", batch_norm="frozen", points_per_pass=k)
            yield measured(f"a point, {k} a pass", lambda s=several: s.evaluate(anchors, places), each=64)
    land = Landscape(model, data, device="cuda", batch_norm="frozen")
    v = torch.randn(land.n_parameters, generator=generator).cuda()
    yield measured("our gradient", land.gradient)
    yield measured("our product", lambda: land.hvp(v))
    for peer, make in PEERS.items():
        try:
            run = make(bare, on_card, y.cuda(), v)
        except ImportError:
            continue
        yield measured(peer, run)


def measured(what: str, run: Callable[[], object], each: int = 1) -> tuple[str, float, float]:
    """Time a call and take its peak of memory; each of `each` things it does."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    took = milliseconds(run, 3 if each > 1 else 9) / each
    return what, took, (torch.cuda.max_memory_allocated() - start) / 2**20


def pyhessian(model: nn.Module, x: Tensor, y: Tensor, v: Tensor) -> Callable[[], object]:
    """Multiply by PyHessian, which keeps the graph of one batch."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    held = hessian(model, nn.CrossEntropyLoss(), data=(x, y), cuda=True)
    pieces = [part.view_as(p) for part, p in zip(v.split([p.numel() for p in held.params]), held.params, strict=True)]
    return lambda: hessian_vector_product(held.gradsH, held.params, pieces)


def eigenthings(model: nn.Module, x: Tensor, y: Tensor, v: Tensor) -> Callable[[], object]:
    """Multiply by the operator of hessian-eigenthings."""
    from hessian_eigenthings.loss_fns.standard import supervised_loss
    from hessian_eigenthings.operators.hessian import HessianOperator

    operator = HessianOperator(model, [(x, y)], supervised_loss(nn.functional.cross_entropy))
    return lambda: operator.matvec(v)


PEERS = {"PyHessian, graph kept": pyhessian, "hessian-eigenthings": eigenthings}


# ---- the table ----


def describe(device: str) -> str:
    """Name the card, or the processor of a rehearsal, and the versions."""
    versions = ", ".join(version(package) for package in PACKAGES)
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        return f"{card.name}, {card.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}; {versions}"
    return f"a rehearsal on the CPU ({processor()[0]}), which says nothing of CUDA; {versions}"


def main() -> int:
    """Print the tables; return 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="begin nothing new after this time")
    parser.add_argument("--examples", type=int, default=256, help="digits of the checks")
    parser.add_argument("--networks", default=",".join(NETWORKS), help="networks of the checks")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("A card is needed, got none. Use --device cpu for a rehearsal of the checks.", file=sys.stderr)
        return 2
    deadline = time.monotonic() + 60 * options.minutes
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32 until TF32 is asked for
    print(
        describe(options.device) + "\n\n| check | largest relative error | allowed | |\n|---|---|---|---|", flush=True
    )
    failed = 0
    for check in checks(options.device, options.examples, tuple(options.networks.split(","))):
        failed += not check.passed
        mark = "ok" if check.passed else "**FAILED**"
        print(f"| {check.name} | {check.error:.1e} | {check.limit:.0e} | {mark} |", flush=True)
    if options.device == "cuda":
        print("\n| network | what | ms | × bare forward | peak MiB |\n|---|---|---|---|---|", flush=True)
        for name, size, n_examples in TIMED:
            bare = None
            if time.monotonic() > deadline:
                print(f"| {name}, {size} px | left out: the time is used up | | | |", flush=True)
                continue
            for what, took, peak in timed(name, size, n_examples):
                bare = bare or took
                row = f"| {name}, {n_examples} at {size} px | {what} | {took:.3g} | {took / bare:.2f} | {peak:,.0f} |"
                print(row, flush=True)
                if time.monotonic() > deadline:
                    break
    print(f"\n{failed} checks failed." if failed else "\nEvery check passed.", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
