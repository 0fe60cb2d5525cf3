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
States = Mapping[str, dict[str, Tensor]]


def map_plane(
    engine: Mapping[str, Any],
    runs: Mapping[str, Sequence[Path]],
    states: States,
    model: nn.Module,
    data: Any,
    resolution: int,
    report: OnProgress,
) -> dict[str, Any]:
    """Map the plane that holds most of the runs' checkpoints, and place the averages on it.

    Parameters
    ----------
    engine : mapping
        Settings of the `SurfaceMapper` besides those of this map.
    runs : mapping of str to sequence of paths
        Checkpoints of each run, by its label.
    states : mapping of str to state dict
        Points by role; the averages among them are marked.
    model, data
        Architecture and training data.
    resolution : int
        Points on a side, at least 3.
    report : callable
        Progress.

    Returns
    -------
    dict
        The ``plane_*`` fields of `AverageResult`.
    """
    marked = {LABELS[role]: states[role] for role in ("swa", "ema") if role in states}
    mapper = SurfaceMapper(directions="trajectory", span=1.3, resolution=resolution, **engine)
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
    engine: Mapping[str, Any], states: States, model: nn.Module, data: Any, report: OnProgress
) -> list[dict[str, Any]]:
    """Measure worst-case and average-case sharpness and λ_max at the ends and averages of a trained run.

    Every point carries batch-norm statistics estimated again, which stay fixed while it is probed.
    """
    measures = ("sharpness", "average", "lambda_max")
    probe = SharpnessEstimator(measures=measures, sigma=0.1, noise="filter", **{**engine, "batch_norm": "frozen"})
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
