"""The lecture's statements about architecture and landscape, judged on the rows of a comparison.

Pure functions over rows (dictionaries): one row a training run, with the keys that `ArchitectureComparer`
writes. The statements are ours; the section numbers are those of the lecture they come from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..core.evidence.paired import compare_pairs
from ..core.evidence.ranking import RankCorrelation, judge_correlation, kendall
from ..core.evidence.verdicts import (
    NOT_COMPARABLE,
    NOT_TESTED,
    Verdict,
    adjust,
    combine,
    compare_groups,
    compare_ratios,
    compare_training,
    judge_trend,
)

Row = dict[str, Any]
TRAINS = 0.5  # training accuracy from which a run counts as having trained
COMPARABLE = 0.1  # difference in mean training accuracy up to which two sides count as minima of one kind
SHARPNESS_MEASURES = ("lambda_max", "trace", "sharpness", "average_sharpness", "basin_width", "convex_share")
_RATIOS = ("lambda_max", "trace", "sharpness", "average_sharpness")
_TRAINING_MEASURES = ("train_loss", "held_out_accuracy")


@dataclass(frozen=True)
class Claim:
    """One statement and how it is measured.

    Attributes
    ----------
    key : str
        Identifier, also of its text in the app.
    section : str
        Sections of the lecture.
    element : str
        What has to differ between two otherwise equal variants: a key of `ELEMENTS`, "width" or "rank".
    measures : tuple of (str, str)
        Quantity and claimed direction, "larger" or "smaller", for the side with the element. Worst-case sharpness is
        none of them: it is a lower bound on both sides.
    statement : str
        The claim in one sentence.
    """

    key: str
    section: str
    element: str
    measures: tuple[tuple[str, str], ...]
    statement: str


CLAIMS = (
    Claim(
        "flat_generalises",
        "3",
        "rank",
        (("lambda_max", "larger"), ("average_sharpness", "larger")),
        "Sharper minima generalise worse.",
    ),
    Claim(
        "skips_trainable",
        "5, 7",
        "skips",
        (("train_loss", "smaller"), ("held_out_accuracy", "larger")),
        "Skip connections make a deep network trainable.",
    ),
    Claim(
        "skips_smooth",
        "5, 7",
        "skips",
        (("basin_width", "larger"), ("convex_share", "larger"), ("lambda_max", "smaller")),
        "Skip connections give a wide, smooth basin.",
    ),
    Claim(
        "batch_sharp",
        "5",
        "large batch",
        (("lambda_max", "larger"), ("average_sharpness", "larger")),
        "Large batches lead to sharper minima.",
    ),
    Claim(
        "batch_generalises",
        "5",
        "large batch",
        (("gap", "larger"), ("held_out_accuracy", "smaller")),
        "Minima found with large batches generalise worse.",
    ),
    Claim(
        "norm_curvature",
        "7",
        "norm",
        (("lambda_max", "smaller"), ("trace", "smaller")),
        "Normalisation keeps the curvature down.",
    ),
    Claim(
        "norm_learning_rate",
        "7",
        "norm × learning rate",
        (("train_loss", "smaller"), ("held_out_accuracy", "larger")),
        "Normalisation allows a larger learning rate.",
    ),
    Claim(
        "dropout_flat",
        "7",
        "dropout",
        (("lambda_max", "smaller"), ("average_sharpness", "smaller"), ("basin_width", "larger")),
        "Dropout leads to flatter minima.",
    ),
    Claim(
        "width_easy",
        "7",
        "width",
        (("train_loss", "smaller"), ("held_out_accuracy", "larger")),
        "More parameters make training easier.",
    ),
)


def _change(row: Row, name: str) -> str | None:
    return next((c for c in row["changes"] if c.partition("=")[0] == name), None)


def _has_dropout(row: Row) -> bool:
    change = _change(row, "with_dropout")
    return change is not None and any(float(p) > 0 for p in (change.partition("=")[2] or "0.3").split(","))


def width_factor(row: Row) -> float:
    """Give the width factor of a row's variant; 1 where the width was not changed."""
    change = _change(row, "with_width")
    return 1.0 if change is None else float(change.partition("=")[2] or 2.0)


def _batch_size(row: Row) -> int:
    return int(row["training"]["batch_size"])


@dataclass(frozen=True)
class _Element:
    present: Callable[[Row], bool]
    changes: tuple[str, ...]


ELEMENTS: dict[str, _Element] = {
    "skips": _Element(lambda row: _change(row, "without_skips") is None, ("without_skips",)),
    "norm": _Element(lambda row: _change(row, "without_norm") is None, ("without_norm",)),
    "dropout": _Element(_has_dropout, ("with_dropout",)),
}


