"""Make the exact maps that adaptive mode is tested on: ten kinds of network and plane, 41 × 41, stored as float32.

python tests/benchmarks/make_maps.py [--only NAME ...] [--folder tests/data/maps]

Every network is trained here from a fixed seed on 512 digits; losses are means over 256 of them. About five
minutes on an idle core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from estimators.data import load_data
from estimators.models import load_model
from estimators.surface._mapper import SurfaceMapper
from estimators.training import train

SIDE = 41


def plain_net(depth: int, *, norm: bool, seed: int = 0) -> nn.Module:
    """Give a stack of convolutions without skip connections."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        channels = 3
        for k in range(depth):
            width = 16 if k < depth // 2 else 32
            stride = 2 if k in (1, depth // 2) else 1
            layers.append(nn.Conv2d(channels, width, 3, stride, 1, bias=not norm))
            nn.init.kaiming_normal_(layers[-1].weight)
            layers += [nn.BatchNorm2d(width), nn.ReLU()] if norm else [nn.ReLU()]
            channels = width
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def resnet(data, seed=0, epochs=8):
    return train(load_model("test_resnet", num_classes=10, random_state=seed), data, epochs=epochs, random_state=seed)


def adam(model, data, epochs=20):
    return train(model, data, epochs=epochs, lr=2e-3, optimizer="adamw", weight_decay=0.05).model


def bn_net(data):
    return resnet(data).model, {}


def vit(data):
    return adam(load_model("test_vit", num_classes=10, image_size=32), data), {}


def convnext(data):
    return adam(load_model("test_convnext", num_classes=10), data), {}


def deep_plain(data):
    return train(plain_net(12, norm=True), data, epochs=8, lr=0.05).model, {}


def hessian(data):
    return resnet(data).model, {"directions": "hessian", "span": 2.0}


def trajectory(data):
    run = resnet(data)
    return run, {"directions": "trajectory"}


def three_models(data):
    return [resnet(data, seed).model for seed in range(3)], {"directions": "models"}


def untrained(data):
    return load_model("test_resnet", num_classes=10).eval(), {}


def overflow(data):
    """Products of ten layers leave float32 in the corners of a map this wide."""
    model = adam(plain_net(10, norm=False), data)
    probe = SurfaceMapper(resolution=3).fit(model, data.subset(32))
    for span in np.geomspace(100, 1e5, 61):
        losses = probe.evaluate([[0.75 * span, 0.75 * span], [span, span], [0.75 * span, -0.75 * span]])
        if not np.isfinite(losses).all():
            return model, {"span": float(span)}
    raise RuntimeError("no overflow found")


def valley(data):
    """The sharpest direction against one in which next to nothing happens."""
    model = resnet(data).model
    top = SurfaceMapper(directions="hessian", n_dims=1, resolution=3).fit(model, data)
    flat = SurfaceMapper(normalization=None, n_dims=1, resolution=3, random_state=5).fit(model, data)
    land = top._land
    others = [land.model_at(land.theta + 2.0 * torch.as_tensor(m.directions_[0])) for m in (top, flat)]
    return [model, *others], {"directions": "models"}


MAPS = {
    "bn_net": bn_net,
    "vit": vit,
    "convnext": convnext,
    "deep_plain": deep_plain,
    "hessian": hessian,
    "trajectory": trajectory,
    "three_models": three_models,
    "untrained": untrained,
    "overflow": overflow,
    "valley": valley,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(MAPS))
    parser.add_argument("--folder", type=Path, default=Path(__file__).parents[1] / "data" / "maps")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    data = load_data("digits", image_size=32, n_samples=512, split="train", random_state=0)
    for name in arguments.only:
        started = time.perf_counter()
        model, settings = MAPS[name](data)
        mapper = SurfaceMapper(resolution=SIDE, random_state=1, **settings).fit(model, data.subset(256))
        np.savez_compressed(
            arguments.folder / f"{name}.npz",
            losses=mapper.losses_.astype(np.float32),
            x=mapper.axes_[0].astype(np.float32),
            y=mapper.axes_[1].astype(np.float32),
        )
        finite = mapper.losses_[np.isfinite(mapper.losses_)]
        print(
            f"{name:14s} {finite.min():.4g} to {finite.max():.4g}, {mapper.n_not_finite_} not finite, "
            f"{time.perf_counter() - started:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
