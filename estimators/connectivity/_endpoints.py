"""The two ends of a path: read, compared, matched where asked, and refused where they cannot be joined."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..cache import describe_module
from ..core.alignment.alignment import Alignment, State, align_states
from ..core.network.batchnorm import batch_norms
from ..core.paths.paths import PATHS
from ..landscape import Landscape
from ..models import compatible_state_dict, read_checkpoint
from ..progress import OnProgress

if TYPE_CHECKING:
    from ._connector import ModeConnector

ALIGNMENTS = (None, "weights")
N_CHECKED = 32  # examples on which a reordered network has to give the same outputs


@dataclass(frozen=True)
class PathEnds:
    """Two points that a path may join.

    Attributes
    ----------
    model : nn.Module
        A, the architecture of both.
    land : Landscape
        Of A, under the estimator's settings.
    a, b : Tensor of shape (P,)
        The ends of the path; b is reordered where that was asked for.
    b_given : Tensor of shape (P,)
        B as it was given.
    fields : dict
        What a `PathResult` says about the ends and their alignment.
    notes : tuple of str
        What a person should know.
    """

    model: nn.Module
    land: Landscape
    a: Tensor
    b: Tensor
    b_given: Tensor
    fields: dict[str, Any]
    notes: tuple[str, ...]


def check_settings(estimator: ModeConnector) -> None:
    """Say what is wrong with the settings before any work is done."""

    def require(ok: bool, name: str, allowed: str, hint: str) -> None:
        if not ok:
            raise ValueError(f"{name} must be {allowed}, got {getattr(estimator, name)!r}. {hint}")

    def whole(name: str, low: int, high: float = float("inf")) -> bool:
        value = getattr(estimator, name)
        return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(low <= value <= high)

    def number(name: str, low: float, high: float) -> bool:
        value = getattr(estimator, name)
        return isinstance(value, int | float | np.number) and bool(low <= value < high)

    inf, doubt = float("inf"), "Use {} when in doubt."
    require(estimator.path in PATHS, "path", f"one of {', '.join(PATHS)}", "Choose one of these.")
    require(estimator.align in ALIGNMENTS, "align", "None or 'weights'", "Choose one of these.")
    require(whole("n_bends", 1), "n_bends", "a whole number from 1", "A path without bends is path='linear'.")
    require(whole("n_points", 3), "n_points", "a whole number from 3", "Two are the ends alone; 21 is usual.")
    require(whole("epochs", 0), "epochs", "a whole number from 0", doubt.format(15))
    require(number("lr", 1e-12, inf), "lr", "a positive number", doubt.format(0.1))
    require(number("momentum", 0, 1), "momentum", "in [0, 1)", doubt.format(0.9))
    require(whole("train_batch_size", 2), "train_batch_size", "a whole number from 2", doubt.format(32))
    require(number("tolerance", 0, inf), "tolerance", "0 or more", "It is a rise in the unit of the loss.")
    require(whole("n_restarts", 1), "n_restarts", "a whole number from 1", doubt.format(3))
    for name in ("plane_resolution", "ensemble_points"):
        ok = whole(name, 0, 0) or whole(name, 2, 201)
        require(ok, name, "0 or a whole number from 2 to 201", "0 leaves it out.")


def prepare_ends(estimator: ModeConnector, models: Sequence[Any], data: Any, report: OnProgress) -> PathEnds:
    """Read A and B, refuse what cannot be joined, and match B to A where the estimator asks for it.

    Parameters
    ----------
    estimator : ModeConnector
        Its settings are used.
    models : (A, B)
        As given to ``fit``.
    data : examples
        Those of the loss.
    report : callable
        Progress of the matching.

    Returns
    -------
    PathEnds

    Raises
    ------
    TypeError, ValueError
        With everything that differs listed.
    """
    if isinstance(models, nn.Module | dict | str) or not isinstance(models, Sequence) or len(models) != 2:
        count = len(models) if isinstance(models, Sequence) and not isinstance(models, str) else 1
        raise ValueError(
            f"models must be a pair (A, B), got {count} of them. Give two networks; MinimaMapper takes more than two."
        )
    model, other = models
    if not isinstance(model, nn.Module):
        raise TypeError(f"models[0] must be a torch.nn.Module, got {type(model).__name__}. Use load_model(name).")
    land = estimator._landscape(model, data, several_networks=True)
    notes = []
    if land.has_batch_norm and land.batch_norm == "frozen":
        raise ValueError(
            "batch_norm must be 'recompute' or 'batch' for a path between networks with batch norm, "
            "got 'frozen'. A point between two networks has no statistics of its own; use 'recompute'."
        )
    if not land.has_batch_norm and land.batch_norm == "recompute":
        notes.append("The model has no batch norm: there was nothing to recompute.")
    if isinstance(other, nn.Module):
        _check_same_layers(model, other)
    a, b = land.theta.clone(), land.point(other)
    for name, theta in (("models[0]", a), ("models[1]", b)):
        bad = [n for n, where in land.slices.items() if not bool(torch.isfinite(theta[where]).all())]
        if bad:
            raise ValueError(
                f"{name} must have finite weights, got NaN or infinity in {_listed(bad)}. "
                "Use a checkpoint from before it diverged."
            )
    if torch.equal(a, b):
        raise ValueError(
            "models must be two different points, got the same weights twice. "
            "Train from another seed or with another order of the data."
        )
    state_b = state_of(model, land, other)
    check_fixed_parts(model, land, state_b)
    fields: dict[str, Any] = {"distance_before": float((a - b).double().norm())}
    moved = b
    if estimator.align == "weights":
        moved, alignment, change = _align(estimator, model, land, state_b, report)
        fields |= {
            "similarity_before": alignment.similarity_before,
            "similarity_after": alignment.similarity_after,
            "alignment_change": change,
            "groups": alignment.groups,
        }
        if not alignment.converged:
            notes.append("Weight matching was still improving when it was stopped.")
    return PathEnds(model, land, a, moved, b, fields, tuple(notes))


def _check_same_layers(a: nn.Module, b: nn.Module) -> None:
    """Refuse networks whose weights fit each other but whose layers do something else."""
    ours, theirs = ({name: type(m).__name__ for name, m in model.named_modules()} for model in (a, b))
    if ours.keys() != theirs.keys():
        return  # a wrapper around the same network: names and shapes of the weights have been compared
    differing = [f"{n or 'model'} ({ours[n]} and {theirs[n]})" for n in ours if ours[n] != theirs[n]]
    if differing:
        raise ValueError(
            f"models must be of one architecture, got other layers at {_listed(differing)}. "
            "Give two sets of weights of the same network."
        )


def state_of(model: nn.Module, land: Landscape, other: Any) -> State:
    """Read the parameters and buffers of B, by A's names, on the CPU."""
    if isinstance(other, nn.Module):
        other = other.state_dict()
    elif isinstance(other, str | os.PathLike):
        other, _ = read_checkpoint(other)
    if not isinstance(other, dict):
        other = land.state_dict(land.point(other))
    state = compatible_state_dict(model, other)
    return {name: tensor.detach().cpu() for name, tensor in state.items() if isinstance(tensor, Tensor)}


