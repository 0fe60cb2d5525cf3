"""What is measured on a path: its heights and lengths, the plane it lies in, averages of predictions along it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.network.evaluation import class_axis, correct, mean_squared_error, per_example_losses
from ..core.paths.paths import (
    Coefficients,
    barrier,
    chord,
    gram,
    path_length,
    plane_through,
    rise_over_endpoints,
    worst_t,
)
from ..core.paths.peaks import Peaks, merge, probes, refine_maxima
from ..landscape import Evaluation, Landscape
from ..progress import OnProgress

_WIDEST = 1 / 100  # steps of t wider than this are looked into
_MAX_REFINED = 32  # evaluations around the highest points, at most
PLANE_MARGIN = 0.25  # of the distance between A and B, drawn around what the plane has to show


def combine(anchors: Tensor, coefficients: np.ndarray) -> Tensor:
    """Give the points of a path, exactly an anchor where the coefficients are 0 and 1.

    Parameters
    ----------
    anchors : Tensor of shape (K, P)
    coefficients : ndarray of shape (n, K)

    Returns
    -------
    Tensor of shape (n, P)
    """
    points = torch.from_numpy(coefficients).to(anchors) @ anchors
    for i, row in enumerate(coefficients):
        if np.count_nonzero(row) == 1 and row.max() == 1.0:
            points[i] = anchors[int(row.argmax())]
    return points


def find_highest(
    evaluate: Callable[[np.ndarray, OnProgress], np.ndarray],
    t: np.ndarray,
    losses: np.ndarray,
    report: OnProgress,
    *,
    look_between: bool = True,
) -> Peaks:
    """Look for the highest points of a path between the positions of its grid.

    Parameters
    ----------
    evaluate : callable
        (t, on_progress) → losses.
    t, losses : ndarray of shape (n,)
        The grid.
    report : callable
        Progress of all evaluations of this search.
    look_between : bool, default=True
        Also evaluate the middle of each step and positions near both ends, which finds rises that no value of the
        grid hints at, for as many evaluations as the grid has; without it the search follows the grid alone.

    Returns
    -------
    Peaks
        All positions and losses, those of the grid included; errors of the rise over the straight interpolation
        and over the worse end. A rise narrower than half a step between evaluated positions can be missed.
    """
    between = probes(t, _WIDEST) if look_between else np.empty(0)
    total, n_done = len(between) + _MAX_REFINED, 0

    def ask(positions: np.ndarray) -> np.ndarray:
        nonlocal n_done
        start = n_done
        found = evaluate(positions, lambda done, _, message: report(min(start + done, total), total, message))
        n_done += len(positions)
        return found

    def references(t: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.stack([chord(t, values), np.full(len(t), max(values[0], values[-1]))])

    t, losses = merge(t, losses, between, ask(between)) if len(between) else (t, losses)
    peaks = refine_maxima(ask, t, losses, references, max_added=_MAX_REFINED)
    return Peaks(peaks.t, peaks.values, peaks.errors, peaks.n_added + len(between))


def summarise_path(
    family: Coefficients, anchors: Tensor, t: np.ndarray, peaks: Peaks, tolerance: float
) -> dict[str, Any]:
    """Reduce the losses along a path to the numbers of a `PathResult`.

    Parameters
    ----------
    family : callable
        One of `core.paths.PATHS`.
    anchors : Tensor of shape (K, P)
        `[A, bends..., B]`.
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
    inner, rise, between = gram(anchors), rise_over_endpoints(peaks.values), ~np.isin(peaks.t, t)
    return {
        "barrier": barrier(peaks.t, peaks.values),
        "barrier_error": float(peaks.errors[0]),
        "rise_over_endpoints": rise,
        "rise_error": float(peaks.errors[1]),
        "worst_t": worst_t(peaks.t, peaks.values),
        "refined_t": peaks.t[between],
        "refined_losses": peaks.values[between],
        "connected": bool(rise <= tolerance),
        "distance": float(np.sqrt(inner[-1, -1])),
        "path_length": path_length(family, len(anchors) - 2, inner),
        "n_non_finite": int((~np.isfinite(peaks.values)).sum()),
    }


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


def draw_plane(
    evaluate: Callable[[Tensor, np.ndarray], Evaluation],
    anchors: Tensor,
    coefficients: np.ndarray,
    resolution: int,
) -> dict[str, Any]:
    """Place a path in the plane through its ends and bends, and map the loss there.

    Parameters
    ----------
    evaluate : callable
        (anchors, coefficients) → losses and accuracies.
    anchors : Tensor of shape (K, P)
        `[A, bends..., B]` with A ≠ B.
    coefficients : ndarray of shape (n, K)
        Of the path's points.
    resolution : int
        Points on a side of the map; 0 draws none.

    Returns
    -------
    dict
        The fields of `PathResult` that begin with ``plane_``.
    """
    plane = plane_through(anchors)
    path = coefficients @ plane.anchors
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
    average = torch.stack(members)
    if targets.is_floating_point() or land.loss_function is mean_squared_error:
        average = average.mean(0)
    else:  # scores whose softmax is the averaged probability: any classification loss can be applied to them
        axis = class_axis(members[0], targets) + 1
        average = torch.logsumexp(average.log_softmax(axis), 0) - np.log(len(members))

    def measure(outputs: Tensor) -> tuple[float, float]:
        loss = float(per_example_losses(land.loss_function, outputs, targets).mean())
        hits = correct(outputs, targets)
        return loss, float("nan") if hits is None else float(hits.double().mean())

    loss, accuracy = measure(average)
    each = np.array([measure(member) for member in members])
    return {
        "loss": loss,
        "accuracy": accuracy,
        "member_losses": each[:, 0],
        "member_accuracies": each[:, 1],
    }
