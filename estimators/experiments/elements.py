"""Skip connections, batch norm and dropout: what each does to training, to the curvature and to held-out accuracy.

Curvature is compared at one learning rate and at one training loss, both of which move it; depth and the largest rate
are judged as interactions, by the training loss that each arm reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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

SHALLOW, DEEP = 1, 5  # blocks a stage
RATES = (0.02, 0.1, 0.3)
SKIPS, PLAIN, VGG = "ResNet with skips", "ResNet without skips", "VGG"  # shallow, at one rate
LIKE = 1.2  # factor between numbers of weights up to which two networks are of like size
WORSE = (*(replace(q, claimed="larger") for q in FLAT), replace(ACCURATE, claimed="smaller"))


def skips_depth_experiment(subject: Subject, *, n_seeds: int = 5, epochs: int = 30, **options: Any) -> ArmsResult:
    """Train shallow and deep networks with and without skips, and a VGG beside the shallow ones.

    How deep a network can be trained is compared at each one's own best rate, the minima of shallow networks at one
    rate for all. The last gain of every branch starts at one in both: timm starts it at zero, which makes a block with
    a skip begin as the identity and would cut a network without skips in two for good.

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
        Groups "shallow with skips", "shallow plain", "deep with skips" and "deep plain" at their own best rates; of the
        shallow ones at one rate, whose curvature is measured, "ResNet with skips", "ResNet without skips" and "VGG".
    """
    skips = {"with skips": (), "plain": ("without_skips",)}
    tuned = [
        Arm(f"{depth} {name}", (f"with_depth={blocks}", *change), RATES, measures=(), prepare=open_branches)
        for depth, blocks in (("shallow", SHALLOW), ("deep", DEEP))
        for name, change in skips.items()
    ]
    at_one_rate = [
        Arm(name, (f"with_depth={SHALLOW}", *change), prepare=open_branches)
        for name, change in zip((SKIPS, PLAIN), skips.values(), strict=True)
    ]
    arms = [*tuned, *at_one_rate, Arm(VGG, architecture="thin_vgg")]
    return compare_arms(subject, arms, judge_skips, n_seeds=n_seeds, epochs=epochs, **options)


def open_branches(model: nn.Module) -> nn.Module:
    """Start every gain of a norm that is zero at one, in place."""
    for module in model.modules():
        gain = getattr(module, "weight", None)
        if isinstance(gain, nn.Parameter) and gain.dim() == 1 and not gain.any():
            nn.init.ones_(gain)
    return model


def judge_skips(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the claims on skips: depth as an interaction, the basin and the accuracy where both nets train."""
    depth = interaction(rows, ("deep plain", "shallow plain"), ("deep with skips", "shallow with skips"))
    beside = contrast("vgg_sharp", rows, VGG, SKIPS, WORSE)
    if not of_like_size(rows):
        unlike = _nothing("the numbers of weights differ by more than a fifth")
        beside = [(claim, what, claimed, unlike) for claim, what, claimed, _ in beside]
    found = judge_together(
        [
            ("skips_depth", "training loss: what depth adds without skips against with them", "larger", depth),
            *contrast("skips_flat", rows, SKIPS, PLAIN, FLAT),
            *contrast("skips_generalise", rows, SKIPS, PLAIN, [ACCURATE]),
            *beside,
        ]
    )
    # a VGG is said to be sharper and to generalise less well
    return found | {"vgg_sharp": [replace(row, needed=True) for row in found["vgg_sharp"]]}


def of_like_size(rows: Sequence[Row]) -> bool:
    """Whether the VGG and the ResNet with skips have about as many weights."""
    sizes = [row["n_parameters"] for row in rows if row["group"] in (VGG, SKIPS)]
    return not sizes or max(sizes) <= LIKE * min(sizes)


