"""Time and check Hessian-vector products against public peers, all in one process.

``python -m tests.benchmarks.bench_hvp_peers [--repeats 9] [--part speed,products,linear,arpack,public] [FOLDER]``

speed     median time of one product on `test_resnet`, 512 digits at 32×32 (or `--samples`), of ours and of hessian-eigenthings,
          curvlinops and PyHessian (its graph kept), beside our gradient and the bare forward pass. The contenders take
          turns, so that a slow moment of the machine falls on all; peak memory above the start is beside each.
products  products counted until the top 5 eigenvalues have relative residuals of 1e-3: ours and power iteration
          with deflation.
linear    time of our product at 512 and 2,048 examples (one and four times `--samples`).
arpack    λ_max of four timm networks against curvlinops with ARPACK.
public    the public ResNet-20 of FOLDER on 500 of its training images: both ends against curvlinops with ARPACK, the
          gradient norm, the verdict.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from estimators import CurvatureEstimator, Examples, Landscape, load_data, load_model, train
from estimators.core.spectrum.lanczos import lanczos_eigenpairs, random_unit

PARTS = ("speed", "products", "linear", "arpack", "public")
LIMITS = {"hessian-eigenthings": 0.55, "curvlinops": 0.42, "PyHessian, graph kept": 0.65, "our gradient": 2.2}
NETWORKS = ("test_resnet", "test_vit", "test_convnext", "resnet18")
TOL = 1e-3


# ---- contenders: each makes a function that computes one product ----


def ours(model: nn.Module, data: Examples, v: Tensor) -> Callable[[], Tensor]:
    """Our product."""
    land = Landscape(model, data)
    return lambda: land.hvp(v)


def our_gradient(model: nn.Module, data: Examples, v: Tensor) -> Callable[[], Tensor]:
    """Our gradient."""
    land = Landscape(model, data)
    return land.gradient


def bare_forward(model: nn.Module, data: Examples, v: Tensor) -> Callable[[], Tensor]:
    """Run the plain module on all examples at once, in its own memory format."""

    def run() -> Tensor:
        with torch.no_grad():
            return model(data.inputs)

    return run


def eigenthings(model: nn.Module, data: Examples, v: Tensor) -> Callable[[], Tensor]:
    """Multiply by the operator of hessian-eigenthings."""
    from hessian_eigenthings.loss_fns.standard import supervised_loss
    from hessian_eigenthings.operators.hessian import HessianOperator

    batch = [(data.inputs, data.targets)]
    operator = HessianOperator(model, batch, supervised_loss(nn.functional.cross_entropy))
    return lambda: operator.matvec(v)


def curvlinops_operator(model: nn.Module, data: Examples) -> Any:
    """Make the operator of curvlinops."""
    from curvlinops import HessianLinearOperator

    parameters = [p for p in model.parameters() if p.requires_grad]
    batch = [(data.inputs, data.targets)]
    return HessianLinearOperator(model, nn.CrossEntropyLoss(), parameters, batch, check_deterministic=False)


def curvlinops(model: nn.Module, data: Examples, v: Tensor) -> Callable[[], Tensor]:
    """Multiply by the operator of curvlinops."""
    operator = curvlinops_operator(model, data)
    return lambda: operator @ v


def pyhessian(model: nn.Module, data: Examples, v: Tensor) -> Callable[[], Tensor]:
    """Multiply by PyHessian, which keeps the graph of one batch."""
    from pyhessian import hessian
    from pyhessian.utils import hessian_vector_product

    held = hessian(model, nn.CrossEntropyLoss(), data=(data.inputs, data.targets), cuda=False)
    pieces = [part.view_as(p) for part, p in zip(v.split([p.numel() for p in held.params]), held.params, strict=True)]

    def run() -> Tensor:
        return torch.cat([g.reshape(-1) for g in hessian_vector_product(held.gradsH, held.params, pieces)])

    return run


CONTENDERS: dict[str, Callable[[nn.Module, Examples, Tensor], Callable[[], Tensor]]] = {
    "ours": ours,
    "hessian-eigenthings": eigenthings,
    "curvlinops": curvlinops,
    "PyHessian, graph kept": pyhessian,
    "our gradient": our_gradient,
    "bare forward": bare_forward,
}


# ---- measuring ----


class Peak:
    """Largest resident memory above the start, in MiB, sampled every millisecond."""

    def __enter__(self) -> Peak:
        """Start sampling."""
        gc.collect()
        self._stop, self._start = threading.Event(), resident()
        self.mib = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.mib = max(self.mib, (resident() - self._start) / 2**20)
            time.sleep(0.001)


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def timed(run: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def network(name: str, data: Examples, epochs: int = 2) -> nn.Module:
    """Train a network briefly, so that its Hessian is that of a network in use."""
    options = {"img_size": 32} if "vit" in name else {}
    model = load_model(name, num_classes=10, image_size=32, random_state=0, **options)
    trained = train(model, data, epochs=epochs, lr=0.02, random_state=0).model
    return trained.eval()


def speed(repeats: int, n_samples: int) -> None:
    """Print the table of times."""
    data = load_data("digits", n_samples=n_samples)
    model = network("test_resnet", data)
    size = sum(p.numel() for p in model.parameters())
    v = random_unit(size, torch.Generator().manual_seed(0), torch.empty(0))
    runs, peaks, products = {}, {}, {}
    for name, make in CONTENDERS.items():
        try:
            with Peak() as peak:
                run = make(model, data, v)
                products[name] = run()
            runs[name], peaks[name] = run, peak.mib
        except ImportError as error:
            print(f"{name}: not installed ({error})")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(timed(run))
    mine = statistics.median(times["ours"])
    print(
        f"| one product, test_resnet, {n_samples} digits | ms | ours / it | asked | peak MiB | max abs Δ / max abs Hv |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name in runs:
        median = statistics.median(times[name])
        limit = f"≤ {LIMITS[name]}" if name in LIMITS else ""
        difference = ""
        if products[name].shape == products["ours"].shape and name != "our gradient":
            reference = products["ours"]
            difference = f"{float((products[name] - reference).abs().max() / reference.abs().max()):.1e}"
        print(f"| {name} | {median:.1f} | {mine / median:.3f} | {limit} | {peaks[name]:.0f} | {difference} |")
    print(flush=True)


def power_iteration_products(land: Landscape, k: int, limit: int) -> tuple[int, int]:
    """Products that power iteration with deflation spends on k eigenvalues at the same residual; how many settled."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.empty(0, land.n_parameters)
    spent = settled = 0
    for _ in range(k):
        v = random_unit(land.n_parameters, generator, land.theta)
        while spent < limit:
            v = v - basis.T @ (basis @ v)
            v = v / v.norm()
            w = land.hvp(v)
            spent += 1
            value = v @ w
            if float((w - value * v).norm()) <= TOL * abs(float(value)):
                settled += 1
                break
            v = w
        basis = torch.cat([basis, v[None]])
    return spent, settled


