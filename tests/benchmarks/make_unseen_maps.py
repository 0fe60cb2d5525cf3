"""Make two further sets of exact maps: one to set the stop rule of adaptive mode on, one to judge it on.

python -m tests.benchmarks.make_unseen_maps [--set tuned judged] [--only NAME ...] [--folder tests/data/maps]

`tuned` was looked at while the margins in `estimators/core/planes/refinement.py` were chosen, together with the ten maps of
`make_maps.py`; `judged` differs in seeds, networks, losses, directions and spans and was evaluated afterwards
(`judge_maps.py`). All are 41 × 41 and stored as float32; losses are means over 192 digits, of the larger networks of `judged` over
64. About ten minutes on an idle core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from estimators import Examples, SurfaceMapper, load_data, load_model, train
from tests.benchmarks.make_maps import SIDE, plain_net

Case = tuple[str, Callable[[Examples], Any], dict[str, Any]]


def mlp(widths: tuple[int, ...], activation: type[nn.Module], seed: int) -> nn.Module:
    """Give a multilayer perceptron of 8 × 8 images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sizes = [3 * 64, *widths]
        layers: list[nn.Module] = [nn.Flatten()]
        for a, b in zip(sizes, widths, strict=False):
            layers += [nn.Linear(a, b), activation()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


def small_cnn(norm: type[nn.Module] | None, activation: type[nn.Module], seed: int, pooled: bool) -> nn.Module:
    """Give a small convolutional network, with batch norm, group norm or none, averaging over places or not."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for a, b in ((3, 8), (8, 16)):
            layers.append(nn.Conv2d(a, b, 3, 2, 1))
            layers += [nn.GroupNorm(4, b)] if norm is nn.GroupNorm else [] if norm is None else [norm(b)]
            layers.append(activation())
        if pooled:
            layers.append(nn.AdaptiveAvgPool2d(1))
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 if pooled else 16 * 64, 10))


def trained(make: Callable[[int], nn.Module], seed: int, **options: Any) -> Callable[[Examples], Any]:
    options = {"epochs": 10, "lr": 0.05, "random_state": seed} | options
    return lambda data: train(make(seed), data, **options).model


def adam(make: Callable[[int], nn.Module], seed: int, epochs: int = 15) -> Callable[[Examples], Any]:
    return trained(make, seed, epochs=epochs, lr=2e-3, optimizer="adamw", weight_decay=0.05)


def run_of(make: Callable[[int], nn.Module], seed: int, **options: Any) -> Callable[[Examples], Any]:
    options = {"epochs": 12, "lr": 0.05, "random_state": seed} | options
    return lambda data: train(make(seed), data, **options)


def three(make: Callable[[int], nn.Module], seed: int, **options: Any) -> Callable[[Examples], Any]:
    return lambda data: [trained(make, seed + k, **options)(data) for k in range(3)]


def untrained(make: Callable[[int], nn.Module], seed: int) -> Callable[[Examples], Any]:
    return lambda data: make(seed).eval()


def relu_mlp(seed: int) -> nn.Module:
    return mlp((48, 32), nn.ReLU, seed)


def tanh_mlp(seed: int) -> nn.Module:
    return mlp((24,), nn.Tanh, seed)


def deep_mlp(seed: int) -> nn.Module:
    return mlp((32,) * 6, nn.ReLU, seed)


def gelu_mlp(seed: int) -> nn.Module:
    return mlp((40, 40, 40), nn.GELU, seed)


def bn_cnn(seed: int, pooled: bool = False) -> nn.Module:
    return small_cnn(nn.BatchNorm2d, nn.ReLU, seed, pooled)


def gn_cnn(seed: int, pooled: bool = False) -> nn.Module:
    return small_cnn(nn.GroupNorm, nn.SiLU, seed, pooled)


def bare_cnn(seed: int, pooled: bool = False) -> nn.Module:
    return small_cnn(None, nn.ReLU, seed, pooled)


def deep_plain(seed: int) -> nn.Module:
    return plain_net(8, norm=True, seed=seed)


def resnet(seed: int) -> nn.Module:
    return load_model("test_resnet", num_classes=10, random_state=seed)


def vit(seed: int) -> nn.Module:
    return load_model("test_vit", num_classes=10, image_size=32, random_state=seed)


TUNED: list[Case] = [
    ("relu_mlp", trained(relu_mlp, 0), {}),
    ("relu_mlp_wide", trained(relu_mlp, 1), {"span": 4.0, "random_state": 2}),
    ("relu_mlp_models", three(relu_mlp, 0), {"directions": "models"}),
    ("tanh_mlp_hessian", trained(tanh_mlp, 0), {"directions": "hessian", "span": 4.0}),
    ("deep_mlp", adam(deep_mlp, 0), {"normalization": "layer"}),
    ("deep_mlp_trajectory", run_of(deep_mlp, 1), {"directions": "trajectory"}),
    ("bn_cnn", trained(partial(bn_cnn, pooled=True), 0), {}),
    ("bn_cnn_models", three(partial(bn_cnn, pooled=True), 0), {"directions": "models"}),
    ("gn_cnn_close", trained(partial(gn_cnn, pooled=True), 0), {"span": 0.3}),
    ("bare_cnn", trained(partial(bare_cnn, pooled=True), 0), {"span": 2.0}),
    ("resnet_wide", trained(resnet, 3), {"span": 3.0, "random_state": 3}),
    ("resnet_mse", trained(resnet, 4), {"loss": "mse_one_hot", "random_state": 4}),
    ("vit_hessian", adam(vit, 1), {"directions": "hessian", "span": 1.0}),
    ("untrained_mlp", untrained(relu_mlp, 7), {"span": 2.0}),
]

JUDGED: list[Case] = [
    ("relu_mlp_5", trained(relu_mlp, 5), {"random_state": 11}),
    ("relu_mlp_6_wide", adam(relu_mlp, 6), {"span": 6.0, "random_state": 12}),
    ("relu_mlp_hessian", trained(relu_mlp, 8), {"directions": "hessian", "span": 3.0}),
    ("gelu_mlp", trained(gelu_mlp, 5), {"random_state": 13}),
    ("gelu_mlp_models", three(gelu_mlp, 11), {"directions": "models"}),
    ("gelu_mlp_trajectory", run_of(gelu_mlp, 9, epochs=20), {"directions": "trajectory"}),
    ("tanh_mlp", trained(tanh_mlp, 5), {"span": 2.0, "random_state": 14}),
    ("tanh_mlp_models", three(tanh_mlp, 21), {"directions": "models"}),
    ("deep_mlp_wide", trained(deep_mlp, 7), {"span": 3.0, "random_state": 15}),
    ("deep_mlp_models", three(deep_mlp, 31), {"directions": "models"}),
    ("bn_cnn_5", trained(bn_cnn, 5), {"span": 1.5, "random_state": 16}),
    ("bn_cnn_trajectory", run_of(bn_cnn, 6), {"directions": "trajectory", "batch_norm": "recompute"}),
    ("bn_cnn_extremes", trained(bn_cnn, 7), {"directions": "hessian", "eigenvectors": "extremes", "span": 2.0}),
    ("bn_cnn_three", three(bn_cnn, 41), {"directions": "models", "batch_norm": "recompute"}),
    ("gn_cnn", adam(gn_cnn, 5), {"span": 1.0, "random_state": 17}),
    ("gn_cnn_models", three(gn_cnn, 51), {"directions": "models"}),
    ("bare_cnn_layer", trained(bare_cnn, 5), {"normalization": "layer", "span": 1.5, "random_state": 18}),
    ("deep_plain_8", trained(deep_plain, 5), {"random_state": 19}),
    ("resnet_5", trained(resnet, 5), {"span": 0.7, "random_state": 20}),
    (
        "resnet_model_norm",
        trained(resnet, 6),
        {"normalization": "model", "span": 0.8, "random_state": 21, "n_examples": 64},
    ),
    ("resnet_trajectory", run_of(resnet, 7, epochs=6), {"directions": "trajectory", "n_examples": 64}),
    (
        "resnet_models",
        three(resnet, 61, epochs=5),
        {"directions": "models", "batch_norm": "recompute", "n_examples": 64},
    ),
]
SETS = {"tuned": TUNED, "judged": JUDGED}


def mse_one_hot(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.softmax(1) - nn.functional.one_hot(targets, 10)).square().sum(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", nargs="*", default=list(SETS))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "data" / "maps")
    arguments = parser.parse_args()
    full = {size: load_data("digits", image_size=size, n_samples=512, split="train") for size in (8, 32)}
    for kind in arguments.set:
        folder = arguments.folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        for name, make, settings in SETS[kind]:
            if arguments.only and name not in arguments.only:
                continue
            started = time.perf_counter()
            data = full[8 if "mlp" in name else 32]
            n_examples = settings.get("n_examples", 192)
            settings = {k: v for k, v in settings.items() if k != "n_examples"}
            settings = (
                {"batch_norm": "frozen"}
                | settings
                | ({"loss": mse_one_hot} if settings.get("loss") == "mse_one_hot" else {})
            )
            mapper = SurfaceMapper(resolution=SIDE, **settings).fit(make(data), data.subset(n_examples))
            losses = mapper.losses_.astype(np.float32)
            np.savez_compressed(folder / f"{name}.npz", losses=losses)
            finite = losses[np.isfinite(losses)]
            print(
                f"{kind} {name:20s} {finite.min():.4g} to {finite.max():.4g}, {mapper.n_not_finite_} not finite, "
                f"{time.perf_counter() - started:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