def interaction(rows: Sequence[Row], treated: tuple[str, str], control: tuple[str, str]) -> PairedComparison | Verdict:
    """Hold the rise of the training loss from one arm to another against the same rise elsewhere, seed by seed.

    Where a run ended in a loss that is not finite there is no rise, and the shares of runs that reached the training
    loss are compared instead. Where the control does not train either, how much worse the others do says nothing.
    """
    if any(row["group"] == control[0] for row in rows) and not _train(rows, control[0]):
        return _nothing(f"“{control[0]}” does not train either")
    pairs = [pairs_of(rows, *sides) for sides in (treated, control)]
    rises = [{a["seed"]: float(a["train_loss"] - b["train_loss"]) for a, b in own} for own in pairs]
    seeds = [seed for seed in rises[0] if seed in rises[1]]
    a, b = ([rise[seed] for seed in seeds] for rise in rises)
    if np.isfinite([*a, *b]).all():
        return compare_pairs(a, b, "larger", smallest=SMALLEST_LOSS)
    trained, others = ((sum(run["reached"] for run, _ in own), len(own)) for own in pairs)
    return compare_shares(others, trained, "larger")


# ---- batch norm and the learning rate ----

LOW, HIGH = 0.01, 0.5
ONE_RATE = (
    "One rate for both: small for the net with norm and near its largest for the one without, which moves the "
    "curvature as well."
)


def norm_rate_experiment(subject: Subject, *, n_seeds: int = 5, epochs: int = 60, **options: Any) -> ArmsResult:
    """Train with and without batch norm at a low and at a high rate.

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
        Groups "norm, rate R" and "no norm, rate R"; curvature is measured at the low rate, since the net without norm
        is not expected to be at a minimum at the high one.
    """
    arms = [
        Arm(f"{name}, rate {rate:g}", changes, (rate,), measures=measures, prepare=open_branches)
        for rate, measures in ((LOW, Arm.measures), (HIGH, ()))
        for name, changes in (("norm", ()), ("no norm", ("without_norm",)))
    ]
    result = compare_arms(subject, arms, judge_norm, n_seeds=n_seeds, epochs=epochs, **options)
    return replace(result, notes=[ONE_RATE, *result.notes])


def judge_norm(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the claims on batch norm: the rate as an interaction, curvature at the low rate, at which both train."""
    (normed_low, normed_high), (plain_low, plain_high) = (
        [f"{name}, rate {rate:g}" for rate in (LOW, HIGH)] for name in ("norm", "no norm")
    )
    if _train(rows, normed_low) and _train(rows, plain_low):
        allowed = interaction(rows, (plain_high, plain_low), (normed_high, normed_low))
        flat = contrast("norm_curvature", rows, normed_low, plain_low, FLAT)
    else:
        allowed = _nothing("without norm the low rate does not train either, so that this is not about the rate")
        nothing = _nothing("no rate at which both train: no minima to compare")
        flat = [("norm_curvature", "λ_max: norm against none", "smaller", nothing)]
    what = "training loss: what the high rate adds without norm against with it"
    return judge_together([("norm_rate", what, "larger", allowed), *flat])


def _nothing(reason: str) -> Verdict:
    return Verdict(NOT_COMPARABLE, reason, NAN, NAN, NAN, (0, 0))


def _train(rows: Sequence[Row], group: str) -> bool:
    """Whether most runs of a group reached the training loss."""
    own = [row["reached"] for row in rows if row["group"] == group]
    return sum(own) > len(own) / 2


# ---- dropout ----

BLOCKS, NONE = "dropout in the blocks", "no dropout"


def dropout_experiment(subject: Subject, *, n_seeds: int = 5, epochs: int = 100, **options: Any) -> ArmsResult:
    """Train without dropout and with dropout inside the blocks to one training loss.

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
        Groups "no dropout" and "dropout in the blocks".
    """
    arms = [Arm(NONE, (), (0.05,)), Arm(BLOCKS, ("with_dropout=0,0,0.2",), (0.05,))]
    return compare_arms(subject, arms, judge_dropout, n_seeds=n_seeds, epochs=epochs, **options)


def judge_dropout(rows: Sequence[Row]) -> dict[str, list[Measurement]]:
    """Judge the claim on dropout by dropout inside the blocks: before the classifier it acts on few of the weights."""
    return judge_together(contrast("dropout_flat", rows, BLOCKS, NONE, FLAT))
