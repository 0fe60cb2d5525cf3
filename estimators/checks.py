"""Arguments checked with one shape of message: what must hold, what came, what to do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.utils._param_validation import Interval

from .core.network.batchnorm import uses_batch_statistics
from .core.network.losses import Loss, named_loss
from .core.network.probes import listed
from .core.network.working_copy import free_memory
from .core.spectrum.trace import sketch_bytes

DEVICE = "LOSS_ATLAS_DEVICE"


def whole(least: int, *names: str) -> dict[str, list]:
    """Bound settings that are whole numbers, for `_parameter_constraints`."""
    return {name: [Interval(Integral, least, None, closed="left")] for name in names}


def positive(*names: str) -> dict[str, list]:
    """Bound settings that are numbers above 0, for `_parameter_constraints`."""
    return {name: [Interval(Real, 0, None, closed="neither")] for name in names}


def not_negative(*names: str) -> dict[str, list]:
    """Bound settings that are numbers from 0, for `_parameter_constraints`."""
    return {name: [Interval(Real, 0, None, closed="left")] for name in names}


def share(*names: str) -> dict[str, list]:
    """Bound settings that are shares below 1, 0 included, for `_parameter_constraints`."""
    return {name: [Interval(Real, 0, 1, closed="left")] for name in names}


def cut(words: object, most: int = 160) -> str:
    """Give the first line of words from anywhere, an error's or a file's, without control characters, cut to `most`."""
    try:
        lines = str(words)[: 4 * most].splitlines()
    except Exception:  # foreign objects may even fail to say what they are
        lines = []
    line = next((line.strip() for line in lines if line.strip()), "")
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def why(error: Exception) -> str:
    """Give an error's first line, or its kind where it has no words."""
    return cut(error, 200) or type(error).__name__


def check_choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """Insist on one of a few names."""
    choices = sorted(allowed)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}. Choose one of these.")
    return value


def check_integer(name: str, value: object, hint: str = "", *, least: int = 1) -> int:
    """Insist on an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}. {hint}".rstrip())
    return int(value)


def check_seed(random_state: Any) -> int:
    """Turn `random_state` into a seed: an integer is one, a RandomState gives one, None asks the system's entropy."""
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if random_state is None:
        return int(np.random.SeedSequence().generate_state(1)[0] >> 1)
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer) or random_state < 0:
        raise ValueError(
            f"random_state must be an integer from 0 or None, got {random_state!r}. Use 0 to repeat a run, None for "
            "another one each time."
        )
    return int(random_state)


def choose_device(device: str) -> None:
    """Say what `device="auto"` is from now on, in this process and those it starts ($LOSS_ATLAS_DEVICE)."""
    check_device(device)
    os.environ[DEVICE] = device


def check_device(device: str) -> torch.device:
    """Turn "auto" or a device name into a device that this machine has; see `choose_device` for what "auto" is."""
    chosen = os.environ.get(DEVICE, "auto") if device == "auto" else device
    if chosen == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(chosen)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu' or 'cuda', got {chosen!r}. Use 'auto'.") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be one this machine has, got {chosen!r} without CUDA. Use 'auto' or 'cpu'.")
    return found


def check_loss(loss: str | Loss) -> Loss:
    """Turn a loss's name or a callable into a per-example loss."""
    return loss if callable(loss) else named_loss(loss)


def check_training_batch(size: int, module: torch.nn.Module) -> None:
    """Insist on batches that have statistics, where a network trains with them."""
    if size < 2 and uses_batch_statistics(module):
        raise ValueError(
            f"batch_size must be at least 2 for a network with batch norm, got {size}: one example has no batch "
            "statistics. Raise it, or take a network with another norm."
        )


def check_finite_weights(theta: torch.Tensor, slices: Mapping[str, slice], name: str) -> None:
    """Refuse a point with weights that are not finite, and name the parameters they are in."""
    bad = [parameter for parameter, where in slices.items() if not bool(torch.isfinite(theta[where]).all())]
    if bad:
        raise ValueError(
            f"{name} must have finite weights, got NaN or infinity in {listed(bad)}. "
            "Leave it out, or take a checkpoint from before it diverged."
        )


def check_memory_fits(needed: float, device: torch.device, what: str, cure: str) -> None:
    """Say what will be allocated, and what to lower, before it is.

    Raises
    ------
    ValueError
        When less than ``needed`` bytes are free.
    """
    free = free_memory(device)
    if needed > free:
        raise ValueError(
            f"{what} must fit into the free memory of {device} ({free / 2**30:.2f} GiB), got about "
            f"{needed / 2**30:.2f} GiB. {cure}"
        )


def check_sketch_fits(theta: torch.Tensor, n_probes: int) -> None:
    """Refuse a trace by Hutch++ at θ whose vectors would not fit into memory."""
    needed = sketch_bytes(theta.numel(), n_probes, theta.element_size())
    cure = "Lower n_probes, leave the trace out, or choose fewer parameters."
    check_memory_fits(needed, theta.device, "The sketch of the trace", cure)
