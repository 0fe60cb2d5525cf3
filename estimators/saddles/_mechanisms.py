"""The lecture's ways of leaving a saddle, judged on measured leaving times by fixed rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.evidence.verdicts import NOT_CLEAR, Verdict, adjust, judge_share

RANDOM = ("sgd", "perturbed_gd")  # the others have one run from one start, however often it is repeated
LEAST = 0.1  # share of the control's steps that has to be saved for "sooner" to matter


_Judged = tuple[Verdict, str]  # with what was measured, in words


@dataclass(frozen=True)
class Mechanism:
    """A claim about one optimiser against another.

    Attributes
    ----------
    key : str
        Identifier, also of its text in the app.
    optimizers : tuple of str
        Which rules stand for it; all of them must support the claim.
    control : str
        What it is compared with.
    rule : {"leaves", "faster"}
        "leaves": it leaves from r = 0 where the control stays. "faster": it needs fewer steps from the same
        displaced starts, in one direction after the other: several radii along one direction are one piece of evidence.
    claim : str
        The claim in one sentence.
    """

    key: str
    optimizers: tuple[str, ...]
    control: str
    rule: str
    claim: str


MECHANISMS = (
    Mechanism("sgd_noise", ("sgd",), "gd", "leaves", "Minibatch noise leaves a saddle that gradient descent rests on."),
    Mechanism("momentum", ("momentum", "nesterov"), "gd", "faster", "Momentum passes the slow region sooner."),
    Mechanism(
        "inertia",
        ("momentum", "nesterov"),
        "large_step",
        "faster",
        "Momentum does more than a plain step of the same effective size, η/(1 − μ) = 10η.",
    ),
    Mechanism("large_step", ("large_step",), "gd", "faster", "A large step leaves unstable points sooner."),
    Mechanism(
        "injected_noise", ("perturbed_gd",), "gd", "leaves", "Injected noise leaves a saddle that descent rests on."
    ),
    Mechanism("adaptive", ("rmsprop", "adam"), "gd", "faster", "Adaptive step sizes leave flat directions sooner."),
)


def judge_mechanisms(
    steps: Mapping[str, np.ndarray], diverged: Mapping[str, np.ndarray], radii: np.ndarray
) -> list[dict[str, Any]]:
    """Judge each mechanism whose optimisers were run.

    Parameters
    ----------
    steps : dict of ndarray of shape (n_radii, n_seeds)
        Leaving steps by optimiser; inf where it stayed or diverged.
    diverged : dict of ndarray of shape (n_radii, n_seeds), bool
    radii : ndarray of shape (n_radii,)

    Returns
    -------
    list of dict
        mechanism, claim, optimizers, control, measured (in words), verdict and reason.
    """
    found = []
    for mechanism in MECHANISMS:
        if mechanism.control in steps:
            judge = _leaves if mechanism.rule == "leaves" else _faster
            control = steps[mechanism.control]
            found += [
                (mechanism, name, *judge(name, steps[name], control, diverged[name], radii))
                for name in mechanism.optimizers
                if name in steps
            ]
    adjusted = adjust([verdict for _, _, verdict, _ in found])
    rows = []
    for mechanism in dict.fromkeys(m for m, *_ in found):
        own = [(name, text, v) for (m, name, _, text), v in zip(found, adjusted, strict=True) if m is mechanism]
        verdicts = {v.verdict for *_, v in own}
        rows.append(
            {
                "mechanism": mechanism.key,
                "claim": mechanism.claim,
                "optimizers": [name for name, *_ in own],
                "control": mechanism.control,
                "measured": "; ".join(f"{name}: {text}" for name, text, _ in own),
                "verdict": verdicts.pop() if len(verdicts) == 1 else NOT_CLEAR,
                "reason": "; ".join(dict.fromkeys(v.reason for *_, v in own)),
            }
        )
    return rows


def _leaves(name: str, steps: np.ndarray, control: np.ndarray, diverged: np.ndarray, radii: np.ndarray) -> _Judged:
    rest = np.flatnonzero(np.asarray(radii) == 0)
    if not len(rest):
        return _unclear("there is no start at r = 0"), "not run from r = 0"
    ours, theirs = np.isfinite(steps[rest[0]]), bool(np.isfinite(control[rest[0]]).any())
    if name not in RANDOM:
        ours = ours[:1]
    left, n = int(ours.sum()), len(ours)
    text = f"left from r = 0 in {left} of {n} run{'s' * (n > 1)}, control {'left' if theirs else 'stayed'} in its one"
    if theirs:
        return _unclear("the control leaves too, so that nothing is told apart"), text
    return judge_share(left, n), text


def _faster(name: str, steps: np.ndarray, control: np.ndarray, diverged: np.ndarray, radii: np.ndarray) -> _Judged:
    displaced = np.asarray(radii) > 0
    ours, theirs = steps[displaced], control[displaced]
    decided = np.isfinite(ours) | np.isfinite(theirs)
    if not decided.any():
        return _unclear("nothing left within the budget"), "neither left from a displaced start"
    ahead = np.where(decided, (ours < (1 - LEAST) * theirs) * 2 - 1, 0).sum(axis=0)
    won, n = int((ahead > 0).sum()), int((ahead != 0).sum())
    text = f"sooner by {LEAST:.0%} or more along {won} of {n} directions"
    both = np.isfinite(ours) & np.isfinite(theirs) & (theirs > 0)
    if both.any():
        low, middle, high = np.quantile(ours[both] / theirs[both], [0.25, 0.5, 0.75])
        text += f", {middle:.2f} × the control's steps (quartiles {low:.2f}–{high:.2f})"
    if diverged[displaced].any():
        text += f", diverged in {diverged[displaced].mean():.0%}"
    return judge_share(won, n), text


def _unclear(reason: str) -> Verdict:
    nan = float("nan")
    return Verdict(NOT_CLEAR, reason, nan, nan, nan, (0, 0), "share")
