"""Arms of an experiment: networks that differ in a change or in their training, from the same seeds, judged in pairs.

An arm with several learning rates is tuned first, on a seed that is not measured: two ways of building a network are
compared fairly where each has the rate that suits it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from torch import nn

from ..data import Examples
from ..models import load_model
from ..progress import OnProgress, ignore_progress
from ..sharpness import SharpnessEstimator
from ..variants import apply_changes
from ._paired import Job, PairedResult, Quantity, Row, compare_rows, pairs_of, run_jobs
from .batch_size import Runs, check_runs, measuring_with
from .claims import Asked, Measurement, rows_of

TUNING_SEED = 1000  # above the first seed: a run that chooses a rate is not measured as well
NOISE = SharpnessEstimator(noise="filter", sigma=0.1, n_draws=16, n_lanczos=60, tol=1e-2)

FLAT = (
    Quantity("lambda_max", "smaller", ratio=True, smallest=1.5, falls_with_loss=True),
    Quantity("average_sharpness", "smaller", ratio=True, smallest=1.5, falls_with_loss=True),
)
ACCURATE = Quantity("held_out_accuracy", "larger", smallest=0.01, each="held_out_correct")
WORDS = {
    "lambda_max": "λ_max",
    "trace": "trace",
    "average_sharpness": "average rise",
    "train_loss": "training loss",
    "held_out_accuracy": "held-out accuracy",
    "held_out_loss": "held-out loss",
}


@dataclass(frozen=True)
class Subject:
    """What an experiment is run on.

    Attributes
    ----------
    architecture : str
        A timm name.
    data, held_out : Examples
        Training and held-out examples.

    Examples
    --------
    >>> from estimators import load_data
    >>> from estimators.experiments import Subject
    >>> digits = load_data("digits", image_size=32, n_samples=40)
    >>> Subject("test_resnet", digits, digits).model(seed=0).num_classes
    10
    """

    architecture: str
    data: Examples
    held_out: Examples

    def model(self, seed: int) -> nn.Module:
        """Build the network with the weights of a seed."""
        classes = max(len(self.data.class_names), int(self.data.targets.max()) + 1)
        size = int(self.data.images.shape[-1])
        return load_model(self.architecture, num_classes=classes, image_size=size, random_state=seed)


@dataclass(frozen=True)
class Arm:
    """One way of building and training a network.

    Attributes
    ----------
    name : str
        Group of its rows.
    changes : tuple of str
        As `apply_changes` reads them.
    rates : tuple of float
        Learning rates; of several the one with the lowest training loss on the tuning seed is taken.
    training : dict
        Other arguments of `train` that are its own.
    measures : tuple of str
        Of `SharpnessEstimator`; () where losses and accuracies are all that is asked.
    architecture : str
        Of its own; "" takes the subject's.
    prepare : callable, optional
        Changes the built network further.

    Examples
    --------
    >>> from estimators import load_data
    >>> from estimators.experiments import Arm, Subject
    >>> digits = load_data("digits", image_size=32, n_samples=40)
    >>> plain = Arm("no norm", ("without_norm",)).build(Subject("test_resnet", digits, digits), seed=0)
    >>> any("Norm" in type(layer).__name__ for layer in plain.modules())
    False
    """

    name: str
    changes: tuple[str, ...] = ()
    rates: tuple[float, ...] = (0.1,)
    training: dict[str, Any] = field(default_factory=dict)
    measures: tuple[str, ...] = ("average", "lambda_max")
    architecture: str = ""
    prepare: Callable[[nn.Module], nn.Module] | None = None

    def build(self, subject: Subject, seed: int) -> nn.Module:
        """Build the network of a seed."""
        own = replace(subject, architecture=self.architecture or subject.architecture)
        model = apply_changes(own.model(seed), self.changes, seed)
        return model if self.prepare is None else self.prepare(model)


Judge = Callable[[Sequence[Row]], Mapping[str, list[Measurement]]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ArmsResult(PairedResult):
    """Rows of single runs, and what they say of each claim.

    Attributes
    ----------
    rows : list of dict
        One a run: ``group`` (the arm), ``seed``, ``lr``, ``epochs``, ``reached`` (the training loss), losses,
        accuracies and measures.
    claims : list of dict
        One a row of a verdict: ``claim`` and the fields of `Measurement`.
    tuning : list of dict
        Runs that chose a rate.

    Examples
    --------
    >>> from estimators.experiments import ArmsResult
    >>> rows = [{"group": g, "seed": 0, "lambda_max": v} for g, v in (("plain", 8.0), ("dropout", 4.0))]
    >>> ArmsResult(rows=rows).values("dropout", "lambda_max")  # made up; a study measures them
    array([4.])
    """

    tuning: list[Row] = field(default_factory=list)


def compare_arms(
    subject: Subject,
    arms: Sequence[Arm],
    judge: Judge,
    *,
    n_seeds: int,
    epochs: int,
    target_loss: float = 0.05,
    batch_size: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    memory: Any = None,
    random_state: int = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[ArmsResult], None] | None = None,
) -> ArmsResult:
    """Tune the arms that have several rates, train every arm from every seed, and judge.

    Parameters
    ----------
    subject : Subject
    arms : sequence of Arm
    judge : callable
        ``judge(rows) -> {claim: measurements}``.
    n_seeds : int
        Seeds, the independent units.
    epochs : int
        Most epochs; a run that has not reached the target by then says so.
    target_loss : float, default=0.05
        Training stops when the mean loss over the training examples is at or below it.
    batch_size, momentum, weight_decay
        Of SGD, where an arm does not say otherwise.
    memory, random_state, on_progress, on_partial
        As in `rate_batch_experiment`.

    Returns
    -------
    ArmsResult
    """
    check_runs(n_seeds, target_loss)
    common = {"epochs": epochs, "momentum": momentum, "weight_decay": weight_decay}
    tuned = [arm for arm in arms if len(arm.rates) > 1]
    seen: list[Row] = []

    def job(arm: Arm, seed: int, rate: float, tuning: bool) -> Job:
        measuring = measuring_with(NOISE, () if tuning else arm.measures)
        build = partial(arm.build, subject)
        runs = Runs(build, subject.data, subject.held_out, target_loss, {**common, **arm.training}, measuring)
        label = f"{arm.name}, rate {rate:g}" if tuning else f"{arm.name}, seed {seed}"
        return runs.job(label, seed, batch_size, rate, group=arm.name, tuning=tuning)

    def jobs() -> Iterator[Job]:
        for arm in tuned:
            for rate in arm.rates:
                yield job(arm, random_state + TUNING_SEED, rate, tuning=True)
        for seed in range(random_state, random_state + n_seeds):
            for arm in arms:
                yield job(arm, seed, best_rate(arm, seen), tuning=False)

    def result(rows: list[Row]) -> ArmsResult:
        seen[:] = rows
        measured = [row for row in rows if not row["tuning"]]
        return ArmsResult(
            settings={
                **{"architecture": subject.architecture, "data": subject.data.name, "n_seeds": n_seeds},
                **{"target_loss": target_loss, "batch_size": batch_size, **common, "random_state": random_state},
                **{"n_examples": len(subject.data), "n_held_out": len(subject.held_out)},
            },
            rows=measured,
            tuning=[row for row in rows if row["tuning"]],
            claims=rows_of(judge(measured)),
            notes=_notes(measured),
        )

    n_jobs = sum(len(arm.rates) for arm in tuned) + n_seeds * len(arms)
    return run_jobs(jobs(), n_jobs, result, memory=memory, on_progress=on_progress, on_partial=on_partial)


def best_rate(arm: Arm, rows: Sequence[Row]) -> float:
    """Give the rate at which an arm trained best: in the fewest epochs, or to the lowest loss where none got there."""
    own = [row for row in rows if row["tuning"] and row["group"] == arm.name]
    if not own:
        return arm.rates[0]
    return min(own, key=lambda r: (not r["reached"], r["epochs"] if r["reached"] else _worst_last(r["train_loss"])))[
        "lr"
    ]


def _worst_last(loss: float) -> float:
    return loss if np.isfinite(loss) else np.inf


def contrast(
    claim: str, rows: Sequence[Row], treated: str, control: str, quantities: Sequence[Quantity], *, reached: bool = True
) -> list[Asked]:
    """Hold two arms against each other, seed by seed.

    Parameters
    ----------
    claim : str
        What the rows are asked for.
    rows : sequence of dict
        As in `ArmsResult`.
    treated, control : str
        Arms.
    quantities : sequence of Quantity
    reached : bool, default=True
        Leave runs that did not reach the training loss out, with their pairs.

    Returns
    -------
    list of (claim, words, claimed, judgement)
        For `judge_together`.
    """
    pairs = pairs_of([row for row in rows if row["reached"] or not reached], treated, control)
    return [
        (claim, f"{WORDS.get(q.key, q.key)}: {treated} against {control}", q.claimed, compare_rows(pairs, q, 0.95))
        for q in quantities
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    notes = []
    for group in dict.fromkeys(row["group"] for row in rows):
        own = [row for row in rows if row["group"] == group]
        told = [
            f"{WORDS[key]} {np.mean(values):.3g}"
            for key in ("train_loss", "lambda_max", "held_out_accuracy")
            if np.isfinite(values := [row[key] for row in own]).all()
        ]
        trained = sum(row["reached"] for row in own)
        rates = ", ".join(f"{rate:g}" for rate in sorted({row["lr"] for row in own}))
        said = f"“{group}”, rate {rates}: {trained} of {len(own)} at the training loss"
        notes.append(f"{said}; {', '.join(told)}." if told else f"{said}.")
    return notes
