"""Models and trajectories on a map: where they lie, what they score themselves, and what colour is under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..core.planes.directions import Frame
from ..landscape import Landscape
from ._inputs import Group, module_of, read_points

AXES = ("x", "y", "z")
SAME_COLOUR = 0.05  # of the range of log-losses: what a mark's own loss may differ by from the colour under it


@dataclass(frozen=True)
class Mark:
    """A model or a trajectory on a map.

    Attributes
    ----------
    group : Group
    columns : dict of list
        One value for each member: coordinates, own loss and accuracy, distance from the plane, ``map_loss`` (the colour
        under it) and ``differs``; NaN before they are known.
    note : str
        By how much the colour differs from the own loss and why, where it does.
    """

    group: Group
    columns: dict[str, list[Any]]
    note: str = ""

    @property
    def is_measured(self) -> bool:
        """Whether each member's own loss is known."""
        return not np.isnan(self.columns["loss"]).any()

    def entry(self) -> dict[str, Any]:
        """Give what a result says: lists for a trajectory, single values for a model."""
        columns = self.columns
        if not self.group.is_trajectory:
            columns = {name: values[0] for name, values in columns.items()}
        return {"label": self.group.label, **columns}


def place(group: Group, land: Landscape, frame: Frame) -> Mark:
    """Find the coordinates of a group's members in the plane and their distances from it."""
    points = read_points(land, group.members)
    coordinates, distances = frame.project(points).numpy(), frame.residual(points).numpy()
    columns: dict[str, list[Any]] = dict(zip(AXES, coordinates.T.tolist(), strict=False))
    unknown = [float("nan")] * len(points)
    columns |= {"loss": unknown, "accuracy": unknown, "distance": distances.tolist()}
    return Mark(group, {**columns, "map_loss": unknown, "differs": [False] * len(points)})


def measure(
    mark: Mark,
    land: Landscape,
    template: nn.Module,
    build: Callable[[nn.Module], Landscape],
    on_step: Callable[[], None],
) -> Mark:
    """Measure the loss and accuracy of each member; `on_step` is called before each.

    They are taken with the member's own batch-norm buffers, which is what a checkpoint scores, whatever the policy of
    the map. A vector has none: its loss is that of the map's landscape.
    """
    losses, accuracies = [], []
    for member in mark.group.members:
        on_step()
        has_buffers = land.has_batch_norm and not isinstance(member, Tensor)
        where = build(module_of(member, template)) if has_buffers else land
        theta = None if has_buffers else land.point(member)
        losses.append(where.loss(theta))
        accuracies.append(where.accuracy(theta))
    return replace(mark, columns=mark.columns | {"loss": losses, "accuracy": accuracies})


def compare(
    mark: Mark,
    land: Landscape,
    axes: Sequence[np.ndarray],
    losses: np.ndarray,
    tolerance: float,
    loss_at: Callable[[np.ndarray], np.ndarray],
) -> Mark:
    """Set each member's own loss beside the colour under it, and note where they differ and why.

    Parameters
    ----------
    mark : Mark
    land : Landscape
        Of the map.
    axes : sequence of ndarray
    losses : ndarray of shape (R1, ...)
    tolerance : float
        Largest difference of the log-losses, as a share of the range of the map's finite ones (of the losses
        themselves where some are not positive).
    loss_at : callable
        Exact losses (n,) at coordinates (n, k).

    Returns
    -------
    Mark
        With ``map_loss``, the value at the nearest node (NaN outside the map), and ``differs``.
    """
    columns = mark.columns | _colours_under(mark.columns, axes, losses, tolerance)
    marks = np.flatnonzero(columns["differs"])
    if not len(marks):
        return Mark(mark.group, columns)
    own, under = (np.array(columns[name]) for name in ("loss", "map_loss"))
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.nan_to_num(np.abs(np.log(own / under)), nan=np.inf)
        worst = int(marks[apart[marks].argmax()])
        exact = float(loss_at(np.array([[columns[name][worst] for name in AXES[: len(axes)]]]))[0])
        near = bool(np.abs(np.log(own[worst] / exact)) < 0.5 * apart[worst])
    distance = columns["distance"][worst]
    if near:
        why = f"the grid steps over it, the loss of the plane at its place is {exact:.3g}"
    elif distance > 1e-3 * float(land.theta.norm()):
        why = f"it lies {distance:.3g} off the plane"
    elif land.has_batch_norm:
        why = f"its own batch-norm statistics are not the map's ({land.batch_norm})"
    else:
        why = "it differs in weights that the map does not move"
    several = f"{len(marks)} of {len(own)} checkpoints of " if mark.group.is_trajectory else ""
    note = f"{several}{mark.group.label}: own loss {own[worst]:.3g}, colour under it {under[worst]:.3g}: {why}."
    return Mark(mark.group, columns, note)


def _colours_under(
    columns: dict[str, list[Any]], axes: Sequence[np.ndarray], losses: np.ndarray, tolerance: float
) -> dict[str, list[Any]]:
    finite = losses[np.isfinite(losses)]
    positive = bool(finite.size) and finite.min() > 0
    shade = (lambda v: np.log(max(v, 1e-300))) if positive else (lambda v: v)
    allowed = tolerance * (shade(finite.max()) - shade(finite.min())) + 1e-6 if finite.size else 0.0
    under, differs = [], []
    for *at, own in zip(*(columns[name] for name in AXES[: len(axes)]), columns["loss"], strict=True):
        steps = [float(axis[1] - axis[0]) for axis in axes]
        inside = all(a[0] - h / 2 <= v <= a[-1] + h / 2 for a, v, h in zip(axes, at, steps, strict=True))
        node = tuple(int(np.abs(axis - v).argmin()) for axis, v in zip(axes, at, strict=True))
        here = float(losses[node]) if inside else float("nan")
        under.append(here)
        if np.isfinite(own) and np.isfinite(here):
            differs.append(bool(abs(shade(own) - shade(here)) > allowed))
        else:
            differs.append(inside and bool(np.isfinite(own) != np.isfinite(here)))
    return {"map_loss": under, "differs": differs}
