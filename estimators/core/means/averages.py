"""Averages of weights: running mean, exponential mean, greedy soup, and the learning rates that feed them.

A *state* is a mapping from names to tensors, as `nn.Module.state_dict()` gives it. It is read one tensor at a
time, so a lazily read file serves as well as a dictionary, and no model is ever copied.

What is averaged, for every rule in this file:

* trainable and frozen **weights**: averaged, in float32 at least (float64 for float64 weights);
* **buffers** (running statistics, counters, relative-position tables): taken from the last member, never
  averaged. A running variance is not a weight: the mean of two variances is not the variance at the mean
  weights. They are estimated again from data afterwards (Izmailov et al. 2018, section 3.2);
* **integer and boolean** tensors: taken from the last member;
* **tied weights** (two names, one memory): averaged once, and still one memory in the result.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import torch
from torch import Tensor

State = Mapping[str, Tensor]


class States(Protocol):
    """What can be asked for its states one at a time: a list of them, or something that reads files."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> State: ...


STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def is_weight(name: str, tensor: Tensor, buffers: Collection[str] | None = None) -> bool:
    """Say whether an entry of a state is averaged.

    Parameters
    ----------
    name : str
        Its name in the state.
    tensor : Tensor
        Its value.
    buffers : collection of str or None
        Names of the model's buffers. None, when no model is at hand, goes by batch norm's own names.
    """
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return False
    return name not in buffers if buffers is not None else name.rpartition(".")[2] not in STATISTICS


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Give the type in which weights of type `dtype` are averaged: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def differences(reference: State, other: State) -> list[str]:
    """List every way in which `other` does not fit `reference`: missing, unexpected and reshaped entries."""
    found = [f"{name}: missing (shape {tuple(reference[name].shape)})" for name in reference if name not in other]
    found += [f"{name}: unexpected (shape {tuple(other[name].shape)})" for name in other if name not in reference]
    found += [
        f"{name}: shape {tuple(other[name].shape)} instead of {tuple(reference[name].shape)}"
        for name in reference
        if name in other and reference[name].shape != other[name].shape
    ]
    return found


