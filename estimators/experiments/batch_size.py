"""Small batches against large ones: whether their minima are flatter and generalise better.

Networks that start from the same weights are trained with a small and with a large batch until the training
loss is the same, over several seeds; then everything the claim speaks of is measured. The verdict on each
claim is a paired interval over seeds, never an assumption (Keskar et al. 2017 report the claim; Dinh et al.
2017 and Andriushchenko et al. 2023 report where it fails).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from torch import nn

from ..checks import check_seed
from ..core.evidence.ranking import judge_correlation, kendall
from ..data import Examples
from ..landscape import Landscape
from ..models import count_parameters
from ..progress import OnProgress, ignore_progress, subprogress
from ..results import Uncertainty
from ..sharpness import SharpnessEstimator, SharpnessResult
from ..training import train
from ._paired import Job, PairedResult, Quantity, judge_pairs, network_key, run_jobs, unequal_losses

SMALL, LARGE = "small", "large"
TAKEN = ("sharpness", "average", "lambda_max", "trace", "pac_bayes")

QUANTITIES = (
    Quantity("lambda_max", "larger", ratio=True),
    Quantity("trace", "larger", ratio=True),
    Quantity("sharpness", "larger", ratio=True, bound=True),
    Quantity("average_sharpness", "larger", ratio=True),
    Quantity("gap_loss", "larger"),
    Quantity("held_out_accuracy", "smaller", each="held_out_correct"),
    Quantity("pac_bayes_bound", "larger", vacuous_from=1.0),
    Quantity("sigma_tolerated", "smaller", ratio=True),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class BatchSizeResult(PairedResult):
    """Rows of single runs and a verdict for each claim.

    Attributes
    ----------
    rows : list of dict
        One training run: ``group`` ("small" or "large"), ``seed``, ``batch_size``, ``lr``, ``epochs``,
        ``reached``, losses and accuracies on both sets, gaps, and every measure with its error.
    claims : list of dict
        For each claim: ``key``, ``claimed``, ``verdict``, ``effect``, ``low``, ``high``, ``ratio``, ``n``,
        ``confidence``. The last is "flat_generalises": Kendall's τ of λ_max and the generalisation gap over
        all runs.
    target_loss : float
        Training loss both sides were trained to.
    notes : list of str
        What limits the comparison.

    Examples
    --------
    >>> from estimators.experiments import BatchSizeResult
    >>> rows = [{"group": "small", "seed": 0, "trace": 40.0}, {"group": "large", "seed": 0, "trace": 60.0}]
    >>> result = BatchSizeResult(rows=rows)  # made up; `batch_size_experiment` measures them
    >>> result.values("large", "trace") / result.values("small", "trace")
    array([1.5])
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        **PairedResult.uncertainties,
        "rows.lambda_max_residual": Uncertainty("residual", "rows.lambda_max"),
        "rows.trace_stderr": Uncertainty("stderr", "rows.trace"),
        "rows.average_sharpness_stderr": Uncertainty("stderr", "rows.average_sharpness"),
    }
    groups = (SMALL, LARGE)
    summarised = ("train_loss", "train_accuracy", "held_out_loss", *(q.key for q in QUANTITIES))

    target_loss: float = float("nan")


def batch_size_experiment(
    make_model: Callable[[int], nn.Module],
    data: Examples,
    held_out: Examples,
    *,
    small: int = 16,
    large: int = 256,
    n_seeds: int = 5,
    target_loss: float = 0.05,
    lr: float = 0.05,
    lr_rule: str = "same",
    epochs: int = 200,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    estimator: SharpnessEstimator | None = None,
    confidence: float = 0.95,
    memory: Any = None,
    random_state: int | None = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[BatchSizeResult], None] | None = None,
) -> BatchSizeResult:
    """Train with small and with large batches to one training loss, measure, compare.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``, freshly initialised; both sides of a pair start from the same
        weights.
    data, held_out : Examples
        What is trained and measured on, and what generalisation is measured on.
    small, large : int, default=16, 256
        Batch sizes.
    n_seeds : int, default=5
        Pairs; an interval needs at least 2, and a narrow one more.
    target_loss : float, default=0.05
        Training stops when the mean loss over the training examples (cross-entropy) is at or below it.
    lr : float, default=0.05
        Learning rate of the small batch.
    lr_rule : {"same", "linear"}, default="same"
        Learning rate of the large batch: the same (the claim's setting), or scaled by large/small (Goyal et
        al. 2017), which keeps learning rate over batch size and with it the noise of SGD.
    epochs : int, default=200
        Most epochs; a run that has not reached the target by then says so.
    momentum, weight_decay : float
        Of SGD; no weight decay by default, so that only the loss decides where training ends.
    estimator : SharpnessEstimator, optional
        Settings of the measures; its ``measures`` are set by the experiment.
    confidence : float, default=0.95
        Level of each interval; verdicts are corrected for the number of rows.
    memory : None, str or joblib.Memory
        Finished runs are kept there, so a cancelled experiment goes on where it was.
    random_state : int or None, default=0
        First seed, None draws one; pair i uses ``random_state + i``.
    on_progress, on_partial : callable, optional
        Progress, and the result so far after each run.

    Returns
    -------
    BatchSizeResult

    Raises
    ------
    ValueError
        If an argument is not allowed.
    """
    _check(small, large, n_seeds, target_loss, lr_rule, len(data))
    first = check_seed(random_state)
    budget = {"epochs": epochs, "momentum": momentum, "weight_decay": weight_decay}
    runs = Runs(make_model, data, held_out, target_loss, budget, measuring_with(estimator, TAKEN))
    settings = {"small": small, "large": large, "lr": lr, "lr_rule": lr_rule, **runs.settings(n_seeds, first)}

    def jobs() -> Iterator[Job]:
        for seed in range(first, first + n_seeds):
            for group, size in ((SMALL, small), (LARGE, min(large, len(data)))):
                rate = lr * (size / small if lr_rule == "linear" else 1.0)
                yield runs.job(f"seed {seed}, batch {size}", seed, size, rate, group=group)

    def result(rows: list[dict[str, Any]]) -> BatchSizeResult:
        return BatchSizeResult(
            settings=settings,
            rows=rows,
            claims=judge(rows, confidence),
            target_loss=target_loss,
            notes=_notes(rows, target_loss, lr_rule),
        )

    return run_jobs(jobs(), 2 * n_seeds, result, memory=memory, on_progress=on_progress, on_partial=on_partial)


