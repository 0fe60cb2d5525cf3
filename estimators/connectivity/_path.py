"""A path through its anchors: its points, heights and lengths, the plane it lies in, averages of predictions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from .. import sampling
from ..cache import MISSING, cached_call, discard, fingerprint, keep, recall
from ..core.network.losses import average_outputs, correct, per_example_losses
from ..core.paths.bends import BendsSoFar, train_bends
from ..core.paths.paths import PATHS, barrier, gram, path_length, plane_through, rise_over_endpoints, worst_t
from ..core.paths.peaks import Peaks
from ..landscape import Evaluation, Landscape
from ..progress import OnProgress, resumed

WRITTEN_EVERY = 1.0  # seconds between two notes on where a training stands
PLANE_MARGIN = 0.25  # of the distance between A and B, drawn around what the plane has to show


@dataclass(frozen=True)
class Path:
    """A path of one family through its anchors.

    Attributes
    ----------
    family : str
        One of `core.paths.PATHS`.
    anchors : Tensor of shape (K, P)
        `[A, bends..., B]`.
    """

    family: str
    anchors: Tensor

    def coefficients(self, t: ArrayLike) -> np.ndarray:
        """Coefficients over the anchors at positions in [0, 1], of shape (n, K)."""
        t = np.atleast_1d(np.asarray(t, dtype=float))
        if t.ndim != 1 or not ((t >= 0) & (t <= 1)).all():
            raise ValueError(f"t must be numbers in [0, 1], got {t.tolist()!r}. 0 is A and 1 is B.")
        return PATHS[self.family](t, len(self.anchors) - 2)

    def points(self, t: ArrayLike) -> Tensor:
        """Give points of shape (n, P), exactly an anchor where the coefficients are 0 and 1."""
        coefficients = self.coefficients(t)
        points = torch.from_numpy(coefficients).to(self.anchors) @ self.anchors
        for i, row in enumerate(coefficients):
            if np.count_nonzero(row) == 1 and row.max() == 1.0:
                points[i] = self.anchors[int(row.argmax())]
        return points

    def bent(
        self, trainer: Landscape, training: dict[str, Any], memory: joblib.Memory, report: OnProgress
    ) -> tuple[Path, dict[str, Any], list[str]]:
        """Train bends between the ends of this straight path.

        Parameters
        ----------
        trainer : Landscape
            Whose minibatches are trained on, with batch statistics.
        training : dict
            Keyword arguments of `core.paths.bends.train_bends`.
        memory : joblib.Memory
            Where the trained bends are kept, and those of the last epoch of a training that was killed.
        report : callable
            Progress in epochs.

        Returns
        -------
        path : Path
            Through the trained bends.
        fields : dict
            What a `PathResult` says of the training.
        notes : list of str
            What a person should know.
        """
        a, b = self.anchors

        caching = memory.location is not None
        key = fingerprint("bends", trainer.fingerprint, a, b, self.family, training) if caching else ""
        written = time.monotonic()

        def on_epoch(so_far: BendsSoFar) -> None:
            nonlocal written
            epoch = len(so_far.losses)
            if epoch < training["epochs"] and time.monotonic() - written >= WRITTEN_EVERY:
                keep(memory, unfinished_bends, key, so_far)
                written = time.monotonic()
            report(epoch, training["epochs"], f"training the bends, epoch {epoch} of {training['epochs']}")

        start = recall(memory, unfinished_bends, key)
        start = None if start is MISSING else start
        if start is not None:
            n_done = len(start.losses)
            report(n_done, training["epochs"], resumed("training the bends", n_done, training["epochs"]))
        live = trainer.minibatch_loss_and_gradient, a, b, PATHS[self.family]
        trained = cached_call(memory, train_bends, key, *live, on_epoch=on_epoch, start=start, **training)
        discard(memory, unfinished_bends, key)
        notes = []
        if trained.diverged_at:
            notes.append(
                f"Training the bends stopped being finite in epoch {trained.diverged_at}; the bends before "
                f"that are used. Lower lr (now {training['lr']:g})."
            )
        fields = {
            "history_losses": trained.losses,
            "history_learning_rates": trained.learning_rates,
            "diverged_at": trained.diverged_at,
        }
        return Path(self.family, torch.stack([a, *trained.bends.to(a), b])), fields, notes

    def summary(self, t: np.ndarray, peaks: Peaks, tolerance: float) -> dict[str, Any]:
        """Reduce the losses along the path to the numbers of a `PathResult`.

        Parameters
        ----------
        t : ndarray of shape (n,)
            Positions of the grid.
        peaks : Peaks
            What `find_highest` gives.
        tolerance : float
            Rise over the worse end up to which the ends count as connected.

        Returns
        -------
        dict
            Fields of `PathResult`.
        """
        inner, rise, between = gram(self.anchors), rise_over_endpoints(peaks.values), ~np.isin(peaks.t, t)
        return {
            "barrier": barrier(peaks.t, peaks.values),
            "barrier_error": float(peaks.errors[0]),
            "rise_over_endpoints": rise,
            "rise_error": float(peaks.errors[1]),
            "worst_t": worst_t(peaks.t, peaks.values),
            "worst_t_low": float(peaks.places[0, 0]),
            "worst_t_high": float(peaks.places[0, 1]),
            "n_refined": peaks.n_added,
            "refined_t": peaks.t[between],
            "refined_losses": peaks.values[between],
            "connected": bool(rise <= tolerance),
            "distance": float(np.sqrt(inner[-1, -1])),
            "path_length": path_length(PATHS[self.family], len(self.anchors) - 2, inner),
            "n_non_finite": int((~np.isfinite(peaks.values)).sum()),
        }

    def over_examples(self, land: Landscape, found: dict[str, Any], peaks: Peaks) -> dict[str, dict[str, Any]]:
        """Find how much the heights of a `summary` would change with other examples, as a result keeps it."""
        losses = cache(lambda t: sampling.losses_of(land, self.points(t)[0]))
        a, b = losses(0.0), losses(1.0)
        worse = a if a.mean() >= b.mean() else b
        top = float(peaks.t[np.argmax(peaks.values)])
        barrier_error = sampling.highest_point_error(
            land, found["barrier"], lambda t: losses(t) - (1 - t) * a - t * b, found["worst_t"]
        )
        rise_error = sampling.highest_point_error(land, found["rise_over_endpoints"], lambda t: losses(t) - worse, top)
        return sampling.told(barrier=barrier_error, rise_over_endpoints=rise_error)

    def in_plane(
        self, evaluate: Callable[[Tensor, np.ndarray], Evaluation], t: np.ndarray, resolution: int
    ) -> dict[str, Any]:
        """Place the path in the plane through its ends and bends, and map the loss there.

        Parameters
        ----------
        evaluate : callable
            (anchors, coefficients) → losses and accuracies.
        t : ndarray of shape (n,)
            Positions shown. A ≠ B.
        resolution : int
            Points on a side of the map; 0 draws none.

        Returns
        -------
        dict
            The fields of `PathResult` that begin with ``plane_``.
        """
        plane = plane_through(self.anchors)
        path = self.coefficients(t) @ plane.anchors
        fields = {"plane_anchors": plane.anchors, "plane_distances": plane.distances, "plane_path": path}
        if not resolution:
            return fields
        margin = PLANE_MARGIN * plane.anchors[-1, 0]
        shown = np.concatenate([plane.anchors, path])
        x, y = (np.linspace(v.min() - margin, v.max() + margin, resolution) for v in shown.T)
        across, along = (grid.ravel() for grid in np.meshgrid(x, y, indexing="ij"))
        points = np.stack([np.ones_like(across), across, along], axis=1)
        values = evaluate(torch.stack([plane.origin, *plane.axes]), points)
        return {
            **fields,
            "plane_x": x,
            "plane_y": y,
            "plane_losses": values.losses.reshape(resolution, resolution),
            "plane_accuracies": values.accuracies.reshape(resolution, resolution),
        }


def unfinished_bends(so_far: BendsSoFar) -> BendsSoFar:
    """Give where a training of bends stands; the cache keeps it under this name until the training has ended."""
    return so_far


def notes_on_heights(found: dict[str, Any], peaks: Peaks) -> list[str]:
    """Say where the loss is not finite, and when the error of the maximum leaves the verdict open."""
    bad = ~np.isfinite(peaks.values)
    if bad.any():
        where = ", ".join(f"{x:.3g}" for x in peaks.t[bad][:5]) + (", …" if bad.sum() > 5 else "")
        return [
            f"The loss is not finite at {bad.sum()} of {len(bad)} points, t = {where}: weights or batch-norm "
            "statistics overflow there."
        ]
    low, high = found["rise_over_endpoints"], found["rise_over_endpoints"] + found["rise_error"]
    if low <= found["tolerance"] < high:
        return [f"The rise over the worse end is {low:.3g} to {high:.3g}: it may exceed {found['tolerance']:g}."]
    return []


def average_predictions(land: Landscape, points: Tensor) -> dict[str, Any]:
    """Measure the average of the predictions of several networks, and each of them.

    Parameters
    ----------
    land : Landscape
        Whose examples are predicted.
    points : Tensor of shape (n, P)
        The networks.

    Returns
    -------
    dict
        ``loss``, ``accuracy`` of the average; ``member_losses``, ``member_accuracies`` of shape (n,).
    """
    members = [land.outputs(point).double() for point in points]
    targets = land.data.targets.to(members[0].device)
    average = average_outputs(land.loss_function, torch.stack(members), targets)

    def measure(outputs: Tensor) -> tuple[float, float]:
        loss = float(per_example_losses(land.loss_function, outputs, targets).mean())
        hits = correct(outputs, targets, land.loss_function)
        return loss, float("nan") if hits is None else float(hits.double().mean())

    loss, accuracy = measure(average)
    each = np.array([measure(member) for member in members])
    return {
        "loss": loss,
        "accuracy": accuracy,
        "member_losses": each[:, 0],
        "member_accuracies": each[:, 1],
    }
