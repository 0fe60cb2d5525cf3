"""What is measured on a path: its heights and lengths, the plane it lies in, averages of predictions along it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .core.evaluation import per_example_losses
from .core.paths import (
    Coefficients,
    barrier,
    gram,
    path_length,
    plane_through,
    rise_over_endpoints,
    worst_t,
)
from .landscape import Evaluation, Landscape

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


def summarise_path(
    family: Coefficients, anchors: Tensor, t: np.ndarray, losses: np.ndarray, tolerance: float
) -> dict[str, Any]:
    """Reduce the losses along a path to the numbers of a `PathResult`.

    Parameters
    ----------
    family : callable
        One of `core.paths.PATHS`.
    anchors : Tensor of shape (K, P)
        `[A, bends..., B]`.
    t, losses : ndarray of shape (n,)
        Positions and mean losses.
    tolerance : float
        Rise over the worse end up to which the ends count as connected.

    Returns
    -------
    dict
        Fields of `PathResult`.
    """
    inner, rise = gram(anchors), rise_over_endpoints(losses)
    return {
        "barrier": barrier(t, losses),
        "rise_over_endpoints": rise,
        "worst_t": worst_t(t, losses),
        "connected": bool(rise <= tolerance),
        "distance": float(np.sqrt(inner[-1, -1])),
        "path_length": path_length(family, len(anchors) - 2, inner),
        "n_non_finite": int((~np.isfinite(losses)).sum()),
    }


def note_non_finite(t: np.ndarray, losses: np.ndarray) -> list[str]:
    """Say where the loss is not finite; an empty list when it is finite everywhere."""
    bad = ~np.isfinite(losses)
    if not bad.any():
        return []
    where = ", ".join(f"{x:.3g}" for x in t[bad][:5]) + (", …" if bad.sum() > 5 else "")
    return [
        f"The loss is not finite at {bad.sum()} of {len(t)} points, t = {where}: weights or batch-norm statistics "
        "overflow there."
    ]


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
    classes = not targets.is_floating_point()
    # scores whose softmax is the averaged probability: any classification loss can be applied to them
    average = torch.stack([m.log_softmax(-1) if classes else m for m in members])
    average = torch.logsumexp(average, 0) - np.log(len(members)) if classes else average.mean(0)

    def measure(outputs: Tensor) -> tuple[float, float]:
        loss = float(per_example_losses(land.loss_function, outputs, targets).mean())
        return loss, float((outputs.argmax(-1) == targets).double().mean()) if classes else float("nan")

    loss, accuracy = measure(average)
    each = np.array([measure(member) for member in members])
    return {
        "loss": loss,
        "accuracy": accuracy,
        "member_losses": each[:, 0],
        "member_accuracies": each[:, 1],
    }
