"""The two ends of a path: read, compared, matched where asked, and refused where they cannot be joined."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import joblib
import torch
from torch import Tensor, nn

from ..cache import cached_call, describe_module, fingerprint
from ..checks import check_finite_weights
from ..core.alignment.alignment import Alignment, State, align_states
from ..core.network.batchnorm import batch_norms
from ..core.network.fields import in_precision
from ..core.network.probes import listed
from ..landscape import Landscape
from ..models import compatible_state_dict, read_checkpoint
from ..progress import OnProgress

N_CHECKED = 32  # examples on which a reordered network has to give the same outputs


@dataclass(frozen=True)
class Matching:
    """How the units of B are put into the order of A's (see `core.alignment`).

    Attributes
    ----------
    n_restarts, random_state : int
        Starts of the search and their seed.
    memory : joblib.Memory
        Where its answer is kept.
    """

    n_restarts: int
    random_state: int
    memory: joblib.Memory

    def apply(
        self, model: nn.Module, land: Landscape, state_b: State, report: OnProgress
    ) -> tuple[Tensor, Alignment, float]:
        """Give B's reordered weights, what was moved, and the largest relative change of its outputs."""
        state_a = {n: t.detach().cpu() for n, t in model.state_dict().items() if isinstance(t, Tensor)}
        weights = next(p.dtype for p in model.parameters() if p.is_floating_point())
        inputs = in_precision(land.data.fields[:N_CHECKED].clone(), weights)  # a network may write into them
        options: dict[str, Any] = {"n_restarts": self.n_restarts, "random_state": self.random_state}

        def on_progress(done: int, total: int) -> None:
            report(done, total, f"matching weights, start {done} of {total}")

        caching = self.memory.location is not None
        key = fingerprint("alignment", describe_module(model), state_b, inputs, options) if caching else ""
        live = (model, state_a, state_b, inputs)
        found = cached_call(self.memory, align_states, key, *live, on_progress=on_progress, **options)
        state, alignment, change = found
        return land.point(state), alignment, change


@dataclass(frozen=True)
class PathEnds:
    """Two points that a path may join.

    Attributes
    ----------
    a, b : Tensor of shape (P,)
        The ends of the path; b is reordered where that was asked for.
    b_given : Tensor of shape (P,)
        B as it was given.
    fields : dict
        What a `PathResult` says about the ends and their alignment.
    notes : tuple of str
        What a person should know.
    """

    a: Tensor
    b: Tensor
    b_given: Tensor
    fields: dict[str, Any]
    notes: tuple[str, ...]


def check_pair(models: Any) -> tuple[nn.Module, Any]:
    """Refuse what is not a pair of which the first is a module."""
    if isinstance(models, nn.Module | dict | str) or not isinstance(models, Sequence) or len(models) != 2:
        count = len(models) if isinstance(models, Sequence) and not isinstance(models, str) else 1
        raise ValueError(
            f"models must be a pair (A, B), got {count} of them. Give two networks; MinimaMapper takes more than two."
        )
    if not isinstance(models[0], nn.Module):
        raise TypeError(f"models[0] must be a torch.nn.Module, got {type(models[0]).__name__}. Use load_model(name).")
    return models[0], models[1]


def prepare_ends(
    model: nn.Module, other: Any, land: Landscape, matching: Matching | None, report: OnProgress
) -> PathEnds:
    """Read A and B, refuse what cannot be joined, and match B to A where that is asked for.

    Parameters
    ----------
    model : nn.Module
        A, the architecture of both.
    other : nn.Module, state dict, path or Tensor
        B.
    land : Landscape
        Of A.
    matching : Matching or None
        None leaves B as it is.
    report : callable
        Progress of the matching.

    Raises
    ------
    ValueError
        With everything that differs listed.
    """
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
        check_finite_weights(theta, land.slices, name)
    if torch.equal(a, b):
        raise ValueError(
            "models must be two different points, got the same weights twice. "
            "Train from another seed or with another order of the data."
        )
    state_b = state_of(model, land, other)
    check_fixed_parts(model, land, state_b)
    fields: dict[str, Any] = {"distance_before": float((a - b).double().norm())}
    moved = b
    if matching is not None:
        moved, alignment, change = matching.apply(model, land, state_b, report)
        fields |= {
            "similarity_before": alignment.similarity_before,
            "similarity_after": alignment.similarity_after,
            "alignment_change": change,
            "groups": alignment.groups,
        }
        if not alignment.converged:
            notes.append("Weight matching was still improving when it was stopped.")
    return PathEnds(a, moved, b, fields, tuple(notes))


def _check_same_layers(a: nn.Module, b: nn.Module) -> None:
    """Refuse networks whose weights fit each other but whose layers do something else."""
    ours, theirs = ({name: type(m).__name__ for name, m in model.named_modules()} for model in (a, b))
    if ours.keys() != theirs.keys():
        return  # a wrapper around the same network: names and shapes of the weights have been compared
    differing = [f"{n or 'model'} ({ours[n]} and {theirs[n]})" for n in ours if ours[n] != theirs[n]]
    if differing:
        raise ValueError(
            f"models must be of one architecture, got other layers at {listed(differing)}. "
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
            f"other values in {listed(differing)}. Set requires_grad_(True) on what should move, or copy "
            "the fixed parts from one to the other."
        )
