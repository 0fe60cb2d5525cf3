"""The experiments that test the lecture's claims: how each is run on a network of one's own, and what it says.

Every study takes the same things and judges its result by claim, so that a script or a page runs any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from ..core.evidence.intervals import wilson_interval
from ..core.evidence.verdicts import LEVEL, NOT_CLEAR, NOT_COMPARABLE, NOT_SUPPORTED, SUPPORTED, Verdict
from ..curvature import MinimumProbabilityResult, random_critical_points
from ..progress import OnProgress, ignore_progress, subprogress
from ..results import Result
from .arms import WORDS, Subject
from .claims import Asked, Measurement, judge_ranks, judge_together, known
from .connectivity_cases import CasesResult, ConnectivityCases, distance_of, join_cases
from .connectivity_cases import judge as judge_cases
from .elements import (
    dropout_experiment,
    judge_dropout,
    judge_norm,
    judge_skips,
    norm_rate_experiment,
    skips_depth_experiment,
)
from .negative_curvature import judge_curvature, negative_curvature_experiment
from .rate_batch import CURVATURES, RateBatchResult, rate_batch_experiment
from .rate_batch import judge as judge_grid
from .saddle_escape import judge_saddles, saddle_escape_experiment
from .sam_swa import judge_corners, sam_swa_experiment
from .shifted_data import judge_shifts, shifted_data_experiment
from .width_sweep import WidthSweep, WidthSweepResult, judge_width

Judgement = dict[str, list[Measurement]]


@dataclass(frozen=True)
class Study:
    """One experiment behind several claims.

    Attributes
    ----------
    title : str
        In a few words.
    run : callable
        ``run(subject, *, n_seeds, memory, on_progress, on_partial) -> Result``.
    judge : callable
        ``judge(result) -> {claim: measurements}``, from the result's single runs by the rules of today.
    n_seeds : int
        Seeds of the design.
    own_network : bool, default=True
        Whether it is run on the subject's network; the others have networks or matrices of their own.
    architecture : str, default="test_resnet"
        What it is run on here.
    n_examples : int, default=256
        Training examples here.

    Examples
    --------
    >>> from estimators.experiments import STUDIES
    >>> STUDIES["rate_batch"].n_seeds, STUDIES["random_matrices"].own_network
    (5, False)
    """

    title: str
    run: Callable[..., Result]
    judge: Callable[[Any], Judgement]
    n_seeds: int
    own_network: bool = True
    architecture: str = "test_resnet"
    n_examples: int = 256


# ---- random matrices ----

DIMENSIONS = (1, 2, 3, 4, 5)
FLIPPED = 4  # dimension at which the coin flips are tested
FACTOR = 2.0


def _random_matrices(_: Subject, *, n_seeds: int, memory: Any, **reports: Any) -> Result:
    return random_critical_points(DIMENSIONS, n_samples=n_seeds * 20_000, **reports)


def judge_matrices(result: MinimumProbabilityResult) -> Judgement:
    """Hold the share of positive definite matrices against 1 in 2ᵈ."""
    asked: list[Asked] = []
    for i, d in enumerate(result.dimensions):
        hits, n, flips = int(result.n_minima[i]), int(result.n_samples[i]), 0.5 ** int(d)
        if d > 1:
            what = f"share of minima in {d} dimensions against {flips:.3g}"
            asked.append(("minimum_rare", what, "smaller", judge_rarer(hits, n, flips)))
        if d == FLIPPED:
            what = f"share of minima in {d} dimensions over {flips:.3g}"
            asked.append(("coin_flips", what, "equal", judge_as_often(hits, n, flips)))
    return judge_together(asked)


def judge_rarer(hits: int, n: int, flips: float) -> Verdict:
    """Judge the claim that a share is below a known one, by the exact binomial test."""
    p, share = float(stats.binomtest(hits, n, flips).pvalue), hits / n
    rare = NOT_CLEAR if p >= LEVEL else SUPPORTED if share < flips else NOT_SUPPORTED
    reason = f"{hits} of {n}, 1 in 2ᵈ is {flips:.3g}"
    return Verdict(rare, reason, share, *wilson_interval(hits, n), (n, n), "share", p=p)


def judge_as_often(hits: int, n: int, flips: float) -> Verdict:
    """Judge the claim that a share is a known one within a factor, by Wilson's interval."""
    low, high = (end / flips for end in wilson_interval(hits, n))
    far = high < 1 / FACTOR or low > FACTOR
    same = SUPPORTED if low > 1 / FACTOR and high < FACTOR else NOT_SUPPORTED if far else NOT_CLEAR
    reason = f"the interval against a factor of {FACTOR:g} either way"
    return Verdict(same, reason, hits / n / flips, low, high, (n, n), "ratio")


