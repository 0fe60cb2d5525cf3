"""A map by joblib's workers against the plain loop: seconds, equality, bytes sent; and what a task costs a scheduler.

    python -m tests.benchmarks.measure_workers               # 29 × 29 of test_vit and test_resnet, loky and dask, 2 workers
    python -m tests.benchmarks.measure_workers --tiny        # the same on 7 × 7 and few examples, for correctness
    python -m tests.benchmarks.measure_workers --tasks 8     # tasks a second with 2, 4 and 8 processes

One thread a process everywhere (OMP_NUM_THREADS=1 is set anew where it is not). Run it on a machine that does nothing else; the table says how loaded it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import sys
import time
from contextlib import ExitStack, contextmanager

import cloudpickle
import joblib
import numpy as np
import torch

from estimators import Landscape, load_data, load_model, workers
from estimators.core.planes.directions import random_directions
from estimators.points import evaluate_points
from estimators.workers import Parcel, spread


def problem(name, n_examples):
    model = load_model(name, num_classes=10, **({"image_size": 32} if "vit" in name else {}))
    land = Landscape(model, load_data("digits", image_size=32, n_samples=n_examples))
    directions = random_directions(land.theta, land.shapes, land.names, torch.Generator().manual_seed(0))
    return land, torch.stack([land.theta, *directions])


def lattice(side):
    line = np.linspace(-1, 1, side)
    return np.array([(1.0, x, y) for x in line for y in line])


@contextmanager
def backend(name, n_workers):
    with ExitStack() as stack:
        if name == "dask":
            import distributed

            logging.getLogger("distributed").setLevel(logging.ERROR)
            options = {"n_workers": n_workers, "threads_per_worker": 1, "dashboard_address": None}
            stack.enter_context(distributed.Client(processes=True, **options))
        stack.enter_context(joblib.parallel_config(backend=name, n_jobs=n_workers))
        yield


@contextmanager
def counted():
    """Count the pickled bytes of tasks (without the parcel, which goes once a worker)."""
    sizes, original = [], workers.delayed

    def counting(function):
        def job(what, parcel, item):
            sizes.append(len(cloudpickle.dumps((what, getattr(parcel, "token", None), item))))
            return original(function)(what, parcel, item)

        return job

    workers.delayed = counting
    try:
        yield sizes
    finally:
        workers.delayed = original


def measure(name, engine, n_workers, side, n_examples, repeats):
    land, anchors = problem(name, n_examples)
    table = lattice(side)
    serial = []
    for _ in range(repeats):
        began = time.perf_counter()
        expected = evaluate_points(land, anchors, table)
        serial.append(time.perf_counter() - began)
    with backend(engine, n_workers), counted() as sizes:
        began = time.perf_counter()
        found = evaluate_points(land, anchors, table, n_jobs=n_workers)
        first = time.perf_counter() - began  # with the start of the processes and the building in each
        warm = []
        for _ in range(repeats):
            began = time.perf_counter()
            found = evaluate_points(land, anchors, table, n_jobs=n_workers)
            warm.append(time.perf_counter() - began)
        parcel = land.parcel[1]
        parcel_bytes = parcel.size or len(cloudpickle.dumps(parcel))
    content = sum(p.nbytes for p in land._template.parameters()) + sum(b.nbytes for b in land._template.buffers())
    content += land.data.inputs.nbytes + land.data.targets.nbytes + anchors.nbytes
    return {
        "network": name,
        "engine": engine,
        "workers": n_workers,
        "points": len(table),
        "serial_s": round(statistics.median(serial), 3),
        "first_s": round(first, 3),
        "warm_s": round(statistics.median(warm), 3),
        "speedup_warm": round(statistics.median(serial) / statistics.median(warm), 2),
        "speedup_first": round(statistics.median(serial) / first, 2),
        "equal": bool(np.array_equal(found.losses, expected.losses)),
        "parcel_over_content": round(parcel_bytes / content, 3),
        "largest_task_bytes": max(sizes),
        "tasks_a_map": round(len(sizes) / (repeats + 1)),
    }


def nothing(content, item):
    return item


def tasks_a_second(engine, n_workers, n_tasks=2000):
    with backend(engine, n_workers):
        list(spread(nothing, Parcel(None), range(4 * n_workers), n_workers))
        began = time.perf_counter()
        list(spread(nothing, Parcel(None), range(n_tasks), n_workers))
        return n_tasks / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--tasks", type=int, default=0)
    parser.add_argument("--engines", nargs="+", default=["loky", "dask"])
    parser.add_argument("--networks", nargs="+", default=["test_resnet", "test_vit"])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when torch is loaded, and inherited by the workers
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"OMP_NUM_THREADS": "1"})
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0], "torch": torch.__version__}))
    if options.tasks:
        counts = [n for n in (2, 4, 8, 16) if n <= options.tasks]
        for engine in options.engines:
            for n in counts:
                print(json.dumps({"engine": engine, "workers": n, "tasks_a_second": round(tasks_a_second(engine, n))}))
        return 0
    side, examples, repeats = (7, 64, 1) if options.tiny else (29, 512, 3)
    rows = []
    for name in options.networks:
        for engine in options.engines:
            rows.append(measure(name, engine, options.workers, side, examples, repeats))
            print(json.dumps(rows[-1]), flush=True)
    short = [r for r in rows if not r["equal"] or r["parcel_over_content"] > 1.2 or r["largest_task_bytes"] > 100_000]
    slow = [] if options.tiny else [r for r in rows if r["speedup_warm"] < 1.6]
    print("all equal and within the bytes" if not short else f"FALLS SHORT: {short}")
    if slow:
        print("below 1.6 × serial:", [(r["network"], r["engine"], r["speedup_warm"]) for r in slow])
    return bool(short)


if __name__ == "__main__":
    sys.exit(main())
