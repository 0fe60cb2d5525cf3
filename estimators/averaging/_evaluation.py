"""What is measured at the members of an average and at the average itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..cache import fingerprint
from ..core.network.batchnorm import batch_norms
from ..core.network.copying import private_copy
from ..core.paths.paths import barrier
from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress
from ._checkpoints import Members, architecture

if TYPE_CHECKING:
    from ..base import LandscapeEstimator

GAP = 0.1  # nats by which an average may be worse than what it averages before that is pointed out
State = dict[str, Tensor]


@dataclass
class Gauge:
    """Loss and accuracy of any state of one architecture, on training and held-out data.

    Parameters
    ----------
    estimator : LandscapeEstimator
        Its engine settings are used.
    model : nn.Module
        The architecture; its buffers other than batch-norm statistics are used everywhere.
    data, held_out : examples, examples or None
        What is measured on. Statistics come from `data` alone.
    """

    estimator: LandscapeEstimator
    model: nn.Module
    data: Any
    held_out: Any = None
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = architecture(self.model)
        self.land = self.estimator._landscape(self.base, self.data, several_networks=True)
        self.outside = None if self.held_out is None else self.land.on(self.held_out)
        self._seen: dict[str, str] = {}

    def check_forwards(self, sources: Sequence[Any], names: Sequence[str]) -> None:
        """Refuse modules whose own forward is another function of the weights than the architecture's."""
        for i, (source, name) in enumerate(zip(sources, names, strict=True)):
            if isinstance(source, nn.Module) and source is not self.model:
                try:
                    self.land.point(source)
                except ValueError as error:
                    raise ValueError(f"checkpoints[{i}] ({name}) does not fit the architecture: {error}") from error

    def theta(self, state: State, name: str) -> Tensor:
        """Read the weights of a state, refusing those that are not finite."""
        theta = self.land.point(state)
        bad = [n for n, where in self.land.slices.items() if not bool(torch.isfinite(theta[where]).all())]
        if bad:
            listed = ", ".join(bad[:8]) + (f" and {len(bad) - 8} more" if len(bad) > 8 else "")
            raise ValueError(
                f"{name} must have finite weights, got NaN or infinity in {listed}. "
                "Leave it out, or take a checkpoint from before it diverged."
            )
        return theta

    def values(self, theta: Tensor, on_progress: OnProgress = ignore_progress) -> dict[str, float]:
        """Measure one point: the four numbers of a report's row."""
        return _values(self.estimator, self.land, self.outside, theta, on_progress)

    def score(self, theta: Tensor, kind: str) -> float:
        """Measure what a greedy soup maximises, on held-out data where there is some."""
        land = self.outside or self.land
        found = self.estimator._evaluate(land, theta[None], [[1.0]], ignore_progress)
        return float(found.accuracies[0]) if kind == "accuracy" else -float(found.losses[0])

    def finish(self, average: State) -> tuple[State, dict[str, Any], dict[str, float] | None]:
        """Give the average its batch-norm statistics.

        Returns
        -------
        state : dict of str to Tensor
            Ready to load.
        statistics : dict
            See `AverageResult.statistics`.
        before : dict or None
            Values with the last member's statistics; None where nothing was re-estimated.
        """
        theta = self.theta(average, "The average")
        carrier = private_copy(self.base)
        carrier.load_state_dict(average)
        layers = batch_norms(carrier)
        statistics: dict[str, Any] = {"policy": self.land.batch_norm, "layers": len(layers)}
        if not layers:
            if self.land.batch_norm == "recompute":
                self.notes.append("The model has no batch norm: there was nothing to recompute.")
            return _copied(carrier), statistics, None
        if self.land.batch_norm == "frozen":
            self.notes.append(
                "Batch-norm statistics are those of the last member (batch_norm='frozen'); they do not belong to "
                "the average. Use 'recompute'."
            )
            return _copied(carrier), statistics, None
        frozen = self.estimator._landscape(carrier, self.data, batch_norm="frozen")
        outside = None if self.held_out is None else frozen.on(self.held_out)
        before = _values(self.estimator, frozen, outside, theta, ignore_progress)
        after = {**average, **{k: v for k, v in self.land.state_dict(theta).items() if k not in self.land.names}}
        finished = private_copy(carrier)
        finished.load_state_dict(after)
        statistics |= _change(layers, batch_norms(finished))
        if self.land.batch_norm == "batch":
            self.notes.append("Losses use the statistics of each batch; the average carries re-estimated ones.")
        broken = [n for n, b in finished.named_buffers() if b.is_floating_point() and not torch.isfinite(b).all()]
        if broken:
            self.notes.append(
                f"Batch-norm statistics of the average are not finite in {', '.join(broken[:5])}: activations "
                "overflow there, and its losses are kept as they come out."
            )
        return _copied(finished), statistics, before

    def barriers(
        self, thetas: Sequence[Tensor] | Members, names: Sequence[str], n_points: int, report: OnProgress
    ) -> np.ndarray:
        """Barrier on the straight line between each two members, (K, K), symmetric with a zero diagonal."""
        k = len(names)
        table = np.zeros((k, k))
        t = np.linspace(0.0, 1.0, n_points)
        coefficients = np.stack([1 - t, t], axis=1)
        pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
        for done, (i, j) in enumerate(pairs):
            ends = torch.stack([self._end(thetas, i), self._end(thetas, j)])
            losses = self.estimator._evaluate(self.land, ends, coefficients, ignore_progress).losses
            table[i, j] = table[j, i] = barrier(t, losses)
            report(done + 1, len(pairs), f"barrier between {names[i]} and {names[j]}")
        return table

    def _end(self, thetas: Sequence[Tensor] | Members, i: int) -> Tensor:
        return self.land.point(thetas[i])

    def note_twin(self, name: str, theta: Tensor) -> None:
        """Note a member that is the same point as an earlier one."""
        first = self._seen.setdefault(fingerprint(theta), name)
        if first != name:
            self.notes.append(f"{name} and {first} have the same weights; averaging them changes nothing.")


def _values(
    estimator: LandscapeEstimator, land: Landscape, outside: Landscape | None, theta: Tensor, report: OnProgress
) -> dict[str, float]:
    here = estimator._evaluate(land, theta[None], [[1.0]], report)
    there = None if outside is None else estimator._evaluate(outside, theta[None], [[1.0]], report)
    nan = float("nan")
    return {
        "train_loss": float(here.losses[0]),
        "train_accuracy": float(here.accuracies[0]),
        "held_out_loss": nan if there is None else float(there.losses[0]),
        "held_out_accuracy": nan if there is None else float(there.accuracies[0]),
    }


def _change(before: Sequence[Any], after: Sequence[Any]) -> dict[str, float]:
    """How far re-estimation moves the statistics of all layers."""
    old_mean, new_mean = (torch.cat([m.running_mean.double() for m in side]) for side in (before, after))
    old_var, new_var = (torch.cat([m.running_var.double() for m in side]) for side in (before, after))
    floor = torch.cat([torch.full_like(m.running_var.double(), m.eps) for m in before])
    return {
        "mean_shift": float(((new_mean - old_mean).square() / (old_var + floor)).mean().sqrt()),
        "variance_ratio": float(((new_var + floor) / (old_var + floor)).median()),
    }


def _copied(module: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
