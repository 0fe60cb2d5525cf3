"""Moves of the weights against shifts of the images: whether networks that tolerate the one tolerate the other.

All networks stop at one training loss: one that is surer of itself loses more where it errs, for both kinds of change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data import Examples
from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress, subprogress
from ..sharpness import SharpnessSettings, average_case
from ..training import train
from ._paired import Job, JudgedResult, Row, network_key, run_jobs
from .claims import Measurement, judge_ranks, judge_together, rows_of

#: Ways of training that give networks of different flatness, beside the usual one.
TRAININGS: dict[str, dict[str, Any]] = {
    "usual": {},
    "low rate": {"lr": 0.01},
    "middle rate": {"lr": 0.03},
    "high rate": {"lr": 0.4},
    "small batches": {"batch_size": 16, "lr": 0.05},
    "large batches": {"batch_size": 256},
    "SAM": {"sam_rho": 0.05},
    "strong SAM": {"sam_rho": 0.2},
    "strong decay": {"weight_decay": 5e-3},
    "Adam": {"optimizer": "adamw", "lr": 1e-3},
}
TARGET = 0.05  # training loss at which they stop
SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "moved by two pixels": lambda x: F.pad(x, (2, 0, 2, 0), mode="replicate")[..., :-2, :-2],
    "blurred": lambda x: F.avg_pool2d(x, 5, stride=1, padding=2, count_include_pad=False),
    "noisy": lambda x: x + 0.5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)),
}
NOISE = SharpnessSettings(noise="filter", sigma=0.1, n_draws=16)


@dataclass(frozen=True, eq=False, kw_only=True)
class ShiftedDataResult(JudgedResult):
    """One row a network: how its loss rises under moves of the weights and under shifts of the images.

    Attributes
    ----------
    rows : list of dict
        ``group`` (the way of training), ``seed``, ``train_loss``, ``reached`` (`TARGET`), ``held_out_loss``,
        ``weights`` (rise of the training loss under noise on the weights) and for each of `SHIFTS` the rise of the
        held-out loss.
    claims : list of dict
        One a row of a verdict: ``claim`` and the fields of `Measurement`.
    notes : list of str

    Examples
    --------
    >>> from estimators.experiments import ShiftedDataResult
    >>> ShiftedDataResult(rows=[{"group": "SAM", "weights": 0.02, "blurred": 0.4}]).rows[0]["group"]  # made up
    'SAM'
    """


def shifted_data_experiment(
    make_model: Callable[[int], nn.Module],
    data: Examples,
    held_out: Examples,
    *,
    n_seeds: int = 2,
    epochs: int = 60,
    memory: Any = None,
    random_state: int = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[ShiftedDataResult], None] | None = None,
) -> ShiftedDataResult:
    """Train networks in the ways of `TRAININGS`, move their weights, and shift the held-out images.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``.
    data, held_out : Examples
        Images.
    n_seeds : int, default=2
        Networks of each way of training; the way is the independent unit.
    epochs : int, default=60
        Most epochs; a run that has not reached the training loss by then is left out.
    memory, random_state, on_progress, on_partial
        As in `rate_batch_experiment`.

    Returns
    -------
    ShiftedDataResult
    """
    jobs_of = [(name, seed) for seed in range(random_state, random_state + n_seeds) for name in TRAININGS]

    def jobs() -> Iterator[Job]:
        for name, seed in jobs_of:
            model = make_model(seed)
            training = {"epochs": epochs, "schedule": "constant", "stop_at_loss": TARGET, **TRAININGS[name]}
            training["random_state"] = seed
            yield Job(
                label=f"{name}, seed {seed}",
                function=move_and_shift,
                arguments=(model, data, held_out, training),
                key=("shifted data", *network_key(model), data.fingerprint, held_out.fingerprint, training),
                columns={"group": name, "seed": seed},
            )

    def result(rows: list[Row]) -> ShiftedDataResult:
        claims = rows_of(judge_shifts(rows))
        settings = {"n_seeds": n_seeds, "data": data.name, "n_examples": len(data), "n_held_out": len(held_out)}
        return ShiftedDataResult(settings=settings, rows=rows, claims=claims, notes=_notes(rows))

    return run_jobs(jobs(), len(jobs_of), result, memory=memory, on_progress=on_progress, on_partial=on_partial)


def move_and_shift(
    model: nn.Module, data: Examples, held_out: Examples, training: dict[str, Any], on_progress: OnProgress
) -> list[Row]:
    """Train one network and measure both kinds of rise; gives one row."""
    last = training["epochs"] + 1
    run = train(model, data, checkpoint_every=last, on_progress=subprogress(on_progress, 0.0, 0.7), **training)
    land = Landscape(run.model, data)
    there = land.on(held_out).loss()
    shifted = {
        name: land.on(replace(held_out, inputs=shift(held_out.images))).loss() - there for name, shift in SHIFTS.items()
    }
    rise = float(average_case(land, NOISE)["average_sharpness"])
    loss = land.loss()
    reached = loss <= TARGET * (1 + 1e-4)  # another order of summation
    return [{"train_loss": loss, "reached": reached, "held_out_loss": there, "weights": rise, **shifted}]


def judge_shifts(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the rank agreement of the two kinds of rise, each way of training one unit."""
    if not rows:
        return {}
    rows = [row for row in rows if row["reached"]]
    groups = [row["group"] for row in rows]
    weights = np.array([row["weights"] for row in rows])
    found = judge_together(
        [
            (
                "weights_like_data",
                f"rise under noise on the weights, with the rise where images are {name}",
                "larger",
                judge_ranks(weights, np.array([row[name] for row in rows]), "larger", units=groups),
            )
            for name in SHIFTS
        ]
    )
    # a shift of the images is not one kind of shift
    return {claim: [replace(row, needed=True) for row in own] for claim, own in found.items()}


def _notes(rows: Sequence[Row]) -> list[str]:
    missed = [f"{row['group']} (seed {row['seed']})" for row in rows if not row["reached"]]
    return [f"Left out, not at the training loss of {TARGET:g}: {', '.join(missed)}."] if missed else []
