"""Run the experiments behind the lecture's claims one by one, and write what they say.

    python -m tests.benchmarks.measure_claims [NAME ...] [--memory FOLDER] [--seeds N] [--judge]

Each result is saved as docs/claims/NAME.npz with its date, versions and minutes of processor time; an experiment that has
one is not run again, and a stopped one goes on where it was (FOLDER). Then all saved results are judged by the rules of
today, into the records that are shipped with the package and docs/claims.md; ``--judge`` does only that.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from estimators import Result, load_data
from estimators.experiments import CLAIMS, SECTIONS, STUDIES, Claim, Record, Subject, read_records, write_records

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULTS = DOCS / "claims"
# the cheapest and the most asked first
ORDER = (
    "random_matrices", "rate_batch", "escape", "sam_swa", "negative_curvature", "connectivity_cases", "skips_depth",
    "norm_rate", "dropout", "widths", "shifted_data",
)  # fmt: skip


def run(name: str, memory: Path, seeds: int | None) -> None:
    """Run one experiment, or go on with it, and save its result."""
    study, unfinished = STUDIES[name], memory / f"{name}.npz"
    data, held_out = load_data("digits", n_samples=study.n_examples, split="train"), load_data("digits", split="test")
    before = Result.load(unfinished).settings["measured"]["minutes"] if unfinished.exists() else 0.0
    begun = time.process_time()

    def measured(result: Result) -> Result:
        minutes = before + (time.process_time() - begun) / 60
        names = ("loss-atlas", "torch", "timm", "numpy", "scipy")
        facts = {
            "setting": setting(name, study.n_seeds if seeds is None else seeds),
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "versions": {package: importlib.metadata.version(package) for package in names},
            "minutes": minutes,
        }
        return replace(result, settings={**result.settings, "measured": facts})

    def partial(result: Result) -> None:
        measured(result).save(unfinished)

    def progress(done: int, total: int, message: str) -> None:
        print(f"{name} {done / total:.1%} {message}", flush=True)

    result = study.run(
        Subject(study.architecture, data, held_out),
        n_seeds=study.n_seeds if seeds is None else seeds,
        memory=str(memory),
        on_progress=progress,
        on_partial=partial,
    )
    measured(result).save(RESULTS / f"{name}.npz")
    unfinished.unlink(missing_ok=True)


def setting(name: str, seeds: int) -> str:
    """Say on what an experiment is run."""
    study = STUDIES[name]
    if study.own_network:
        return f"{study.architecture}, {study.n_examples} digits to train on and 360 held out, {seeds} seeds"
    return "random symmetric matrices" if name == "random_matrices" else f"small tanh networks, {seeds} seeds"


def judge() -> dict[str, Record]:
    """Judge every saved result by the rules of today."""
    records = {}
    for file in sorted(RESULTS.glob("*.npz")):
        result, name = Result.load(file), file.stem
        facts = result.settings["measured"]
        claims = {key: tuple(rows) for key, rows in STUDIES[name].judge(result).items()}
        notes = tuple(getattr(result, "notes", ()))
        records[name] = Record(experiment=name, notes=notes, claims=claims, **facts)
    return records


def page(records: dict[str, Record]) -> str:
    """Write the table of all claims, the experiments behind it, and every design."""
    lines = [
        "# The lecture's claims\n",
        "Written by `python -m tests.benchmarks.measure_claims` from the results in `docs/claims`; every row has a script. "
        "The designs were stated before their numbers (`estimators/experiments/claims`). Verdicts are corrected for the "
        "number of rows of an experiment, and a claim has the common verdict of its rows; where it has two halves, both have "
        "to be supported. How often each rule is wrong: "
        "[verdicts](verdicts.md).\n",
        "A verdict speaks of the networks and examples it was measured on: small networks on handwritten digits.",
    ]
    for section, title in SECTIONS.items():
        lines += [
            f"\n## {section}. {title}\n",
            "| claim | quantity and contrast | claimed | n | effect (95 % interval) | row | verdict |",
            "|---|---|---|---:|---:|---|---|",
            *(row for claim in CLAIMS.values() if claim.section == section for row in rows(claim, records)),
        ]
    lines += [
        "\n## Experiments\n",
        "| experiment | run on | date | minutes | what limits it |",
        "|---|---|---|---:|---|",
    ]
    for name in ORDER:
        found = records.get(name)
        said = "not run yet | – | – | –"
        if found is not None:
            said = f"{found.setting} | {found.date} | {found.minutes:.1f} | {' '.join(found.notes) or '–'}"
        lines.append(f"| {STUDIES[name].title} (`{name}`) | {said} |")
    total = sum(record.minutes for record in records.values())
    lines.append(f"\nTogether {total:.0f} minutes of processor time, on one thread each.")
    lines += ["\n## Designs\n", *(line for claim in CLAIMS.values() for line in design(claim))]
    return "\n".join(lines) + "\n"


def rows(claim: Claim, records: dict[str, Record]) -> Iterator[str]:
    """Write the rows of one claim in the table."""
    record = records.get(claim.experiment)
    if record is None or claim.key not in record.claims:
        reason = claim.untested or f"its experiment, `{claim.experiment}`, has not been run"
        yield f"| {claim.says} | {reason} | – | – | – | – | **not tested** |"
        return
    for i, row in enumerate(record.claims[claim.key]):
        first, last = (claim.says, f"**{record.verdict(claim.key)}**") if i == 0 else ("", "")
        yield f"| {first} | {row.what} | {row.claimed} | {row.n:,} | {row.said()} | {row.verdict}: {row.reason} | {last} |"


def design(claim: Claim) -> Iterator[str]:
    """Write the design of one claim."""
    yield f"**{claim.says}** (section {claim.section}, `{claim.key}`)\n"
    for name in ("contrast", "equal", "controls", "unit", "test", "smallest", "against"):
        title = {"equal": "held equal", "smallest": "smallest effect that matters", "against": "against it"}.get(
            name, name
        )
        count = f"{claim.n:,} × " if name == "unit" and claim.n else ""
        yield f"- {title}: {count}{getattr(claim, name)}"
    yield f"- experiment: {f'`{claim.experiment}`' if claim.experiment else claim.untested}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=ORDER)
    parser.add_argument("--memory", type=Path, default=Path("claims-memory"))
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--judge", action="store_true")
    options = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    options.memory.mkdir(parents=True, exist_ok=True)
    for name in () if options.judge else options.names:
        if not (RESULTS / f"{name}.npz").exists():
            run(name, options.memory, options.seeds)
            write(judge())
    write(judge())


def write(records: dict[str, Record]) -> None:
    """Write the records that are shipped, and the page."""
    write_records(records)
    (DOCS / "claims.md").write_text(page(read_records()), encoding="utf-8")


if __name__ == "__main__":
    main()
