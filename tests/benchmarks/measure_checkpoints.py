"""Checkpoints broken by the thousand, and what large ones cost: counts, times and memory.

    python -m tests.benchmarks.measure_checkpoints [FILES] [SEED]

Prints the table of docs/checkpoints.md; a tenth of it runs in the tests (`tests/estimators/models/test_hostile.py`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tests.checkpoint_fuzz import counted

PEAK = r"""
import re, sys, time
from pathlib import Path
import torch
from estimators import read_checkpoint
peak = lambda: int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
begun = time.perf_counter()
state, _ = read_checkpoint(sys.argv[1])
seconds = time.perf_counter() - begun
print(f"{(peak() - before) / 2**20:.2f} {seconds:.2f}")
"""


def main() -> None:
    """Print both tables."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1200
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        counts, longest, faults = counted(Path(folder), count, seed)
        seconds = time.perf_counter() - begun
        outcomes = sorted(
            {found for _, found in counts}, key=lambda found: (found != "read", found != "refused", found)
        )
        print(f"{count} files, seed {seed}: {seconds:.1f} s, the longest {longest * 1000:.0f} ms")
        print("| kind | " + " | ".join(outcomes) + " |\n| --- |" + " ---: |" * len(outcomes))
        for kind in sorted({kind for kind, _ in counts}):
            print(f"| {kind} | " + " | ".join(str(counts[kind, found]) for found in outcomes) + " |")
        for path, found in faults[:20]:
            print(path.name, found)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.pt"
        for label, new in (("zip", True), ("before 1.6", False)):
            saved = {"state_dict": {"w": torch.zeros(2**28)}, "optimizer": {"state": {0: {"m": torch.zeros(2**28)}}}}
            torch.save(saved, path, _use_new_zipfile_serialization=new)
            done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
            peak, seconds_ = done.stdout.split()
            print(f"1 GiB of weights beside 1 GiB of an optimiser ({label}): {peak} GiB more memory, {seconds_} s")


if __name__ == "__main__":
    main()
