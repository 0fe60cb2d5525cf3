"""What a frozen backbone computes is the same at every θ: find the last part of a network, the one θ moves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .evaluation import logits
from .fields import Inputs


def moving_tail(module: nn.Module, parameters: Iterable[nn.Parameter], example: Inputs) -> nn.Module | None:
    """Find the smallest submodule that holds all of θ and gives the network's output.

    Parameters
    ----------
    module : nn.Module
        In eval mode.
    parameters : iterable of nn.Parameter
        What makes up θ.
    example : Tensor
        A few inputs: on them the submodule must be called once, with one tensor that does not depend on θ, and return
        the very tensor that the network returns.

    Returns
    -------
    nn.Module or None
        None where only the whole network will do.
    """
    moving = list(parameters)
    memory = {p.data_ptr() for p in moving}  # tied weights share their memory, whatever objects hold them
    paths = [path for path, p in module.named_parameters(remove_duplicate=False) if p.data_ptr() in memory]
    shared = _shared_folders(paths)
    for depth in range(len(shared), 0, -1):
        tail = module.get_submodule(".".join(shared[:depth]))
        if _ends(module, tail, moving, example):
            return tail
    return None


def features_before(tail: nn.Module, forward: Callable[[Any], object], batches: Iterable[Inputs]) -> Iterator[Tensor]:
    """Yield what reaches `tail` for each batch."""
    seen: list[Tensor] = []
    hook = tail.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    try:
        for batch in batches:
            with torch.no_grad():  # not around the yield: the mode would leak to whoever asks for the next
                forward(batch)
            yield seen.pop()
    finally:
        hook.remove()


def _shared_folders(paths: list[str]) -> list[str]:
    """Give the modules' names that lead to every one of these parameters."""
    folders = [path.split(".")[:-1] for path in paths]
    shared = []
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1:
            break
        shared.append(names[0])
    return shared


def _ends(module: nn.Module, tail: nn.Module, moving: list[nn.Parameter], example: Inputs) -> bool:
    """Whether `tail` is called once, with one tensor free of θ, and its output is the network's."""
    calls: list[tuple[tuple, dict, object]] = []
    hook = tail.register_forward_hook(
        lambda _, args, kwargs, output: calls.append((args, kwargs, output)), with_kwargs=True
    )
    try:
        with torch.enable_grad():
            output = module(example.clone())
    finally:
        hook.remove()
    if len(calls) != 1:
        return False
    args, kwargs, own = calls[0]
    if len(args) != 1 or kwargs or not isinstance(args[0], Tensor) or logits(output) is not own:
        return False
    features = args[0]
    if not features.requires_grad:
        return True
    return all(g is None for g in torch.autograd.grad(features.sum(), moving, allow_unused=True))