def _rest(row: Row, changes: Iterable[str], settings: Iterable[str]) -> str:
    """All that two variants must share to be compared, as a key."""
    kept = sorted(c for c in row["changes"] if c.partition("=")[0] not in changes)
    training = {k: v for k, v in row["training"].items() if k not in settings}
    return json.dumps([row["architecture"], kept, training], sort_keys=True)


def plain(value: Any) -> dict[str, Any]:
    """Give a dataclass's fields with None for an unknown number, so that rows compare and become JSON."""
    fields = asdict(value)
    return {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in fields.items()}


def _groups(rows: Sequence[Row], changes: Iterable[str], settings: Iterable[str]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_rest(row, changes, settings), []).append(row)
    return list(groups.values())


def _pairs(rows: Sequence[Row], element: str) -> list[tuple[list[Row], list[Row]]]:
    """Rows with and without the element, one pair for each set of otherwise equal variants."""
    pairs: list[tuple[list[Row], list[Row]]] = []
    if element == "large batch":
        # Equal training loss is reached after different numbers of epochs, so those may differ.
        for group in _groups(rows, (), ("batch_size", "epochs")):
            sizes = sorted({_batch_size(row) for row in group})
            if len(sizes) > 1:
                large, small = ([r for r in group if _batch_size(r) == s] for s in (sizes[-1], sizes[0]))
                pairs.append((large, small))
        return pairs
    what = ELEMENTS[element]
    for group in _groups(rows, what.changes, ()):
        sides = [r for r in group if what.present(r)], [r for r in group if not what.present(r)]
        if all(sides):
            pairs.append(sides)
    return pairs


def _values(rows: Sequence[Row], measure: str) -> list[float]:
    return [float("nan") if row[measure] is None else float(row[measure]) for row in rows]


def _comparable(pair: tuple[list[Row], list[Row]]) -> bool:
    means = [
        np.nanmean(v) if np.isfinite(v).any() else np.nan
        for v in (np.array(_values(side, "train_accuracy")) for side in pair)
    ]
    return bool(abs(means[0] - means[1]) <= COMPARABLE)


def _judge_pair(pair: tuple[list[Row], list[Row]], measure: str, claimed: str) -> Verdict:
    sides = _values(pair[0], measure), _values(pair[1], measure)
    if measure in _TRAINING_MEASURES:
        return compare_training(*sides, claimed)
    verdict = (compare_ratios if measure in _RATIOS else compare_groups)(*sides, claimed)
    if min(verdict.n) > 0 and not _comparable(pair):
        reason = "the two sides fit the training examples differently well, so their minima can't be compared"
        return replace(verdict, verdict=NOT_COMPARABLE, reason=reason, p=float("nan"))
    return verdict


def _judge(claim: Claim, rows: Sequence[Row], measure: str, claimed: str, gap: str) -> list[Verdict]:
    if claim.element == "rank":
        trained = [row for row in rows if row["status"] == "ok"]
        return [judge_correlation(_rank(trained, measure, gap), claimed)]
    if claim.element == "width":
        groups = [g for g in _groups(rows, ("with_width",), ()) if len({width_factor(r) for r in g}) > 2]
        return [judge_trend([width_factor(r) for r in g], _values(g, measure), claimed) for g in groups]
    if claim.element == "norm × learning rate":
        return [_judge_rates(pairs, measure, claimed) for pairs in _by_rate(_pairs(rows, "norm"))]
    return [_judge_pair(pair, measure, claimed) for pair in _pairs(rows, claim.element)]


_Pair = tuple[list[Row], list[Row]]


def _by_rate(pairs: Sequence[_Pair]) -> list[list[_Pair]]:
    """Pairs that differ in nothing but the learning rate, ascending in it."""
    families: dict[str, list[_Pair]] = {}
    for pair in sorted(pairs, key=lambda pair: pair[0][0]["training"]["lr"]):
        families.setdefault(_rest(pair[0][0], (), ("lr",)), []).append(pair)
    return list(families.values())


