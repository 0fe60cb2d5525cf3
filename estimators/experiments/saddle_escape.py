"""Leaving many saddles: the same race from saddles of several networks and indices, judged with the saddle as the unit.

Starts around one saddle repeat one another: what holds for saddles is seen over saddles. Optimisers are compared at a
rate that suits the saddle, the same for all of them; how long noise takes is compared over saddles at one rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ..core.evidence.verdicts import judge_share
from ..data import Examples
from ..progress import OnProgress, ignore_progress, subprogress
from ..saddles import EscapeResult, SaddleEscaper, pooled_digits, small_net
from ._paired import Job, JudgedResult, Row, network_key, run_jobs
from .claims import Asked, Measurement, judge_ranks, judge_together, rows_of

OPTIMIZERS = ("gd", "sgd", "momentum", "large_step", "perturbed_gd", "rmsprop", "adam")
BESIDE = 1e-3  # distance of the displaced starts
SOONER = 0.9  # of the control's steps


@dataclass(frozen=True, eq=False, kw_only=True)
class SaddlesResult(JudgedResult):
    """One row a saddle: what it is and when each optimiser left it.

    Attributes
    ----------
    rows : list of dict
        ``seed``, ``index``, ``loss``, ``gradient_norm``, ``lowest`` (most negative eigenvalue), and for each optimiser
        ``rest_NAME``, the share of starts on the saddle that left, and ``steps_NAME``, the median steps from beside it
        (inf: half or more stayed or diverged); ``sgd_at_one_rate``, those of SGD from the saddle at one learning rate.
    claims : list of dict
        One a row of a verdict: ``claim`` and the fields of `Measurement`.
    notes : list of str
        What limits it.

    Examples
    --------
    >>> from estimators.experiments import SaddlesResult
    >>> result = SaddlesResult(rows=[{"index": 1, "loss": 0.5, "steps_gd": 700.0, "steps_momentum": 120.0}])  # made up
    >>> result.rows[0]["steps_momentum"] < result.rows[0]["steps_gd"]
    True
    """


def saddle_escape_experiment(
    make_model: Callable[[int], nn.Module] = lambda seed: small_net(random_state=seed),
    data: Examples | None = None,
    *,
    n_seeds: int = 5,
    indices: Sequence[int] = (1, 2, 3, 4),
    n_starts: int = 3,
    lr: float = 0.05,
    max_steps: int = 2000,
    memory: Any = None,
    random_state: int = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[SaddlesResult], None] | None = None,
) -> SaddlesResult:
    """Find a saddle of each index for each seed and race the optimisers away from it.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``, small and smooth; the 35 weights of `small_net` by default.
    data : Examples, optional
        `pooled_digits()` by default.
    n_seeds : int, default=5
        Networks; each gives as many saddles as there are indices, where they are found.
    indices : sequence of int
        Negative eigenvalues.
    n_starts : int, default=3
        Starts at each distance; their median stands for the saddle.
    lr : float, default=0.05
        At which SGD leaves every saddle, to compare saddles; optimisers are compared at ``lr="auto"``, see
        `SaddleEscaper`.
    max_steps : int, default=2000
        Budget of each run.
    memory, random_state, on_progress, on_partial
        As in `rate_batch_experiment`.

    Returns
    -------
    SaddlesResult
    """
    examples = pooled_digits() if data is None else data
    pairs = [(seed, index) for seed in range(random_state, random_state + n_seeds) for index in indices]
    told = {"n_seeds": n_seeds, "indices": list(indices), "lr": lr, "max_steps": max_steps, "data": examples.name}

    def jobs() -> Iterator[Job]:
        for seed, index in pairs:
            settings = {"n_seeds": n_starts, "max_steps": max_steps, "index": index, "random_state": seed}
            model = make_model(seed)
            yield Job(
                label=f"seed {seed}, index {index}",
                function=leave_saddle,
                arguments=(model, examples, settings, lr),
                key=("leave saddle", *network_key(model), examples.fingerprint, settings, lr),
                columns={"seed": seed, "asked": index},
            )

    def result(rows: list[Row]) -> SaddlesResult:
        found = [row for row in rows if row["found"]]
        claims = rows_of(judge_saddles(found))
        return SaddlesResult(settings=told, rows=found, claims=claims, notes=_notes(rows, found))

    return run_jobs(jobs(), len(pairs), result, memory=memory, on_progress=on_progress, on_partial=on_partial)


def leave_saddle(
    model: nn.Module, data: Examples, settings: dict[str, Any], lr: float, on_progress: OnProgress = ignore_progress
) -> list[Row]:
    """Find one saddle and race away from it; gives one row."""
    escaper = SaddleEscaper(saddle="strict", optimizers=OPTIMIZERS, radii=(0.0, BESIDE), **settings)
    result: EscapeResult = escaper.fit(model, data, on_progress=subprogress(on_progress, 0.0, 0.8)).result_
    saddle = result.saddle
    if not saddle["found"]:
        return [{"found": False}]
    alone = SaddleEscaper(saddle="strict", optimizers=("sgd",), radii=(0.0,), lr=lr, **settings)
    noise: EscapeResult = alone.fit(model, data, on_progress=subprogress(on_progress, 0.8, 1.0)).result_
    row = {
        "found": True,
        "index": int(saddle["index"]),
        "loss": float(saddle["loss"]),
        "gradient_norm": float(saddle["gradient_norm"]),
        "lowest": float(np.min(saddle["eigenvalues"])),
        "sgd_at_one_rate": _middle(noise.escape_steps[0, 0]),
    }
    for name, steps in zip(result.optimizers, result.escape_steps, strict=True):
        row |= {f"rest_{name}": float(np.isfinite(steps[0]).mean()), f"steps_{name}": _middle(steps[1])}
    return [row]


def _middle(steps: np.ndarray) -> float:
    """Give the median of leaving steps, inf where half or more stayed."""
    return float(np.quantile(steps, 0.5, method="inverted_cdf"))


def judge_saddles(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the ways out of a saddle, each saddle one unit."""
    asked = [
        _leaves("noise_escapes", "SGD", "sgd", rows),
        _leaves("injected_noise_escapes", "descent with noise", "perturbed_gd", rows),
        _sooner("momentum_escapes", "momentum", "momentum", rows),
        _sooner("large_rate_escapes", "ten times the rate", "large_step", rows),
        _sooner("adaptive_escapes", "RMSprop", "rmsprop", rows),
        _sooner("adaptive_escapes", "Adam", "adam", rows),
    ]
    losses, steps = (np.array([row[key] for row in rows]) for key in ("loss", "sgd_at_one_rate"))
    last = np.where(np.isfinite(steps), steps, np.nanmax(steps[np.isfinite(steps)], initial=0.0) + 1)
    ranked = judge_ranks(losses, last, "larger")
    return judge_together([*asked, ("noise_low_energy", "steps of SGD from the saddle, by its loss", "larger", ranked)])