# ---- the grid of rate and batch ----


def _rate_batch(subject: Subject, *, n_seeds: int, **options: Any) -> Result:
    sizes = [size for size in (16, 64, 512) if size <= len(subject.data)]
    ratios = tuple(0.05 / size for size in (512, 64, 16))
    return rate_batch_experiment(
        subject.model, subject.data, subject.held_out, batches=sizes, ratios=ratios, n_seeds=n_seeds, **options
    )


_CONTRASTS = {
    "ratio": "smallest ratio against largest, at equal batch size",
    "batch": "largest batch against smallest, at equal ratio",
    "both": "largest batch against smallest, at one rate",
}


def judge_rate_batch(result: RateBatchResult) -> Judgement:
    """Give the rows of the grid's contrasts by claim, and the ranks over its cells."""
    claims, _ = judge_grid(result.rows, result.batches, result.ratios)
    found: Judgement = {}
    for row in claims:
        contrast, curved = row["contrast"], row["key"] in {q.key for q in CURVATURES}
        claim = {
            ("ratio", True): "ratio_decides",
            ("batch", True): "ratio_decides",
            ("ratio", False): "ratio_generalises",
            ("both", True): "large_batch_sharp",
            ("both", False): "small_batch_generalises",
        }.get((contrast, curved))
        if claim is not None:
            what = f"{WORDS[row['key']]}: {_CONTRASTS[contrast]}"
            measured = _measured(what, row, "ratio" if row["ratio"] else "difference")
            # that the ratio decides has two halves: the ratio matters, and the batch at one ratio does not
            found.setdefault(claim, []).append(replace(measured, needed=contrast == "batch"))
    return found | judge_together(_ranks(result))


def _measured(what: str, row: dict[str, Any], kind: str) -> Measurement:
    """Make the row of a claim of an experiment that judged it; what is unknown may be NaN or None there."""
    return Measurement(
        what=what,
        claimed=row["claimed"],
        verdict=row["verdict"],
        reason=row["reason"],
        kind=kind,
        n=int(row["n"]),
        effect=known(row["effect"]),
        low=known(row.get("low")),
        high=known(row.get("high")),
        p=known(row.get("p")),
    )


def _ranks(result: RateBatchResult) -> list[Asked]:
    """Rank the cells of the grid by λ_max, and by what it is said to go with."""
    good = [row for row in result.rows if row["reached"]]
    cells = [(row["batch_size"], row["ratio"]) for row in good]
    columns = {k: np.array([row[k] for row in good]) for k in ("lambda_max", "average_sharpness", "held_out_accuracy")}
    asked = (
        ("flat_generalises", "held_out_accuracy", "λ_max, with held-out accuracy", "smaller"),
        ("flat_tolerates", "average_sharpness", "λ_max, with the average rise", "larger"),
    )
    return [
        (claim, what, claimed, judge_ranks(columns["lambda_max"], columns[key], claimed, units=cells))
        for claim, key, what, claimed in asked
    ]


# ---- paths ----


def _cases(
    subject: Subject,
    *,
    n_seeds: int,
    memory: Any,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[CasesResult], None] | None = None,
) -> Result:
    """Join pairs by the straight line, and those of different starts by a curve and after matching units as well."""
    found: list[CasesResult] = []

    def partly(more: CasesResult) -> None:
        if on_partial is not None:
            on_partial(join_cases([*found, more]))

    asked = ((("different starts",), ("linear", "aligned", "bezier")), (("same start", "fine-tuned"), ("linear",)))
    for part, (cases, joints) in enumerate(asked):
        study = ConnectivityCases(
            cases=cases, n_seeds=n_seeds, joints=joints, train_epochs=16, epochs=30, memory=memory
        )
        study.fit(
            subject.model,
            subject.data,
            held_out=subject.held_out,
            on_progress=subprogress(on_progress, part / len(asked), (part + 1) / len(asked)),
            on_partial=partly,
        )
        found.append(study.result_)
    return join_cases(found)


