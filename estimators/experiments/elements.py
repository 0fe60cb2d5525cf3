"""Skip connections, batch norm and dropout: what each does to training, to the curvature and to held-out accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from ..core.evidence.paired import PairedComparison, compare_pairs
from ..core.evidence.verdicts import NOT_COMPARABLE, Verdict, compare_shares
from ._paired import Row, pairs_of
from .arms import ACCURATE, FLAT, Arm, ArmsResult, Subject, compare_arms, contrast
from .claims import Measurement, judge_together

NAN = float("nan")
SMALLEST_LOSS = 0.1  # nats of training loss

# ---- skip connections and depth ----

SHALLOW, DEEP = 1, 7  # blocks a stage
RATES = (0.02, 0.1, 0.3)


def skips_depth_experiment(subject: Subject, *, n_seeds: int = 5, epochs: int = 20, **options: Any) -> ArmsResult:
    """Train shallow and deep networks with and without skips, each at its own best rate.

    The last gain of every branch starts at one in both: timm starts it at zero, which makes a block with a skip begin
    as the identity and would cut a network without skips in two for good.

    Parameters
    ----------
    subject : Subject
        Of an architecture whose depth can be set.
    n_seeds, epochs : int
    **options
        Further arguments of `compare_arms`.

    Returns
    -------
    ArmsResult
        Groups "shallow with skips", "shallow plain", "deep with skips", "deep plain".
    """
    arms = [
        Arm(
            f"{depth} {'plain' if plain else 'with skips'}",
            (f"with_depth={blocks}", *(("without_skips",) if plain else ())),
            RATES,
            # curvature is compared where both train; a deep net without skips is at no minimum
            measures=("average", "lambda_max") if depth == "shallow" else ("average",),
            prepare=open_branches,
        )
        for depth, blocks in (("shallow", SHALLOW), ("deep", DEEP))
        for plain in (False, True)
    ]
    return compare_arms(subject, arms, judge_skips, n_seeds=n_seeds, epochs=epochs, **options)


def open_branches(model: nn.Module) -> nn.Module:
    """Start every gain of a norm that is zero at one, in place."""
    for module in model.modules():
        gain = getattr(module, "weight", None)
        if isinstance(gain, nn.Parameter) and gain.dim() == 1 and not gain.any():
            nn.init.ones_(gain)
    return model


def judge_skips(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the claims on skips: depth as an interaction, the basin where both nets train."""
    shallow = ("shallow with skips", "shallow plain")
    depth = interaction(rows, ("deep plain", "shallow plain"), ("deep with skips", "shallow with skips"))
    return judge_together(
        [
            ("skips_depth", "training loss: what depth adds without skips against with them", "larger", depth),
            *contrast("skips_flat", rows, *shallow, FLAT),
            *contrast("skips_generalise", rows, *shallow, [ACCURATE]),
        ]
    )


def interaction(rows: Sequence[Row], treated: tuple[str, str], control: tuple[str, str]) -> PairedComparison | Verdict:
    """Hold the rise of the training loss from one arm to another against the same rise elsewhere, seed by seed.

    Where a run ended in a loss that is not finite there is no rise, and the shares of runs that reached the training
    loss are compared instead.
    """
    pairs = [pairs_of(rows, *sides) for sides in (treated, control)]
    rises = [{a["seed"]: float(a["train_loss"] - b["train_loss"]) for a, b in own} for own in pairs]
    seeds = [seed for seed in rises[0] if seed in rises[1]]
    a, b = ([rise[seed] for seed in seeds] for rise in rises)
    if np.isfinite([*a, *b]).all():
        return compare_pairs(a, b, "larger", smallest=SMALLEST_LOSS)
    trained, others = ((sum(run["reached"] for run, _ in own), len(own)) for own in pairs)
    return compare_shares(trained, others, "smaller")


# ---- batch norm and the learning rate ----

NORM_RATES = (0.01, 0.05, 0.5)


def norm_rate_experiment(subject: Subject, *, n_seeds: int = 5, epochs: int = 40, **options: Any) -> ArmsResult:
    """Train with and without batch norm at a low, a middle and a high rate.

    Parameters
    ----------
    subject : Subject
        Of an architecture with norm layers.
    n_seeds, epochs : int
    **options
        Further arguments of `compare_arms`.

    Returns
    -------
    ArmsResult
        Groups "norm, rate R" and "no norm, rate R".
    """
    arms = [
        Arm(f"{name}, rate {rate:g}", changes, (rate,), prepare=open_branches)
        for rate in NORM_RATES
        for name, changes in (("norm", ()), ("no norm", ("without_norm",)))
    ]
    return compare_arms(subject, arms, judge_norm, n_seeds=n_seeds, epochs=epochs, **options)


def judge_norm(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the claims on batch norm: the rate as an interaction, curvature at the largest rate at which both train."""
    both = [r for r in NORM_RATES if all(_train(rows, f"{name}, rate {r:g}") for name in ("norm", "no norm"))]
    lower = [rate for rate in both if rate < NORM_RATES[-1]]
    what = "training loss: what the largest rate adds without norm against with it"
    if lower:
        high, low = f"{NORM_RATES[-1]:g}", f"{lower[-1]:g}"
        plain = (f"no norm, rate {high}", f"no norm, rate {low}")
        normed = (f"norm, rate {high}", f"norm, rate {low}")
        allowed = interaction(rows, plain, normed)
    else:
        allowed = _nothing("without norm no lower rate trains, so that this is not about the rate")
    if both:
        flat = contrast("norm_curvature", rows, f"norm, rate {both[-1]:g}", f"no norm, rate {both[-1]:g}", FLAT)
    else:
        nothing = _nothing("no rate at which both train: no minima to compare")
        flat = [("norm_curvature", "λ_max: norm against none", "smaller", nothing)]
    return judge_together([("norm_rate", what, "larger", allowed), *flat])


def _nothing(reason: str) -> Verdict:
    return Verdict(NOT_COMPARABLE, reason, NAN, NAN, NAN, (0, 0))


def _train(rows: Sequence[Row], group: str) -> bool:
    """Whether most runs of a group reached the training loss."""
    own = [row["reached"] for row in rows if row["group"] == group]
    return sum(own) > len(own) / 2


# ---- dropout ----

BLOCKS, HEAD = "dropout in the blocks", "dropout before the classifier"


def dropout_experiment(subject: Subject, *, n_seeds: int = 5, epochs: int = 100, **options: Any) -> ArmsResult:
    """Train without dropout, with dropout inside the blocks, and before the classifier alone, to one training loss.

    Parameters
    ----------
    subject : Subject
        Of an architecture that dropout inside the blocks is known for.
    n_seeds, epochs : int
    **options
        Further arguments of `compare_arms`.

    Returns
    -------
    ArmsResult
        Groups "no dropout", "dropout in the blocks" and "dropout before the classifier".
    """
    changes = {"no dropout": (), BLOCKS: ("with_dropout=0,0,0.2",), HEAD: ("with_dropout=0.3",)}
    arms = [Arm(name, change, (0.05,)) for name, change in changes.items()]
    return compare_arms(subject, arms, judge_dropout, n_seeds=n_seeds, epochs=epochs, **options)


def judge_dropout(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the claim on dropout by dropout inside the blocks; before the classifier alone stands beside it."""
    return judge_together(contrast("dropout_flat", rows, BLOCKS, "no dropout", FLAT))
