"""The members of an average: checkpoints of any kind, read one at a time and checked against one architecture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.network.copying import private_copy
from ..models import compatible_state_dict, read_checkpoint
from ..recorder import Recording, as_trajectory
from ..training import TrainingRun


class Members:
    """A list of checkpoints that reads one whenever it is asked for it.

    Parameters
    ----------
    sources : sequence of nn.Module, mapping or path
        The checkpoints.
    model : nn.Module
        The architecture all must fit.
    names : sequence of str or None
        What to call them.
    """

    def __init__(self, sources: Sequence[Any], model: nn.Module, names: Sequence[str] | None = None) -> None:
        self.sources, self.model = list(sources), model
        self.names = list(names) if names is not None else _names(self.sources)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return read_state(self.sources[i], self.model, f"checkpoints[{i}] ({self.names[i]})")

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self[i] for i in range(len(self)))


def read_state(source: Any, model: nn.Module, name: str) -> dict[str, Tensor]:
    """Read a module, a state dict or a file as a state that fits `model`.

    Raises
    ------
    ValueError
        With the checkpoint's name and every entry that is missing, unexpected or has another shape.
    """
    if isinstance(source, nn.Module):
        source = source.state_dict()
    elif isinstance(source, str | os.PathLike):
        source, _ = read_checkpoint(source)
    if not isinstance(source, dict):
        raise TypeError(
            f"{name} must be a module, a state dict or a path, got {type(source).__name__}. "
            "Give what train(), torch.save or safetensors wrote."
        )
    try:
        return compatible_state_dict(model, source)
    except ValueError as error:
        raise ValueError(f"{name} does not fit the architecture: {error}") from error


def gather(
    checkpoints: Any, model: nn.Module | None, start: float, every: int, names: Sequence[str] | None = None
) -> Members:
    """Turn what `fit` was given into members.

    Parameters
    ----------
    checkpoints : TrainingRun, Recording, folder of one, or sequence
        Of a run, the points from share `start` on are taken, every `every`-th, the last one always; a sequence
        is a choice made already and is taken whole.
    model : nn.Module or None
        The architecture; None takes the run's own or the first module in the sequence.
    start, every : float, int
        See above.
    names : sequence of str or None
        What to call them, one each; equal names are numbered.

    Raises
    ------
    TypeError, ValueError
        If there is no architecture, or there are fewer than two checkpoints.
    """
    checkpoints = as_trajectory(checkpoints)
    if isinstance(checkpoints, TrainingRun | Recording):
        paths = list(checkpoints.checkpoints)
        if isinstance(checkpoints, TrainingRun) or checkpoints.history["step"][0] == 0:
            paths = paths[1:]  # the first is the starting point
        chosen = select(len(paths), start, every)
        return _at_least_two(Members([paths[i] for i in chosen], _carrier(checkpoints, model)))
    if isinstance(checkpoints, str | os.PathLike | nn.Module | dict) or not isinstance(checkpoints, Sequence):
        raise TypeError(
            "checkpoints must be a TrainingRun or a list of modules, state dicts or paths, or a recording's folder, "
            f"got {type(checkpoints).__name__}. Put what is to be averaged in a list."
        )
    if model is None:
        model = next((c for c in checkpoints if isinstance(c, nn.Module)), None)
    if not isinstance(model, nn.Module):
        raise ValueError(
            "model must be a torch.nn.Module when no checkpoint is one, got None. State dicts and files hold no "
            "architecture: fit(paths, data, model=load_model(name, num_classes=…))."
        )
    if names is not None and len(names) != len(checkpoints):
        raise ValueError(
            f"names must have one entry a checkpoint ({len(checkpoints)}), got {len(names)}. "
            "Leave it out for file names."
        )
    return _at_least_two(Members(checkpoints, model, None if names is None else _numbered(names)))


def _carrier(run: TrainingRun | Recording, model: nn.Module | None) -> nn.Module:
    found = model or run.model
    if found is None:
        raise ValueError(
            "model must be a torch.nn.Module when a recording names no architecture, got None. Pass model=, or give "
            "CheckpointRecorder(architecture=...) timm's name."
        )
    return found


def select(n: int, start: float, every: int) -> list[int]:
    """Choose which of n epochs are averaged: from share `start` on, every `every`-th counted from the last."""
    first = min(n - 1, round(start * n)) if n else 0
    return list(range(n - 1, first - 1, -every))[::-1]


def architecture(model: nn.Module) -> nn.Module:
    """Copy a module for measuring: float32 at least, and every weight free to move."""
    base = private_copy(model).cpu()
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in base.parameters()):
        base = base.float()
    return base.requires_grad_(True)


def buffer_names(module: nn.Module) -> frozenset[str]:
    """Name every buffer of a module."""
    return frozenset(name for name, _ in module.named_buffers(remove_duplicate=False))


def _at_least_two(members: Members) -> Members:
    if len(members) < 2:
        raise ValueError(
            f"checkpoints must hold at least 2 to average, got {len(members)}. Give more, or lower start and every."
        )
    return members


def _names(sources: Sequence[Any]) -> list[str]:
    names = []
    for i, source in enumerate(sources):
        if isinstance(source, str | os.PathLike):
            path = Path(source)
            names.append(path.stem)
        else:
            names.append(f"#{i}")
    # Files of one name in several folders are told apart by the folder.
    doubled = {n for n in names if names.count(n) > 1}
    return [f"{Path(s).parent.name}/{n}" if n in doubled else n for s, n in zip(sources, names, strict=True)]


def _numbered(names: Sequence[str]) -> list[str]:
    """Give names that occur again a number."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return out
