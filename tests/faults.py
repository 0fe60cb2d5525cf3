"""Disks that are full and folders that can't be written to, without a special file system and for any user."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def full_disk(free: int = 0) -> Iterator[None]:
    """Let no file grow beyond `free` bytes: the system refuses the write itself, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def unusable(folder, name="workspace"):
    """Give a path where no folder can be made, not by root either: what should hold it is a file."""
    (folder / "a file").write_bytes(b"")
    return folder / "a file" / name