_CASES = {
    "same start": "same_start_linear",
    "different starts": "different_starts_curve",
    "fine-tuned": "fine_tuned_linear",
}


MOVED = 0.01  # of the distance of two starts, that two children have to be apart


def judge_connectivity(result: CasesResult) -> Judgement:
    """Give the verdict on each case; its reason holds the shares of joined pairs.

    Ends that are next to nothing apart are joined by any line, and say nothing.
    """
    apart = {row["case"]: distance_of(result.rows, row["case"]) for row in result.rows}
    shares = {(row["case"], row["path"]): row for row in result.summary}
    found: Judgement = {}
    for row in judge_cases(result.summary):
        own = shares[row["case"], row["path"]]
        numbers = {"claimed": "more often than not", "n": own["n"], "effect": own["joined"]}
        if apart[row["case"]] < MOVED * apart.get("different starts", 0.0):
            near = f"{apart[row['case']]:.2g} apart, against {apart['different starts']:.2g} from different starts"
            numbers |= {"verdict": NOT_COMPARABLE, "reason": f"the ends have hardly moved: {near}"}
        found[_CASES[row["case"]]] = [_measured(f"pairs joined ({row['path']}), {row['case']}", row | numbers, "share")]
    return found


# ---- widths ----


def _widths(subject: Subject, *, n_seeds: int, memory: Any, **reports: Any) -> Result:
    # closer than a doubling: a rank over widths needs six that fit the examples
    factors = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
    sweep = WidthSweep(factors=factors, n_seeds=n_seeds, epochs=80, stop_at_loss=0.05, zero_level=0.05, memory=memory)
    return sweep.fit(subject.architecture, subject.data, held_out=subject.held_out, **reports).result_


_WIDTHS = {
    "width_easy": "epochs to the training loss",
    "width_connected": "barrier",
    "width_equal": "spread of accuracy",
}


def judge_widths(result: WidthSweepResult) -> Judgement:
    """Give the trends with the width by claim."""
    found: Judgement = {}
    for claim in judge_width(result.table, result.summary, "epochs_run"):
        own = claim["measurements"][0]
        row = _measured(
            f"{_WIDTHS[claim['key']]}, by the width",
            own | {"n": min(own["n"]), "effect": own["difference"]},
            own["kind"],
        )
        found["width_alike" if claim["key"] == "width_equal" else claim["key"]] = [row]
    return found


# ---- all of them ----


def _on_networks(function: Callable[..., Result], *data: str) -> Callable[..., Result]:
    """Call an experiment with the subject's network and those of its examples that are named."""

    def run(subject: Subject, **options: Any) -> Result:
        return function(subject.model, *(getattr(subject, name) for name in data), **options)

    return run


def _saddles(_: Subject, **options: Any) -> Result:
    return saddle_escape_experiment(**options)


STUDIES: dict[str, Study] = {
    "random_matrices": Study("Random matrices", _random_matrices, judge_matrices, 1, own_network=False),
    "rate_batch": Study("Rate over batch size", _rate_batch, judge_rate_batch, 5, n_examples=512),
    "escape": Study("Leaving many saddles", _saddles, lambda r: judge_saddles(r.rows), 5, own_network=False),
    "skips_depth": Study(
        "Skips and depth", skips_depth_experiment, lambda r: judge_skips(r.rows), 5, architecture="deep_thin_resnet"
    ),
    "sam_swa": Study(
        "SAM and weight averaging",
        _on_networks(sam_swa_experiment, "data", "held_out"),
        lambda r: judge_corners(r.rows, r.trajectories),
        5,
    ),
    "negative_curvature": Study(
        "Negative curvature in training",
        _on_networks(negative_curvature_experiment, "data"),
        lambda r: judge_curvature(r.rows, r.steps),
        6,
    ),
    "shifted_data": Study(
        "Moved weights and shifted images",
        _on_networks(shifted_data_experiment, "data", "held_out"),
        lambda r: judge_shifts(r.rows),
        2,
    ),
    "connectivity_cases": Study("Three cases of connectivity", _cases, judge_connectivity, 6),
    "norm_rate": Study("Batch norm and the rate", norm_rate_experiment, lambda r: judge_norm(r.rows), 5),
    "dropout": Study("Dropout in the blocks", dropout_experiment, lambda r: judge_dropout(r.rows), 5),
    "widths": Study("Width at equal loss", _widths, judge_widths, 3, architecture="thin_resnet"),
}
