"""How often each rule calls a claim supported where there is no effect, and where there is one: docs/verdicts.md.

    python -m tests.benchmarks.measure_verdicts [--draws 4000]

Every rule that gives a verdict in this project is fed simulated runs, in the numbers that the experiments use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from estimators.core.evidence.paired import compare_crossed, compare_pairs
from estimators.core.evidence.ranking import judge_correlation, kendall
from estimators.core.evidence.verdicts import (
    NOT_CLEAR,
    SUPPORTED,
    Judged,
    adjust,
    combine,
    compare_groups,
    compare_ratios,
    compare_shares,
    compare_training,
    judge_share,
    judge_trend,
)
from estimators.experiments import common_verdict
from estimators.experiments._paired import compare_rows
from estimators.experiments.arms import FLAT
from estimators.experiments.claims import judge_together
from estimators.experiments.connectivity_cases import judge as judge_cases
from estimators.experiments.elements import interaction
from estimators.experiments.studies import judge_as_often, judge_rarer

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
NOISE: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "log-normal": lambda rng, shape: (rng.lognormal(size=shape) - np.exp(0.5)) / 2.161,  # mean 0, deviation 1
    "heavy tails (t₃)": lambda rng, shape: rng.standard_t(3, size=shape) / np.sqrt(3),
}


@dataclass(frozen=True)
class Rule:
    """One rule at one size.

    Attributes
    ----------
    name : str
    effect : str
        What `judge` is given as an effect, in words.
    judge : callable
        ``judge(rng, noise, effect) -> verdict``; effect 0 is none.
    size : float
        The effect whose power is stated.
    """

    name: str
    effect: str
    judge: Callable[[np.random.Generator, Draw, float], str]
    size: float


def pairs(n: int, **options: object) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        a, b = noise(rng, (2, n))
        return compare_pairs(a + effect, b, "larger", **options).verdict  # type: ignore[arg-type]

    return judge


def equal_pairs(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """The claim is that nothing differs by 1 or more: no "effect" is a difference of exactly 1."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        a, b = noise(rng, (2, n)) / 2
        return compare_pairs(a + 1 - effect, b, "equal", smallest=1.0).verdict

    return judge


