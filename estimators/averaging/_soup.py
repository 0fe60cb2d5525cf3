"""What a soup asks of its members: how high the barriers between them are, and which of them to keep."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from torch import Tensor

from ..core.means.averages import greedy_soup
from ..progress import OnProgress
from ._checkpoints import Members
from ._evaluation import GAP, Evaluator


def pairwise_barriers(evaluator: Evaluator, members: Members, n_points: int, report: OnProgress) -> np.ndarray:
    """Barrier on the straight line between each two members, (K, K), symmetric with a zero diagonal."""
    table = np.zeros((len(members), len(members)))
    pairs = list(combinations(range(len(members)), 2))
    for done, (i, j) in enumerate(pairs):
        a, b = evaluator.land.point(members[i]), evaluator.land.point(members[j])
        table[i, j] = table[j, i] = evaluator.barrier(a, b, n_points)
        report(done + 1, len(pairs), f"barrier between {members.names[i]} and {members.names[j]}")
    return table


def remarks_on_barriers(barriers: np.ndarray, names: Sequence[str], greedy: bool) -> list[str]:
    """Say between which members the highest barrier lies, where it is high enough to matter."""
    if not barriers.size:
        return []
    high = np.where(np.isfinite(barriers), barriers, np.inf)
    i, j = divmod(int(high.argmax()), len(high))
    if high[i, j] <= GAP:
        return []
    apart = " Greedy choice leaves such members out." if greedy else ""
    return [
        f"A barrier of {high[i, j]:.2g} lies between {names[i]} and {names[j]}: the mean of such members lies "
        f"on it.{apart}"
    ]


def choose_members(
    evaluator: Evaluator, members: Members, rows: list[dict[str, Any]], score: str, buffers: frozenset[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Build a greedy soup, and write into the members' rows what was decided about each.

    Returns
    -------
    average : dict of str to Tensor
        The soup.
    notes : list of str
        What a person should know.
    """
    notes = []
    where = "train" if evaluator.outside is None else "held_out"
    if score == "accuracy" and any(np.isnan(row[f"{where}_accuracy"]) for row in rows):
        score = "loss"
        notes.append("Targets that are not classes have no accuracy: members were chosen by their loss.")
    sign = 1.0 if score == "accuracy" else -1.0
    average, verdicts = greedy_soup(
        members,
        lambda state: sign * evaluator.values(evaluator.land.point(state))[f"{where}_{score}"],
        buffers=buffers,
        scores=[sign * row[f"{where}_{score}"] for row in rows],
    )
    kept = sum(v.kept for v in verdicts)
    for order, verdict in enumerate(verdicts):
        rows[verdict.member] |= {
            "order": order,
            "kept": verdict.kept,
            "share": 1 / kept if verdict.kept else 0.0,
            "score": sign * verdict.score,
            "soup_score": sign * verdict.soup_score,
        }
    notes.append(
        "Members were chosen on the training data; give held_out to choose by generalisation."
        if evaluator.outside is None
        else "Members were chosen on the held-out data: the soup's held-out numbers are optimistic."
    )
    return average, notes
