"""Try every family of timm: what docs/families.md states.

Of each module under `timm.models` the smallest variant is built with random weights, on images as small as it takes,
and asked for its loss, gradient, one Hessian-vector product and a map of 3 × 3 points. Each family runs in a process
of its own with bounded memory and time, so that a crash is a row. A record keeps what is done, so that an interrupted
run goes on where it was::

    python -m tests.benchmarks.measure_families                  # all, then docs/families.md
    python -m tests.benchmarks.measure_families --again          # those that were refused, once more
    python -m tests.benchmarks.measure_families --only levit vgg
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.nn import functional as F

from estimators import Landscape, SurfaceMapper, load_model
from estimators.models import takes_image_size

ROOT = Path(__file__).resolve().parents[2]
TABLE, RECORD = ROOT / "docs" / "families.md", ROOT / "build" / "families.jsonl"
SIZES = (32, 64, 96, 128, 160, 224, 256, 384)
CLASSES, EXAMPLES, VARIANTS = 5, 4, 4  # variants tried where the smallest fits no size
MEMORY, SECONDS = 12 * 2**30, 900
STEPS = ("load", "loss", "gradient", "product", "map", "centre")


def all_families() -> list[str]:
    """List the modules of timm; other packages register theirs beside them."""
    return [name for name in timm.list_modules() if find_spec(f"timm.models.{name}")]


def smallest_variants(family: str, budget: float = 60.0) -> list[tuple[int, str]]:
    """List the family's architectures by number of parameters; what can't be built without memory comes last."""
    start, counted = time.monotonic(), []
    for name in timm.list_models(module=family):
        count = sys.maxsize
        if time.monotonic() - start < budget:
            try:
                with torch.device("meta"), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    count = sum(p.numel() for p in timm.create_model(name, num_classes=CLASSES).parameters())
            except Exception:  # some build tables from numbers, which the meta device does not have
                count = sys.maxsize - 1
        counted.append((count, name))
    return sorted(counted)


def build(family: str, variant: str | None = None) -> tuple[str, int, nn.Module]:
    """Load the smallest variant at the smallest image it takes; gives its name, the side in pixels and the network."""
    failed = ""
    for name in [variant] if variant else [name for _, name in smallest_variants(family)[:VARIANTS]]:
        config = timm.get_pretrained_cfg(name, allow_unregistered=True)
        own = config.input_size[-1] if config else 224
        for size in sorted({*(s for s in SIZES if s < own), own}):
            options = {"image_size": size} if takes_image_size(name) else {}
            try:
                model = load_model(name, num_classes=CLASSES, **options)
                with torch.no_grad():
                    if model(torch.zeros(2, 3, size, size)).shape == (2, CLASSES):
                        return name, size, model
                failed = "does not give scores (N, classes)"
            except Exception as error:  # another size, then
                failed = f"{type(error).__name__}: {_line(error)}"
    raise RuntimeError(f"no variant ran at any size; the last said: {failed}")


def measure(family: str, row: dict[str, Any], variant: str | None = None) -> dict[str, Any]:
    """Fill in a family's row: seconds of each step, or the reason why it could not be."""
    clock = time.monotonic()

    def done(step: str) -> None:
        nonlocal clock
        row[step] = round(time.monotonic() - clock, 2)
        clock = time.monotonic()

    name, size, model = build(family, variant)
    row |= {"variant": name, "size": size, "parameters": sum(p.numel() for p in model.parameters())}
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLES, 3, size, size, generator=generator)
    y = torch.arange(EXAMPLES) % CLASSES
    made: dict[str, Any] = {}
    clock = time.monotonic()
    for step, action in (
        ("load", lambda: Landscape(model, (x, y), batch_size=EXAMPLES)),
        ("loss", lambda: _loss(made["load"], model, x, y)),
        ("gradient", lambda: _gradient(made["load"], model, x, y)),
        ("product", lambda: _product(made["load"])),
        ("map", lambda: SurfaceMapper(resolution=3, batch_size=EXAMPLES).fit(model, (x, y))),
        ("centre", lambda: _centre(made["load"], made["map"])),
    ):
        try:
            found = action()
            if step in ("load", "map"):
                made[step] = found
            done(step)
        except Exception as error:  # whatever a family raises is its row
            row[step] = f"{type(error).__name__}: {error}"
            if step in ("load", "loss", "map"):
                break
    if "load" in made:
        row["note"] = made["load"].settings.get("derivatives", "")
    return row