@dataclass(frozen=True)
class Runs:
    """The single runs of an experiment: networks trained to one training loss, and measured there.

    Attributes
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``.
    data, held_out : Examples
    target_loss : float
    budget : dict
        Arguments of `train` that all runs share.
    measuring : SharpnessEstimator
    """

    make_model: Callable[[int], nn.Module]
    data: Examples
    held_out: Examples
    target_loss: float
    budget: dict[str, Any]
    measuring: SharpnessEstimator

    def settings(self, n_seeds: int, random_state: int) -> dict[str, Any]:
        """Give what a result says of its runs."""
        return {
            "n_seeds": n_seeds,
            "target_loss": self.target_loss,
            **self.budget,
            "random_state": random_state,
            "data": self.data.name,
            "n_examples": len(self.data),
            "n_held_out": len(self.held_out),
        }

    def job(self, label: str, seed: int, batch_size: int, lr: float, **columns: Any) -> Job:
        """Make the job of one run, from the weights of its seed; its row begins with `columns`."""
        own = {"batch_size": batch_size, "lr": lr}
        training = {**self.budget, **own, "schedule": "constant", "random_state": seed}
        model = self.make_model(seed)
        aside = ("memory", "verbose", "n_jobs")
        measured_with = {k: v for k, v in self.measuring.get_params(deep=False).items() if k not in aside}
        sets = self.data.fingerprint, self.held_out.fingerprint
        return Job(
            label=label,
            function=train_and_measure,
            arguments=(model, self.data, self.held_out, training, self.target_loss, self.measuring),
            key=(*network_key(model), *sets, training, self.target_loss, measured_with),
            columns={**columns, "seed": seed, **own},
        )


def check_runs(n_seeds: int, target_loss: float) -> None:
    """Insist on a seed at least, and on a loss that can be reached."""
    if n_seeds < 1:
        raise ValueError(f"n_seeds must be ≥ 1, got {n_seeds!r}. Use 5 or more to see the spread.")
    if not target_loss > 0:
        raise ValueError(f"target_loss must be > 0, got {target_loss!r}. Use for example 0.05.")


def measuring_with(estimator: SharpnessEstimator | None, measures: Sequence[str]) -> SharpnessEstimator:
    """Give an estimator of these measures with a person's settings; its answers are kept as parts of a run."""
    settings = {"n_probes": 6} if estimator is None else estimator.get_params(deep=False)
    kind = SharpnessEstimator if estimator is None else type(estimator)
    return kind(**{**settings, "measures": tuple(measures), "memory": None})


