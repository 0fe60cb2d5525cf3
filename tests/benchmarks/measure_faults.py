"""Kill maps, trainings, averages, paths, comparisons and workers at random moments, resume, and compare bit for bit.

    python -m tests.benchmarks.measure_faults                    # all kinds, the numbers of trials below
    python -m tests.benchmarks.measure_faults --trials 3 --kinds map worker --folder /tmp/few

Every trial is a process that is killed with SIGKILL at a random moment, started again, killed again at most twice more,
and then left to end; what it gives must be what an undisturbed one gives. Trials are noted in `faults.jsonl` in the folder as
they end, so this script can be stopped too. At the end the table in `docs/faults.md` is written from all notes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRIALS = {"map": 100, "training": 50, "average": 50, "path": 50, "comparison": 50, "worker": 30, "queue": 50}
FORK = multiprocessing.get_context("fork")
HUNG = 300  # seconds without an end
PAGE = ROOT / "docs" / "faults.md"


# -- the programs: each prints the digest of what it found -------------------------------------------------


def network(width=8):
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(36 * width, 10),
    )


def examples(n=256):
    import torch

    torch.manual_seed(1)
    return torch.randn(n, 3, 8, 8), torch.arange(n) % 10


def map_(folder, n_jobs=1):
    from estimators import SurfaceMapper

    return SurfaceMapper(resolution=25, memory=str(folder), n_jobs=n_jobs).fit(network(16), examples()).losses_


def training(folder):
    import torch

    from estimators import train

    run = train(network(), examples(), epochs=40, batch_size=16, checkpoint_dir=folder, held_out=examples(64))
    return torch.cat([p.detach().reshape(-1) for p in run.model.state_dict().values()]).double().numpy()


def average(folder):
    import numpy as np

    from estimators import SWAAverager

    found = SWAAverager().train(
        network(), examples(), epochs=16, batch_size=16, held_out=examples(64), compare=True, checkpoint_dir=folder
    )
    return np.concatenate([v.double().numpy().reshape(-1) for v in found.state_dict_.values()])


def path(folder):
    import numpy as np

    from estimators import ModeConnector, train

    ends = [train(network(), examples(), epochs=1, batch_size=16, random_state=s).model for s in (0, 1)]
    found = ModeConnector(path="bezier", epochs=20, n_points=9, memory=str(folder)).fit(ends, examples())
    return np.concatenate([found.bends_.reshape(-1), found.losses_])


def comparison(folder):
    import numpy as np

    from estimators import ArchitectureComparer, load_data
    from estimators.variants import presets

    found = ArchitectureComparer(n_seeds=1, epochs=6, maps="none", measures=("average_case",), memory=str(folder)).fit(
        presets("test_resnet")["skips"], load_data("digits", image_size=32, n_samples=160)
    )
    named = [
        sorted((k, v) for k, v in row.items() if isinstance(v, float) and "seconds" not in k) for row in found.table_
    ]
    return np.array([value for row in named for _, value in row])


def worker(folder):
    return map_(folder, n_jobs=2)


def queue(folder):
    """Start the app's queue as a fresh start of the app does; ask for three jobs once, and wait for all."""
    import numpy as np

    os.environ["LOSS_ATLAS_WORKSPACE"], os.environ["LOSS_ATLAS_CACHE"] = str(folder), str(Path(folder) / "cache")
    from app.catalog import DataSpec, PointSpec
    from app.pages.averaging.page import average as average_in_the_app
    from app.pages.surface.page import map_surface
    from app.work import jobs
    from app.work.training import train as train_in_the_app
    from app.work.work import Work
    from app.workspace import library, runs
    from estimators import SurfaceMapper, SWAAverager

    data, point, training = DataSpec(n_samples=96), PointSpec(), {"epochs": 4, "batch_size": 32, "lr": 0.05}
    on = {"points": (point,), "data": data}
    asked = {
        "a": Work.of(train_in_the_app, name="a", point=point, data=data, settings=training),
        "b": Work.of(
            map_surface, estimator=SurfaceMapper(resolution=9, mode="exact", memory="default"), held_out=None, paths=[],
            marked={}, **on,
        ),
        "c": Work.of(
            average_in_the_app, estimator=SWAAverager(memory="default"), held_out=data, training=training, keep=True, **on
        ),
    }  # fmt: skip
    started = jobs.JobQueue()
    started.restore()
    known = {job.id for job in started.restored} | {run.info["job"] for run in runs.Run.every()}
    for name, work in asked.items():
        if name not in known:
            started.submit(jobs.Job("surface", name, id=name, work=work))
    started.wait(2 * HUNG)
    found = {run.title: runs.load_result(run) for run in runs.Run.every()}
    numbers = [found["a"].history["loss"], found["b"].losses.ravel(), [found["c"].row("average")["train_loss"]]]
    return np.concatenate([*numbers, [len(runs.Run.every()), len(library.list_checkpoints())]])


PROGRAMS = {
    "queue": queue,
    "map": map_,
    "training": training,
    "average": average,
    "path": path,
    "comparison": comparison,
    "worker": worker,
}


