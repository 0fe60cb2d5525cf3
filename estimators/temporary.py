"""Temporary folders that go when nobody can ask for what is in them any more, and at the latest with the program."""

from __future__ import annotations

import os
import shutil
import weakref
from pathlib import Path

from .writing import new_temporary_folder


class _Folder:
    """Stands for a temporary folder; the folder is removed with it."""

    def __init__(self, path: str) -> None:
        weakref.finalize(self, _remove, path, os.getpid())


class TemporaryPath(type(Path())):  # type: ignore[misc]  # the class of this system's paths
    """A path in a temporary folder that lives as long as any such path to it, or the program.

    What is joined from it keeps the folder too; a copy in another process or a plain string does not.
    """

    folder: _Folder | None = None

    def __truediv__(self, key: str | os.PathLike) -> TemporaryPath:
        path = super().__truediv__(key)
        path.folder = self.folder
        return path

    def __deepcopy__(self, memo: dict) -> TemporaryPath:
        return self  # paths don't change, and a copy must keep the folder as its original does


def temporary_folder() -> TemporaryPath:
    """Make a temporary folder that lives as long as a path from it."""
    path = TemporaryPath(new_temporary_folder())
    path.folder = _Folder(str(path))
    return path


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # a forked worker must not take its parent's files along
        shutil.rmtree(path, ignore_errors=True)