def _leaves(claim: str, words: str, name: str, rows: Sequence[Row]) -> Asked:
    resting = [row for row in rows if row["rest_gd"] == 0]
    left = sum(row[f"rest_{name}"] > 0.5 for row in resting)
    what = f"{words} left from a saddle on which descent stayed"
    return claim, what, "more often than not", judge_share(left, len(resting))


def _sooner(claim: str, words: str, name: str, rows: Sequence[Row]) -> Asked:
    decided = [row for row in rows if np.isfinite(min(row[f"steps_{name}"], row["steps_gd"]))]
    ahead = sum(row[f"steps_{name}"] < SOONER * row["steps_gd"] for row in decided)
    what = f"{words} sooner than descent by a tenth, from beside a saddle"
    return claim, what, "more often than not", judge_share(ahead, len(decided))


def _notes(rows: Sequence[Row], found: Sequence[Row]) -> list[str]:
    notes = []
    if len(found) < len(rows):
        notes.append(f"In {len(rows) - len(found)} of {len(rows)} searches no saddle of the index was found.")
    inertia = [row for row in found if np.isfinite(min(row["steps_momentum"], row["steps_large_step"]))]
    ahead = sum(row["steps_momentum"] < SOONER * row["steps_large_step"] for row in inertia)
    if inertia:
        notes.append(
            f"Momentum was sooner than a plain step of the same effective size, 10 η, at {ahead} of {len(inertia)} "
            "saddles."
        )
    return notes
