"""Learning rate over batch size: whether the ratio decides how flat a minimum is, or the batch size itself.

Networks that start from the same weights are trained on a grid of batch sizes and of ratios rate/batch until the
training loss is the same. The grid tells two things apart that a comparison of batch sizes at one rate changes
together: the ratio at one batch size, and the batch size at one ratio (Jastrzębski et al. 2018; Smith & Le 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from torch import nn

from ..checks import check_seed
from ..core.evidence.paired import PairedComparison, compare_pairs
from ..core.evidence.verdicts import adjust
from ..data import Examples
from ..progress import OnProgress, ignore_progress
from ..sharpness import SharpnessEstimator
from ._paired import Job, PairedResult, Quantity, Row, compare_rows, run_jobs
from .batch_size import Runs, check_runs, measuring_with

#: What a smaller ratio, and a larger batch at the same ratio, are claimed to do. Factors of 1.5 and a point of accuracy
#: are the smallest effects that matter.
QUANTITIES = (
    Quantity("lambda_max", "larger", ratio=True, smallest=1.5, falls_with_loss=True),
    Quantity("trace", "larger", ratio=True, smallest=1.5, falls_with_loss=True),
    Quantity("average_sharpness", "larger", ratio=True, smallest=1.5, falls_with_loss=True),
    Quantity("held_out_accuracy", "smaller", smallest=0.01, each="held_out_correct"),
)
CURVATURES = tuple(q for q in QUANTITIES if q.ratio)
CONTRASTS = ("ratio", "batch", "both", "exponent of the ratio", "exponent of the batch")
UNEQUAL = 1.5  # factor between mean training losses from which two cells are not at the same loss


@dataclass(frozen=True, eq=False, kw_only=True)
class RateBatchResult(PairedResult):
    """Rows of single runs on the grid, and a verdict for each contrast and quantity.

    Attributes
    ----------
    rows : list of dict
        One training run: ``batch_size``, ``ratio`` (rate over batch size), ``lr``, ``seed``, ``epochs``, ``reached``,
        losses and accuracies on both sets, every measure with its error, and ``held_out_correct``, 1 for each held-out
        example the network has right.
    claims : list of dict
        One a contrast and quantity: ``contrast`` (one of `CONTRASTS`), ``key``, ``claimed``, ``verdict``, ``reason``,
        ``effect``, ``low``, ``high``, ``ratio``, ``n``, ``confidence``, ``p``.
    batches : list of int
    ratios : list of float
        The grid, ascending.

    Examples
    --------
    >>> from estimators.experiments import RateBatchResult
    >>> rows = [{"batch_size": b, "ratio": 1e-3, "seed": 0, "trace": 40.0} for b in (16, 64)]
    >>> RateBatchResult(rows=rows, batches=[16, 64], ratios=[1e-3]).cell(64, 1e-3)[0]["trace"]  # made up
    40.0
    """

    batches: list[int] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def cell(self, batch_size: int, ratio: float) -> list[Row]:
        """Give the runs of one cell of the grid, in the order of the seeds."""
        return _cell(self.rows, batch_size, ratio)


def rate_batch_experiment(
    make_model: Callable[[int], nn.Module],
    data: Examples,
    held_out: Examples,
    *,
    batches: Sequence[int] = (16, 64, 256),
    ratios: Sequence[float] = (2e-4, 8e-4, 3.2e-3),
    n_seeds: int = 5,
    target_loss: float = 0.05,
    epochs: int = 200,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    estimator: SharpnessEstimator | None = None,
    confidence: float = 0.95,
    memory: Any = None,
    random_state: int | None = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[RateBatchResult], None] | None = None,
) -> RateBatchResult:
    """Train on a grid of batch sizes and ratios to one training loss, measure, and tell the two apart.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``, freshly initialised; all cells of a seed start from the same weights.
    data, held_out : Examples
        What is trained and measured on, and what generalisation is measured on.
    batches : sequence of int, default=(16, 64, 256)
        Batch sizes.
    ratios : sequence of float, default=(2e-4, 8e-4, 3.2e-3)
        Learning rate over batch size; a cell's learning rate is their product.
    n_seeds : int, default=5
        Seeds, the independent units; an interval needs at least 2.
    target_loss : float, default=0.05
        Training stops when the mean loss over the training examples (cross-entropy) is at or below it.
    epochs : int, default=200
        Most epochs; a run that has not reached the target by then is left out of every contrast, with its pair.
    momentum, weight_decay : float
        Of SGD; no weight decay by default, so that only the loss decides where training ends.
    estimator : SharpnessEstimator, optional
        Settings of the measures; its ``measures`` are set by the experiment.
    confidence : float, default=0.95
        Level of each interval; verdicts are corrected for the number of rows.
    memory : None, str or joblib.Memory
        Finished runs are kept there, so a cancelled experiment goes on where it was.
    random_state : int or None, default=0
        First seed, None draws one.
    on_progress, on_partial : callable, optional
        Progress, and the result so far after each run.

    Returns
    -------
    RateBatchResult
        Contrasts: "ratio" holds the smallest against the largest ratio, averaged over batch sizes (in the logarithm,
        seed by seed); "batch" the largest batch against the smallest, averaged over ratios; "both" the largest batch
        against the smallest at one learning rate, as the claim is usually tested; the exponents are those of
        measure ∝ ratio^a · batch^b, fitted to each seed's grid, with an interval over seeds.

    Raises
    ------
    ValueError
        If an argument is not allowed.

    References
    ----------
    Jastrzębski et al. (2018), "Three Factors Influencing Minima in SGD"; Smith & Le (2018), "A Bayesian Perspective on
    Generalization and Stochastic Gradient Descent".
    """
    sizes, levels = sorted(set(batches)), sorted(set(ratios))
    _check(sizes, levels, n_seeds, target_loss, len(data))
    first = check_seed(random_state)
    budget = {"epochs": epochs, "momentum": momentum, "weight_decay": weight_decay}
    measuring = measuring_with(estimator, ("average", "lambda_max", "trace"))
    runs = Runs(make_model, data, held_out, target_loss, budget, measuring)
    settings = {**runs.settings(n_seeds, first), "schedule": "constant"}

    def jobs() -> Iterator[Job]:
        for seed in range(first, first + n_seeds):
            for size in sizes:
                for level in levels:
                    label = f"seed {seed}, batch {size}, rate/batch {level:.3g}"
                    yield runs.job(label, seed, size, level * size, ratio=level)

    def result(rows: list[Row]) -> RateBatchResult:
        claims, notes = judge(rows, sizes, levels, confidence)
        return RateBatchResult(
            settings=settings, rows=rows, claims=claims, notes=notes, batches=list(sizes), ratios=list(levels)
        )

    n_jobs = n_seeds * len(sizes) * len(levels)
    return run_jobs(jobs(), n_jobs, result, memory=memory, on_progress=on_progress, on_partial=on_partial)


def judge(
    rows: Sequence[Row], batches: Sequence[int], ratios: Sequence[float], confidence: float = 0.95
) -> tuple[list[Row], list[str]]:
    """Judge every contrast by runs that reached the training loss; the seed is the unit.

    Parameters
    ----------
    rows : sequence of dict
        As in `RateBatchResult`.
    batches, ratios : sequence of float
        The grid, ascending.
    confidence : float, default=0.95

    Returns
    -------
    claims : list of dict
        As in `RateBatchResult`.
    notes : list of str
        What limits them.
    """
    good = [row for row in rows if row["reached"]]
    small, large = batches[0], batches[-1]
    found: list[tuple[str, Quantity, PairedComparison]] = []
    at = {b: _average(good, [(b, r) for r in ratios]) for b in (small, large)}
    of = {r: _average(good, [(b, r) for b in batches]) for r in (ratios[0], ratios[-1])}
    for quantity in QUANTITIES:
        found.append(("ratio", quantity, compare_rows(_pairs(of[ratios[0]], of[ratios[-1]]), quantity, confidence)))
        equal = replace(quantity, claimed="equal")
        found.append(("batch", equal, compare_rows(_pairs(at[large], at[small]), equal, confidence)))
    shared = [(r, r * large / small) for r in ratios if any(np.isclose(r * large / small, q) for q in ratios)]
    if shared:
        low, high = shared[-1]
        high = min(ratios, key=lambda q: abs(q - high))
        both = _pairs(_average(good, [(large, low)]), _average(good, [(small, high)]))
        found += [("both", q, compare_rows(both, q, confidence)) for q in QUANTITIES]
    for quantity in CURVATURES:
        powers = _exponents(good, quantity.key, batches, ratios)
        margin = float(np.log(quantity.smallest or 1.0) / np.log(large / small))
        zero = np.zeros(len(powers))
        tests = (("exponent of the ratio", "smaller", None), ("exponent of the batch", "equal", margin))
        for column, (name, claimed, smallest) in enumerate(tests):
            exponent = compare_pairs(
                powers[:, column].tolist(), zero.tolist(), claimed, confidence=confidence, smallest=smallest
            )
            found.append((name, replace(quantity, claimed=claimed), exponent))
    judged = adjust([v for *_, v in found], 1 - confidence)
    claims = [
        {"contrast": contrast, "key": q.key, "claimed": q.claimed, **asdict(v)}
        for (contrast, q, _), v in zip(found, judged, strict=True)
    ]
    return claims, _notes(rows, batches, ratios)


def _cell(rows: Sequence[Row], batch_size: int, ratio: float) -> list[Row]:
    return [row for row in rows if row["batch_size"] == batch_size and row["ratio"] == ratio]


def _average(rows: Sequence[Row], cells: Sequence[tuple[int, float]]) -> dict[int, Row]:
    """Average the quantities of one seed over cells, in the logarithm where they are compared as ratios."""
    averaged = {}
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for b, r in cells for row in _cell(rows, b, r) if row["seed"] == seed]
        if len(own) == len(cells):  # a cell that did not train leaves its seed out: no other cells stand for it
            keys = ["train_loss", *(q.key for q in CURVATURES)]
            logs = {key: float(np.exp(np.mean(np.log([row[key] for row in own])))) for key in keys}
            correct = np.mean([row["held_out_correct"] for row in own], axis=0)
            averaged[seed] = {**logs, "held_out_correct": correct, "held_out_accuracy": float(np.mean(correct))}
    return averaged


def _pairs(treated: dict[int, Row], control: dict[int, Row]) -> list[tuple[Row, Row]]:
    return [(treated[seed], control[seed]) for seed in control if seed in treated]


def _exponents(rows: Sequence[Row], key: str, batches: Sequence[int], ratios: Sequence[float]) -> np.ndarray:
    """Exponents of the ratio and of the batch size for each seed with a whole grid, shape (n, 2)."""
    fitted = []
    for seed in sorted({row["seed"] for row in rows}):
        own = [row for row in rows if row["seed"] == seed]
        if len(own) == len(batches) * len(ratios):
            design = np.array([[1.0, np.log(row["ratio"]), np.log(row["batch_size"])] for row in own])
            fitted.append(np.linalg.lstsq(design, np.log([row[key] for row in own]), rcond=None)[0][1:])
    return np.array(fitted).reshape(-1, 2)


def _notes(rows: Sequence[Row], batches: Sequence[int], ratios: Sequence[float]) -> list[str]:
    notes = []
    missed = [
        f"batch {b}, rate/batch {r:.3g} ({sum(not row['reached'] for row in _cell(rows, b, r))})"
        for b in batches
        for r in ratios
        if any(not row["reached"] for row in _cell(rows, b, r))
    ]
    if missed:
        notes.append(
            f"Runs that did not reach the training loss, left out with their pairs: {', '.join(missed)}. "
            "Raise epochs, or lower the ratio."
        )
    losses = [
        float(np.mean([row["train_loss"] for row in cell if row["reached"]]))
        for cell in (_cell(rows, b, r) for b in batches for r in ratios)
        if any(row["reached"] for row in cell)
    ]
    if losses and max(losses) > UNEQUAL * min(losses):
        notes.append(
            f"Training stops below the target, at mean losses of {min(losses):.2g} to {max(losses):.2g} over the "
            "cells: curvature grows with the training loss too, so part of any difference is that."
        )
    return notes


def _check(sizes: Sequence[int], levels: Sequence[float], n_seeds: int, target_loss: float, n: int) -> None:
    if len(sizes) < 2 or not sizes[0] >= 1 or sizes[-1] > n:
        raise ValueError(
            f"batches must be two or more sizes from 1 to the number of examples ({n}), got {list(sizes)!r}. "
            "Use for example (16, 64, 256)."
        )
    if len(levels) < 2 or not levels[0] > 0:
        raise ValueError(f"ratios must be two or more numbers above 0, got {list(levels)!r}. Use (2e-4, 8e-4, 3.2e-3).")
    check_runs(n_seeds, target_loss)