@dataclass
class _Accumulator:
    """What running and exponential means share: ties, copied entries, the order of names."""

    buffers: Collection[str] | None = None
    n: int = field(default=0, init=False)
    _sums: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _alias: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _copied: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    _names: tuple[str, ...] = field(default=(), init=False, repr=False)

    @torch.no_grad()
    def update(self, state: State) -> None:
        """Take one more member in.

        Parameters
        ----------
        state : mapping of str to Tensor
            Same names and shapes as the members before. Each tensor is read once and not kept.

        Raises
        ------
        ValueError
            If a name is missing, unexpected or has another shape. Nothing has been taken in then.
        """
        if self.n == 0:
            self._names = tuple(state)
        elif problems := self._problems(state):
            raise ValueError(
                f"Every member must have the weights of the first, got {len(problems)} differences: "
                + "; ".join(problems)
                + ". Average checkpoints of one architecture and one number of classes."
            )
        # The tensors are held until the end: a freed one's address could be given to the next read, which
        # would then look tied to it.
        seen: dict[tuple, tuple[str, Tensor]] = {}
        for name in self._names:
            tensor = state[name].detach()
            if not is_weight(name, tensor, self.buffers):
                self._copied[name] = tensor.clone()
                continue
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            owner = seen.setdefault(key, (name, tensor))[0] if tensor.numel() else name
            if self.n == 0:
                self._alias[name] = owner
                if owner == name:
                    self._sums[name] = tensor.to(accumulation_dtype(tensor.dtype), copy=True)
                continue
            held = self._alias[name]
            if held == name:
                self._add(self._sums[name], tensor)
            elif owner != held and not torch.equal(tensor, state[held].detach()):
                self._untie(name, held, tensor, state[held].detach())
        self.n += 1

    def copy(self) -> Self:
        """Give an independent accumulator in the same state."""
        other = copy.copy(self)
        other._sums = {name: total.clone() for name, total in self._sums.items()}
        other._alias, other._copied = dict(self._alias), dict(self._copied)
        return other

    def state_dict(self) -> dict[str, Any]:
        """Give all that the accumulator holds, in plain values and tensors (not copied)."""
        held = {"sums": self._sums, "alias": self._alias, "copied": self._copied, "names": list(self._names)}
        return {"n": self.n, **held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.n, self._names = state["n"], tuple(state["names"])
        self._sums, self._alias, self._copied = dict(state["sums"]), dict(state["alias"]), dict(state["copied"])

    def _problems(self, state: State) -> list[str]:
        shapes = {n: self._copied[n] if n in self._copied else self._sums[self._alias[n]] for n in self._names}
        return differences(shapes, state)

    def _untie(self, name: str, held: str, tensor: Tensor, owners: Tensor) -> None:
        """Give `name` a sum of its own: this member holds two values where the members before held one."""
        own = self._sums[held].clone()
        self._add(own, tensor, undo=owners)
        self._sums[name], self._alias[name] = own, name

    def _add(self, total: Tensor, tensor: Tensor, undo: Tensor | None = None) -> None:
        raise TypeError("Use RunningMean or ExponentialMean.")

    def _finished(self, total: Tensor) -> Tensor:
        return total.clone()

    def state(self) -> dict[str, Tensor]:
        """Give the average so far, as new tensors.

        Returns
        -------
        dict of str to Tensor
            Weights in float32 or wider; buffers and integers of the last member, in their own types; tied
            weights share memory.

        Raises
        ------
        ValueError
            If no member has been taken in.
        """
        if self.n == 0:
            raise ValueError("The average must have at least one member, got 0. Call update first.")
        done = {name: self._finished(total) for name, total in self._sums.items()}
        return {
            name: self._copied[name].clone() if name in self._copied else done[self._alias[name]]
            for name in self._names
        }


@dataclass
class RunningMean(_Accumulator):
    """Equal-weight mean of the members taken in so far (Izmailov et al. 2018; Polyak & Juditsky 1992).

    Sums are kept and divided on reading, so the order of members changes the last bits only. In float32, the
    relative rounding error after n members is below n·6·10⁻⁸ and typically √n·6·10⁻⁸.

    Parameters
    ----------
    buffers : collection of str or None
        Names of the model's buffers; None goes by batch norm's own names.
    """

    def _add(self, total: Tensor, tensor: Tensor, undo: Tensor | None = None) -> None:
        total.add_(tensor)
        if undo is not None:
            total.sub_(undo)

    def _finished(self, total: Tensor) -> Tensor:
        return total / self.n

    def shares(self) -> list[float]:
        """How much of the average each member makes up, in order."""
        return [1 / self.n] * self.n


@dataclass
class ExponentialMean(_Accumulator):
    """Exponential moving average of the members: m ← d·m + (1 − d)·θ, starting at the first member.

    Without a warm-up the first member keeps the share dⁿ after n updates: with d = 0.999 and a few hundred
    steps the average still is the initial network. The warm-up takes
    d = min(`decay`, (1 + n)/(10 + n)), which
    reaches 0.9 after 80 updates and 0.999 after 8990.

    Parameters
    ----------
    buffers : collection of str or None
        Names of the model's buffers; None goes by batch norm's own names.
    decay : float, default=0.999
        d, in [0, 1).
    warmup : bool, default=True
        Whether d grows as above.
    """

    decay: float = 0.999
    warmup: bool = True

    @property
    def current_decay(self) -> float:
        """The d that the next update uses."""
        return self._decay(self.n)

    def shares(self) -> list[float]:
        """How much of the average each member makes up, in order."""
        shares = [1.0]
        for n in range(1, self.n):
            shares = [share * self._decay(n) for share in shares] + [1 - self._decay(n)]
        return shares

    def _decay(self, n: int) -> float:
        return warmed_decay(self.decay, n) if self.warmup else self.decay

    def _add(self, total: Tensor, tensor: Tensor, undo: Tensor | None = None) -> None:
        # When a weight is untied, its clone has already been moved towards the owner's value in this update.
        share = 1 - self.current_decay
        if undo is None:
            total.lerp_(tensor.to(total.dtype), share)
        else:
            total.add_(tensor.to(total.dtype) - undo.to(total.dtype), alpha=share)


def warmed_decay(decay: float, n: int) -> float:
    """Give min(`decay`, (1 + n)/(10 + n)), the decay of the exponential mean's update number n (from 1)."""
    return min(decay, (1 + n) / (10 + n))


@dataclass(frozen=True)
class SoupStep:
    """What the greedy soup decided about one member.

    Attributes
    ----------
    member : int
        Its position in the list of members.
    score : float
        Its own score.
    soup_score : float
        The soup's score with it in.
    kept : bool
        Whether it stays in.
    """

    member: int
    score: float
    soup_score: float
    kept: bool


def greedy_soup(
    members: States,
    evaluate: Callable[[State], float],
    *,
    buffers: Collection[str] | None = None,
    scores: Sequence[float] | None = None,
) -> tuple[dict[str, Tensor], list[SoupStep]]:
    """Build a soup best member first, keeping a member only if the soup does not get worse.

    Algorithm 1 of Wortsman et al. 2022 (Model soups). Two states are held at a time, whatever the number of
    members. A score that is not a number counts as the worst.

    Parameters
    ----------
    members : sequence of mappings, or `States`
        Indexing it gives a state; reading lazily in `__getitem__` keeps memory flat.
    evaluate : callable
        State → score, larger is better; measured on examples that are not those of the final report.
    buffers : collection of str or None
        Names of the model's buffers.
    scores : sequence of float or None
        The members' own scores, if known already.

    Returns
    -------
    state : dict of str to Tensor
        The soup.
    steps : list of SoupStep
        One for each member, in the order in which they were tried.
    """
    if len(members) == 0:
        raise ValueError("members must hold at least one state, got 0. Give the checkpoints to choose from.")
    own = (
        [float(s) for s in scores] if scores is not None else [float(evaluate(members[i])) for i in range(len(members))]
    )
    order = sorted(range(len(members)), key=lambda i: (-_worst_if_nan(own[i]), i))
    soup = RunningMean(buffers)
    soup.update(members[order[0]])
    best = _worst_if_nan(own[order[0]])
    steps = [SoupStep(order[0], own[order[0]], own[order[0]], True)]
    for i in order[1:]:
        candidate = soup.copy()
        candidate.update(members[i])
        score = float(evaluate(candidate.state()))
        kept = not math.isnan(score) and score >= best
        steps.append(SoupStep(i, own[i], score, kept))
        if kept:
            soup, best = candidate, score
    return soup.state(), steps


def _worst_if_nan(score: float) -> float:
    return -math.inf if math.isnan(score) else score
