"""Work that can be written down: a function of this program by its name, and plain arguments.

What runs is what was written down, so a job that is started again after a kill does the same as the first time. None of
it is code: a file can name only functions that are marked for it, and classes of this program that hold values.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def restartable(function: _F) -> _F:
    """Mark a module-level ``function(handle, **arguments) -> result`` that may be started again by its name."""
    function.__dict__["restartable"] = True
    return function


@dataclass(frozen=True)
class Work:
    """A function and its arguments as JSON holds them; calling it does the work.

    Attributes
    ----------
    function : str
        ``module:name``.
    arguments : dict
        By name, each as :func:`written` gives it.

    Examples
    --------
    >>> from app.catalog import DataSpec
    >>> from app.widgets.jobs import fit_one
    >>> Work.of(fit_one, data=DataSpec()).arguments["data"][0]
    'app.catalog:DataSpec'
    """

    function: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, function: Callable[..., Any], **arguments: Any) -> Work:
        """Write a call down."""
        return cls(_name(function), {name: written(value) for name, value in arguments.items()})

    def __call__(self, handle: Any) -> Any:
        """Do it, and give its result.

        Raises
        ------
        ValueError
            When another version of the program wrote it, which had what this one has not.
        """
        function = _named(self.function)
        if not getattr(function, "restartable", False):
            raise ValueError(f"work must be one that this version knows, got {self.function!r}. Ask for it again.")
        return function(handle, **{name: read(value) for name, value in self.arguments.items()})


def written(value: Any) -> Any:
    """Return a value as JSON holds it: itself, or a pair of what it is and what it holds.

    Raises
    ------
    TypeError
        For anything but None, numbers, words, paths, tuples, lists, dicts by name, and dataclasses of those.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Path):
        return ["path", str(value)]
    if type(value) in (tuple, list):
        return [type(value).__name__, [written(item) for item in value]]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return ["dict", {name: written(item) for name, item in value.items()}]
    if is_dataclass(value) and not isinstance(value, type):
        return [_name(type(value)), {f.name: written(getattr(value, f.name)) for f in fields(value) if f.init}]
    raise TypeError(
        f"what a job is given must be plain values, got {type(value).__name__}. Describe it by a dataclass."
    )


def read(value: Any) -> Any:
    """Return what :func:`written` was given."""
    if not isinstance(value, list):
        return value
    kind, held = value
    if kind == "path":
        return Path(held)
    if kind in ("tuple", "list"):
        return (tuple if kind == "tuple" else list)(map(read, held))
    given = {name: read(item) for name, item in held.items()}
    if kind == "dict":
        return given
    made = _named(kind)
    if not (isinstance(made, type) and is_dataclass(made)):
        raise ValueError(f"what a job is given must be of this version, got {kind!r}. Ask for it again.")
    return made(**given)


def _name(thing: Any) -> str:
    return f"{thing.__module__}:{thing.__qualname__}"


def _named(name: str) -> Any:
    """Return what a name stands for in this program; None where it stands for nothing."""
    module, _, own = name.partition(":")
    package = module.partition(".")[0]
    if package not in ("app", "estimators"):
        return None
    try:
        importlib.import_module(package)  # whole, before a part of it: a page may be importing it meanwhile
        return getattr(importlib.import_module(module), own, None)
    except ImportError:
        return None
