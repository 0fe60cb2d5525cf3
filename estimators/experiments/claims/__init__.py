"""Every claim of the lecture: how it is tested, written down before the numbers, and what was measured.

One file a section holds the designs; `records.json`, which `tests/benchmarks/measure_claims.py` writes, holds what the
experiments gave.
"""

from . import _architecture, _averaging, _connectivity, _escape, _flatness, _pictures, _stationary
from ._claim import Claim
from ._record import (
    Asked,
    Measurement,
    Record,
    common_verdict,
    judge_ranks,
    judge_together,
    known,
    read_records,
    rows_of,
    write_records,
)

SECTIONS = {
    1: "Stationary points",
    2: "Saddles and how to leave them",
    3: "Flat and sharp minima",
    4: "Mode connectivity",
    5: "Pictures of the landscape",
    6: "Weight averaging",
    7: "Architecture",
}
CLAIMS: dict[str, Claim] = {
    claim.key: claim
    for section in (_stationary, _escape, _flatness, _connectivity, _pictures, _averaging, _architecture)
    for claim in section.CLAIMS
}

__all__ = [
    "CLAIMS",
    "SECTIONS",
    "Asked",
    "Claim",
    "Measurement",
    "Record",
    "common_verdict",
    "judge_ranks",
    "judge_together",
    "known",
    "read_records",
    "rows_of",
    "write_records",
]