def _judge_rates(pairs: Sequence[_Pair], measure: str, claimed: str) -> Verdict:
    """Judge that the element lets a network train at a rate where it otherwise fails: an interaction, not a difference.

    The network without it has to train at some lower rate. Then the difference that the element makes at the largest
    rate is held against the difference it makes at that lower one, seed by seed.
    """
    nan = float("nan")
    if len(pairs) < 2:
        reason = "one learning rate: a rate that is allowed and one that is not take two"
        return Verdict(NOT_TESTED, reason, nan, nan, nan, (0, 0))
    high = pairs[-1]
    low = next((pair for pair in reversed(pairs[:-1]) if _trains(pair[1])), None)
    if low is None or not _trains(low[0]):
        reason = "without it no lower rate trains either, so that this is not about the rate"
        return Verdict(NOT_COMPARABLE, reason, nan, nan, nan, (0, 0))
    if any(not np.isfinite(v) for side in high for v in _values(side, measure)):
        return compare_training(_values(high[0], measure), _values(high[1], measure), claimed)
    gains = []
    for pair in (high, low):
        sides = [{row["seed"]: row for row in side} for side in pair]
        gains.append({s: float(sides[0][s][measure]) - float(sides[1][s][measure]) for s in sides[0] if s in sides[1]})
    seeds = [s for s in gains[0] if s in gains[1]]
    found = compare_pairs([gains[0][s] for s in seeds], [gains[1][s] for s in seeds], claimed)
    return Verdict(found.verdict, found.reason, found.effect, found.low, found.high, (found.n, found.n), p=found.p)


def _trains(side: Sequence[Row]) -> bool:
    """Whether most runs trained."""
    accuracies = [row["train_accuracy"] for row in side]
    return float(np.mean([a is not None and a >= TRAINS for a in accuracies])) > 0.5


def _rank(trained: Sequence[Row], measure: str, gap: str, random_state: int = 0) -> RankCorrelation:
    """Rank trained runs; seeds of one variant are not independent evidence beside another variant's."""
    values = (np.array(_values(trained, name)) for name in (measure, gap))
    return kendall(*values, units=[_rest(row, (), ()) for row in trained], random_state=random_state)


def judge_claims(rows: Sequence[Row], gap: str = "gap") -> list[dict[str, Any]]:
    """Judge every claim that the rows can say something about.

    Two variants are compared where they differ in nothing but the claim's element (for batch size also in
    the number of epochs). Curvature is compared only between sides whose mean training accuracy differs by at
    most 0.1: a network that did not train is not a flat or a sharp minimum.

    Parameters
    ----------
    rows : sequence of dict
        `ArchitectureComparer.table_`.
    gap : {"gap", "accuracy_gap"}, default="gap"
        What sharpness has to rank.

    Returns
    -------
    list of dict
        One for each claim with at least one measurement: key, section, statement, verdict (the measurements'
        common verdict, "not clear here" where they disagree) and measurements (a list: measure, claimed,
        kind ("difference", "ratio", "tau", "trend" or "share"), verdict, reason, difference, low, high, n, p; None
        where unknown). Verdicts are corrected for the number of measurements in the table, see `adjust`.
    """
    found = [
        (claim, measure, claimed, verdict)
        for claim in CLAIMS
        for measure, claimed in claim.measures
        if any(row[measure] is not None for row in rows)  # asked for, and a run trained
        for verdict in _judge(claim, rows, measure, claimed, gap)
    ]
    verdicts = adjust([verdict for *_, verdict in found])
    judged = []
    for claim in CLAIMS:
        measurements = [
            {"measure": measure, "claimed": claimed, **plain(verdict)}
            for (own, measure, claimed, _), verdict in zip(found, verdicts, strict=True)
            if own is claim
        ]
        if measurements:
            verdict = combine([m["verdict"] for m in measurements])
            judged.append(
                {
                    "key": claim.key,
                    "section": claim.section,
                    "statement": claim.statement,
                    "verdict": verdict,
                    "measurements": measurements,
                }
            )
    return judged


def rank_measures(rows: Sequence[Row], gap: str = "gap", random_state: int = 0) -> list[dict[str, Any]]:
    """Rank correlation of each sharpness measure with the generalisation gap over all trained runs.

    Parameters
    ----------
    rows : sequence of dict
        `ArchitectureComparer.table_`.
    gap : {"gap", "accuracy_gap"}, default="gap"
        Held-out less training loss, or training less held-out accuracy.
    random_state : int, default=0
        Seed of the bootstrap.

    Returns
    -------
    list of dict
        measure, gap, tau, low, high (95 % bootstrap interval over runs; None where unknown), n.

    References
    ----------
    Jiang et al. (2020), "Fantastic Generalization Measures and Where to Find Them".
    """
    trained = [row for row in rows if row["status"] == "ok"]
    ranked = []
    for measure in SHARPNESS_MEASURES:
        ranked.append({"measure": measure, "gap": gap, **plain(_rank(trained, measure, gap, random_state))})
    return ranked
