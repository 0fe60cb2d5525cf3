"""Judge the stored numbers of older reports by the rules of today: docs/swa.md, docs/batch-size.md, docs/saddles.md.

    python -m tests.benchmarks.rejudge_reports

The single runs behind these tables were not kept. Their effects and intervals give the test back (the interval is
Student's over pairs), the races their share of directions; a row whose rule needs the single runs is marked. Run again it
changes nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from estimators.core.evidence.paired import PairedComparison
from estimators.core.evidence.verdicts import NOT_CLEAR, NOT_COMPARABLE, Judged, adjust, decide, judge_share

DOCS = Path(__file__).resolve().parents[2] / "docs"
UNKNOWN = "older rule: single runs not kept"
NUMBER = r"[-−+]?\d[\d.,]*(?:e[+-]?\d+)?"


def from_interval(effect: float, low: float, high: float, n: int, claimed: str, ratio: bool) -> PairedComparison:
    """Judge a mean of n paired differences by its 95 % interval (of logarithms, where it is a ratio)."""
    mean, ends = (np.log(effect), np.log([low, high])) if ratio else (effect, np.array([low, high]))
    error = float(np.ptp(ends) / 2 / stats.t.ppf(0.975, n - 1))
    verdict, reason, p = decide(float(mean), error, n - 1, claimed)
    return PairedComparison(verdict, reason, effect, low, high, ratio, n, 0.95, p=p)


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def swa(text: str) -> str:
    """Judge the eight rows of each length of training together; accuracy shares its test set over seeds."""
    row = re.compile(
        rf"^(\| (?:SWA|EMA) \| (.+?) \| (larger|smaller) \| (× )?({NUMBER}) \| (?:× )?({NUMBER}) to (?:× )?({NUMBER}) \| )(.+?) \|$",
        re.M,
    )
    for section in re.split(r"(?=^## )", text, flags=re.M):
        found = list(row.finditer(section))
        judged = adjust([from_interval(*map(number, m.group(5, 6, 7)), 10, m[3], bool(m[4])) for m in found])
        new = section
        for m, verdict in zip(found, judged, strict=True):
            said = UNKNOWN if m[2] == "held-out accuracy" and verdict.verdict != NOT_CLEAR else verdict.verdict
            new = new.replace(m[0], f"{m[1]}{said} |")
        text = text.replace(section, new)
    return text


def batch_size(text: str) -> str:
    """Judge the rows of the table together; lower bounds and bounds above 1 on both sides say nothing."""
    row = re.compile(
        rf"^(\| ([^|]+) \| ({NUMBER}) ± [^|]+\| ({NUMBER}) ± [^|]+\| ([×+]) ({NUMBER}) \(({NUMBER}) to ({NUMBER})\) \| (larger|smaller) \| )(.+?) \|$",
        re.M,
    )
    found = list(row.finditer(text))
    judged: list[Judged] = [from_interval(*map(number, m.group(6, 7, 8)), 5, m[9], m[5] == "×") for m in found]
    for i, m in enumerate(found):
        vacuous = m[2].startswith("PAC-Bayes") and min(number(m[3]), number(m[4])) > 1
        if m[2] == "worst rise" or vacuous:
            judged[i] = replace(judged[i], verdict=NOT_COMPARABLE, p=float("nan"))
    for m, verdict in zip(found, adjust(judged), strict=True):
        said = UNKNOWN if m[2] == "held-out accuracy" else verdict.verdict
        text = text.replace(m[0], f"{m[1]}{said} |")
    return text


def saddles(text: str) -> str:
    """Judge each race's mechanisms together, one direction (or one run, where nothing is random) a unit.

    Two radii along one direction are one piece of evidence: of "20 paired starts" 10 are directions. Where all or none of
    the starts were sooner, so were all or none of the directions; other shares can't be told from them.
    """
    row = re.compile(r"^\| (sgd_noise|momentum|inertia|large_step|injected_noise|adaptive) \| (.+?) \| (.+?) \|$", re.M)
    for section in re.split(r"(?=^### )", text, flags=re.M):
        found = list(row.finditer(section))
        counts = [int(n) for n in re.findall(r"of (\d+) paired starts", section)]
        n = 3 if counts and max(counts) == 3 else 10
        parts = [(m, part) for m in found for part in m[2].split("; ")]
        judged = adjust([mechanism(part, n) for _, part in parts])
        new = section
        for m in found:
            own = {v.verdict for (of, _), v in zip(parts, judged, strict=True) if of is m}
            new = new.replace(m[0], f"| {m[1]} | {m[2]} | {own.pop() if len(own) == 1 else NOT_CLEAR} |")
        text = text.replace(section, new)
    return text


def mechanism(part: str, n: int) -> Judged:
    """Judge what is stored of one optimiser."""
    left = re.search(r"left from r = 0 in (\d+)% of runs, control (\d+)%", part)
    sooner = re.search(r"sooner in (\d+)% of (\d+) paired starts", part)
    if left and left[2] == "0":
        return judge_share(round(n * int(left[1]) / 100), n)
    if sooner and sooner[1] in ("0", "100"):
        units = min(n, int(sooner[2]))
        return judge_share(units if sooner[1] == "100" else 0, units)
    return Judged(NOT_CLEAR, "directions not kept" if sooner else "nothing left")


def main() -> None:
    for name, judge in (("swa", swa), ("batch-size", batch_size), ("saddles", saddles)):
        file = DOCS / f"{name}.md"
        before = file.read_text(encoding="utf-8")
        after = judge(before)
        file.write_text(after, encoding="utf-8")
        print(
            f"{file.name}: {sum(a != b for a, b in zip(before.splitlines(), after.splitlines(), strict=True))} verdicts changed"
        )


if __name__ == "__main__":
    main()
