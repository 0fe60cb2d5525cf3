"""The changes by name: how they are written, combined and applied.

`CHANGES` maps the name of a change to its function and is what a comparison and the app's menus read. A
change is written `"without_skips"` or, with its argument, `"with_norm=group"`, `"with_width=0.25"`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..core.network.copying import private_copy
from .dropout import with_dropout
from .norms import with_norm, without_norm
from .scale import with_depth, with_width
from .skips import without_skips

CHANGES: dict[str, Callable[..., nn.Module]] = {
    "with_width": with_width,
    "with_depth": with_depth,
    "with_dropout": with_dropout,
    "with_norm": with_norm,
    "without_norm": without_norm,
    "without_skips": without_skips,
}
"""Changes by name, in the order in which they can be combined: those that build a network anew come first."""

_BUILDERS = ("with_width", "with_depth")


def _depth(text: str) -> int | tuple[int, ...]:
    counts = tuple(int(part) for part in text.split(","))
    return counts[0] if len(counts) == 1 else counts


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


_READ: dict[str, Callable[[str], Any]] = {
    "with_width": float,
    "with_depth": _depth,
    "with_dropout": _rates,
    "with_norm": str,
}


def parse_change(text: str) -> tuple[str, tuple[Any, ...]]:
    """Split `"with_norm=group"` into the change's name and its arguments.

    Parameters
    ----------
    text : str
        A name of `CHANGES`, followed by `=` and a value for those that take one.

    Returns
    -------
    tuple of str and tuple
        The name, and positional arguments for `CHANGES[name]`.

    Raises
    ------
    ValueError
        For an unknown name, a value where none is taken, or one that can't be read.
    """
    name, equals, value = str(text).partition("=")
    if name not in CHANGES:
        raise ValueError(f"change must be one of {tuple(CHANGES)}, got {text!r}. Write 'name' or 'name=value'.")
    if not equals:
        return name, ()
    if name not in _READ:
        raise ValueError(f"{name} must be given without a value, got {text!r}. Write {name!r}.")
    try:
        read = _READ[name](value)
    except ValueError as error:
        raise ValueError(
            f"{name} must be followed by a value it can read, got {text!r}. "
            "Examples: 'with_width=0.25', 'with_depth=3,3,3,3', 'with_dropout=0.3', 'with_norm=group'."
        ) from error
    return name, read if name == "with_dropout" else (read,)


def apply_changes(model: nn.Module, changes: Sequence[str], random_state: int = 0) -> nn.Module:
    """Apply several changes in the one order in which they combine.

    Parameters
    ----------
    model : nn.Module
        Left untouched.
    changes : sequence of str
        Such as `("with_width=0.5", "without_skips")`; the order given does not matter. Empty: a copy.
    random_state : int, default=0
        Seed of the weights of the changes that build a network anew.

    Returns
    -------
    nn.Module
        A new network.

    Raises
    ------
    ValueError
        For an unknown change, a change named twice, `with_norm` together with `without_norm`, stochastic
        depth together with `without_skips`, or a change that does not apply to this architecture.
    """
    if isinstance(changes, str):
        raise TypeError(f"changes must be a sequence of names, got {changes!r}. Write ({changes!r},).")
    parsed = [parse_change(change) for change in changes]
    names = [name for name, _ in parsed]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"changes must be named once each, got {', '.join(twice)} twice. Keep one of them.")
    if {"with_norm", "without_norm"} <= set(names):
        raise ValueError(f"changes must be compatible, got {tuple(changes)!r}. Keep either with_norm or without_norm.")
    rates = dict(parsed).get("with_dropout", ())
    if "without_skips" in names and len(rates) > 1 and rates[1] > 0:
        raise ValueError(f"changes must be compatible, got {tuple(changes)!r}. Stochastic depth needs skips.")
    changed = private_copy(model)
    for name in (n for n in CHANGES if n in names):
        arguments = dict(parsed)[name]
        extra = {"random_state": random_state} if name in _BUILDERS else {}
        changed = CHANGES[name](changed, *arguments, **extra)
    return changed
