"""How a training goes on after a kill: where it stood lies beside its checkpoints, and its randomness is its own."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .cache import seal, unseal
from .writing import whole

FILE = "training.state"


class Carried(Protocol):
    """What follows a training from outside, a running mean say, and is kept and given back together with it."""

    def state_dict(self) -> dict[str, Any]:
        """Give what is to be written down."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go on from what was written down."""


class Standing:
    """Where a training stands after its last epoch, in one file that is written whole or not at all.

    Parameters
    ----------
    folder : Path or None
        Where the file is; None keeps nothing.
    key : str
        SHA-256 of all that decides where the training goes: a file of another training is not read.
    """

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder, self.key = folder, key

    def read(self) -> dict[str, Any] | None:
        """Give what was written last; None where there is nothing, or nothing whole, of this training."""
        if self.folder is None:
            return None
        try:
            return unseal((self.folder / FILE).read_bytes(), self.key)
        except Exception:  # a damaged file fails in many ways, and all mean that it says nothing
            return None

    def write(self, state: dict[str, Any]) -> None:
        """Replace what was written; on a full disk the last one stays, and the training goes on."""
        if self.folder is None:
            return
        said = f"where the training stands, in {self.folder}"
        with unkept_is_said(said), whole(self.folder / FILE) as file:
            file.write_bytes(seal(state, self.key))


@contextmanager
def unkept_is_said(what: str) -> Iterator[None]:
    """Turn a disk that takes no more into a warning: what is being made is worth more than its record."""
    try:
        yield
    except Exception as error:  # safetensors raises an error of its own for a full disk
        if not isinstance(error, OSError) and "SafetensorError" not in type(error).__name__:
            raise
        warnings.warn(
            f"The disk must have room for {what}, got {str(error)[:200] or type(error).__name__}: the work goes on "
            "without it. Free some space.",
            stacklevel=3,
        )


def state_of(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Give everything that training moves: parameters, buffers (those outside `state_dict` too), the optimiser's."""
    return {"tensors": dict(_tensors(network)), "optimizer": optimizer.state_dict()}


def restore(state: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Bring a network and its optimiser back, in the memory layout they have."""
    with torch.no_grad():
        for name, tensor in _tensors(network):
            tensor.copy_(state["tensors"][name])
    optimizer.load_state_dict(state["optimizer"])
    for parameter, known in optimizer.state.items():
        for name, value in known.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                known[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from network.named_parameters()
    yield from network.named_buffers()


# -- randomness -------------------------------------------------------------------------------------------

_taking_turns = threading.RLock()


class OwnRandomness:
    """A stream of the global generators that belongs to one training, whatever other threads draw meanwhile.

    Dropout and drop-path draw from the process's generators and take no other. A network that draws gets them in its
    own state for each step, one network at a time; one that does not draw leaves them alone.

    Parameters
    ----------
    seed : int
    device : torch.device
    network : nn.Module
    """

    def __init__(self, seed: int, device: torch.device, network: nn.Module) -> None:
        self._device = device if device.type == "cuda" else None
        self._draws: bool | None = True if _may_draw(network) else None  # not known before the first step
        self._states = [torch.Generator().manual_seed(seed).get_state()]
        if self._device is not None:
            self._states.append(torch.Generator(device).manual_seed(seed).get_state())

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Draw from the own stream inside."""
        if self._draws is False:
            yield
            return
        with _taking_turns:
            others = self._exchange(self._states)
            try:
                yield
            finally:
                before, self._states = self._states, self._exchange(others)
        if self._draws is None:
            self._draws = any(not torch.equal(a, b) for a, b in zip(before, self._states, strict=True))

    def _exchange(self, states: list[Tensor]) -> list[Tensor]:
        before = [torch.get_rng_state()]
        torch.set_rng_state(states[0])
        if self._device is not None:
            before.append(torch.cuda.get_rng_state(self._device))
            torch.cuda.set_rng_state(states[1], self._device)
        return before

    def state_dict(self) -> dict[str, Any]:
        """Give where the stream is."""
        return {"draws": self._draws, "states": self._states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where it was."""
        self._draws, self._states = state["draws"], state["states"]


def _may_draw(network: nn.Module) -> bool:
    """Whether a layer has a rate of dropping something, which it may use in some steps only."""
    return any(
        isinstance(value, float) and value > 0 and "drop" in f"{name} {type(module).__name__}".lower()
        for module in network.modules()
        for name, value in vars(module).items()
    )