def run_program(kind, folder, answer):
    found = PROGRAMS[kind](folder)
    answer.send(hashlib.sha256(found.tobytes()).hexdigest())
    os._exit(0)  # what stays behind of an engine is no matter of this program


# -- the trials -------------------------------------------------------------------------------------------


def start(kind, folder):
    """Start a program in a process forked from this one, which has torch already; give it and where it answers."""
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=run_program, args=(kind, folder, there))
    process.start()
    there.close()
    return process, here


def wait(process, here, seconds):
    """Give the digest of a program, None where it died without one, or "running" after so many seconds."""
    if not here.poll(seconds):
        return "running"
    try:
        return here.recv()
    except EOFError:
        return None
    finally:
        process.join()


def stop(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def children(pid):
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == pid and b"LokyProcess" in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def undisturbed(kind, folder):
    """Give the digest and the seconds of a program that nobody kills."""
    shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    digest = wait(*start(kind, folder), 20 * HUNG)
    return digest, time.monotonic() - began


def kill_once(kind, folder, delay):
    """Start a program and kill it (or one of its workers); give its digest if it ended before, "hung" if it did not."""
    process, here = start(kind, folder)
    if kind == "worker":
        began = time.monotonic()
        while process.is_alive() and not children(process.pid) and time.monotonic() - began < HUNG:
            time.sleep(0.02)
        time.sleep(delay)
        for victim in children(process.pid)[:1]:
            os.kill(victim, signal.SIGKILL)
        found = wait(process, here, HUNG)
        if found == "running":
            stop(process)
            return "hung"
        return found
    found = wait(process, here, delay)
    if found == "running":
        stop(process)
        return None
    return found


def trial(kind, folder, seconds, seed):
    rng = random.Random(f"{kind} {seed}")
    shutil.rmtree(folder, ignore_errors=True)
    kills, found = 0, None
    for _ in range(rng.randint(1, 3)):
        found = kill_once(kind, folder, rng.uniform(0.0, seconds))
        if found is not None:
            break
        kills += 1
    if found is None:
        process, here = start(kind, folder)
        found = wait(process, here, HUNG)
        if found == "running":
            stop(process)
            found = "hung"
    shutil.rmtree(folder, ignore_errors=True)
    return {"kind": kind, "seed": seed, "kills": kills, "found": found}


def noted(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(notes, expected):
    rows = defaultdict(lambda: {"trials": 0, "kills": 0, "equal": 0, "lost": 0, "hung": 0})
    for note in notes:
        row = rows[note["kind"]]
        row["trials"] += 1
        row["kills"] += note["kills"]
        row["hung"] += note["found"] == "hung"
        row["equal"] += note["found"] == expected[note["kind"]]
        row["lost"] += note["found"] not in ("hung", expected[note["kind"]])
    lines = [
        "| what is killed | trials | kills | resumed, equal bit for bit | lost | hung |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    named = {"worker": "one worker of a map (loky, two)", "queue": "the app with a training, a map and an average"}
    for kind in TRIALS:
        if kind in rows:
            r = rows[kind]
            lines.append(
                f"| {named.get(kind, kind)} | {r['trials']} | {r['kills']} | {r['equal']} | {r['lost']} | {r['hung']} |"
            )
    return "\n".join(lines), rows


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/loss-atlas-faults"))
    parser.add_argument("--kinds", nargs="+", choices=TRIALS, default=list(TRIALS))
    parser.add_argument("--trials", type=int, default=None)
    parser.add_argument("--write", action="store_true", help="write the table into docs/faults.md")
    options = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":  # read when torch is loaded
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {"OMP_NUM_THREADS": "1"})
    import app.pages.surface.page  # noqa: F401
    import estimators  # noqa: F401  # so that the programs forked from here need not load them

    options.folder.mkdir(parents=True, exist_ok=True)
    file, known = options.folder / "faults.jsonl", options.folder / "undisturbed.json"
    expected = json.loads(known.read_text()) if known.exists() else {}
    for kind in options.kinds:
        if kind not in expected:
            expected[kind] = undisturbed(kind, options.folder / "undisturbed")
            known.write_text(json.dumps(expected))
        done = {note["seed"] for note in noted(file) if note["kind"] == kind}
        for seed in range(TRIALS[kind] if options.trials is None else options.trials):
            if seed not in done:
                note = trial(kind, options.folder / "trial", expected[kind][1], seed)
                with open(file, "a") as notes:
                    notes.write(json.dumps(note) + "\n")
    text, rows = table(noted(file), {kind: digest for kind, (digest, _) in expected.items()})
    print(text)
    if options.write:
        page = PAGE.read_text()
        start_, end = "<!-- table: kills -->", "<!-- end of table: kills -->"
        head, tail = page.split(start_)[0], page.split(end)[1]
        PAGE.write_text(f"{head}{start_}\n{text}\n{end}{tail}")
    return any(row["lost"] or row["hung"] for row in rows.values())


if __name__ == "__main__":
    sys.exit(main())