def groups(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        a, b = noise(rng, (2, n))
        return compare_groups(a + effect, b, "larger").verdict

    return judge


def ratios(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        a, b = np.exp(noise(rng, (2, n)))
        return compare_ratios(a * np.exp(effect), b, "larger").verdict

    return judge


def training(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        a, b = noise(rng, (2, n))
        a, b = (
            np.where(rng.random(n) < share, np.nan, v) for v, share in ((a, 0.5 * (1 - effect)), (b, 0.5 + effect / 2))
        )
        return compare_training(a, b, "larger").verdict

    return judge


def shares(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        a, b = rng.binomial(n, 0.5 + effect / 2), rng.binomial(n, 0.5 - effect / 2)
        return compare_shares((int(a), n), (int(b), n), "larger").verdict

    return judge


def more_often(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    return lambda rng, noise, effect: judge_share(int(rng.binomial(n, 0.5 + effect / 2)), n).verdict


def crossed(n: int, m: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """Right or wrong of n pairs of networks on the same m examples, some of which favour one side for every network."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        lean, skill = 0.15 * noise(rng, (1, m)), 0.02 * noise(rng, (2, n, 1))
        a, b = (rng.random((n, m)) < 0.85 + side * lean / 2 + skill[i] for i, side in enumerate((1, -1)))
        return compare_crossed(a + effect / 100, b.astype(float), "larger").verdict

    return judge


def rank(n: int, units: int | None = None) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        if units is None:
            x = noise(rng, (n,))
            return judge_correlation(kendall(x, effect * x + noise(rng, (n,)), n_resamples=1)).verdict
        x, y = noise(rng, (2, units))
        member = np.arange(n) % units
        x, y = x[member] + 0.1 * noise(rng, (n,)), (effect * x + y)[member] + 0.1 * noise(rng, (n,))
        return judge_correlation(kendall(x, y, units=member, n_resamples=1)).verdict

    return judge


def trend(widths: int, seeds: int) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        x = np.repeat(np.arange(widths, dtype=float), seeds)
        return judge_trend(x, effect * x + noise(rng, (len(x),)), "larger").verdict

    return judge


def combined(n: int, measures: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """A claim measured in several ways that are correlated, corrected for their number and combined."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        common, own = noise(rng, (2, n, 1)), noise(rng, (2, n, measures))
        a, b = 0.7 * common + 0.7 * own
        found = adjust([compare_groups(a[:, k] + effect, b[:, k], "larger") for k in range(measures)])
        return combine([v.verdict for v in found])

    return judge


def any_of_a_table(n: int, rows: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """Whether any row of a table of correlated rows is called supported, after the correction for their number."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        common, own = noise(rng, (2, n, 1)), noise(rng, (2, n, rows))
        a, b = 0.7 * common + 0.7 * own
        found = adjust([compare_pairs(a[:, k] + effect, b[:, k], "larger") for k in range(rows)])
        return any_supported(found)

    return judge


def any_more_often(n: int, rows: int) -> Callable[[np.random.Generator, Draw, float], str]:
    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        return any_supported(adjust([judge_share(int(k), n) for k in rng.binomial(n, 0.5 + effect / 2, size=rows)]))

    return judge


def any_supported(found: Sequence[Judged]) -> str:
    return SUPPORTED if SUPPORTED in {v.verdict for v in found} else NOT_CLEAR


def all_needed(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """A claim that needs all of four rows, three of which hold in any case, by 5 SD."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        a, b = noise(rng, (2, 4, n))
        moved = (5.0, 5.0, 5.0, effect)
        asked = [("claim", "", "larger", compare_pairs(a[k] + moved[k], b[k], "larger")) for k in range(4)]
        return common_verdict([replace(row, needed=True) for row in judge_together(asked)["claim"]])

    return judge


def curves(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """Pairs that no straight line joins; half of them are joined by the curve where there is no effect."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        shares = {"linear": 0.0, "bezier": rng.binomial(n, 0.5 + effect / 2) / n}
        rows = [{"case": "different starts", "path": p, "joined": s, "n": n, "mean": 1.0} for p, s in shares.items()]
        return str(judge_cases(rows)[0]["verdict"])

    return judge


def over_loss(n: int, power: float) -> Callable[[np.random.Generator, Draw, float], str]:
    """Networks whose curvature is a power of the training loss, which is half as large on the treated side."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        loss = np.exp(0.1 * noise(rng, (2, n))) * np.array([[0.5], [1.0]])
        sharp = loss**power * np.exp(0.3 * noise(rng, (2, n))) * np.exp([[-0.3 * effect], [0.0]])
        sides = [
            [{"train_loss": x, "lambda_max": y} for x, y in zip(*side, strict=True)]
            for side in zip(loss, sharp, strict=True)
        ]
        return compare_rows(list(zip(*sides, strict=True)), FLAT[0], 0.95).verdict

    return judge


def depths(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """What depth costs one net and another; without an effect a fifth of the deep runs end without a number."""

    def judge(rng: np.random.Generator, noise: Draw, effect: float) -> str:
        groups = ("deep plain", "deep with skips", "shallow plain", "shallow with skips")
        loss = dict(zip(groups, noise(rng, (4, n)), strict=True))
        loss["deep plain"] += effect
        for group in groups[: 2 if effect == 0 else 0]:
            loss[group] = np.where(rng.random(n) < 0.2, np.nan, loss[group])
        rows = [
            {"group": group, "seed": i, "train_loss": x, "reached": bool(np.isfinite(x))}
            for group, values in loss.items()
            for i, x in enumerate(values)
        ]
        return interaction(rows, groups[::2], groups[1::2]).verdict

    return judge


def rarer(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    return lambda rng, noise, effect: judge_rarer(int(rng.binomial(n, (1 - effect) / 16)), n, 1 / 16).verdict


def as_often(n: int) -> Callable[[np.random.Generator, Draw, float], str]:
    """The claim is a share within a factor of 2: no "effect" is a factor of exactly 2."""
    return lambda rng, noise, effect: judge_as_often(int(rng.binomial(n, (2 - effect) / 16)), n, 1 / 16).verdict


RULES = (
    Rule("paired, 3 seeds", "2 SD", pairs(3), 2.0),
    Rule("paired, 5 seeds", "2 SD", pairs(5), 2.0),
    Rule("paired, 10 seeds", "1 SD", pairs(10), 1.0),
    Rule("paired equivalence, 5 seeds", "none, margin 2 SD", equal_pairs(5), 1.0),
    Rule("crossed with 360 test examples, 5 seeds", "4 points", crossed(5, 360), 4.0),
    Rule("two groups, 3 and 3 seeds", "2 SD", groups(3), 2.0),
    Rule("ratio of two groups, 5 and 5 seeds", "2 SD of the log", ratios(5), 2.0),
    Rule("runs that fail, 5 and 5 seeds", "half against none and all", training(5), 1.0),
    Rule("shares, 6 and 6 runs", "all against none", shares(6), 0.9),
    Rule("more often than not, 5 runs", "95 %", more_often(5), 0.9),
    Rule("more often than not, 10 runs", "90 %", more_often(10), 0.8),
    Rule("rank correlation, 4 models", "y = 2x + 1 SD", rank(4), 2.0),
    Rule("rank correlation, 10 models", "y = 2x + 1 SD", rank(10), 2.0),
    Rule("rank correlation, 15 runs of 5 variants", "y = 2x + 1 SD", rank(15, 5), 2.0),
    Rule("trend over 6 widths, 3 seeds", "½ SD a step", trend(6, 3), 0.5),
    Rule("rank correlation, 20 networks of 10 ways", "y = x + 1 SD", rank(20, 10), 1.0),
    Rule("trend over 7 widths, one value each", "1 SD a step", trend(7, 1), 1.0),
    Rule("three measures of one claim, 3 and 3 seeds", "2 SD each", combined(3, 3), 2.0),
    Rule("any row of a table of 8, 5 seeds", "2 SD in each", any_of_a_table(5, 8), 2.0),
    Rule("any of 2 rows more often than not, 6 runs", "95 % in both", any_more_often(6, 2), 0.9),
    Rule("any of 6 rows more often than not, 8 saddles", "95 % in all", any_more_often(8, 6), 0.9),
    Rule("four rows needed, three of which hold, 5 seeds", "4 SD", all_needed(5), 4.0),
    Rule("joined by a curve and by no line, 6 pairs", "95 %", curves(6), 0.9),
    Rule("curvature ∝ training loss, halved, 5 seeds", "3 SD beyond the loss", over_loss(5, 1.0), 3.0),
    Rule("curvature apart from training loss, halved, 5 seeds", "6 SD", over_loss(5, 0.0), 6.0),
    Rule("what depth costs, 5 seeds, runs that fail", "3 SD, none fails", depths(5), 3.0),
    Rule("share below 1 in 16, 20,000 matrices", "a tenth below", rarer(20_000), 0.1),
    Rule("share within a factor of 2, 20,000 matrices", "equal", as_often(20_000), 1.0),
)


def share_supported(rule: Rule, noise: Draw, effect: float, draws: int, random_state: int = 0) -> float:
    """Share of simulated tables whose claim is called supported."""
    rng = np.random.default_rng(random_state)
    return float(np.mean([rule.judge(rng, noise, effect) == SUPPORTED for _ in range(draws)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--out", type=Path, default=Path("docs/verdicts.md"))
    options = parser.parse_args()
    lines = [
        "# How often a verdict is wrong\n",
        f"Written by `python -m tests.benchmarks.measure_verdicts`: {options.draws} simulated tables for each rule. “False” is the "
        "share called *supported* where there is no effect, under three kinds of spread between runs; “power” the share called "
        "*supported* under the effect that is named, in standard deviations (SD) between runs, with normal spread.\n",
        "| rule | " + " | ".join(f"false, {name}" for name in NOISE) + " | effect | power |",
        "|---|" + "---:|" * len(NOISE) + "---|---:|",
    ]
    for rule in RULES:
        false = [f"{share_supported(rule, noise, 0.0, options.draws):.1%}" for noise in NOISE.values()]
        power = share_supported(rule, NOISE["normal"], rule.size, options.draws)
        lines.append(f"| {rule.name} | {' | '.join(false)} | {rule.effect} | {power:.0%} |")
        print(lines[-1], flush=True)
    options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
