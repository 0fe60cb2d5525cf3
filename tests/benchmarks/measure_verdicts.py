"""How often each rule calls a claim supported where there is no effect, and where there is one: docs/verdicts.md.

    python -m tests.benchmarks.measure_verdicts [--draws 4000]

Every rule that gives a verdict in this project is fed simulated runs, in the numbers that the experiments use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from estimators.core.evidence.paired import compare_crossed, compare_pairs
from estimators.core.evidence.ranking import judge_correlation, kendall
from estimators.core.evidence.verdicts import (
    SUPPORTED,
    adjust,
    combine,
    compare_groups,
    compare_ratios,
    compare_shares,
    compare_training,
    judge_share,
    judge_trend,
)

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
    Rule("three measures of one claim, 3 and 3 seeds", "2 SD each", combined(3, 3), 2.0),
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
