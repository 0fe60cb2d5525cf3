"""Around a trained average: the plane through the runs and their averages, and how sharp each end point is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..core.network.copying import private_copy
from ..progress import OnProgress, part
from ..sharpness import SharpnessEstimator
from ..surface import SurfaceMapper
from ._checkpoints import select

if TYPE_CHECKING:
    from ._averager import SWAAverager

NAMES = {"iterate": "last iterate", "swa": "SWA", "ema": "EMA", "sgd": "SGD end point"}
ENGINE = ("loss", "batch_size", "device", "precision", "memory", "n_jobs", "random_state")
MEASURES = (
    "sharpness",
    "average_sharpness",
    "average_sharpness_stderr",
    "lambda_max",
    "lambda_max_residual",
)


def map_plane(fitted: SWAAverager, model: nn.Module, data: Any, resolution: int, report: OnProgress) -> dict[str, Any]:
    """Map the plane that holds most of both runs after the switch, and place the averages on it.

    Parameters
    ----------
    fitted : SWAAverager
        After ``train``.
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
    assert fitted.run_ is not None
    first = select(len(fitted.run_.checkpoints) - 1, float(fitted.start), 1)[0]
    runs: dict[str, Any] = {"averaged run": list(fitted.run_.checkpoints[first:])}
    if fitted.plain_run_ is not None:
        runs["plain SGD"] = list(fitted.plain_run_.checkpoints[first:])
    marked = {NAMES[role]: fitted.states_[role] for role in ("swa", "ema") if role in fitted.states_}
    mapper = SurfaceMapper(
        directions="trajectory",
        span=1.3,
        resolution=int(resolution),
        batch_norm=fitted.batch_norm,
        **{name: getattr(fitted, name) for name in ENGINE},
    )
    mapper.fit(runs, data, marked=marked, architecture=model, on_progress=report)
    found = mapper.result_
    return {
        "plane_x": found.axes[0],
        "plane_y": found.axes[1],
        "plane_losses": found.losses,
        "plane_markers": list(found.markers),
        "plane_trajectories": list(found.trajectories),
        "plane_titles": list(found.axis_titles),
    }


def measure_sharpness(fitted: SWAAverager, model: nn.Module, data: Any, report: OnProgress) -> list[dict[str, Any]]:
    """Measure worst-case and average-case sharpness and λ_max at the ends and averages of a trained run.

    Every point carries batch-norm statistics estimated again, which stay fixed while it is probed.
    """
    rows = []
    roles = [role for role in ("sgd", "iterate", "swa", "ema") if role in fitted.states_]
    for i, role in enumerate(roles):
        at = private_copy(model)
        at.load_state_dict(fitted.states_[role])
        estimator = SharpnessEstimator(
            measures=("sharpness", "average", "lambda_max"),
            sigma=0.1,
            noise="filter",
            batch_norm="frozen",
            **{name: getattr(fitted, name) for name in ENGINE},
        )
        estimator.fit(at, data, on_progress=part(report, i / len(roles), (i + 1) / len(roles)))
        found = estimator.result_
        rows.append({"name": NAMES[role], "role": role, **{key: float(getattr(found, key)) for key in MEASURES}})
    return rows
