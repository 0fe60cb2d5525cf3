"""Architectures of a person's own: a module that registers them with timm, named by ``loss-atlas --import``.

Once it is imported, timm knows them like its own: they are in every list, and checkpoints are read into them.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path

_FOLDERS: dict[str, str] = {}  # module → the folder a file was taken from


def import_models(given: str) -> tuple[str, ...]:
    """Import a module or a Python file and return the architectures that it has registered.

    Parameters
    ----------
    given : str
        ``my_models``, ``package.models``, or the path of a file. A file's folder joins the module search path, also of
        processes that are started later.

    Raises
    ------
    ValueError
        When it cannot be imported, with the line at fault, or registers nothing.
    """
    name, folder = given, ""
    if given.endswith(".py") or os.sep in given:
        file = Path(given).expanduser().resolve()
        if not file.is_file():
            raise ValueError(
                f"--import must be a module or a Python file, got {given!r}, which is no file. Check the path."
            )
        name, folder = file.stem, str(file.parent)
        found = importlib.util.find_spec(name) if name.isidentifier() else None
        if not name.isidentifier() or (found and Path(str(found.origin)).resolve() != file):
            raise ValueError(f"--import must be a file with a name of its own, got {file.name!r}. Rename it.")
        if folder not in sys.path:
            sys.path.append(folder)
            kept = os.environ.get("PYTHONPATH")
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (kept, folder)))
    elif os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(name)
    except (Exception, SystemExit) as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise ValueError(
            f"--import must be a module that can be imported, got {given!r}: {what} "
            f"({Path(where.filename).name}, line {where.lineno}). Try python -c 'import {name}'."
        ) from error
    names = names_of(name)
    if not names:
        raise ValueError(
            f"--import must register an architecture by timm.models.register_model, got none in {given!r}. "
            "See docs/own-models.md."
        )
    _FOLDERS[name] = folder
    return names


def names_of(module: str) -> tuple[str, ...]:
    """Return the architectures that a module, or one inside it, has registered."""
    import timm

    def home(name: str) -> str:
        return timm.model_entrypoint(name).__module__

    return tuple(name for name in timm.list_models() if f"{home(name)}.".startswith(f"{module}."))


def import_lines(architecture: str) -> list[str]:
    """Return the Python that makes timm know an architecture of a person's own; nothing for others."""
    if not _FOLDERS:
        return []
    for module, folder in _FOLDERS.items():
        if architecture in names_of(module):
            path = [f"import sys; sys.path.append({folder!r})"] if folder else []
            return [*path, f"import {module}  # registers {architecture}"]
    return []
