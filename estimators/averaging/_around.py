"""Around a trained average: the plane through the runs and their averages, and how sharp each end point is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..core.network.copying import private_copy
from ..progress import OnProgress, shares
from ..sharpness import SharpnessEstimator
from ..surface import SurfaceMapper

LABELS = {"sgd": "SGD end point", "iterate": "last iterate", "swa": "SWA", "ema": "EMA"}  # of the roles, as drawn
PLANE = {"directions": "trajectory", "span": 1.3}  # settings of the map
PROBE = {  # and of the measures: statistics were estimated again at each point and stay fixed while it is probed
    "measures": ("sharpness", "average", "lambda_max"),
    "sigma": 0.1,
    "noise": "filter",
    "batch_norm": "frozen",
}
States = Mapping[str, dict[str, Tensor]]


def map_plane(
    mapper: SurfaceMapper,
    runs: Mapping[str, Sequence[Path]],
    states: States,
    model: nn.Module,
    data: Any,
    report: OnProgress,
) -> dict[str, Any]:
    """Map the plane that holds most of the runs' checkpoints, and place the averages on it.

    Parameters
    ----------
    mapper : SurfaceMapper
        With the settings `PLANE`.
    runs : mapping of str to sequence of paths
        Checkpoints of each run, by its label.
    states : mapping of str to state dict
        Points by role; the averages among them are marked.
    model, data
        Architecture and training data.
    report : callable
        Progress.

    Returns
    -------
    dict
        The ``plane_*`` fields of `AverageResult`.
    """
    marked = {LABELS[role]: states[role] for role in ("swa", "ema") if role in states}
    found = mapper.fit(runs, data, marked=marked, architecture=model, on_progress=report).result_
    return {
        "plane_x": found.axes[0],
        "plane_y": found.axes[1],
        "plane_losses": found.losses,
        "plane_markers": list(found.markers),
        "plane_trajectories": list(found.trajectories),
        "plane_titles": list(found.axis_titles),
    }


def measure_sharpness(
    probe: SharpnessEstimator, states: States, model: nn.Module, data: Any, report: OnProgress
) -> list[dict[str, Any]]:
    """Measure the ends and averages of a trained run by an estimator with the settings `PROBE`."""
    roles = [role for role in LABELS if role in states]
    rows = []
    for role, on_progress in zip(roles, shares(report, [1.0] * len(roles)), strict=True):
        at = private_copy(model)
        at.load_state_dict(states[role])
        found: Any = probe.fit(at, data, on_progress=on_progress).result_
        rows.append(
            {
                "name": LABELS[role],
                "role": role,
                "sharpness": float(found.sharpness),
                "average_sharpness": float(found.average_sharpness),
                "average_sharpness_stderr": float(found.average_sharpness_stderr),
                "lambda_max": float(found.lambda_max),
                "lambda_max_residual": float(found.lambda_max_residual),
            }
        )
    return rows
