"""The machine that a benchmark ran on, and whether anything else ran beside it.

``python -m tests.benchmarks.machine`` prints the table that `make bench` starts with.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = (
    "torch", "timm", "numpy", "loss-landscapes", "loss-landscape-3d", "landscaper", "pyhessian",
    "hessian-eigenthings", "curvlinops-for-pytorch",
)  # fmt: skip
FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "bfloat16 in AVX-512",
    "amx_bf16": "bfloat16 in AMX",
    "bf16": "bfloat16",  # aarch64
}
LOADED = 0.05  # of all processors, used by others
NOT_HERE = "cannot be read on this system"


@dataclass(frozen=True)
class Reading:
    """Seconds since the machine started: wall clock, processors busy, taken by other guests, and spent by us."""

    wall: float
    busy: float
    stolen: float
    own: float

    @classmethod
    def now(cls) -> Reading | None:
        """Read the counters of Linux; None elsewhere."""
        try:
            first = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
        except OSError:
            return None
        user, nice, system, _, _, irq, softirq, steal = (int(v) / os.sysconf("SC_CLK_TCK") for v in first)
        spent = os.times()  # children count once they have ended and been waited for
        own = spent.user + spent.system + spent.children_user + spent.children_system
        return cls(time.monotonic(), user + nice + system + irq + softirq, steal, own)


def others(before: Reading | None, after: Reading | None) -> tuple[float, str]:
    """Share of all processors that others used between two readings (NaN where unknown), and a sentence on it."""
    if before is None or after is None:
        return float("nan"), NOT_HERE
    available = (after.wall - before.wall) * (os.cpu_count() or 1)
    busy = max((after.busy - before.busy) - (after.own - before.own), 0.0) / available
    stolen = (after.stolen - before.stolen) / available
    return busy + stolen, f"other processes used {busy:.0%} of the processors, other guests took {stolen:.0%}"


def verdict(share: float) -> str:
    """Say whether times taken beside this load mean anything."""
    if share > LOADED:
        return f"LOADED: others took {share:.0%} of the processors. These times mean little: repeat on an idle machine."
    return "idle" if share <= LOADED else "load unknown"


def processor() -> tuple[str, str]:
    """Name of the processor and the instructions that matter here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), NOT_HERE
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    has = ", ".join(name for flag, name in FLAGS.items() if flag in flags)
    without = [] if "avx512f" in flags else ["no AVX-512"]
    without += [] if any("bf16" in flag for flag in flags) else ["no bfloat16 instructions"]
    return fields.get("model name", platform.machine()), ", ".join(filter(None, [has, *without]))


def version(package: str) -> str:
    """Name and version of an installed package."""
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{package} not installed"


def commit() -> str:
    """Commit of this checkout, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"


def describe(seconds: float = 2.0) -> str:
    """Table of the machine as Markdown; watches for `seconds` what others use."""
    import torch

    before = Reading.now()
    time.sleep(seconds)
    share, sentence = others(before, Reading.now())
    name, instructions = processor()
    load = f"load average {os.getloadavg()[0]:.2f} over the last minute" if hasattr(os, "getloadavg") else NOT_HERE
    rows = {
        "processor": f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads in torch",
        "instructions": f"{instructions}; torch uses {torch.backends.cpu.get_cpu_capability()}",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(version(package) for package in PACKAGES),
        "Loss Atlas": commit(),
        "before the run": f"{load}; {sentence}",
        "machine": verdict(share),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in rows.items())])


if __name__ == "__main__":
    print(describe())
