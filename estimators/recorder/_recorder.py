"""CheckpointRecorder: writes the points a training passes through."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checks import check_choice, check_integer
from ..core.network.wrappers import bare
from ..models import save_checkpoint
from ._lightning import lightning_callback
from ._recording import points_in

RULES = {
    "even": "keeps points at even distances: where there are too many, every second one goes",
    "last": "keeps the newest",
    "best": "keeps those with the lowest loss, and the newest",
}


class CheckpointRecorder:
    """Write the points a training passes through, from whatever loop it runs in.

    Call it with the network after each step or each epoch. Every `every`-th call writes one safetensors file, whole or
    not at all, with its step, loss and what else is given; the folder is then a trajectory for
    :class:`SurfaceMapper`, :class:`SWAAverager` and :class:`CurvatureTracker`, and for every page of the app.
    Wrappers (DataParallel, DDP, `torch.compile`, averaged models) are taken off, and of several processes the first
    alone writes. A point that can't be written (a full disk) is left out with a warning: training goes on.

    Parameters
    ----------
    folder : path
        Where to; created. It must hold no recording, unless `resume`.
    every : int, default=1
        Calls between two points, counted by steps where they are given.
    keep : int or None, default=None
        How many points at most, at least 2; None keeps all.
    prune : {"even", "last", "best"}, default="even"
        Which go where there are more than `keep`. "even" thins the trajectory to every second, fourth, … point and
        never drops the first or the newest; "best" needs losses.
    resume : bool, default=False
        Go on with the recording in `folder`. A step that lies before its end drops what comes after it, as a training
        does that starts again from an earlier state.
    architecture : str or None, default=None
        timm's name of the network; None takes the one that timm or :func:`load_model` noted on it.
    num_classes, image_size : int or None, default=None
        Noted for opening the network again; None takes what it says of itself.

    Attributes
    ----------
    last : int
        The last step it was told of, -1 before the first.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import torch
    >>> from estimators import CheckpointRecorder, SurfaceMapper, load_data, load_model
    >>> data = load_data("digits", n_samples=32)
    >>> model = load_model("test_vit", num_classes=10, image_size=32)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with TemporaryDirectory() as folder:
    ...     with CheckpointRecorder(folder) as recorder:
    ...         for _ in range(3):
    ...             loss = torch.nn.functional.cross_entropy(model(data.inputs), data.targets)
    ...             optimizer.zero_grad()
    ...             loss.backward()
    ...             optimizer.step()
    ...             _ = recorder(model, loss=loss)
    ...     mapper = SurfaceMapper(directions="trajectory", resolution=3).fit(folder, data)
    >>> mapper.losses_.shape
    (3, 3)
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        every: int = 1,
        keep: int | None = None,
        prune: str = "even",
        resume: bool = False,
        architecture: str | None = None,
        num_classes: int | None = None,
        image_size: int | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser()
        self.every = check_integer("every", every, "1 keeps a point at each call.")
        self.keep = None if keep is None else check_integer("keep", keep, "None keeps all points.", least=2)
        self.prune = check_choice("prune", prune, RULES)
        given = {"architecture": architecture, "num_classes": num_classes, "image_size": image_size}
        self._given = {name: value for name, value in given.items() if value is not None}
        self._points = points_in(self.folder) if self.folder.is_dir() else []
        if self._points and not resume:
            raise ValueError(
                f"folder must hold no recording, got {str(folder)!r} with {len(self._points)} points. Choose another "
                "one, or go on with it by resume=True."
            )
        self.last = self._points[-1]["step"] if self._points else -1
        self._continued = bool(self._points)
        # places from one kept point to the next
        self._stride = max(1, math.gcd(*(point["place"] for point in self._points[:-1])))
        self._waiting: tuple[nn.Module, int, Any, dict[str, Any]] | None = None
        for pattern in (".step-*.tmp", ".tmp??????"):  # ours and safetensors', of a process killed while it wrote
            for left in self.folder.glob(pattern):
                left.unlink(missing_ok=True)

    def __call__(self, model: nn.Module, *, step: int | None = None, loss: Any = None, **metrics: Any) -> Path | None:
        """Take notice of a step of the training, and write it where its turn has come.

        Parameters
        ----------
        model : nn.Module
            The live network; it is not changed.
        step : int or None
            Its number, larger than the last one; None counts the calls from 1. Give 0 to keep the starting point.
        loss : float, Tensor of one number or None
            Its loss, in the unit you train with.
        **metrics : float
            What else to note, by name: `lr`, `epoch`, `held_out_loss`.

        Returns
        -------
        Path or None
            The file where one was written.

        Raises
        ------
        ValueError
            For a step that does not lie after the last one, and values that are not numbers.
        """
        number = max(self.last, 0) + 1 if step is None else check_integer("step", step, "Count from 0.", least=0)
        if self._continued and number <= self.last:
            self._rewind(number)
        if number <= self.last:
            raise ValueError(
                f"step must be larger than the last one, {self.last}, got {number}. Leave it out to count the calls."
            )
        self.last, self._continued = number, False
        if number % self.every:
            self._waiting = (model, number, loss, metrics)
            return None
        self._waiting = None
        return self._write(model, number, loss, metrics)

    def close(self) -> Path | None:
        """Write the last step where it was not its turn; `with CheckpointRecorder(...) as recorder` does it too."""
        waiting, self._waiting = self._waiting, None
        return None if waiting is None else self._write(*waiting)

    def __enter__(self) -> CheckpointRecorder:
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if kind is None:
            self.close()

    def lightning(self, *, network: str | None = None, loss: str | None = None, unit: str = "epoch") -> Any:
        """Give a callback for Lightning's Trainer: `Trainer(callbacks=[CheckpointRecorder(folder).lightning()])`.

        Parameters
        ----------
        network : str or None
            The attribute of the LightningModule that holds the network; None takes its one child with parameters,
            or the whole module where there are several.
        loss : str or None
            The logged value to note as the loss; None takes "train_loss" or "loss", and with `unit="step"` the batch's
            own. What else is logged by the end of an epoch is noted by name.
        unit : {"epoch", "step"}
            What a step is: `every` counts these.

        Raises
        ------
        ValueError
            Where neither `lightning` nor `pytorch_lightning` is installed.
        """
        check_choice("unit", unit, ("epoch", "step"))
        return lightning_callback(self, network, loss, unit)

    # -- inside -----------------------------------------------------------------------------------------

    def _rewind(self, number: int) -> None:
        """Drop what lies after the state that a resumed training begins from."""
        later = [point for point in self._points if point["step"] >= number]
        warnings.warn(
            f"The training goes on from before step {number}: {len(later)} recorded points at or after it go.",
            stacklevel=3,
        )
        self._remove(later)
        self.last = self._points[-1]["step"] if self._points else -1

    def _write(self, model: nn.Module, step: int, loss: Any, metrics: Mapping[str, Any]) -> Path | None:
        value = None if loss is None else _number("loss", loss)
        noted = {name: _number(name, v) for name, v in metrics.items()}
        if self.prune == "best" and value is None and step > 0:
            raise ValueError("loss must be given where prune='best', got None. Give it, or choose prune='even'.")
        if torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_rank():
            return None
        network = bare(model)
        place = self._points[-1]["place"] + 1 if self._points else 0
        point = {"step": step, "loss": value, "metrics": noted, "place": place}
        path = self.folder / f"step-{step:08d}.safetensors"
        try:
            save_checkpoint(path, network.state_dict(), {**facts_of(network), **self._given, **point})
        except OSError as error:
            warnings.warn(f"Step {step} was not recorded in {str(self.folder)!r}: {error}.", stacklevel=3)
            return None
        self._points.append({**point, "path": path})
        self._prune()
        return path

    def _prune(self) -> None:
        points, newest = self._points, self._points[-1]
        if self.keep is None:
            return
        if self.prune == "even":
            kept = _at_distance(points, self._stride)
            while len(kept) > self.keep:
                self._stride *= 2
                kept = _at_distance(points, self._stride)
        elif self.prune == "last":
            kept = points[-self.keep :]
        else:
            kept = [*sorted(points[:-1], key=_rank)[: self.keep - 1], newest]
        self._remove([p for p in points if p not in kept])

    def _remove(self, points: list[dict[str, Any]]) -> None:
        for point in points:
            point["path"].unlink(missing_ok=True)
            self._points.remove(point)


def facts_of(model: nn.Module) -> dict[str, Any]:
    """Read from a network what it takes to build it again, as far as timm or `load_model` noted it."""
    config = getattr(model, "pretrained_cfg", None) or {}
    name = config.get("architecture") if isinstance(config, dict) else getattr(config, "architecture", None)
    name = getattr(model, "provenance", {}).get("architecture") or name
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    found = {
        "architecture": name,
        "num_classes": getattr(model, "num_classes", None),
        "image_size": size[0] if isinstance(size, tuple | list) else size,
    }
    return {key: value for key, value in found.items() if isinstance(value, str | int)}


def _at_distance(points: list[dict[str, Any]], stride: int) -> list[dict[str, Any]]:
    return [point for point in points if point["place"] % stride == 0 or point is points[-1]]


def _rank(point: dict[str, Any]) -> float:
    """Give the loss by which points are the best; where there is none, or no number, it is the worst."""
    return math.inf if point["loss"] is None or math.isnan(point["loss"]) else float(point["loss"])


def _number(name: str, value: Any) -> float:
    try:
        return float(value.detach() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} must be one number, got {type(value).__name__}: {error}. Give its mean.") from error
