"""ZIP archives of unknown origin, looked at before `zipfile` reads their list of contents whole."""

from __future__ import annotations

import os
import struct
from typing import IO, NamedTuple


class Directory(NamedTuple):
    """Bytes of an archive, bytes of its list of contents, and whether that is of the kind for more than 4 GiB."""

    archive: int
    size: int
    is_large: bool


def directory_of(handle: IO[bytes]) -> Directory | None:
    """Read from its end how long an archive's list of contents is; None where the end is missing."""
    archive = handle.seek(0, os.SEEK_END)
    handle.seek(max(0, archive - 2**16 - 22))
    end = handle.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) < at + 22:
        return None
    is_large = b"PK\x06\x07" in end[max(0, at - 20) : at]
    large = end.rfind(b"PK\x06\x06", 0, at) if is_large else -1
    if large >= 0:
        return Directory(archive, int(struct.unpack("<Q", end[large + 40 : large + 48])[0]), True)
    return Directory(archive, int(struct.unpack("<I", end[at + 12 : at + 16])[0]), is_large)
