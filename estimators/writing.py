"""Files written whole or not at all, and one sentence where they can't be."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class WriteError(OSError):
    """A file could not be written; the message is one sentence that says where, why and what to do.

    Examples
    --------
    >>> from estimators.writing import WriteError
    >>> str(WriteError.of(OSError(28, "No space left on device"), "a.npz"))
    "A file must go where there is room and permission for it, got No space left on device at 'a.npz': free some space."
    """

    @classmethod
    def of(cls, error: OSError, path: str | os.PathLike) -> WriteError:
        """Say what kept a file from being written."""
        cure = "free some space" if error.errno in _FULL else "choose a folder that this program may write to"
        reason = error.strerror or type(error).__name__
        where = str(error.filename or path)
        said = f"A file must go where there is room and permission for it, got {reason} at {where!r}: {cure}."
        return cls(error.errno, said)

    def __str__(self) -> str:
        return str(self.strerror)


@contextmanager
def whole(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write to, which takes the name of `path` once all is written and on the disk.

    Raises
    ------
    WriteError
        When the disk is full or the folder can't be written to; what was at `path` is as it was.
    """
    file = Path(path)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, file)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError.of(error, file) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def new_temporary_folder() -> str:
    """Make a folder in the system's place for temporary ones.

    Raises
    ------
    WriteError
        When there is no such place with room.
    """
    try:
        return tempfile.mkdtemp(prefix="loss-atlas-")
    except OSError as error:
        raise WriteError.of(error, os.environ.get("TMPDIR") or "the system's temporary folder") from error
