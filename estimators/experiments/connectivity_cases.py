"""The lecture's three cases of mode connectivity, trained and measured.

Long because the result and its verdicts stand beside the estimator that makes them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils._param_validation import Interval
from torch import Tensor, nn

from ..base import ParallelEstimator
from ..cache import describe_module
from ..connectivity import ModeConnector
from ..core.evidence.verdicts import NOT_CLEAR, NOT_SUPPORTED, SUPPORTED, Verdict, adjust, judge_share
from ..data import Examples, load_data
from ..models import load_model, trainable_names
from ..progress import OnProgress, subprogress
from ..results import Result
from ..training import train
from ._paired import mean_and_std

CASES = ("same start", "different starts", "fine-tuned")
#: How two ends are joined: name → changed parameters of `ModeConnector`.
JOINTS: dict[str, dict[str, Any]] = {
    "linear": {},
    "aligned": {"align": "weights"},
    "bezier": {"path": "bezier"},
    "polychain": {"path": "polychain"},
}


@dataclass(frozen=True, eq=False, kw_only=True)
class CasesResult(Result):
    """Barriers of each case, path and seed.

    Attributes
    ----------
    rows : list of dict
        One a path: ``case``, ``seed``, ``path``, ``barrier``, ``rise``, ``distance`` (of the ends),
        ``loss_a``, ``loss_b``, ``accuracy_a``, ``accuracy_b`` and, with held-out data, ``held_out_barrier`` and
        ``held_out_accuracy`` (mean of the two ends).
    t, profiles : ndarray of shape (n,) and (n_rows, n)
        Loss along each path.
    summary : list of dict
        One a case and path: ``mean``, ``std`` (over seeds, n − 1), ``low``, ``high``, ``n``, ``joined``
        (share of seeds whose rise is at most ``tolerance``); pairs without a number are left out of all of them.
    verdicts : list of dict
        One a claim of the lecture: ``case``, ``path``, ``claim``, ``verdict``, ``reason``.
    tolerance : float
        In the unit of the loss.
    notes : list of str
        How far the ends are apart, and how well they are trained.

    Examples
    --------
    >>> from estimators.experiments import CasesResult
    >>> rows = [{"case": "fine-tuned", "seed": s, "path": "linear", "rise": r} for s, r in ((0, 0.25), (1, 0.0))]
    >>> result = CasesResult(rows=rows, tolerance=0.1)  # made up; `ConnectivityCases` measures them
    >>> [row["seed"] for row in result.table() if row["rise"] <= result.tolerance]  # joined
    [1]
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    t: np.ndarray = field(default_factory=lambda: np.empty(0))
    profiles: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    summary: list[dict[str, Any]] = field(default_factory=list)
    verdicts: list[dict[str, Any]] = field(default_factory=list)
    tolerance: float = 0.1
    notes: list[str] = field(default_factory=list)

    def table(self) -> list[dict[str, Any]]:
        """Return the rows."""
        return self.rows


