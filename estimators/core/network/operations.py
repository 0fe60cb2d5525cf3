"""Functions whose derivatives are missing or wrong, written in plain operations where these are needed.

In torch 2.14 `hardsigmoid` (MobileNetV3, GhostNet, VoVNet and others) and `embedding_bag` have no double backward, the
first a gradient in float32 alone (1/6 is), and the double backward of the fused weight normalisation is wrong on the
CPU. Maps go through the functions themselves; derivatives of networks that call one of them through the plain ones.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .evaluation import logits
from .fields import Inputs


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """Give min(max(x + 3, 0), 6) / 6."""
    return input.add_(3.0).clamp_(0.0, 6.0).div_(6.0) if inplace else (input + 3.0).clamp(0.0, 6.0) / 6.0


def weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Give g · v / ‖v‖, the norm over all axes but `dim`."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


def embedding_bag(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Sum or average rows of a table; what is more than a matrix of indices goes the usual way."""
    options = inspect.signature(F.embedding_bag).bind(input, weight, *args, **kwargs).arguments
    more = any(options.get(name) is not None for name in ("offsets", "max_norm", "per_sample_weights", "padding_idx"))
    mode = options.get("mode", "mean")
    if more or input.dim() != 2 or mode not in ("sum", "mean"):
        return F.embedding_bag(input, weight, *args, **kwargs)
    rows = F.embedding(input, weight)
    return rows.sum(1) if mode == "sum" else rows.mean(1)


REPLACEMENTS: dict[Callable, Callable] = {
    F.hardsigmoid: hardsigmoid,
    torch._weight_norm: weight_norm,
    F.embedding_bag: embedding_bag,
}


class PlainOperations(TorchFunctionMode):
    """Context in which the functions above are computed in plain operations, in this thread."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return REPLACEMENTS.get(function, function)(*args, **(kwargs or {}))


class _Watch(TorchFunctionMode):
    """Context that tells of each function of torch before it is called."""

    def __init__(self, tell: Callable[[Callable], None]) -> None:
        super().__init__()
        self.tell = tell

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.tell(function)
        return function(*args, **(kwargs or {}))


def functions_called(forward: Callable[[], object]) -> set[Callable]:
    """Collect the functions of torch that a forward pass calls."""
    called: set[Callable] = set()
    with torch.no_grad(), _Watch(called.add):
        forward()
    return called


def derive_through_plain_operations(module: nn.Module, example: Inputs) -> bool:
    """Let the parts of a network that call such a function compute it in plain operations where gradients are wanted.

    Parameters
    ----------
    module : nn.Module
        Private; the parts that call one are changed in place. Without gradients they are as they were.
    example : Tensor or Fields
        A few inputs.

    Returns
    -------
    bool
        Whether there are such parts; where the outputs would not be the same to rounding, nothing is changed.
    """
    parts = _callers(module, example)
    before = [(part, dict(vars(part)), [(hooks, dict(hooks)) for hooks in _hooks_of(part)]) for part in parts]
    with torch.no_grad():
        given = logits(module(example.clone())).clone()
    for part in parts:
        part.__dict__["forward"] = _InPlain(part.forward)
        for hooks in _hooks_of(part):  # the old weight_norm is one
            hooks.update({key: _InPlain(hook) for key, hook in hooks.items()})
    with torch.enable_grad():
        plain = logits(module(example.clone())).detach()
    tolerance = 1e-5 if given.dtype == torch.float32 else 1e-7  # hardsigmoid has its 1/6 in float32
    size = tolerance * float(given.nan_to_num().abs().max())
    if torch.allclose(plain, given, rtol=tolerance, atol=size, equal_nan=True):
        return bool(parts)
    for part, state, hooks_before in before:
        part.__dict__.clear()
        part.__dict__.update(state)
        for hooks, values in hooks_before:
            hooks.update(values)
    return False


class _InPlain:
    """A part's forward, or a hook of it, that goes through plain operations where gradients are wanted."""

    def __init__(self, function: Callable) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.function(*args, **kwargs)
        with PlainOperations():
            return self.function(*args, **kwargs)


def _hooks_of(part: nn.Module) -> list[dict]:
    return [part._forward_pre_hooks, part._forward_hooks]


def _callers(module: nn.Module, example: Inputs) -> list[nn.Module]:
    """Find the innermost parts that call a function with a plain form."""
    running, found = [module], list[nn.Module]()

    def enter(part: nn.Module, *_: Any) -> None:
        running.append(part)

    def leave(*_: Any) -> None:
        running.pop()

    def note(function: Callable) -> None:
        if function in REPLACEMENTS and not any(part is running[-1] for part in found):
            found.append(running[-1])

    handles = [part.register_forward_pre_hook(enter, prepend=True) for part in module.modules()]
    handles += [part.register_forward_hook(leave) for part in module.modules()]
    try:
        with torch.no_grad(), _Watch(note):
            module(example.clone())
    finally:
        for handle in handles:
            handle.remove()
    return found