def train_and_measure(
    model: nn.Module,
    data: Examples,
    held_out: Examples,
    training: dict[str, Any],
    target_loss: float,
    measuring: SharpnessEstimator,
    on_progress: OnProgress,
) -> list[dict[str, Any]]:
    """Train one network to the target and measure it; gives one row, without curvature where the loss is not finite."""
    trained, epochs, reached = train_to_loss(
        model,
        data,
        target_loss,
        on_progress=subprogress(on_progress, 0.0, 0.6),
        loss=measuring.loss,
        device=measuring.device,
        **training,
    )
    settings = {name: getattr(measuring, name) for name in ("loss", "batch_size", "device", "precision", "batch_norm")}
    land = Landscape(trained, data, **settings)
    found = SharpnessResult(loss=land.loss(), accuracy=land.accuracy())
    if np.isfinite(found.loss) and measuring.measures:  # a run that diverged is a row without a curvature
        fitted = measuring.fit(trained, data, initial=model, on_progress=subprogress(on_progress, 0.6, 1.0))
        found = cast(SharpnessResult, fitted.result_)
    other = land.on(held_out)
    there = other.evaluate(other.theta[None], [[1.0]])
    held_loss, held_accuracy = float(there.losses[0]), float(there.accuracies[0])
    correct = []
    if np.isfinite(held_accuracy):
        correct = (other.outputs().argmax(1).cpu() == held_out.targets).int().tolist()
    names = ["sharpness", "one_step", "lambda_max", "lambda_max_residual", "trace", "trace_stderr", "gradient_norm"]
    names += ["average_sharpness", "average_sharpness_stderr", "pac_bayes_bound", "sigma_tolerated"]
    return [
        {
            "n_parameters": count_parameters(trained),
            "epochs": epochs,
            "reached": reached,
            "train_loss": found.loss,
            "train_accuracy": found.accuracy,
            "held_out_loss": held_loss,
            "held_out_accuracy": held_accuracy,
            "held_out_correct": correct,
            "gap_loss": held_loss - found.loss,
            "gap_accuracy": found.accuracy - held_accuracy,
            "distance": float(found.pac_bayes.get("distance", float("nan"))),
            **{name: float(getattr(found, name)) for name in names},
        }
    ]


def train_to_loss(
    model: nn.Module,
    data: Examples,
    target_loss: float,
    *,
    epochs: int,
    batch_size: int,
    loss: Any = "cross_entropy",
    **training: Any,
) -> tuple[nn.Module, float, bool]:
    """Train until the loss over all examples, in evaluation mode, is at most the target.

    Returns
    -------
    network : nn.Module
        On the CPU, in evaluation mode.
    epochs : float
        Epochs it took.
    reached : bool
        Whether it got there within ``epochs``.
    """
    steps = 0

    def count(network: nn.Module) -> None:
        nonlocal steps
        steps += 1

    run = train(
        model,
        data,
        epochs=epochs,
        batch_size=batch_size,
        loss=loss,
        stop_at_loss=target_loss,
        checkpoint_every=epochs + 1,
        on_step=count,
        **training,
    )
    reached = Landscape(run.model, data, loss=loss).loss() <= target_loss * (1 + 1e-4)  # another order of summation
    return run.model, steps / -(-len(data) // batch_size), reached


def judge(rows: Sequence[dict[str, Any]], confidence: float = 0.95) -> list[dict[str, Any]]:
    """Judge every claim from complete pairs (both batch sizes of a seed).

    Kendall's τ of sharpness and gap stands without a verdict of its own: two batch sizes are two independent units, and
    no order of two says anything beyond chance.
    """
    sharpness, gap = (np.array([row[k] for row in rows], dtype=float) for k in ("lambda_max", "gap_loss"))
    together = kendall(sharpness, gap, units=[row["group"] for row in rows])
    verdict = judge_correlation(together, "larger")
    ranked = {
        "key": "flat_generalises",
        "claimed": "larger",
        "verdict": verdict.verdict,
        "effect": together.tau,
        "low": together.low,
        "high": together.high,
        "ratio": False,
        "n": together.n,
        "confidence": 0.95,
    }
    return [*judge_pairs(rows, QUANTITIES, LARGE, SMALL, confidence), ranked]


def _notes(rows: Sequence[dict[str, Any]], target: float, lr_rule: str) -> list[str]:
    notes = []
    late = [row for row in rows if not row["reached"]]
    if late:
        listed = ", ".join(f"seed {row['seed']} {row['group']} ({row['train_loss']:.3g})" for row in late)
        notes.append(f"Not at the target training loss of {target:g}: {listed}. Raise epochs or the target.")
    notes += unequal_losses(rows, (SMALL, LARGE), 1.5)
    if lr_rule == "same":
        notes.append(
            "One learning rate for both batch sizes: rate over batch size differs as much as they do, and what is seen "
            "is the effect of both together. `rate_batch_experiment` tells them apart."
        )
    if lr_rule == "linear":
        notes.append("The learning rate is scaled with the batch, so learning rate over batch size is the same.")
    return notes


def _check(small: int, large: int, n_seeds: int, target_loss: float, lr_rule: str, n: int) -> None:
    if not 1 <= small < large:
        raise ValueError(
            f"small and large must be batch sizes with small < large, got {small!r} and {large!r}. "
            "Use for example 16 and 256."
        )
    if small >= n:
        raise ValueError(f"small must be below the number of examples ({n}), got {small!r}. Lower it.")
    check_runs(n_seeds, target_loss)
    if lr_rule not in ("same", "linear"):
        raise ValueError(f"lr_rule must be 'same' or 'linear', got {lr_rule!r}. Choose one of them.")
