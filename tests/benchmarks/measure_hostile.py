"""Open broken and hostile files by the thousand and write what became of them as a table for docs.

``python -m tests.benchmarks.measure_hostile [--count 400] [--out docs/hostile-files.md]`` makes `count` files of each kind
(results, checkpoints as safetensors and as torch files, images) from good ones by a fixed seed, opens each in a process
with a limit on memory and on time, and counts: lost (a value that differs and was not told), hung, raw (an error
that is not one short sentence of ours), over the memory. All of them must be 0. Nothing in a file may be run.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from tests import fuzz

SECONDS = 20.0  # for one file, on a busy machine
MEBIBYTES = 1500  # above what a process holds before the first file
LONGEST = 1000  # characters of a message
BATCH = 500  # files a process opens
CHECKSUMMED = ("results",)  # kinds whose content is told from a changed one


# ---- good files, and how each kind is opened ----


def good_files(kind: str) -> list[bytes]:
    """Give good files of a kind, as bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"good{SUFFIX[kind][0]}"
        if kind == "results":
            from estimators import SurfaceResult

            axis = np.linspace(-1, 1, 21)
            losses = np.random.default_rng(0).random((21, 21))
            SurfaceResult(axes=(axis, axis), losses=losses, notes=["a"], settings={"seed": 0}).save(path)
            return [path.read_bytes()]
        if kind == "images":
            from PIL import Image

            picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))
            made = []
            for form in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
                buffer = io.BytesIO()
                picture.save(buffer, form)
                made.append(buffer.getvalue())
            return made
        import torch

        from estimators import load_model, save_checkpoint

        state = load_model("test_resnet", num_classes=10).state_dict()
        if kind == "safetensors":
            return [save_checkpoint(path, state).read_bytes()]
        buffers = [io.BytesIO(), io.BytesIO(), io.BytesIO()]
        torch.save(state, buffers[0])
        torch.save({"state_dict": state, "epoch": 3, "args": {"lr": 0.1}}, buffers[1])
        torch.save(state, buffers[2], _use_new_zipfile_serialization=False)
        return [buffer.getvalue() for buffer in buffers]


SUFFIX = {"results": (".npz",), "safetensors": (".safetensors",), "torch": (".pt", ".pth"), "images": (".png", ".jpg")}
KINDS = tuple(SUFFIX)


def opened(kind: str, path: Path) -> Any:
    """Open a file as the product does."""
    if kind == "results":
        from estimators import Result

        return Result.load(path)
    if kind == "images":
        from estimators import load_data

        return load_data(path.parents[1], image_size=16, split="all")
    from estimators import read_checkpoint

    return read_checkpoint(path)


def same(kind: str, found: Any, wanted: Any) -> bool:
    """Tell whether what was opened is what was saved; only a checksum can promise it."""
    if kind not in CHECKSUMMED:
        return True
    return type(found) is type(wanted) and np.array_equal(found.losses, wanted.losses)


# ---- one process for many files ----


def judge(kind: str, path: Path, content: bytes, wanted: Any) -> str:
    """Open one file; say what became of it."""
    path.write_bytes(content)
    try:
        found = opened(kind, path)
    except MemoryError:
        return "over the memory"
    except ValueError as error:
        words = str(error)
        known = type(error) is not ValueError or " must " in words
        return "refused" if known and len(words) <= LONGEST and " must " in words else f"raw: {words[:120]!r}"
    except BaseException as error:
        return f"raw: {type(error).__name__}: {str(error)[:120]}"
    checked = kind != "results" or fuzz.has_checksum(content)
    return "opened" if not checked or same(kind, found, wanted) else "lost"


