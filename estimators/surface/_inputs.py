"""What a map is asked for: one model, several, trajectories or files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_memory_fits
from ..core.network.copying import private_copy
from ..landscape import Landscape
from ..models import compatible_state_dict, read_checkpoint
from ..recorder import as_trajectory


@dataclass(frozen=True)
class Group:
    """A label with one model, or with the checkpoints of a trajectory in their order."""

    label: str
    members: tuple[Any, ...]
    is_trajectory: bool


def groups_of(models: Any, kind: str = "") -> list[Group]:
    """Sort what `fit` was given into labelled models and trajectories.

    Parameters
    ----------
    models : module, state dict, path, vector; sequence or mapping of these; sequence or mapping of sequences
        A training run (with `.checkpoints`) counts as the sequence of its checkpoints, as does a recording or its
        folder.
    kind : str
        With "trajectory" a flat sequence is one trajectory; otherwise its members are separate models.
    """
    models = _unpacked(models)
    if _is_labelled(models):
        return [_group(str(label), member) for label, member in models.items()]
    if not _is_sequence(models):
        return [Group("model", (models,), False)]
    if kind == "trajectory" and not any(_is_sequence(_unpacked(m)) for m in models):
        return [Group("trajectory", tuple(models), True)]
    names = [os.path.splitext(os.path.basename(m))[0] if isinstance(m, str | os.PathLike) else "" for m in models]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return [
        _group(name or (alphabet[k] if k < len(alphabet) else f"model {k + 1}"), m)
        for k, (name, m) in enumerate(zip(names, models, strict=True))
    ]


def _group(label: str, member: Any) -> Group:
    member = _unpacked(member)
    if _is_sequence(member):
        return Group(label, tuple(member), True)
    return Group(label, (member,), False)


def _unpacked(source: Any) -> Any:
    """Give the checkpoints of a run, a recording or its folder; anything else as it is."""
    opened = as_trajectory(source)
    return getattr(opened, "checkpoints", opened)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_labelled(value: Any) -> bool:
    """Tell a mapping of labels to models from a state dict, whose values are tensors."""
    return isinstance(value, Mapping) and not any(isinstance(v, Tensor) and v.dim() != 1 for v in value.values())


def template_of(models: Any, groups: Sequence[Group], architecture: nn.Module | None) -> nn.Module:
    """Find the module that says what the architecture is."""
    candidates = [architecture, getattr(as_trajectory(models), "model", None), *(m for g in groups for m in g.members)]
    if isinstance(models, Sequence | Mapping) and not isinstance(models, str):
        values = models.values() if isinstance(models, Mapping) else models
        candidates += [getattr(as_trajectory(v), "model", None) for v in values]
    for candidate in candidates:
        if isinstance(candidate, nn.Module):
            return candidate
    raise TypeError(
        f"models must hold a torch.nn.Module, got {type(models).__name__} with files or vectors only. "
        "Pass architecture=load_model(...) beside them."
    )


def module_of(member: Any, template: nn.Module) -> nn.Module:
    """Give the module of a member, with its own buffers where it has any; the template stays as it is."""
    if isinstance(member, nn.Module):
        return member
    fresh = private_copy(template)
    if isinstance(member, Mapping):
        fresh.load_state_dict(compatible_state_dict(fresh, dict(member)))
    elif isinstance(member, str | os.PathLike):
        state, _ = read_checkpoint(member)
        fresh.load_state_dict(compatible_state_dict(fresh, state))
    else:
        raise TypeError(
            "the model a map is centred on must be a module, a state dict or a file, got "
            f"{type(member).__name__}. A vector has no buffers: use Landscape.model_at(theta)."
        )
    return fresh


def read_points(land: Landscape, members: Sequence[Any]) -> Tensor:
    """Stack θ of each member, (n, P), after checking that they fit into memory."""
    size = 3 * len(members) * land.n_parameters * land.theta.element_size()
    what = f"{len(members)} models of {land.n_parameters:,} parameters"
    check_memory_fits(size / 0.8, land.device, what, "Give fewer checkpoints.")
    return torch.stack([land.point(m) for m in members]) if members else land.theta.new_empty((0, land.n_parameters))
