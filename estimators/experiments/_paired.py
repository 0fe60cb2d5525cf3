"""What experiments over seeds share: jobs that are kept one by one, groups compared seed by seed, and the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import nn

from ..cache import cached_call, check_memory, describe_module, fingerprint
from ..core.evidence.paired import PairedComparison, compare_crossed, compare_pairs
from ..core.evidence.verdicts import NAN, NOT_CLEAR, NOT_COMPARABLE, NOT_SUPPORTED, SUPPORTED, adjust
from ..models import trainable_names
from ..progress import OnProgress, subprogress
from ..results import Result, Uncertainty

Row = dict[str, Any]
_R = TypeVar("_R", bound=Result)


@dataclass(frozen=True)
class Quantity:
    """One column of the rows and what the treatment is claimed to do to it.

    Attributes
    ----------
    key : str
        Column.
    claimed : {"larger", "smaller"}
        The claim.
    ratio : bool, default=False
        Compared as a ratio.
    vacuous_from : float, default=inf
        A value from here on says nothing: a pair of two such values is left out, and without any other pair the
        quantity is not comparable.
    smallest : float, optional
        The smallest effect that matters: a difference, or with `ratio` a factor. Less is called not supported where a
        test of equivalence shows it.
    each : str, optional
        Column with the value of each held-out example, whose mean the quantity is: the interval then covers another
        draw of examples as well as of networks. Rows without it (no accuracy, an older file) are compared by `key`.
    bound : bool, default=False
        Both sides are lower bounds, whose difference or ratio is bounded by nothing: shown, and never judged.
    falls_with_loss : bool, default=False
        A curvature of the loss, which falls with the training loss itself: see `whatever_the_loss`.
    """

    key: str
    claimed: str
    ratio: bool = False
    vacuous_from: float = float("inf")
    smallest: float | None = None
    each: str | None = None
    bound: bool = False
    falls_with_loss: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class JudgedResult(Result):
    """Rows of what was measured, rows of verdicts, and what limits them."""

    rows: list[Row] = field(default_factory=list)
    claims: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False, kw_only=True)
class PairedResult(JudgedResult):
    """Rows of single runs, a verdict for each claim, and what limits the comparison.

    Attributes
    ----------
    rows : list of dict
        One a run, with its ``group`` and ``seed``.
    claims : list of dict
        One a claim: ``key``, ``claimed``, ``verdict``, ``effect``, ``low``, ``high``, ``ratio``, ``n``, ``confidence``.
    notes : list of str
        What limits the comparison.
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        "claims.low": Uncertainty("bracket", "claims.effect"),
        "claims.high": Uncertainty("bracket", "claims.effect"),
    }
    groups: ClassVar[tuple[str, ...]] = ()
    summarised: ClassVar[tuple[str, ...]] = ()

    def values(self, group: str, key: str) -> np.ndarray:
        """One column of one group, in the order of the seeds."""
        return np.array([row[key] for row in self.rows if row["group"] == group], dtype=float)

    def summary(self) -> list[Row]:
        """Mean and standard deviation over seeds, one row a quantity."""
        table = []
        for key in self.summarised:
            line: Row = {"quantity": key}
            for group in self.groups:
                line[f"{group}_mean"], line[f"{group}_std"] = mean_and_std(self.values(group, key))
            table.append(line)
        return table

    def table(self) -> list[Row]:
        """Give the rows, for a CSV."""
        return self.rows


@dataclass(frozen=True)
class Job:
    """One run: a module-level function that gives rows, what its answer is kept by, and columns that name it.

    Attributes
    ----------
    label : str
        For the progress.
    function : callable
        ``function(*arguments, on_progress) -> list of dict``.
    arguments : tuple
    key : tuple
        Everything that makes the answer.
    columns : dict
        Put before the columns of each row.
    """

    label: str
    function: Callable[..., list[Row]]
    arguments: tuple[Any, ...]
    key: tuple[object, ...]
    columns: Row


def run_jobs(
    jobs: Iterable[Job],
    n_jobs: int,
    result: Callable[[list[Row]], _R],
    *,
    memory: Any,
    on_progress: OnProgress,
    on_partial: Callable[[_R], None] | None,
) -> _R:
    """Run jobs one by one through the cache; `result` of the rows so far is told after each, and returned at the end.

    Jobs are drawn when their turn comes, so that one network is held at a time.
    """
    store = check_memory(memory)
    rows: list[Row] = []
    found = result(rows)
    for done, job in enumerate(jobs):
        step = subprogress(on_progress, done / n_jobs, (done + 1) / n_jobs, job.label)
        answer = cached_call(store, job.function, fingerprint(*job.key), *job.arguments, step)
        rows += [{**job.columns, **row} for row in answer]
        on_progress(round(1000 * (done + 1) / n_jobs), 1000, job.label)
        found = result(list(rows))
        if on_partial is not None:
            on_partial(found)
    return found


