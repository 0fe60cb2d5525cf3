"""What experiments gave for the claims: read from, and written to, a file that is shipped with the package."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...core.evidence.paired import PairedComparison
from ...core.evidence.ranking import judge_correlation, kendall
from ...core.evidence.verdicts import NOT_CLEAR, NOT_SUPPORTED, SUPPORTED, Verdict, adjust, combine

RECORDS = Path(__file__).with_name("records.json")
#: A row before the correction: the claim, the quantity and what is compared, what the claim asks, the judgement.
Asked = tuple[str, str, str, Verdict | PairedComparison]


def known(value: float | None) -> float | None:
    """Give a number, None where it is not one."""
    return float(value) if value is not None and np.isfinite(value) else None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One row behind a verdict.

    Attributes
    ----------
    what : str
        The quantity and what is compared.
    claimed : str
        "larger", "smaller" or "equal", or another word for what the claim asks of the row.
    verdict, reason : str
        By the rules of `estimators.core.evidence`.
    kind : {"difference", "ratio", "tau", "trend", "share"}
        What the effect is.
    n : int
        Independent units.
    effect, low, high, p : float or None
        The effect, its 95 % interval and the p-value of the test; None where unknown.
    needed : bool, default=False
        Whether the claim can't stand without this row: one of its halves.

    Examples
    --------
    >>> from estimators.experiments import Measurement, common_verdict
    >>> words = {"what": "λ_max", "claimed": "larger", "reason": "", "kind": "ratio", "n": 5}  # made up
    >>> common_verdict([Measurement(verdict=verdict, **words) for verdict in ("supported", "supported")])
    'supported'
    """

    what: str
    claimed: str
    verdict: str
    reason: str
    kind: str
    n: int
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    needed: bool = False

    @classmethod
    def of(cls, what: str, claimed: str, judged: Verdict | PairedComparison) -> Measurement:
        """Make the row of a judgement."""
        if isinstance(judged, PairedComparison):
            effect, kind, units = judged.effect, "ratio" if judged.ratio else "difference", judged.n
        else:
            effect, kind, units = judged.difference, judged.kind, min(judged.n)
        return cls(
            what=what,
            claimed=claimed,
            verdict=judged.verdict,
            reason=judged.reason,
            kind=kind,
            n=units,
            effect=known(effect),
            low=known(judged.low),
            high=known(judged.high),
            p=known(judged.p),
        )

    def said(self) -> str:
        """Give the effect and its interval in a few characters; a dash where there is none.

        Examples
        --------
        >>> from estimators.experiments import Measurement
        >>> words = {"what": "λ_max", "claimed": "larger", "verdict": "not clear here", "reason": ""}
        >>> Measurement(**words, kind="ratio", n=5, effect=1.02, low=0.57, high=1.83).said()
        '× 1.02 (0.57 to 1.83)'
        """
        if self.effect is None:
            return "–"
        sign = {"ratio": "× ", "tau": "τ = ", "trend": "τ = "}.get(self.kind, "")
        form = ("+" if self.kind == "difference" else "") + ".3g"
        interval = "" if self.low is None or self.high is None else f" ({self.low:{form}} to {self.high:{form}})"
        return (sign + f"{self.effect:{form}}" + interval).replace("-", "−")


def judge_together(asked: Sequence[Asked]) -> dict[str, list[Measurement]]:
    """Correct all rows of one experiment for their number and give them by claim."""
    verdicts = adjust([judged for *_, judged in asked])
    found: dict[str, list[Measurement]] = {}
    for (claim, what, claimed, _), verdict in zip(asked, verdicts, strict=True):
        found.setdefault(claim, []).append(Measurement.of(what, claimed, verdict))
    return found


def rows_of(judged: Mapping[str, Sequence[Measurement]]) -> list[dict[str, Any]]:
    """Give one row for each measurement with its claim, as a result keeps them."""
    return [{"claim": claim, **asdict(row)} for claim, rows in judged.items() for row in rows]


def judge_ranks(x: np.ndarray, y: np.ndarray, claimed: str, units: Sequence[object] | None = None) -> Verdict:
    """Judge a rank correlation over independent units, which are what it counts."""
    found = kendall(x, y, units=units)
    return replace(judge_correlation(found, claimed), n=(found.units, found.units))


def common_verdict(rows: Sequence[Measurement]) -> str:
    """Give one verdict for all rows of a claim: theirs if those that are clear agree, see `combine`.

    Where a claim has halves, the rows that are needed have to be supported, every one.
    """
    missing = {row.verdict for row in rows if row.needed} - {SUPPORTED}
    if missing:
        return NOT_SUPPORTED if NOT_SUPPORTED in missing else missing.pop() if len(missing) == 1 else NOT_CLEAR
    return combine([row.verdict for row in rows])


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one experiment gave.

    Attributes
    ----------
    experiment : str
        Name in `STUDIES`.
    setting : str
        On what it was run, in words.
    date : str
        Day it ended, as in 2026-11-27.
    versions : dict of str
        Of what computed.
    minutes : float
        Of processor time.
    notes : tuple of str
        What limits it.
    claims : dict of str to tuple of Measurement
        The rows of each claim it tests.

    Examples
    --------
    >>> from estimators.experiments import read_records
    >>> all(record.claims for record in read_records().values())
    True
    """

    experiment: str
    setting: str
    date: str
    versions: dict[str, str]
    minutes: float
    notes: tuple[str, ...]
    claims: dict[str, tuple[Measurement, ...]]

    def verdict(self, claim: str) -> str:
        """Give the verdict on a claim."""
        return common_verdict(self.claims[claim])


def read_records(path: Path = RECORDS) -> dict[str, Record]:
    """Read the records by the name of their experiment."""
    return _read(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _read(path: Path, _written: int) -> dict[str, Record]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return {row["experiment"]: _record(row) for row in found}


def _record(row: dict[str, Any]) -> Record:
    claims = {key: tuple(Measurement(**one) for one in rows) for key, rows in row["claims"].items()}
    return Record(**{**row, "notes": tuple(row["notes"]), "claims": claims})


def write_records(records: Mapping[str, Record], path: Path = RECORDS) -> None:
    """Write the records, in the order of their names."""
    rows = [asdict(records[name]) for name in sorted(records)]
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