def _loss(land: Landscape, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    with torch.no_grad():
        plain = F.cross_entropy(model(x), y).item()
    if not math.isclose(land.loss(), plain, rel_tol=1e-4):
        raise AssertionError(f"loss {land.loss():.6g} where the model itself has {plain:.6g}")


def _gradient(land: Landscape, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    trainable = [p for p in model.parameters() if p.requires_grad]
    parts = torch.autograd.grad(F.cross_entropy(model(x), y), trainable, allow_unused=True, materialize_grads=True)
    plain, found = torch.cat([g.reshape(-1) for g in parts]), land.gradient()
    apart = ((found - plain).norm() / plain.norm()).item()
    if not apart < 1e-2:
        raise AssertionError(f"gradient {apart:.1e} of its size from the model's own")


def _product(land: Landscape) -> None:
    v = torch.randn(land.n_parameters, generator=torch.Generator().manual_seed(1))
    product = land.hvp(v)
    if not (product.isfinite().all() and product.norm() > 0):
        raise AssertionError("the product is zero or not finite")


def _centre(land: Landscape, mapped: SurfaceMapper) -> None:
    if mapped.losses_[1, 1] != land.loss():
        raise AssertionError(f"centre {mapped.losses_[1, 1]!r}, loss {land.loss()!r}")


def _line(error: object) -> str:
    if "can't allocate memory" in str(error):
        return "needs more memory than it was allowed here"
    return (str(error).splitlines() or ["no message"])[0]


def isolated(family: str) -> dict[str, Any]:
    """Measure a family in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.measure_families", "--one", family]
    started = time.monotonic()
    row: dict[str, Any] = {"family": family}
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT)
        lines = [line for line in ended.stdout.splitlines() if line.startswith("{")]
        for line in lines:
            row |= json.loads(line)
        if ended.returncode:
            last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
            row["crash"] = f"the process ended with {ended.returncode}: {last[:300]}"
    except subprocess.TimeoutExpired:
        row["crash"] = f"took more than {SECONDS} s"
    row["seconds"] = round(time.monotonic() - started, 1)
    return row


def one(family: str) -> None:
    """Measure a family in this process, bounded, and print its row."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    row: dict[str, Any] = {"family": family}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            measure(family, row)
    except Exception as error:
        row["crash"] = f"{type(error).__name__}: {_line(error)}"
    print(json.dumps(row), flush=True)


def passed(row: dict[str, Any]) -> bool:
    """Whether every step of a row was done."""
    return all(isinstance(row.get(step), int | float) for step in STEPS)


def recorded(record: Path) -> dict[str, dict[str, Any]]:
    """Read the newest row of each family."""
    lines = record.read_text().splitlines() if record.is_file() else []
    return {row["family"]: row for row in map(json.loads, lines)}


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Write the rows as Markdown, with each refusal's reason."""
    total, good = len(rows), sum(map(passed, rows.values()))
    said = [(f, step, row[step]) for f, row in rows.items() for step in STEPS if isinstance(row.get(step), str)]
    said += [(f, "process", row["crash"]) for f, row in rows.items() if "crash" in row]
    lines = [
        "# Families of timm\n",
        f"Measured with `python -m tests.benchmarks.measure_families` (timm {timm.__version__}, torch "
        f"{torch.__version__}, float32 on a CPU). Of each module under `timm.models`: the smallest variant, random "
        f"weights, {EXAMPLES} random images as small as it takes, {CLASSES} classes. A cell is the seconds that a step "
        "took, the first of its kind included what is checked once; they say that it was done, not how fast it can be.\n",
        f"**{good} of {total} families measured do all of it.** Loss and gradient are the model's own by plain autograd (to 1e-4 "
        "and 1e-2 in float32), the product is compared with differences of gradients in float64, and the centre of "
        "the map is the loss to the last bit.\n",
        "| family | variant | weights | image | landscape | loss | gradient | product | map 3 × 3 | centre = loss |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for family, row in sorted(rows.items()):
        cells = [_cell(row.get(step)) for step in STEPS[:-1]]
        cells.append({True: "yes", False: _cell(row.get("centre"))}[isinstance(row.get("centre"), int | float)])
        size, count = row.get("size", "–"), row.get("parameters")
        count_cell = f"{count / 1e6:.1f} M" if count else "–"
        lines.append(f"| {family} | {row.get('variant', '–')} | {count_cell} | {size} | {' | '.join(cells)} |")
    lines.append("\n## What is refused, and why\n")
    lines += [f"- **{family}**, {step}: {_line(reason)}" for family, step, reason in sorted(said)] or ["Nothing."]
    missing = [family for family in all_families() if family not in rows]
    if missing:
        lines.append(f"\n## Not measured yet\n\n{', '.join(missing)}. The same command goes on with these.")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    return "–" if value is None else "refused" if isinstance(value, str) else f"{value:.1f} s"


def main() -> None:
    """Measure what is missing from the record, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="families to measure, anew")
    parser.add_argument("--again", action="store_true", help="measure anew what was refused")
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--write", action="store_true", help="write the table from the record alone")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.one:
        one(chosen.one)
        return
    rows = recorded(chosen.record)
    chosen.record.parent.mkdir(parents=True, exist_ok=True)
    families = (
        []
        if chosen.write
        else chosen.only or [f for f in all_families() if f not in rows or (chosen.again and not passed(rows[f]))]
    )
    for family in families:
        rows[family] = isolated(family)
        with chosen.record.open("a") as out:
            out.write(json.dumps(rows[family]) + "\n")
        print(family, "done" if passed(rows[family]) else rows[family], flush=True)
    chosen.table.write_text(table(rows))


if __name__ == "__main__":
    main()