def network_key(model: nn.Module) -> tuple[object, ...]:
    """Return what tells a network before its training: structure, weights, and which parameters move."""
    return describe_module(model), trainable_names(model)


def judge_pairs(
    rows: Sequence[Row], quantities: Sequence[Quantity], treated: str, control: str, confidence: float
) -> list[Row]:
    """Judge each quantity by the differences between two groups, over the seeds that have both."""
    pairs = pairs_of(rows, treated, control)
    judged = adjust([compare_rows(pairs, q, confidence) for q in quantities], 1 - confidence)
    return [{"key": q.key, "claimed": q.claimed, **asdict(v)} for q, v in zip(quantities, judged, strict=True)]


def pairs_of(rows: Sequence[Row], treated: str, control: str) -> list[tuple[Row, Row]]:
    """Pair the runs of two groups by their seeds, the treated one first."""
    sides = [{row["seed"]: row for row in rows if row["group"] == group} for group in (treated, control)]
    return [(sides[0][seed], row) for seed, row in sides[1].items() if seed in sides[0]]


def compare_rows(pairs: Sequence[tuple[Row, Row]], q: Quantity, confidence: float) -> PairedComparison:
    """Judge one quantity by pairs of rows, the treated one first."""
    if q.each is not None and len(pairs) > 1 and all(len(row.get(q.each, ())) > 1 for pair in pairs for row in pair):
        a, b = (np.array([pair[side][q.each] for pair in pairs], dtype=float) for side in (0, 1))
        return compare_crossed(a, b, q.claimed, confidence=confidence, smallest=q.smallest)
    values = [(a[q.key], b[q.key]) for a, b in pairs]
    telling = [pair for pair in values if any(value < q.vacuous_from for value in pair)]
    found = compare_pairs(
        [a for a, _ in telling],
        [b for _, b in telling],
        q.claimed,
        confidence=confidence,
        ratio=q.ratio,
        smallest=q.smallest,
    )
    if values and found.n == 0 and np.isfinite(q.vacuous_from):
        found = replace(found, verdict=NOT_COMPARABLE, reason="every value says nothing, on both sides")
    if q.bound:
        reason = "lower bounds on both sides: their ratio has no bound"
        found = replace(found, verdict=NOT_COMPARABLE, reason=reason, p=NAN)
    if q.falls_with_loss:
        treated, control = ([_over_loss(pair[side], q.key) for pair in pairs] for side in (0, 1))
        over = compare_pairs(treated, control, q.claimed, confidence=confidence, ratio=q.ratio, smallest=q.smallest)
        found = whatever_the_loss(found, over)
    return found


def _over_loss(row: Row, key: str) -> float:
    return float(row[key] / row["train_loss"]) if row["train_loss"] else NAN


def whatever_the_loss(found: PairedComparison, over_loss: PairedComparison) -> PairedComparison:
    """Keep what holds for a curvature and for the curvature over the training loss.

    Curvature of a cross-entropy falls with the loss, since a network that is sure of its answers has little left to
    change. How steeply is not known: not at all is one end, in proportion the other, and what holds at both ends holds
    between them.
    """
    if found.verdict == over_loss.verdict:
        return replace(found, p=max(found.p, over_loss.p))
    against = {found.verdict, over_loss.verdict} == {SUPPORTED, NOT_SUPPORTED}
    reason = f"over the training loss it is {over_loss.verdict}, by itself {found.verdict}"
    return replace(found, verdict=NOT_COMPARABLE if against else NOT_CLEAR, reason=reason)


def unequal_losses(rows: Sequence[Row], groups: Sequence[str], factor: float) -> list[str]:
    """Say so where the mean training losses of the groups differ by more than a factor."""
    means = {g: np.mean([row["train_loss"] for row in rows if row["group"] == g] or [np.nan]) for g in groups}
    low, high = min(means.values()), max(means.values())
    if not (np.isfinite(high) and high > factor * low):
        return []
    listed = ", ".join(f"{group} {mean:.2g}" for group, mean in means.items())
    return [
        f"The points end at different training losses ({listed}): curvature grows or falls with the training loss "
        "too, so part of any difference is that."
    ]


def mean_and_std(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (n − 1); NaN where there are too few numbers for them."""
    nan, n = float("nan"), len(values)
    return float(np.mean(values)) if n else nan, float(np.std(values, ddof=1)) if n > 1 else nan
