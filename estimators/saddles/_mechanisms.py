"""The lecture's ways of leaving a saddle, judged on measured leaving times by fixed rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.evidence.verdicts import NOT_CLEAR, NOT_SUPPORTED, SUPPORTED

ALMOST_ALL, ALMOST_NONE = 0.9, 0.1


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
        displaced starts.
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
    rows = []
    for mechanism in MECHANISMS:
        present = [name for name in mechanism.optimizers if name in steps]
        if not present or mechanism.control not in steps:
            continue
        judge = _leaves if mechanism.rule == "leaves" else _faster
        parts = [judge(steps[n], steps[mechanism.control], diverged[n], radii) for n in present]
        verdicts = {verdict for verdict, _, _ in parts}
        verdict = verdicts.pop() if len(verdicts) == 1 else NOT_CLEAR
        measured = [f"{name}: {text}" for name, (_, text, _) in zip(present, parts, strict=True)]
        reasons = dict.fromkeys(reason for _, _, reason in parts)
        rows.append(
            {
                "mechanism": mechanism.key,
                "claim": mechanism.claim,
                "optimizers": present,
                "control": mechanism.control,
                "measured": "; ".join(measured),
                "verdict": verdict,
                "reason": "; ".join(reasons),
            }
        )
    return rows


def _leaves(steps: np.ndarray, control: np.ndarray, diverged: np.ndarray, radii: np.ndarray) -> tuple[str, str, str]:
    rest = np.flatnonzero(np.asarray(radii) == 0)
    if not len(rest):
        return NOT_CLEAR, "not run from r = 0", "there is no start at r = 0"
    ours, theirs = np.isfinite(steps[rest]).mean(), np.isfinite(control[rest]).mean()
    text = f"left from r = 0 in {ours:.0%} of runs, control {theirs:.0%}"
    if ours >= ALMOST_ALL and theirs <= ALMOST_NONE:
        return SUPPORTED, text, "it leaves in at least 90 % of runs where the control leaves in at most 10 %"
    if ours <= ALMOST_NONE:
        return NOT_SUPPORTED, text, "it leaves in at most 10 % of runs within the budget"
    if theirs > ALMOST_NONE:
        return NOT_CLEAR, text, "the control leaves too, so that nothing is told apart"
    return NOT_CLEAR, text, "it leaves in some runs only"


def _faster(steps: np.ndarray, control: np.ndarray, diverged: np.ndarray, radii: np.ndarray) -> tuple[str, str, str]:
    displaced = np.asarray(radii) > 0
    ours, theirs = steps[displaced].ravel(), control[displaced].ravel()
    decided = np.isfinite(ours) | np.isfinite(theirs)
    if not decided.any():
        return NOT_CLEAR, "neither left from a displaced start", "nothing left within the budget"
    ours, theirs = ours[decided], theirs[decided]
    wins = float(np.mean(ours < theirs))
    both = np.isfinite(ours) & np.isfinite(theirs) & (theirs > 0)
    text = f"sooner in {wins:.0%} of {len(ours)} paired starts"
    if both.any():
        low, middle, high = np.quantile(ours[both] / theirs[both], [0.25, 0.5, 0.75])
        text += f", {middle:.2f} × the control's steps (quartiles {low:.2f}–{high:.2f})"
    if diverged[displaced].any():
        text += f", diverged in {diverged[displaced].mean():.0%}"
    if wins >= ALMOST_ALL:
        return SUPPORTED, text, "it is sooner in at least 90 % of the paired starts"
    if wins <= 0.5:
        return NOT_SUPPORTED, text, "it is sooner in at most half of the paired starts"
    return NOT_CLEAR, text, "it is sooner in more than half, but less than 90 % of the paired starts"