def products(limit: int, n_samples: int) -> None:
    """Print the counts."""
    data = load_data("digits", n_samples=n_samples)
    land = Landscape(network("test_resnet", data), data)
    found = lanczos_eigenpairs(land.hvp, land.n_parameters, 5, ends="largest", tol=TOL, like=land.theta)
    spent, settled = power_iteration_products(land, 5, limit)
    print(f"| top 5 eigenvalues at residual {TOL:g} | products | converged |\n|---|---:|---:|")
    print(f"| ours | {found.n_products} | {found.converged.sum()} of 5 |")
    print(f"| power iteration with deflation, stopped at {limit} | {spent} | {settled} of 5 |\n", flush=True)


def linear(repeats: int, n_samples: int) -> None:
    """Print how the time grows with the examples."""
    few = load_data("digits", n_samples=n_samples)
    model = network("test_resnet", few)
    medians = {}
    for copies in (1, 4):
        data = load_data((few.inputs.repeat(copies, 1, 1, 1), few.targets.repeat(copies)))
        land = Landscape(model, data)
        v = random_unit(land.n_parameters, torch.Generator().manual_seed(0), land.theta)
        land.hvp(v)
        medians[copies] = statistics.median(timed(lambda land=land, v=v: land.hvp(v)) for _ in range(repeats))
    print("| growth of a product | ms | of linear growth | asked |\n|---|---:|---:|---:|")
    print(f"| {n_samples} examples | {medians[1]:.1f} | 1 | |")
    print(
        f"| {4 * n_samples} examples | {medians[4]:.1f} | {medians[4] / medians[1] / 4:.3f} | 0.85 to 1.15 |\n",
        flush=True,
    )


