"""Time averaging ten resnet18 checkpoints against reading their files.

    python tests/benchmarks/measure_averaging_speed.py

Both are repeated in turns and the best of each is taken, so that a busy machine slows both alike.
"""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from pathlib import Path

import torch

from estimators import load_model, read_checkpoint, save_checkpoint
from estimators.averaging._checkpoints import Members
from estimators.core.means.averages import RunningMean


def main(n: int = 10, rounds: int = 7) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        model = load_model("resnet18", num_classes=1000)
        buffers = frozenset(name for name, _ in model.named_buffers())
        paths = [Path(folder) / f"{i}.safetensors" for i in range(n)]
        for i, path in enumerate(paths):
            generator = torch.Generator().manual_seed(i)
            state = {
                k: v + 0.01 * torch.randn(v.shape, generator=generator) if v.is_floating_point() else v
                for k, v in model.state_dict().items()
            }
            save_checkpoint(path, state)
        megabytes = sum(path.stat().st_size for path in paths) / 2**20

        def read() -> None:
            for path in paths:
                path.read_bytes()

        def touch() -> None:
            for path in paths:
                for tensor in read_checkpoint(path)[0].values():
                    tensor.sum()

        def average() -> None:
            mean = RunningMean(buffers)
            for state in Members(paths, model):
                mean.update(state)
            mean.state()

        best = {read: float("inf"), touch: float("inf"), average: float("inf")}
        for _ in range(rounds):
            for work in best:
                begun = time.perf_counter()
                work()
                best[work] = min(best[work], time.perf_counter() - begun)
        tracemalloc.start()
        average()
        _, peak = tracemalloc.get_traced_memory()
    bytes_s, touch_s, mean_s = best.values()
    print(
        f"{n} checkpoints of resnet18, {megabytes:.0f} MiB: reading the bytes {1000 * bytes_s:.0f} ms, mapping the "
        f"files and summing every tensor {1000 * touch_s:.0f} ms, averaging {1000 * mean_s:.0f} ms "
        f"({mean_s / bytes_s:.2f} and {mean_s / touch_s:.2f} times); Python heap {peak / 2**20:.1f} MiB"
    )


if __name__ == "__main__":
    main()
