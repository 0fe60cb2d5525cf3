"""The speed benchmarks in ten minutes on two cores: ``make bench``, or ``python -m tests.benchmarks [--quick]``.

Prints the machine, then one table for each question, as Markdown. Every ratio comes from one process, in which the
contenders take turns. Nothing is asserted about times; what does not fit into the ten minutes is named and left out.
`--quick` only shows that everything runs: its sizes are too small to mean anything.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from tests.benchmarks.machine import Reading, describe, others, verdict

MINUTES = 9.5  # for the steps; importing and the look at the machine take the rest
# What matters most comes first: title, module, its arguments, and those of --quick.
STEPS = (
    ("A point of a surface", "bench_surfaces", "--part speed,adaptive", "--side 3 --rounds 1 --examples 32"),
    ("A Hessian-vector product", "bench_hvp_peers", "--part speed,linear --repeats 7", "--repeats 1 --samples 32"),
    ("Other networks", "bench_surfaces", "--part networks", "--side 3 --rounds 1 --examples 32"),
    ("bfloat16, and growth", "bench_surfaces", "--part bfloat16,linear", "--side 3 --rounds 1 --examples 32"),
    (
        "Products that eigenvalues take, and agreement with ARPACK",
        "bench_hvp_peers",
        "--part products,arpack --limit 150 --networks test_resnet,test_vit",
        "--limit 20 --samples 32 --networks test_resnet",
    ),
)


def run(module: str, arguments: list[str], seconds: float) -> str:
    """Run one step in a process of its own for at most `seconds`; say what went wrong, "" where nothing did."""
    if seconds <= 0:
        return "left out: the time is used up"
    try:
        code = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", f"tests.benchmarks.{module}", *arguments], timeout=seconds
        ).returncode
    except subprocess.TimeoutExpired:
        return "stopped: the time is used up"
    return f"failed with exit status {code}" if code else ""


def main() -> int:
    """Print everything; return 1 if a step failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, measures nothing")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="stop after this time")
    options = parser.parse_args()
    print(describe(), flush=True)
    if options.quick:
        print("\n**--quick: the figures below are meaningless.**", flush=True)
    before, started, failed = Reading.now(), time.monotonic(), []
    for title, module, arguments, quick in STEPS:
        print(f"\n### {title}\n", flush=True)
        chosen = arguments.split() + (quick.split() if options.quick else [])
        problem = run(module, chosen, 60 * options.minutes - (time.monotonic() - started))
        if problem:
            print(f"\n{title}: {problem}", flush=True)
        if problem.startswith("failed"):
            failed.append(title)
    share, sentence = others(before, Reading.now())
    print(f"\nTook {(time.monotonic() - started) / 60:.1f} minutes; {sentence}. The machine was {verdict(share)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