def arpack_ends(model: nn.Module, data: Examples, which: tuple[str, ...]) -> list[float]:
    """Eigenvalues by curvlinops and ARPACK, one for each of "LA" and "SA"."""
    operator = curvlinops_operator(model, data).to_scipy()
    with sdpa_kernel(SDPBackend.MATH):  # the fused attention has no second derivative
        return [float(eigsh(operator, k=1, which=end, tol=1e-6, return_eigenvectors=False)[0]) for end in which]


def arpack(names: tuple[str, ...], n_samples: int) -> None:
    """Print λ_max against ARPACK."""
    data = load_data("digits", n_samples=n_samples)
    print(
        f"| λ_max, {n_samples} digits | ours | ARPACK | relative | residual | products |\n|---|---:|---:|---:|---:|---:|"
    )
    for name in names:
        model = network(name, data)
        est = CurvatureEstimator(n_eigenvalues=1, ends="largest", n_lanczos=0, n_probes=2, compare_traces=False)
        found = est.fit(model, data).result_
        (peer,) = arpack_ends(model, data, ("LA",))
        residual = found.lambda_max_residual / abs(found.lambda_max)
        print(
            f"| {name} | {found.lambda_max:.5f} | {peer:.5f} | {abs(found.lambda_max / peer - 1):.1e} "
            f"| {residual:.1e} | {found.n_products} |"
        )


def public(folder: Path) -> None:
    """Print the check on the public ResNet-20."""
    from tests.benchmarks.bench_public import EXPECTED_GRADIENT_NORM, load

    images = load_data(folder / "cifar10", split="train", image_size=32)
    first = torch.cat([torch.nonzero(images.targets == c).flatten()[:50] for c in range(10)])
    few = load_data((images.inputs[first], images.targets[first]))
    model = load(folder, "resnet20")
    est = CurvatureEstimator(n_eigenvalues=1, n_lanczos=0, n_probes=2, compare_traces=False)
    found = est.fit(model, few).result_
    top, bottom = arpack_ends(model, few, ("LA", "SA"))
    print(
        f"\nResNet-20: gradient norm {found.gradient_norm:.3f} ({EXPECTED_GRADIENT_NORM} expected), {found.point_kind}"
    )
    for name, value, residual, peer in (
        ("largest", found.lambda_max, found.lambda_max_residual, top),
        ("most negative", found.lambda_min, found.lambda_min_residual, bottom),
    ):
        print(f"{name:<14} ours {value:.5f} ± {residual:.1g}, ARPACK {peer:.5f}, relative {abs(value / peer - 1):.1e}")


def main(arguments: list[str] | None = None) -> None:
    """Run the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="holds cifar10/ and checkpoints/, for the part public")
    parser.add_argument("--part", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--limit", type=int, default=3000, help="most products given to power iteration")
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--samples", type=int, default=512, help="digits, in all parts but public")
    options = parser.parse_args(arguments)
    chosen = options.part.split(",")
    unknown = set(chosen) - set(PARTS)
    if unknown:
        parser.error(f"part must be one or more of {', '.join(PARTS)}, got {', '.join(sorted(unknown))}.")
    if "speed" in chosen:
        speed(options.repeats, options.samples)
    if "products" in chosen:
        products(options.limit, options.samples)
    if "linear" in chosen:
        linear(options.repeats, options.samples)
    if "arpack" in chosen:
        arpack(tuple(options.networks.split(",")), options.samples)
    if "public" in chosen:
        if options.folder is None:
            print("\npublic: left out, no folder was given")
        else:
            public(options.folder)


if __name__ == "__main__":
    main()