def check_fixed_parts(model: nn.Module, land: Landscape, state_b: State) -> None:
    """Refuse networks that differ in what no path moves: frozen parameters and plain buffers."""
    moved = {id(p) for n, p in model.named_parameters(remove_duplicate=False) if n in land.slices}
    names = [n for n, p in model.named_parameters(remove_duplicate=False) if id(p) not in moved]
    statistics = {id(b) for m in batch_norms(model) for b in m.buffers(recurse=False)}
    names += [n for n, b in model.named_buffers() if id(b) not in statistics]
    own = model.state_dict()
    differing = [n for n in names if n in own and n in state_b and not torch.equal(own[n].cpu(), state_b[n])]
    if differing:
        raise ValueError(
            "models must agree in frozen parameters and in buffers that are not batch-norm statistics, got "
            f"other values in {_listed(differing)}. Set requires_grad_(True) on what should move, or copy "
            "the fixed parts from one to the other."
        )


def _listed(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _align(
    estimator: ModeConnector, model: nn.Module, land: Landscape, state_b: State, report: OnProgress
) -> tuple[Tensor, Alignment, float]:
    state_a = {n: t.detach().cpu() for n, t in model.state_dict().items() if isinstance(t, Tensor)}
    inputs = land.data.inputs[:N_CHECKED].clone()  # a network may write into them
    if inputs.dtype == torch.float64:
        inputs = inputs.to(next(p.dtype for p in model.parameters() if p.is_floating_point()))
    options = {"n_restarts": int(estimator.n_restarts), "random_state": int(estimator.random_state)}
    key = ("alignment", describe_module(model), state_b, inputs, options)

    def on_progress(done: int, total: int) -> None:
        report(done, total, f"matching weights, start {done} of {total}")

    live = (model, state_a, state_b, inputs, options, on_progress)
    state, alignment, change = estimator._cached(_matched, key, *live)
    return land.point(state), alignment, change


def _align_states(
    model: nn.Module,
    state_a: State,
    state_b: State,
    inputs: Tensor,
    options: dict[str, Any],
    on_progress: Any,
) -> tuple[State, Alignment, float]:
    return align_states(model, state_a, state_b, inputs, on_progress=on_progress, **options)


def _matched(
    model: nn.Module, state_a: State, state_b: State, inputs: Tensor, options: dict[str, Any], on_progress: Any
) -> tuple[State, Alignment, float]:
    return align_states(model, state_a, state_b, inputs, on_progress=on_progress, **options)
