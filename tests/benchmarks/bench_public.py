"""Check the product on networks and images that nobody here made.

``python -m tests.benchmarks.bench_public FOLDER`` takes the folder that holds ``cifar10/`` and ``checkpoints/``
(CIFAR-10 images as JPEG; ResNet-20 and ResNet-56 of akamaster/pytorch_resnet_cifar10). It prints accuracy and loss
on the 2,000 test images beside the values computed independently, then a map, a sharpness table, and the straight
path between ResNet-20 and itself fine-tuned on these images.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from estimators import Landscape, ModeConnector, SharpnessEstimator, SurfaceMapper, load_data, read_checkpoint, train

EXPECTED = {"resnet20": (0.8135, 0.8328), "resnet56": (0.8315, 0.8921)}
FILES = {"resnet20": "resnet20-12fca82f.th", "resnet56": "resnet56-4bfd9763.th"}
EXPECTED_GRADIENT_NORM = 6.37


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut without parameters, which strides and pads channels with zeros."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.padding = stride, (width - inside) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H', W')."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        short = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(short, (0, 0, 0, 0, self.padding, self.padding)))


class CifarResNet(nn.Module):
    """Three stages of 16, 32 and 64 channels with `depth` blocks each (He et al. 2016, section 4.2)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        for i in (1, 2, 3):
            blocks = [Block(widths[i - 1], widths[i], 1 if i == 1 else 2)]
            blocks += [Block(widths[i], widths[i], 1) for _ in range(depth - 1)]
            setattr(self, f"layer{i}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, 3, 32, 32) to scores (N, 10)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(y))).mean((2, 3)))


def load(folder: Path, name: str) -> nn.Module:
    """Read one of the public checkpoints into our own module."""
    state, notes = read_checkpoint(folder / "checkpoints" / FILES[name])
    model = CifarResNet({"resnet20": 3, "resnet56": 9}[name])
    model.load_state_dict(state)
    print(f"{name}: {', '.join(notes)}")
    return model.eval()


def main() -> None:
    """Print every check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resolution", type=int, default=21)
    options = parser.parse_args()
    cifar = options.folder / "cifar10"
    test = load_data(cifar, split="test", image_size=32)
    train_data = load_data(cifar, split="train", image_size=32)
    print(f"{len(train_data)} training and {len(test)} test images in {len(test.class_names)} classes\n")
    models = {name: load(options.folder, name) for name in FILES}
    print("\nmodel      accuracy (expected)   loss (expected)")
    for name, model in models.items():
        land = Landscape(model, test)
        accuracy, loss = EXPECTED[name]
        print(f"{name}   {land.accuracy():.4f} ({accuracy:.4f})      {land.loss():.4f} ({loss:.4f})")

    first = torch.cat([torch.nonzero(train_data.targets == c).flatten()[:50] for c in range(10)])
    few = load_data((train_data.inputs[first], train_data.targets[first]))
    land = Landscape(models["resnet20"], few)
    print(
        f"\nresnet20 on the first 50 training images of each class: loss {land.loss():.4f}, "
        f"gradient norm {float(land.gradient().norm()):.3f} ({EXPECTED_GRADIENT_NORM} expected): not stationary"
    )

    print("\nsharpness on 200 of those images")
    for name, model in models.items():
        s = (
            SharpnessEstimator(measures=("sharpness", "average", "lambda_max"), n_draws=8)
            .fit(model, few.subset(200))
            .result_
        )
        print(
            f"{name}: worst rise at rho 0.05 {s.sharpness:.4f} (one SAM step {s.one_step:.4f}), average "
            f"{s.average_sharpness:.4f} ± {s.average_sharpness_stderr:.4f}, lambda_max {s.lambda_max:.1f} "
            f"(residual {s.lambda_max_residual:.1g})"
        )

    started = time.perf_counter()
    mapper = SurfaceMapper(resolution=options.resolution).fit(models["resnet20"], few)
    losses = mapper.losses_
    print(
        f"\nmap of resnet20, {losses.shape[0]}×{losses.shape[1]}: {losses.min():.3f} to {losses.max():.3f} nats, "
        f"centre {losses[losses.shape[0] // 2, losses.shape[1] // 2]:.4f}, cosine {mapper.cosine_:.1e}, "
        f"{mapper.n_not_finite_} not finite, {time.perf_counter() - started:.0f} s"
    )

    tuned = train(models["resnet20"], train_data.subset(1000), epochs=3, lr=0.01, batch_size=100).model
    path = ModeConnector(n_points=11).fit((models["resnet20"], tuned), few, held_out=test.subset(500))
    print(
        f"straight path from resnet20 to itself fine-tuned: barrier {path.barrier_:.4f} nats, rise over the ends "
        f"{path.rise_over_endpoints_:.4f}, losses {path.losses_[0]:.3f} to {path.losses_[-1]:.3f}"
    )


if __name__ == "__main__":
    main()
