"""Make the landscape that Home shows: three small networks and the plane through them.

Three timm ``test_resnet`` are trained on the digits shipped with scikit-learn from different seeds; the loss is then
measured on a grid in the only plane that holds all three. Run it again with ``python assets/make_demo.py``; it takes
about two minutes on two cores and writes ``assets/demo_surface.npz`` and the copy inside the package.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from estimators import Landscape, load_data, load_model, train
from estimators.surface import SurfaceMapper

HERE = Path(__file__).resolve().parent
TARGET = HERE / "demo_surface.npz"
COPY = HERE.parent / "app" / "static" / "demo_surface.npz"
NAMES = ("A", "B", "C")


def main() -> None:
    """Train, map, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=57)
    options = parser.parse_args()
    data = load_data("digits", image_size=32, n_samples=512, split="train", random_state=0)
    everything = load_data("digits", image_size=32, n_samples=None, split="train", random_state=0)
    held_out = load_data("digits", image_size=32, n_samples=None, split="test", random_state=0)
    models = []
    for seed in range(3):
        start = load_model("test_resnet", num_classes=10, image_size=32, random_state=seed)
        models.append(train(start, everything, epochs=8, batch_size=64, lr=0.1, random_state=seed).model)
    mapper = SurfaceMapper(directions="models", resolution=options.resolution, batch_norm="recompute", verbose=1)
    mapper.fit(models, data)
    result = mapper.result_
    coordinates = mapper.transform(models)
    lands = [Landscape(model, data, batch_norm="recompute") for model in models]
    markers = [
        {"label": name, "x": round(float(x), 4), "y": round(float(y), 4), "loss": float(f"{land.loss():.4g}")}
        for name, (x, y), land in zip(NAMES, coordinates, lands, strict=True)
    ]
    accuracies = [Landscape(model, held_out).accuracy() for model in models]
    notes = {
        "loss": max(marker["loss"] for marker in markers),
        "accuracy": min(accuracies),
        "markers": markers,
        "axis_titles": list(result.axis_titles),
    }
    np.savez_compressed(
        TARGET,
        axis_0=np.asarray(result.axes[0], np.float32),
        axis_1=np.asarray(result.axes[1], np.float32),
        losses=np.asarray(result.losses, np.float32),
        accuracies=np.asarray(result.accuracies, np.float32),
        notes=np.array(json.dumps(notes)),
    )
    shutil.copyfile(TARGET, COPY)
    print(
        f"{TARGET}: {TARGET.stat().st_size / 1024:.0f} KiB, loss {result.losses.min():.3g} to {result.losses.max():.3g}"
    )


if __name__ == "__main__":
    main()
