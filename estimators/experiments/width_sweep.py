"""Over-parameterisation: the same network at several widths, and what happens to its minima.

For each width: parameters for each training example, the training loss that is reached, the share of seeds at
almost zero loss, λ_max, and the barrier on the straight line between seeds after their units were matched
(Entezari et al. 2022 conjecture that wide networks have none; Ainsworth et al. 2023 measure it).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.utils._param_validation import Interval

from .. import cache
from ..architectures import (
    COMPARABLE,
    QUICK,
    MeasureSettings,
    RunOutcome,
    Task,
    build,
    describe_settings,
    mean_and_spread,
    plain,
    run_all,
)
from ..base import ParallelEstimator
from ..connectivity import ModeConnector
from ..core.evidence.verdicts import NOT_COMPARABLE, Verdict, adjust, judge_trend
from ..data import Examples, load_data
from ..progress import OnProgress, ignore_progress, subprogress
from ..results import Result
from ..variants import Variant

Row = dict[str, Any]
QUANTITIES = ("train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy", "gap", "lambda_max")
# (key, section, quantity, claimed direction as the width grows, statement)
CLAIMS = (
    ("width_easy", "7", ("train_loss", "smaller"), "More parameters make training easier."),
    (
        "width_connected",
        "7",
        ("barrier", "smaller"),
        "Wide networks reach minima that are joined without a barrier.",
    ),
    (
        "width_equal",
        "7",
        ("held_out_accuracy_spread", "smaller"),
        "The minima of wide networks perform alike.",
    ),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class WidthSweepResult(Result):
    """A width sweep.

    Attributes
    ----------
    factors : ndarray of shape (n_widths,)
        Width factors, ascending.
    table : list of dict
        One row a training: factor, seed, status, n_parameters, parameters_per_example and `QUANTITIES`.
    barriers : list of dict
        One row a pair of seeds: factor, seeds, barrier (nats; None where it couldn't be measured) and why.
    summary : list of dict
        One row a width: means and `_spread` (standard deviation over seeds, None for one), zero_share (seeds
        at or below `zero_level`), barrier (mean over pairs) and barrier_spread.
    claims : list of dict
        The lecture's statements on over-parameterisation, judged.

    Examples
    --------
    >>> import numpy as np
    >>> from tempfile import TemporaryDirectory
    >>> from estimators import Result
    >>> from estimators.experiments import WidthSweepResult
    >>> table = [{"factor": 0.5, "seed": 0, "train_loss": 0.25}]  # made up; `WidthSweep` measures it
    >>> result = WidthSweepResult(factors=np.array([0.5]), table=table, barriers=[], summary=[], claims=[])
    >>> with TemporaryDirectory() as folder:
    ...     Result.load(result.save(f"{folder}/sweep.npz")).table == table
    True
    """

    factors: np.ndarray
    table: list[Row]
    barriers: list[Row]
    summary: list[Row]
    claims: list[Row]


@dataclass(kw_only=True, eq=False, repr=False)
class WidthSweep(ParallelEstimator):
    """Train one architecture at several widths from several seeds.

    Parameters
    ----------
    factors : tuple of float, default=(0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
        Width factors, see `with_width`.
    n_seeds : int, default=3
        Trainings of each width; barriers are measured between neighbouring seeds.
    epochs : int, default=8
        Training budget.
    stop_at_loss : float or None, default=None
        End a training once its training loss is this low, to compare minima of equal loss; `epochs` is then the most it
        may take, and how easy training is shows in the epochs it took.
    zero_level : float, default=0.01
        Training loss (nats) up to which a seed counts as at zero.
    n_points : int, default=11
        Positions on each line between two seeds.
    align : None or "weights", default="weights"
        Match the units of the second network to the first before the line is drawn.
    loss, batch_size, device, precision, batch_norm, memory, n_jobs, random_state, verbose
        As everywhere. On the line statistics of batch norm are re-estimated, whatever `batch_norm` is.

    Attributes
    ----------
    factors_, table_, barriers_, summary_, claims_
        See `WidthSweepResult`.
    result_ : WidthSweepResult

    Examples
    --------
    >>> from estimators import load_data
    >>> from estimators.experiments import WidthSweep
    >>> data, held_out = load_data("digits", n_samples=48), load_data("digits", split="test", n_samples=16)
    >>> sweep = WidthSweep(factors=(0.125, 0.25), n_seeds=2, epochs=1, n_points=3)
    >>> sweep = sweep.fit("test_resnet", data, held_out=held_out)
    >>> [(row["factor"], row["seeds"]) for row in sweep.barriers_]
    [(0.125, [0, 1]), (0.25, [0, 1])]
    """

    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
    n_seeds: int = 3
    epochs: int = 8
    stop_at_loss: float | None = None
    zero_level: float = 0.01
    n_points: int = 11
    align: str | None = "weights"

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "factors": [tuple, list],
        "n_seeds": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "stop_at_loss": [Interval(Real, 0, None, closed="neither"), None],
        "zero_level": [Interval(Real, 0, None, closed="left")],
        "n_points": [Interval(Integral, 3, None, closed="left")],
        "align": [str, None],
    }

    def fit(
        self,
        architecture: str,
        data: Any,
        *,
        held_out: Any,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[WidthSweepResult], None] | None = None,
    ) -> WidthSweep:
        """Train every width from every seed, then measure the lines between seeds.

        Parameters
        ----------
        architecture : str
            A timm name whose width can be set, see `with_width`.
        data, held_out : Examples, (inputs, targets), Dataset or DataLoader
            Training and held-out examples.
        on_progress, on_partial : callable, optional
            As in `ArchitectureComparer.fit`; `on_partial` gets a `WidthSweepResult`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For factors that are not positive or not distinct, or an architecture without a width to set.
        """
        factors = self._check()
        examples, others = load_data(data), load_data(held_out)
        report = self._progress(on_progress, "width sweep")
        tasks = self._tasks(architecture, factors, examples, others)
        total = len(tasks) + (self.n_seeds - 1) * len(factors)
        outcomes: list[RunOutcome] = []
        barriers: list[Row] = []

        def result() -> WidthSweepResult:
            return self._result(factors, outcomes, barriers, architecture, examples)

        for outcome in run_all(tasks, self.n_jobs, subprogress(report, 0.0, len(tasks) / total)):
            outcomes.append(outcome)
            if on_partial is not None:
                on_partial(result())
        for group in (tasks[i : i + self.n_seeds] for i in range(0, len(tasks), self.n_seeds)):
            for first, second in pairwise(range(len(group))):
                done = len(tasks) + len(barriers)
                share = subprogress(report, done / total, (done + 1) / total)
                offset = tasks.index(group[0])
                pair = outcomes[offset + first], outcomes[offset + second]
                barriers.append(self._barrier(group[first], pair, share))
                if on_partial is not None and done + 1 < total:
                    on_partial(result())
        self._publish(result())
        return self

    def _check(self) -> tuple[float, ...]:
        factors = tuple(sorted(float(f) for f in self.factors))
        if not factors or min(factors) <= 0 or len(set(factors)) < len(factors):
            raise ValueError(f"factors must be distinct numbers above 0, got {self.factors!r}. Use (0.5, 1, 2), say.")
        return factors

    def _tasks(self, architecture: str, factors: Sequence[float], data: Examples, held_out: Examples) -> list[Task]:
        measures = MeasureSettings(("largest_eigenvalue",), replace(QUICK, random_state=self.random_state))
        tasks = []
        for factor in factors:
            variant = Variant(f"width × {factor:g}", architecture, (f"with_width={factor:g}",))
            tasks += [
                Task(
                    variant=variant,
                    seed=self.random_state + number,
                    training=variant.settings(epochs=self.epochs, stop_at_loss=self.stop_at_loss),
                    data=data,
                    held_out=held_out,
                    options=self._options(),
                    measures=measures,
                    map=None,
                    memory=cache.check_memory(self.memory),
                )
                for number in range(self.n_seeds)
            ]
        for task in tasks[:: self.n_seeds]:
            build(task)  # an architecture without a width to set is said before anything is trained
        return tasks

    def _barrier(self, task: Task, pair: tuple[RunOutcome, RunOutcome], on_progress: OnProgress) -> Row:
        seeds = [outcome.row["seed"] for outcome in pair]
        row: Row = {"factor": _factor(pair[0].row), "seeds": seeds, "barrier": None, "why": ""}
        if any(outcome.state is None for outcome in pair):
            return {**row, "why": "a network did not train"}
        models = [build(task), build(task)]
        for model, outcome in zip(models, pair, strict=True):
            model.load_state_dict(outcome.state or {})
        networks = [cache.describe_module(model) for model in models]
        key = cache.fingerprint(networks, task.data.fingerprint, self.n_points, self.align, task.options)
        on_progress(0, 1, f"{task.variant.name}, line between seeds {seeds[0]} and {seeds[1]}")
        barrier = cache.cached_call(task.memory, _line, key, models, task, self.n_points, self.align, on_progress)
        on_progress(1, 1, "")
        return {**row, "barrier": barrier}

    def _result(
        self,
        factors: Sequence[float],
        outcomes: Sequence[RunOutcome],
        barriers: Sequence[Row],
        architecture: str,
        data: Examples,
    ) -> WidthSweepResult:
        rows = []
        for outcome in outcomes:
            kept = ("seed", "status", "n_parameters", "parameters_per_example", "epochs_run", *QUANTITIES)
            rows.append({"factor": _factor(outcome.row), **{k: outcome.row[k] for k in kept}})
        summary = summarise_widths(rows, barriers, self.zero_level)
        return WidthSweepResult(
            factors=np.array(factors),
            table=rows,
            barriers=list(barriers),
            summary=summary,
            claims=judge_width(rows, summary, "train_loss" if self.stop_at_loss is None else "epochs_run"),
            settings=describe_settings(self.get_params(), data, architecture=architecture),
        )


def _factor(row: Row) -> float:
    return float(row["changes"][0].partition("=")[2])


def _line(
    models: Sequence[Any],
    task: Task,
    n_points: int,
    align: str | None,
    on_progress: OnProgress = ignore_progress,
) -> float | None:
    options = {k: v for k, v in task.options.items() if k != "batch_norm"}
    connector = ModeConnector(
        path="linear", align=align, n_points=n_points, compare=False, batch_norm="recompute", **options
    )
    barrier = float(connector.fit(models, task.data, on_progress=on_progress).barrier_)
    return barrier if np.isfinite(barrier) else None


def summarise_widths(rows: Sequence[Row], barriers: Sequence[Row], zero_level: float) -> list[Row]:
    """Give one row a width, see `WidthSweepResult.summary`."""
    summary = []
    for factor in sorted({row["factor"] for row in rows}):
        own = [row for row in rows if row["factor"] == factor]
        line: Row = {
            "factor": factor,
            "n": len(own),
            "n_failed": sum(row["status"] != "ok" for row in own),
            "n_parameters": own[0]["n_parameters"],
            "parameters_per_example": own[0]["parameters_per_example"],
            "zero_share": float(
                np.mean([row["train_loss"] is not None and row["train_loss"] <= zero_level for row in own])
            ),
        }
        for quantity in QUANTITIES:
            line |= mean_and_spread(own, quantity)
        summary.append(line | mean_and_spread([b for b in barriers if b["factor"] == factor], "barrier"))
    return summary


def judge_width(rows: Sequence[Row], summary: Sequence[Row], effort: str = "train_loss") -> list[Row]:
    """Judge the lecture's statements on over-parameterisation by their trend with the width.

    The effort of training is ranked over runs. Barriers and the spread of the accuracy are ranked over widths, because
    pairs that share a network and the parts of one standard deviation are not independent; and only over widths that
    fit the training examples about as well as the best (mean accuracy within `COMPARABLE`): a network that did not
    train is at no minimum that could be joined to another, or perform like it.

    Parameters
    ----------
    rows, summary : sequence of dict
        As in `WidthSweepResult`.
    effort : {"train_loss", "epochs_run"}, default="train_loss"
        What is smaller where training is easy: the loss after one number of epochs, or the epochs to one loss.

    Returns
    -------
    list of dict
        As `judge_claims` gives them; "not comparable" with fewer than four widths at minima.
    """
    reached = [line["train_accuracy"] for line in summary if line["train_accuracy"] is not None]
    at_minima = [
        line
        for line in summary
        if line["train_accuracy"] is not None and line["train_accuracy"] >= max(reached) - COMPARABLE
    ]
    asked = [(effort if quantity == "train_loss" else quantity, claimed) for _, _, (quantity, claimed), _ in CLAIMS]
    found = [_trend(rows if quantity == effort else at_minima, quantity, claimed) for quantity, claimed in asked]
    return [
        {
            "key": key,
            "section": section,
            "statement": statement,
            "verdict": verdict.verdict,
            "measurements": [{"measure": quantity, "claimed": claimed, **plain(verdict)}],
        }
        for (key, section, _, statement), (quantity, claimed), verdict in zip(CLAIMS, asked, adjust(found), strict=True)
    ]


def _trend(source: Sequence[Row], quantity: str, claimed: str) -> Verdict:
    kept = [row for row in source if row[quantity] is not None]
    found = judge_trend([row["factor"] for row in kept], [row[quantity] for row in kept], claimed)
    if quantity not in ("train_loss", "epochs_run") and len(kept) < 4:
        reason = "fewer than four widths fit the training examples about as well as the best"
        return replace(found, verdict=NOT_COMPARABLE, reason=reason)
    return found
