"""Peak memory of a map, in multiples of the network's parameters, above what was there before `fit`.

python -m tests.benchmarks.measure_memory [resnet18] [--resolution 3 9]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")


def status(field):
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index(f"{field}:") + 1]) * 1024


def reset_peak():
    Path("/proc/self/clear_refs").write_text("5")


def child(name, resolution, n_examples, batch_size):
    import torch

    from estimators import SurfaceMapper, load_data, load_model

    torch.set_num_threads(1)
    model = load_model(name, num_classes=10).eval()
    data = load_data("digits", image_size=32, n_samples=n_examples)
    parameters = sum(p.nbytes for p in model.parameters())
    with torch.no_grad():
        model(data.inputs[:2])  # what torch sets up once
        before = status("VmRSS")
        reset_peak()
        model.to(memory_format=torch.channels_last)(data.inputs[:batch_size].to(memory_format=torch.channels_last))
        activations = status("VmHWM") - before
    model.to(memory_format=torch.contiguous_format)
    before = status("VmRSS")
    reset_peak()
    SurfaceMapper(resolution=resolution, batch_size=batch_size).fit(model, data)
    above = status("VmHWM") - before
    print(
        json.dumps(
            {
                "network": name,
                "resolution": resolution,
                "parameters_MB": round(parameters / 1e6, 1),
                "activations_MB": round(activations / 1e6, 1),
                "peak_above_before_MB": round(above / 1e6, 1),
                "times_parameters": round((above - activations) / parameters, 2),
                "peak_MB": round(status("VmHWM") / 1e6, 1),
            }
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="resnet18")
    parser.add_argument("--resolution", type=int, nargs="+", default=[3, 5])
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--child", action="store_true")
    options = parser.parse_args()
    if options.child:
        child(options.network, options.resolution[0], options.examples, options.batch)
        return
    for resolution in options.resolution:  # each in a process of its own: peaks of one would hide in another's
        command = [sys.executable, "-m", "tests.benchmarks.measure_memory", options.network, "--child"]
        command += ["--examples", str(options.examples), "--batch", str(options.batch), "--resolution", str(resolution)]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
