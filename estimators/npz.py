"""NPZ files of unknown origin: nothing is unpacked before its size is known, and nothing in them is ever run.

A ZIP archive says what is in it twice: in its own list, and in the header of each array. Both are read first; an array
is unpacked only where they agree, where it is of plain numbers or text, and where all arrays together stay within what
a file of that size may hold.
"""

from __future__ import annotations

import math
import os
import zipfile
from contextlib import nullcontext
from typing import IO

import numpy as np

from .archives import directory_of
from .checks import cut, why

SMALL = 256 * 2**20  # bytes that any file may unpack to
RATIO = 20  # times its own size, for larger ones; `Result.save` does not compress what is larger than SMALL
DIRECTORY = 4 * 2**20  # bytes of an archive's list of contents: some 40,000 arrays
_CHUNK = 1 << 20
_KINDS = "biufcmMSU"  # numbers, times and text: no objects, no records


def read_npz(path: str | os.PathLike | IO[bytes]) -> dict[str, np.ndarray]:
    """Read the arrays of an NPZ file within bounds of memory and time.

    Parameters
    ----------
    path : path or binary file
        What `numpy.savez` or `numpy.savez_compressed` wrote.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        In one short line, whatever is wrong with the file.
    """
    try:
        with open(path, "rb") if isinstance(path, str | os.PathLike) else nullcontext(path) as handle:
            size = _checked_size(handle)
            with zipfile.ZipFile(handle) as archive:
                return _arrays(archive, max(SMALL, RATIO * size))
    except Exception as error:  # a damaged file fails in dozens of ways: a bad ZIP, a broken stream, a senseless header
        raise ValueError(why(error)) from error


def _checked_size(handle: IO[bytes]) -> int:
    """Give the bytes of an archive; one whose list of contents is large is refused before `zipfile` reads it whole."""
    found = directory_of(handle)
    if found is None:
        raise ValueError("it is no ZIP archive")
    if found.is_large or found.size > DIRECTORY:
        raise ValueError("it lists too many arrays")
    return found.archive


def _arrays(archive: zipfile.ZipFile, room: int) -> dict[str, np.ndarray]:
    members = archive.infolist()
    if len({member.filename for member in members}) < len(members):
        raise ValueError("it holds an array twice")
    if sum(member.file_size for member in members) > room:
        raise ValueError(f"it would unpack to more than {room / 2**20:,.0f} MiB")
    return {member.filename.removesuffix(".npy"): _array(archive, member, room) for member in members}


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo, room: int) -> np.ndarray:
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or member.flag_bits & 1:
        raise ValueError("it is packed in another way than numpy's")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"{cut(member.filename, 60)} has a format of another version")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        count = math.prod(shape)
        widest = math.prod(max(n, 1) for n in shape)  # an empty array may still claim a length that nobody can walk
        if dtype.kind not in _KINDS or dtype.itemsize == 0 or any(n < 0 for n in shape) or len(shape) > 32:
            raise ValueError("it holds something else than numbers and text")
        if count * dtype.itemsize != member.file_size - stream.tell() or widest * dtype.itemsize > room:
            raise ValueError(f"the size of {cut(member.filename, 60)} is not as its header says")
        content, done = np.empty(count * dtype.itemsize, np.uint8), 0
        while block := stream.read(_CHUNK):  # to the end, which also compares the archive's own checksum
            content[done : done + len(block)] = np.frombuffer(block, np.uint8)
            done += len(block)
        if done < len(content):
            raise ValueError("it ends too early")
    return content.view(dtype).reshape(shape, order="F" if fortran else "C")
