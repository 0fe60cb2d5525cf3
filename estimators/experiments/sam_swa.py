"""SAM and averaging: SGD and SAM, each annealed and each averaged over the last quarter, from the same seeds.

Two trainings a seed and optimiser: one follows its cosine to zero, the other keeps a constant rate after 75 %, and its
epochs are averaged. On that trajectory it is also asked how alike its points are, and whether the average lies in the
middle of the region they move in (Foret et al. 2021; Izmailov et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..averaging import SWAAverager
from ..core.evidence.paired import compare_pairs
from ..data import Examples
from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress, subprogress
from ..sharpness import SharpnessSettings, average_case, lambda_max
from ..training import TrainingRun, cosine, train
from ._paired import Job, PairedResult, Row, network_key, run_jobs
from .arms import ACCURATE, FLAT, contrast
from .claims import Asked, Measurement, judge_together, rows_of

RHO, START, AFTER = 0.05, 0.75, 0.5  # of SAM; share of the training before the switch; rate after it, of the first
SGD, SWA, SAM, BOTH, OLD = "SGD", "SWA", "SAM", "SAM and SWA", "SWA, statistics of the last point"
OFTEN = "SWA, four points an epoch"
NOISE = SharpnessSettings(noise="filter", sigma=0.1, n_draws=16, n_lanczos=60, tol=1e-2)
FLATTER = tuple(replace(q, smallest=1.2) for q in FLAT)
LAGS = (0.25, 1.0)  # epochs between two points
ALIKE = 0.5  # correlation from which two points are highly correlated
RISE, REACH, STEPS = 0.5, 512.0, 13  # level above the higher point (nats); spreads of the points looked at; of a ray


@dataclass(frozen=True, eq=False, kw_only=True)
class SamSwaResult(PairedResult):
    """Rows of single points, and what they say of each claim.

    Attributes
    ----------
    rows : list of dict
        One a seed and group (`SGD`, `SWA`, `SAM`, `BOTH`, `OLD`, `OFTEN`): losses, accuracies, ``held_out_correct``;
        of the first four λ_max with its residual, the average rise with its error.
    trajectories : list of dict
        One a seed, of the averaged run of SGD: ``correlation_LAG`` of points so many epochs apart around their mean,
        ``off_centre_average`` and ``off_centre_last``.
    claims : list of dict
        One a row of a verdict: ``claim`` and the fields of `Measurement`.

    Examples
    --------
    >>> from estimators.experiments import SamSwaResult
    >>> rows = [{"group": g, "seed": 0, "lambda_max": v} for g, v in (("SGD", 8.0), ("SAM", 4.0))]  # made up
    >>> SamSwaResult(rows=rows).values("SAM", "lambda_max")
    array([4.])
    """

    trajectories: list[Row] = field(default_factory=list)


def sam_swa_experiment(
    make_model: Callable[[int], nn.Module],
    data: Examples,
    held_out: Examples,
    *,
    n_seeds: int = 5,
    epochs: int = 16,
    lr: float = 0.2,
    batch_size: int = 16,
    memory: Any = None,
    random_state: int = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[SamSwaResult], None] | None = None,
) -> SamSwaResult:
    """Train with and without SAM, annealed and averaged, measure the points, and judge.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``.
    data, held_out : Examples
    n_seeds : int, default=5
        Seeds, the independent units.
    epochs, lr, batch_size
        Of every training. By default small batches and a large rate, so that there is noise to average when the rate is
        switched: a run that has come to rest by then drifts along a line.
    memory, random_state, on_progress, on_partial
        As in `rate_batch_experiment`.

    Returns
    -------
    SamSwaResult
    """
    training = {"epochs": epochs, "lr": lr, "batch_size": batch_size}

    def jobs() -> Iterator[Job]:
        for seed in range(random_state, random_state + n_seeds):
            model, own = make_model(seed), {**training, "random_state": seed}
            yield Job(
                label=f"seed {seed}",
                function=four_corners,
                arguments=(model, data, held_out, own),
                key=("six points", *network_key(model), data.fingerprint, held_out.fingerprint, own),
                columns={"seed": seed},
            )

    def result(rows: list[Row]) -> SamSwaResult:
        points = [row for row in rows if row["group"] != TRAJECTORY]
        ways = [row for row in rows if row["group"] == TRAJECTORY]
        claims = rows_of(judge_corners(points, ways))
        settings = {**training, "n_seeds": n_seeds, "data": data.name, "rho": RHO}
        settings |= {"n_examples": len(data), "n_held_out": len(held_out)}
        return SamSwaResult(settings=settings, rows=points, trajectories=ways, claims=claims, notes=_notes(points))

    return run_jobs(jobs(), n_seeds, result, memory=memory, on_progress=on_progress, on_partial=on_partial)


TRAJECTORY = "trajectory"


def kept(progress: float) -> float:
    """Follow the cosine up to the switch, and stay at a constant rate from there."""
    return cosine(progress) if progress < START else AFTER


def four_corners(
    model: nn.Module, data: Examples, held_out: Examples, training: dict[str, Any], on_progress: OnProgress
) -> list[Row]:
    """Train the four runs of one seed and measure their points and the trajectory; gives a row for each."""
    rows = []
    for number, (rho, end, average) in enumerate(((0.0, SGD, SWA), (RHO, SAM, BOTH))):
        step = subprogress(on_progress, number / 2, (number + 1) / 2)
        passing = _Passing(training["epochs"], math.ceil(len(data) / training["batch_size"]))
        annealed = train(model, data, sam_rho=rho, checkpoint_every=training["epochs"], **training)
        step(1, 4, f"{end} annealed")
        run = train(model, data, sam_rho=rho, schedule=kept, on_step=passing, **training)
        step(2, 4, f"{end} at a constant rate")
        averager = SWAAverager(start=START).fit(run, data)
        measured = {
            end: Landscape(annealed.model, data, batch_norm="recompute").model_at(),
            average: averager.transform(model),
        }
        if rho == 0.0:
            measured[OLD] = SWAAverager(start=START, batch_norm="frozen").fit(run, data).transform(model)
            measured[OFTEN] = Landscape(model, data, batch_norm="recompute").model_at(
                torch.stack(passing.points).mean(0)
            )
            rows.append({"group": TRAJECTORY, **passing.correlations(), **off_centre(run, averager, data)})
        curved = (SGD, SWA, SAM, BOTH)
        rows += [{"group": group, **point(net, data, held_out, group in curved)} for group, net in measured.items()]
        step(4, 4, f"{end} measured")
    return rows


def point(network: nn.Module, data: Examples, held_out: Examples, curvature: bool) -> Row:
    """Measure one point with the statistics it has."""
    land = Landscape(network, data)
    other = land.on(held_out)
    right = (other.outputs().argmax(1).cpu() == held_out.targets).int().tolist()
    row: Row = {"train_loss": land.loss(), "held_out_loss": other.loss(), "held_out_accuracy": float(np.mean(right))}
    row |= {"held_out_correct": right, "reached": True}
    if curvature:
        top, rise = lambda_max(land, NOISE), average_case(land, NOISE)
        row |= {k: top[k] for k in ("lambda_max", "lambda_max_residual")}
        row |= {k: rise[k] for k in ("average_sharpness", "average_sharpness_stderr")}
    return row


class _Passing:
    """Keeps the weights of a run four times an epoch after the switch, and says how alike they are."""

    def __init__(self, epochs: int, per_epoch: int) -> None:
        self.first, self.every = int(START * epochs) * per_epoch, max(1, per_epoch // 4)
        self.per_epoch, self.step, self.points = per_epoch, 0, list[Tensor]()

    def __call__(self, network: nn.Module) -> None:
        self.step += 1
        if self.step > self.first and self.step % self.every == 0:
            self.points.append(torch.cat([p.detach().flatten().cpu() for p in network.parameters()]))

    def correlations(self) -> Row:
        """Give the mean cosine of two points around the mean of all, by their distance in epochs."""
        away = torch.stack(self.points) - torch.stack(self.points).mean(0)
        away = away / away.norm(dim=1, keepdim=True)
        row = {}
        for lag in LAGS:
            apart = max(1, round(lag * self.per_epoch / self.every))
            row[f"correlation_{lag:g}"] = float((away[apart:] * away[:-apart]).sum(1).mean())
        return row


def off_centre(run: TrainingRun, averager: SWAAverager, data: Examples) -> Row:
    """Say how far the average and the last point are from the middle of the low region, along the trajectory.

    Along the two main directions of the collected points, the way to a fixed level of the loss is looked for on either
    side; |r₊ − r₋|/(r₊ + r₋) is 0 in the middle and 1 at the rim.
    """
    land = Landscape(run.model, data, batch_norm="recompute")
    collected = torch.stack([land.point(path) for path in run.checkpoints[-averager.n_averaged_ :]])
    mean, last = collected.mean(0), collected[-1]
    _, spread, directions = torch.linalg.svd(collected - mean, full_matrices=False)
    step = float(spread[0]) / math.sqrt(len(collected))
    level = max(land.loss(mean), land.loss(last)) + RISE
    row = {}
    for name, centre in (("average", mean), ("last", last)):
        found = []
        for direction in directions[:2]:
            ways = [way_to_level(land, centre, sign * direction, step, level) for sign in (1.0, -1.0)]
            found.append(abs(ways[0] - ways[1]) / sum(ways))
        row[f"off_centre_{name}"] = float(np.mean(found))
    return row


def way_to_level(land: Landscape, centre: Tensor, direction: Tensor, step: float, level: float) -> float:
    """Give the distance at which the loss first passes a level, NaN where none is found within `REACH` steps."""

    def losses(radii: np.ndarray) -> np.ndarray:
        moves = np.stack([np.ones(len(radii)), radii], axis=1)
        return land.evaluate(torch.stack([centre, direction]), moves).losses

    coarse = step * np.concatenate([[0.0], np.geomspace(1 / 8, REACH, STEPS)])
    above = np.flatnonzero(losses(coarse) > level)
    if not len(above):
        return float("nan")
    fine = np.linspace(coarse[above[0] - 1], coarse[above[0]], STEPS)
    there = losses(fine)
    i = max(1, int(np.argmax(there > level)))
    return float(np.interp(level, there[i - 1 : i + 1], fine[i - 1 : i + 1]))


def judge_corners(rows: Sequence[Row], trajectories: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the claims on SAM, on averaging, and on both together, seed by seed."""
    if not rows:
        return {}
    curved = [row for row in rows if row["group"] in (SGD, SWA, SAM, BOTH)]
    found = judge_together(
        [
            *contrast("sam_flat", curved, SAM, SGD, FLATTER),
            *contrast("swa_flat", curved, SWA, SGD, FLATTER),
            *contrast("swa_generalises", rows, SWA, SGD, [ACCURATE]),
            *contrast("swa_sam", curved, BOTH, SAM, FLATTER),
            *contrast("swa_sam", curved, BOTH, SWA, FLATTER),
            *contrast("swa_statistics", rows, SWA, OLD, [ACCURATE]),
            *_along_trajectories(trajectories),
            *contrast("swa_frequency", rows, OFTEN, SWA, [replace(ACCURATE, claimed="equal")]),
        ]
    )
    # both together have to be flatter than each alone; near points have to be alike, and more of them to gain nothing
    return found | {
        claim: [replace(row, needed=True) for row in found[claim]] for claim in ("swa_sam", "swa_frequency")
    }


def _along_trajectories(rows: Sequence[Row]) -> list[Asked]:
    def column(key: str) -> list[float]:
        return [row[key] for row in rows]

    centre = compare_pairs(column("off_centre_average"), column("off_centre_last"), "smaller", smallest=0.1)
    near = compare_pairs(column(f"correlation_{LAGS[0]:g}"), [ALIKE] * len(rows), "larger", smallest=0.1)
    return [
        ("swa_centre", "distance from the middle: average against last point", "smaller", centre),
        ("swa_frequency", f"correlation of points a quarter of an epoch apart, less {ALIKE:g}", "larger", near),
    ]


def _notes(rows: Sequence[Row]) -> list[str]:
    def means(key: str) -> str:
        listed = [(g, [row[key] for row in rows if row["group"] == g]) for g in (SGD, SWA, SAM, BOTH)]
        return ", ".join(f"{group} {np.mean(found):.3g}" for group, found in listed if found)

    if not rows:
        return []
    return [
        f"Training losses at the points: {means('train_loss')}. Curvature falls with the training loss, too.",
        f"Held-out accuracies: {means('held_out_accuracy')}.",
    ]
