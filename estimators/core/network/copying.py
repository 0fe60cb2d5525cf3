"""Copies of a network: deep ones, ones that share its tensors, and the change of device and precision."""

from __future__ import annotations

import copy
import functools
import io
import threading
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

COMPLEX = {torch.float16: torch.complex32, torch.float32: torch.complex64, torch.float64: torch.complex128}
_LOCKS = {type(threading.Lock()): threading.Lock, type(threading.RLock()): threading.RLock}
_CONTAINERS = (dict, list, tuple, set, frozenset)
_MODULE_STATE = frozenset(vars(nn.Module()))  # what every module has


def private_copy(module: nn.Module, replace: Mapping[Tensor, Tensor] | None = None) -> nn.Module:
    """Copy a module with everything in it, also where `copy.deepcopy` gives up.

    Tensors that a computation left behind (an activation kept as an attribute, the weight of an old-style
    `torch.nn.utils.weight_norm`) are copied without their history, locks are made anew, and what has no copy (an open
    file, a socket, a Python module) is shared.

    Parameters
    ----------
    module : nn.Module
        Untouched.
    replace : mapping of Tensor to Tensor or None
        What takes the place of some tensors; the others are copied.

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        For what can be neither copied nor shared, a generator say; the module and the attribute are named.
    """

    def memo() -> dict[int, Any]:
        return {id(old): new for old, new in (replace or {}).items()}

    try:
        return copy.deepcopy(module, memo())
    except Exception as error:  # objects of any kind hang on a module, and raise what they like when they are copied
        first = error
    known = memo()
    for share in (False, True):  # what is shared as a whole is decided once all small parts are known
        seen: set[int] = set()
        for path, child in module.named_modules():
            for name, value in vars(child).items():
                if name != "_modules":
                    _prepare(value, known, seen, ".".join(filter(None, (path, name))), share)
    try:
        return copy.deepcopy(module, known)
    except Exception as error:
        raise ValueError(
            f"The model must be one that can be copied, got {type(module).__name__}, which cannot: "
            f"{type(first).__name__}: {(str(first).splitlines() or ['no message'])[0]}. Take out what it holds besides "
            "parameters, buffers and plain values."
        ) from error


def sharing_copy(module: nn.Module, replace: Mapping[Tensor, Tensor] | None = None) -> nn.Module:
    """Copy the structure of a module: its tensors are shared, but for those in `replace`."""
    tensors = [*module.parameters(), *module.buffers(), *(t for _, _, t in loose_tensors(module))]
    return private_copy(module, {t: t for t in tensors} | dict(replace or {}))


def loose_tensors(module: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Yield (path of the module, attribute, tensor) for tensors that are neither parameters nor buffers."""
    for path, child in module.named_modules():
        for name, value in vars(child).items():
            if name not in _MODULE_STATE:
                yield from ((path, name, tensor) for tensor in tensors_in(value))


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in a value and in the containers it consists of."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, _CONTAINERS):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_in(part)


def cast(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Move a module in place, as `module.to(device, dtype)` does, and leave complex tensors their imaginary part."""

    def convert(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device, COMPLEX[dtype])
        return tensor.to(device, dtype if tensor.is_floating_point() else None)

    return module._apply(convert)


def _prepare(value: Any, known: dict[int, Any], seen: set[int], where: str, share: bool) -> None:
    """Enter into `known` what stands for the parts of `value` that can't be copied."""
    if id(value) in known or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if not value.is_leaf:
            known[id(value)] = value.detach().clone()
        return
    if type(value) in _LOCKS:
        known[id(value)] = _LOCKS[type(value)]()
        return
    parts = _parts(value)
    if not isinstance(value, (*_CONTAINERS, nn.Module)):
        try:
            copy.deepcopy(value, dict(known))
            return
        except Exception as error:  # any kind of object, any kind of error: it is shared, or made of parts that are
            if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
                raise ValueError(
                    f"The model must be one that can be copied, got a {type(value).__name__} in {where}, which is used "
                    "up by whoever reads it: keep a list there."
                ) from error
        if share or not parts:
            known[id(value)] = value
            return
    for part in parts:
        _prepare(part, known, seen, where, share)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, _CONTAINERS):
        return list(value)
    if isinstance(value, types.MethodType):
        return [value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    return [] if isinstance(value, type | types.ModuleType) else list(getattr(value, "__dict__", {}).values())