@dataclass(kw_only=True, eq=False, repr=False)
class ConnectivityCases(ParallelEstimator):
    """Train the pairs of the lecture's table and join them by straight, aligned and curved paths.

    - *same start*: one network trained for ``split_steps`` steps, then twice to the end with different orders
      of the data (Frankle et al. 2020);
    - *different starts*: two initialisations;
    - *fine-tuned*: two children of one fully trained parent, trained on with different orders of the data
      (Neyshabur et al. 2020).

    Parameters
    ----------
    cases : tuple of str, default=("same start", "different starts", "fine-tuned")
        Which of them.
    n_seeds : int, default=6
        Pairs of each case; with fewer, three statements in one table can't be told from chance.
    path_samples : int or None, default=512
        Training examples that paths are measured and bends are trained on; None takes all.
    split_steps : int, default=0
        Steps before the two of the first case part; 0 shares the initialisation alone.
    train_epochs, train_lr, train_batch_size, weight_decay : int, float, int, float
        Training of every network.
    fine_tune_epochs, fine_tune_lr : int, float
        Training of the children.
    joints : tuple of str, default=("linear", "aligned", "bezier")
        Some of ``JOINTS``.
    n_points, epochs, lr : int, int, float
        Of `ModeConnector`.
    tolerance : float, default=0.1
        Rise over the worse end, in the unit of the loss, up to which two ends count as joined.
    loss, batch_size, device, precision, batch_norm, memory, n_jobs, random_state, verbose
        As in `ModeConnector`; ``memory`` keeps every trained network and every path.

    Attributes
    ----------
    result_ : CasesResult
        Each of its fields is also an attribute with a trailing underscore.

    Examples
    --------
    >>> from estimators import load_data
    >>> from estimators.experiments import ConnectivityCases
    >>> few = {"n_seeds": 1, "train_epochs": 1, "fine_tune_epochs": 1, "n_points": 3, "train_batch_size": 16}
    >>> cases = ConnectivityCases(cases=("same start", "fine-tuned"), joints=("linear",), **few)
    >>> cases = cases.fit("test_resnet", load_data("digits", n_samples=48))
    >>> [(row["case"], row["path"]) for row in cases.rows_]
    [('same start', 'linear'), ('fine-tuned', 'linear')]
    """

    result_: CasesResult = field(init=False)

    cases: tuple[str, ...] = CASES
    n_seeds: int = 6
    path_samples: int | None = 512
    split_steps: int = 0
    train_epochs: int = 8
    train_lr: float = 0.1
    train_batch_size: int = 64
    weight_decay: float = 5e-4
    fine_tune_epochs: int = 4
    fine_tune_lr: float = 0.02
    joints: tuple[str, ...] = ("linear", "aligned", "bezier")
    n_points: int = 21
    epochs: int = 15
    lr: float = 0.1
    tolerance: float = 0.1

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "cases": [tuple, list],
        "n_seeds": [Interval(Integral, 1, None, closed="left")],
        "path_samples": [Interval(Integral, 1, None, closed="left"), None],
        "split_steps": [Interval(Integral, 0, None, closed="left")],
        "train_epochs": [Interval(Integral, 1, None, closed="left")],
        "train_lr": [Interval(Real, 0, None, closed="neither")],
        "train_batch_size": [Interval(Integral, 1, None, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "fine_tune_epochs": [Interval(Integral, 1, None, closed="left")],
        "fine_tune_lr": [Interval(Real, 0, None, closed="neither")],
        "joints": [tuple, list],
        "tolerance": [Interval(Real, 0, None, closed="left")],
    }

    def fit(
        self,
        make_model: str | Callable[[int], nn.Module],
        data: Any,
        *,
        held_out: Any = None,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[CasesResult], None] | None = None,
    ) -> ConnectivityCases:
        """Train and join the pairs.

        Parameters
        ----------
        make_model : str or callable
            A timm name, or seed → a freshly initialised module (which must depend on the seed alone).
        data : Examples, (inputs, targets), Dataset or DataLoader
            Training examples; paths are measured on ``path_samples`` of them.
        held_out : like `data`, optional
            Other examples to measure the paths on.
        on_progress, on_partial : callable, optional
            ``on_progress(done, total, message)``; ``on_partial(result)`` after each pair.

        Returns
        -------
        ConnectivityCases
        """
        self._check()
        examples = load_data(data)
        build = _builder(make_model, examples) if isinstance(make_model, str) else make_model
        fewer = self.path_samples is not None and self.path_samples < len(examples)
        measured = examples.subset(self.path_samples, int(self.random_state)) if fewer else examples
        report = self._progress(on_progress, "three cases")
        jobs = [(case, seed) for seed in range(int(self.n_seeds)) for case in self.cases]
        rows: list[dict[str, Any]] = []
        profiles: list[np.ndarray] = []
        settings: dict[str, Any] = {}
        for done, (case, seed) in enumerate(jobs):
            step = subprogress(report, done / len(jobs), (done + 1) / len(jobs))
            step(0, 1, f"{case}, pair {seed + 1} of {self.n_seeds}: training")
            pair = self._pair(case, seed, build, examples, subprogress(step, 0.0, 0.4))
            for k, joint in enumerate(self.joints):
                share = 0.6 / len(self.joints)
                name = f"{case}, pair {seed + 1} of {self.n_seeds}: {joint}"
                connector = self._connector(joint)
                connector.fit(
                    pair,
                    measured,
                    held_out=held_out,
                    on_progress=subprogress(step, 0.4 + k * share, 0.4 + (k + 1) * share, name),
                )
                rows.append({"case": case, "seed": seed, "path": joint, **_numbers(connector.result_)})
                profiles.append(connector.losses_)
                settings = connector.result_.settings
            if on_partial is not None:
                on_partial(self._result(rows, profiles, settings))
        self.n_features_in_ = connector.n_features_in_
        self._publish(self._result(rows, profiles, settings))
        report(1, 1, "done")
        return self

    # -- inside -----------------------------------------------------------------------------------------

    def _check(self) -> None:
        unknown = [c for c in self.cases if c not in CASES]
        if unknown or not self.cases:
            raise ValueError(f"cases must be some of {', '.join(CASES)}, got {self.cases!r}. Choose from these.")
        unknown = [j for j in self.joints if j not in JOINTS]
        if unknown or not self.joints:
            raise ValueError(f"joints must be some of {', '.join(JOINTS)}, got {self.joints!r}. Choose from these.")

    def _connector(self, joint: str) -> ModeConnector:
        apart = {"train_batch_size": ModeConnector.train_batch_size, "compare": False, "verbose": 0}
        return self._as(ModeConnector, **JOINTS[joint], **apart)

    def _pair(
        self, case: str, seed: int, build: Callable[[int], nn.Module], data: Examples, report: OnProgress
    ) -> tuple[nn.Module, nn.Module]:
        """Train two networks of one case; the numbers of seeds never meet between pairs."""
        first = 1000 * int(self.random_state) + 10 * seed
        full = {"epochs": int(self.train_epochs), "lr": float(self.train_lr)}
        if case == "different starts":
            starts, orders = [build(first), build(first + 1)], (first, first + 1)
        elif case == "same start":
            common = self._first_steps(build(first), data, first)
            starts, orders = [common, common], (first + 2, first + 3)
        else:
            parent = self._train(build(first), data, first, subprogress(report, 0.0, 0.4), **full)
            full = {"epochs": int(self.fine_tune_epochs), "lr": float(self.fine_tune_lr)}
            starts, orders = [parent, parent], (first + 4, first + 5)
        steps = (subprogress(report, 0.4, 0.7), subprogress(report, 0.7, 1.0))
        a, b = (
            self._train(start, data, order, step, **full)
            for start, order, step in zip(starts, orders, steps, strict=True)
        )
        return a, b

    def _first_steps(self, model: nn.Module, data: Examples, seed: int) -> nn.Module:
        """Train for exactly ``split_steps`` steps at the first step size."""
        size = int(self.train_batch_size)
        epochs, rest = divmod(int(self.split_steps), max(1, len(data) // size))
        constant = {"lr": float(self.train_lr), "schedule": "constant"}
        ignore = subprogress(lambda *_: None, 0.0, 1.0)
        if epochs:
            # whole batches alone, so that an epoch is the number of steps it was counted as
            model = self._train(
                model, data.subset(len(data) // size * size, seed), seed, ignore, epochs=epochs, **constant
            )
        if rest:
            model = self._train(model, data.subset(rest * size, seed + 7), seed, ignore, epochs=1, **constant)
        return model

    def _train(self, model: nn.Module, data: Examples, seed: int, report: OnProgress, **options: Any) -> nn.Module:
        """Train a copy, or load it when the same training was done before."""
        options = {
            "batch_size": int(self.train_batch_size),
            "weight_decay": float(self.weight_decay),
            "random_state": seed,
            "device": self.device,
            "loss": self.loss,
            **options,
        }
        key = ("trained", describe_module(model), trainable_names(model), data.fingerprint, options)
        found = self._cached(_trained, key, model, data, options, report)
        trained = copy.deepcopy(model).eval()
        trained.__dict__["provenance"] = found["provenance"]
        with torch.no_grad():
            for name, tensor in _tensors(trained).items():
                tensor.copy_(found["tensors"][name])
        return trained

    def _result(self, rows: list[dict[str, Any]], profiles: list[np.ndarray], settings: dict[str, Any]) -> CasesResult:
        settings = {
            **settings,
            "n_seeds": self.n_seeds,
            "split_steps": self.split_steps,
            "joints": list(self.joints),
        }
        return _judged(
            CasesResult(
                settings=settings,
                rows=list(rows),
                t=np.linspace(0.0, 1.0, int(self.n_points)),
                profiles=np.array(profiles),
                tolerance=float(self.tolerance),
            )
        )


def join_cases(parts: Sequence[CasesResult]) -> CasesResult:
    """Put results of several cases into one, with the verdicts that stand in one table."""
    first, rows = parts[0], [row for part in parts for row in part.rows]
    return _judged(replace(first, rows=rows, profiles=np.concatenate([part.profiles for part in parts])))


def _judged(result: CasesResult) -> CasesResult:
    summary = summarise(result.rows, result.tolerance)
    return replace(result, summary=summary, verdicts=judge(summary), notes=_notes(result.rows))


def distance_of(rows: Sequence[Mapping[str, Any]], case: str) -> float:
    """Give the mean distance of the ends of a case, as they were trained; NaN where none was measured."""
    far = [row["distance"] for row in rows if row["case"] == case and row["path"] == "linear"]
    return float(np.mean(far)) if far else float("nan")


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    straight = [row for row in rows if row["path"] == "linear"]
    if not straight:
        return []
    far = {case: distance_of(rows, case) for case in CASES}
    apart = ", ".join(f"{case} {found:.3g}" for case, found in far.items() if np.isfinite(found))
    losses = [row[end] for row in straight for end in ("loss_a", "loss_b")]
    matched = [row["barrier"] for row in rows if row["path"] == "aligned"]
    after = [f"After matching units the straight line has a mean barrier of {np.mean(matched):.2g}."] if matched else []
    return [
        *after,
        f"Mean distance of the ends: {apart}.",
        f"Training losses of the ends: {min(losses):.2g} to {max(losses):.2g} nats.",
    ]


def _numbers(result: Any) -> dict[str, float]:
    numbers = {
        "barrier": result.barrier,
        "rise": result.rise_over_endpoints,
        "distance": result.distance,
        "loss_a": result.losses[0],
        "loss_b": result.losses[-1],
        "accuracy_a": result.accuracies[0],
        "accuracy_b": result.accuracies[-1],
    }
    if len(result.held_out_losses):
        chord = (1 - result.t) * result.held_out_losses[0] + result.t * result.held_out_losses[-1]
        numbers["held_out_barrier"] = np.max(result.held_out_losses - chord)
        numbers["held_out_accuracy"] = (result.held_out_accuracies[0] + result.held_out_accuracies[-1]) / 2
    return {name: float(value) for name, value in numbers.items()}


def _builder(name: str, data: Examples) -> Callable[[int], nn.Module]:
    classes = max(len(data.class_names), int(data.targets.max()) + 1)
    return lambda seed: load_model(name, num_classes=classes, image_size=int(data.images.shape[-1]), random_state=seed)


def _trained(model: nn.Module, data: Examples, options: Mapping[str, Any], report: OnProgress) -> dict[str, Any]:
    trained = train(model, data, on_progress=report, **options).model
    return {"tensors": _tensors(trained), "provenance": getattr(trained, "provenance", {})}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers, those that a state dict leaves out as well."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def summarise(rows: list[dict[str, Any]], tolerance: float) -> list[dict[str, Any]]:
    """Mean and spread of the barriers over seeds, for each case and path."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["path"]), []).append(row)
    table = []
    for (case, path), members in groups.items():
        measured = [m for m in members if not (np.isnan(m["barrier"]) or np.isnan(m["rise"]))]
        values = np.array([m["barrier"] for m in measured] or [np.nan], dtype=float)
        mean, std = mean_and_std(values)
        table.append(
            {
                "case": case,
                "path": path,
                "mean": mean,
                "std": std,
                "low": float(values.min()),
                "high": float(values.max()),
                "n": len(measured),
                "joined": float(np.mean([m["rise"] <= tolerance for m in measured])) if measured else float("nan"),
            }
        )
    return table


def judge(summary: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Hold the lecture's three statements against the shares of joined pairs.

    A statement that pairs are joined is supported where a sign test over independent pairs finds that more than half
    are, not supported where it finds that fewer are (both corrected for the number of statements). The second
    statement, that different starts need a curve, also asks that straight lines fail more often than not.
    """
    shares = {(row["case"], row["path"]): row for row in summary}
    curve = next((p for p in ("bezier", "polychain") if ("different starts", p) in shares), "")
    asked = (
        ("same start", "linear", "Networks that part from one start are mostly joined by the straight line."),
        (
            "different starts",
            curve,
            "Different starts are joined by a curve, though not by the straight line.",
        ),
        ("fine-tuned", "linear", "Networks fine-tuned from one parent are joined by the straight line."),
    )
    found, verdicts = [], []
    for case, path, claim in asked:
        row = shares.get((case, path))
        if row is None:
            continue
        reason = f"{row['joined']:.0%} of {row['n']} pairs joined, mean barrier {row['mean']:.3g}"
        if row["n"] == 0:
            reason = "no barrier could be measured: the loss along every path was not a number"
        verdict = _joined(row)
        straight = shares.get((case, "linear"))
        if path != "linear" and straight is not None:
            reason += f"; by the straight line {straight['joined']:.0%}, {straight['mean']:.3g}"
            failing = _joined(straight)
            if verdict.verdict == SUPPORTED:  # both halves of the statement have to hold
                against = failing.verdict == NOT_SUPPORTED
                verdict = replace(
                    verdict,
                    verdict=SUPPORTED if against else NOT_CLEAR,
                    p=max(verdict.p, failing.p) if against else 1.0,
                )
        found.append(verdict)
        verdicts.append({"case": case, "path": path, "claim": claim, "reason": reason})
    return [
        {**row, "verdict": v.verdict, "reason": f"{row['reason']}; {v.reason}" if row["reason"] else v.reason}
        for row, v in zip(verdicts, adjust(found), strict=True)
    ]


def _joined(row: dict[str, Any]) -> Verdict:
    return judge_share(round(row["joined"] * row["n"]) if row["n"] else 0, row["n"])
