"""What is measured at the members of an average and at the average itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from ..checks import check_finite_weights
from ..core.network.batchnorm import batch_norms
from ..core.network.copying import private_copy
from ..core.paths.paths import barrier, linear
from ..core.paths.peaks import find_highest
from ..landscape import Evaluation, Landscape
from ..points import evaluate_points

GAP = 0.1  # nats by which an average may be worse than what it averages before that is pointed out
State = dict[str, Tensor]


@dataclass(frozen=True)
class Evaluator:
    """Loss and accuracy of any state of one architecture, on training and held-out data.

    Attributes
    ----------
    land : Landscape
        Of the architecture on the training data; its buffers other than batch-norm statistics are used everywhere.
    outside : Landscape or None
        On the held-out data; statistics come from the training data.
    memory, n_jobs
        As in every estimator.
    """

    land: Landscape
    outside: Landscape | None
    memory: joblib.Memory
    n_jobs: int | None

    def check_forwards(self, sources: Sequence[Any], names: Sequence[str]) -> None:
        """Refuse modules whose own forward is another function of the weights than the architecture's."""
        for i, (source, name) in enumerate(zip(sources, names, strict=True)):
            if isinstance(source, nn.Module):
                try:
                    self.land.point(source)
                except ValueError as error:
                    raise ValueError(f"checkpoints[{i}] ({name}) does not fit the architecture: {error}") from error

    def theta(self, state: State, name: str) -> Tensor:
        """Read the weights of a state, refusing those that are not finite."""
        theta = self.land.point(state)
        check_finite_weights(theta, self.land.slices, name)
        return theta

    def values(self, theta: Tensor) -> dict[str, float]:
        """Measure one point: the four numbers of a report's row."""
        here = self._evaluate(self.land, theta[None], [[1.0]])
        there = None if self.outside is None else self._evaluate(self.outside, theta[None], [[1.0]])
        nan = float("nan")
        return {
            "train_loss": float(here.losses[0]),
            "train_accuracy": float(here.accuracies[0]),
            "held_out_loss": nan if there is None else float(there.losses[0]),
            "held_out_accuracy": nan if there is None else float(there.accuracies[0]),
        }

    def barrier(self, a: Tensor, b: Tensor, n_points: int) -> float:
        """Barrier of the straight line between two points, its highest point refined from `n_points` of a grid."""
        ends, t = torch.stack([a, b]), np.linspace(0.0, 1.0, n_points)

        def losses(t: np.ndarray) -> np.ndarray:
            return self._evaluate(self.land, ends, linear(t)).losses

        highest = find_highest(losses, t, losses(t), look_between=False)
        return barrier(highest.t, highest.values)

    def _evaluate(self, land: Landscape, anchors: Tensor, coefficients: Any) -> Evaluation:
        return evaluate_points(land, anchors, coefficients, memory=self.memory, n_jobs=self.n_jobs)


def finish(carrier: nn.Module, land: Landscape, theta: Tensor) -> tuple[State, dict[str, Any], list[str]]:
    """Give an average its batch-norm statistics.

    Parameters
    ----------
    carrier : nn.Module
        Holds the average, with the last member's statistics.
    land : Landscape
        Of the architecture, under the estimator's policy.
    theta : Tensor of shape (P,)
        The average.

    Returns
    -------
    state : dict of str to Tensor
        Ready to load.
    statistics : dict
        See `AverageResult.statistics`; without ``mean_shift`` nothing was estimated again.
    notes : list of str
        What a person should know.
    """
    layers = batch_norms(carrier)
    statistics: dict[str, Any] = {"policy": land.batch_norm, "layers": len(layers)}
    notes = []
    if not layers:
        if land.batch_norm == "recompute":
            notes.append("The model has no batch norm: there was nothing to recompute.")
        return _copied(carrier), statistics, notes
    if land.batch_norm == "frozen":
        notes.append(
            "Batch-norm statistics are those of the last member (batch_norm='frozen'); they do not belong to "
            "the average. Use 'recompute'."
        )
        return _copied(carrier), statistics, notes
    finished = private_copy(carrier)
    estimated = {k: v for k, v in land.state_dict(theta).items() if k not in land.names}
    finished.load_state_dict(carrier.state_dict() | estimated)
    statistics |= _change(layers, batch_norms(finished))
    if land.batch_norm == "batch":
        notes.append("Losses use the statistics of each batch; the average carries re-estimated ones.")
    broken = [n for n, b in finished.named_buffers() if b.is_floating_point() and not torch.isfinite(b).all()]
    if broken:
        notes.append(
            f"Batch-norm statistics of the average are not finite in {', '.join(broken[:5])}: activations "
            "overflow there, and its losses are kept as they come out."
        )
    return _copied(finished), statistics, notes


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
