"""Run the speed benchmarks, one after the other, each in its own process: ``make bench``."""

import subprocess
import sys

for module in ("bench_surfaces", "bench_hvp_peers"):
    print(f"\n== {module}\n", flush=True)
    subprocess.run([sys.executable, "-m", f"tests.benchmarks.{module}"], check=True)