def serve(kind: str, folder: Path, wires: Connection) -> None:
    """Open the files that come by a wire, with a bound on memory, and answer what became of each."""
    import estimators.experiments  # noqa: F401  what opening needs is loaded before the bound is set

    place = folder / ("class_a" if kind == "images" else ".")
    place.mkdir(parents=True, exist_ok=True)
    if kind == "images":
        for name in ("class_a", "class_b"):  # a class of one good image, whatever happens to the other
            (folder / name).mkdir(exist_ok=True)
            (folder / name / "good.png").write_bytes(good_files(kind)[0])
    path = place / f"it{SUFFIX[kind][0]}"
    path.write_bytes(good_files(kind)[0])
    wanted = opened(kind, path)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEBIBYTES * 2**20, resource.RLIM_INFINITY))
    wires.send("ready")
    while (content := wires.recv()) is not None:
        start = time.perf_counter()
        answer = judge(kind, path, content, wanted)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        wires.send((answer, time.perf_counter() - start, peak))


class Worker:
    """A process that opens files; a new one takes its place when it hangs or dies."""

    def __init__(self, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="loss-atlas-hostile-"))
        context = multiprocessing.get_context("spawn")
        self.wires, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(kind, self.folder, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.wires.recv()

    def ask(self, content: bytes) -> tuple[str, float, float]:
        """Open one file there; "hung" and "died" are answers too."""
        try:
            self.wires.send(content)
            return self.wires.recv() if self.wires.poll(SECONDS) else ("hung", SECONDS, 0.0)
        except (EOFError, OSError):
            return "died", 0.0, 0.0

    def close(self) -> None:
        """End the process and remove its files."""
        self.process.kill()
        self.process.join()
        shutil.rmtree(self.folder, ignore_errors=True)


def measure(kind: str, count: int, seed: int) -> dict[str, Any]:
    """Open `count` files of a kind; count what became of them."""
    hostile: dict[str, list[Callable[[np.random.Generator], bytes]]] = {
        "results": fuzz.hostile_npz(),
        "torch": fuzz.hostile_pickles(),
    }
    told: Counter[str] = Counter()
    odd: list[str] = []
    slowest, peak, worker = 0.0, 0.0, Worker(kind)
    try:
        for number, content in enumerate(fuzz.files(good_files(kind), hostile.get(kind, []), count, seed)):
            if number and number % BATCH == 0:
                worker.close()
                worker = Worker(kind)
            answer, seconds, memory = worker.ask(content)
            slowest, peak = max(slowest, seconds), max(peak, memory)
            told[answer.partition(":")[0]] += 1
            if answer not in ("opened", "refused"):
                odd.append(f"{kind} {number}: {answer}")
            if answer in ("hung", "died"):
                worker.close()
                worker = Worker(kind)
    finally:
        worker.close()
    return {"kind": kind, "told": told, "slowest": slowest, "peak": peak, "odd": odd, "count": count}


def table(rows: list[dict[str, Any]]) -> str:
    """Write the counts as Markdown."""
    lines = [
        "| kind | files | opened | refused in a sentence | lost | hung | raw | died | over the memory | slowest, s | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        names = ("opened", "refused", "lost", "hung", "raw", "died", "over the memory")
        counts = " | ".join(str(row["told"][name]) for name in names)
        lines.append(f"| {row['kind']} | {row['count']} | {counts} | {row['slowest']:.1f} | {row['peak']:,.0f} |")
    return "\n".join(lines)


def main() -> int:
    """Print the table, and write it where asked; return 1 if a file was lost, hung, raw or took the process along."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400, help="files of each kind")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    trap = Path(fuzz.TRAP)
    trap.unlink(missing_ok=True)
    rows = [measure(kind, options.count, options.seed) for kind in options.kinds.split(",")]
    found = table(rows)
    print(found)
    for row in rows:
        print(*row["odd"], sep="\n")
    executed = trap.exists()
    print(f"Something in a file was run: {'YES' if executed else 'no'}.")
    if options.out is not None:
        words = (__doc__ or "").split("\n\n")[0]
        options.out.write_text(
            f"# Broken and hostile files\n\n{words}\nSeed {options.seed}; {SECONDS:.0f} s and {MEBIBYTES:,} MiB above the start "
            f"for each file; peak is of the whole process, torch included.\n\n{found}\n\n"
            f"Code in a file was run: {'YES' if executed else 'never'}.\n\n"
            f"Made by `python -m tests.benchmarks.measure_hostile --count {options.count}`.\n"
        )
    return int(executed or any(row["odd"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
