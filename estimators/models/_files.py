"""What lies in a checkpoint file, and its tensors read when they are asked for.

Each reader looks at the file's own list of contents first (a zip's directory, a safetensors header, an index of
shards) and compares every size in it with the size of the file before anything is unpacked.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import safetensors
import torch
from torch import Tensor

from ..archives import directory_of
from ..checks import cut
from ._errors import refused, shown
from ._pickle import MOST_BYTES, Program, Storage, Stored, interpret, interpret_bytes

MOST_RATIO = 10  # a record of a zip may be so many times larger than the file; torch packs nothing at all
ROOM = 2**20
MOST_HEADER = 32 * 2**20
MOST_DIRECTORY = 16 * 2**20
_PIECE = 4 * 2**20
_LEGACY = (0x1950A86A20F9469CFC6C, 1001)


@dataclass(frozen=True)
class Contents:
    """What a file holds (`value`, with :class:`Stored` where tensors are) and how to `read` named tensors of it."""

    value: Any
    read: Callable[[Mapping[str, Stored]], dict[str, Tensor]]
    harmful: tuple[str, ...] = ()


def open_file(file: Path) -> Contents:
    """Look into a file of any kind; what kind it is, its first bytes say, not its name."""
    if file.name.endswith(".index.json"):
        return _open_index(file)
    with open(file, "rb") as handle:
        start = handle.read(9)
    if start[:4] == b"PK\x03\x04":
        return _open_zip(file)
    if len(start) == 9 and start[8:] == b"{":
        return _open_safetensors(file)
    if start[:1] == b"\x80":
        return _open_legacy(file)
    if not start:
        raise refused(file, "it is empty", "copy or save it again")
    raise refused(file, "it begins like neither")


# ---- torch's zip, since 1.6 ----


def _open_zip(file: Path) -> Contents:
    size = file.stat().st_size
    with open(file, "rb") as handle:
        directory = directory_of(handle)
    if directory is None:
        raise ValueError("its list of records is missing: it was cut short")
    if directory.size > MOST_DIRECTORY:
        raise refused(file, "it lists too many records", "do not open it, or save the weights again")
    with zipfile.ZipFile(file) as archive:
        records = {info.filename: info for info in archive.infolist()}
        unpacked = sum(info.file_size for info in archive.infolist())
        if unpacked > MOST_RATIO * size + ROOM:
            raise refused(
                file, f"its {size:,} bytes claim to unpack to {unpacked:,}", "do not open it, or save the weights again"
            )
        lists = [name for name in records if name == "data.pkl" or name.endswith("/data.pkl")]
        root = min(lists, key=len)[: -len("data.pkl")] if lists else ""
        if f"{root}constants.pkl" in records:
            raise refused(file, "it is a TorchScript archive, which is a program")
        if not lists:
            raise refused(file, "it is a zip archive without torch's list of contents")
        if records[f"{root}data.pkl"].file_size > MOST_BYTES:
            raise refused(file, "its list of contents is longer than 64 MiB")
        program = interpret_bytes(archive.read(f"{root}data.pkl"))
        order = archive.read(f"{root}byteorder")[:8] if f"{root}byteorder" in records else b"little"

    def read(entries: Mapping[str, Stored]) -> dict[str, Tensor]:
        with zipfile.ZipFile(file) as archive:
            return _tensors(entries, program, lambda storage: _record(archive, root, storage), order == b"big")

    return Contents(program.value, read, program.harmful)


def _record(archive: zipfile.ZipFile, root: str, storage: Storage) -> Tensor:
    name = f"{root}data/{storage.key}"
    numbers = torch.empty(archive.getinfo(name).file_size, dtype=torch.uint8)
    with archive.open(name) as record:
        _fill(record, numbers)
        record.read(1)  # only at its end is a record compared with its checksum
    return numbers


def _fill(stream: Any, numbers: Tensor) -> None:
    target: memoryview = memoryview(numbers.numpy())  # type: ignore[arg-type]
    done = 0
    while done < len(target):
        count = stream.readinto(target[done : done + _PIECE])  # a zip's reader makes a copy of what it is asked for
        if not count:
            raise ValueError("it ends before its numbers do")
        done += count


# ---- torch's first format: pickles, then the numbers ----


def _begins_as_torch(stream: IO[bytes]) -> bool:
    try:
        return tuple(interpret(stream, ROOM, 100).value for _ in range(2)) == _LEGACY
    except Exception:  # any other pickle, which may be as long as it likes
        return False


def _open_legacy(file: Path) -> Contents:
    size = file.stat().st_size
    with open(file, "rb") as stream:
        if not _begins_as_torch(stream):
            stream.seek(0)
            plain = interpret(stream)  # a pickle that torch did not write: said by what is in it
            return Contents(plain.value, lambda entries: {}, plain.harmful)
        machine = interpret(stream, ROOM, 1000).value
        program, keys = interpret(stream), interpret(stream).value
        places: dict[str, int] = {}
        for key in keys if isinstance(keys, list) else ():
            storage = program.storages.get(key) if isinstance(key, str) else None
            if storage is None:
                raise ValueError("its numbers belong to no tensor")
            place = stream.tell()
            (numel,) = struct.unpack("<q", stream.read(8))
            end = place + 8 + numel * storage.dtype.itemsize
            if numel != storage.numel or end > size:
                raise ValueError("it ends before its numbers do")
            places[storage.key] = place + 8
            stream.seek(end)

    def at(storage: Storage) -> Tensor:
        numbers = torch.empty(storage.numel * storage.dtype.itemsize, dtype=torch.uint8)
        with open(file, "rb") as stream:
            stream.seek(places[storage.key])
            _fill(stream, numbers)
        return numbers

    swapped = isinstance(machine, dict) and machine.get("little_endian") is False
    return Contents(program.value, lambda entries: _tensors(entries, program, at, swapped), program.harmful)


def _tensors(
    entries: Mapping[str, Stored], program: Program, at: Callable[[Storage], Tensor], swapped: bool
) -> dict[str, Tensor]:
    """Read the storages that some tensors need, each once, and cut the tensors out of them."""
    storages: dict[str, Tensor] = {}
    made = {}
    for name, stored in entries.items():
        if stored.storage not in storages:
            storages[stored.storage] = at(program.storages[stored.storage])
        numbers, width = storages[stored.storage], stored.dtype.itemsize
        if swapped:
            part = width // 2 if stored.dtype.is_complex else width
            numbers = numbers.view(-1, part).flip(1).reshape(-1)
        flat = numbers[: len(numbers) // width * width].view(stored.dtype)
        last = stored.offset + sum((n - 1) * step for n, step in zip(stored.shape, stored.stride, strict=True))
        if 0 not in stored.shape and last >= flat.numel():
            raise ValueError(f"{shown(name)} reaches beyond its numbers")
        made[name] = flat.as_strided(stored.shape, stored.stride, min(stored.offset, flat.numel()))
    return made


# ---- safetensors ----


def _open_safetensors(file: Path) -> Contents:
    with open(file, "rb") as handle:
        (length,) = struct.unpack("<Q", handle.read(8))
        if length > min(MOST_HEADER, file.stat().st_size - 8):
            raise refused(file, "its header is longer than the file or than 32 MiB", "copy or save it again")
        json.loads(handle.read(length))  # a header nested too deep ends here
    with safetensors.safe_open(str(file), "pt") as opened:
        value = {}
        for name in opened.keys():  # noqa: SIM118  it is no mapping
            view = opened.get_slice(name)
            dtype = _SAFE_DTYPES.get(view.get_dtype())
            if dtype is None:
                raise ValueError(f"{shown(name)} has the type {cut(view.get_dtype(), 20)}, which torch cannot hold")
            value[name] = Stored(name, dtype, tuple(view.get_shape()))

    def read(entries: Mapping[str, Stored]) -> dict[str, Tensor]:
        with safetensors.safe_open(str(file), "pt") as opened:
            return {name: opened.get_tensor(stored.storage) for name, stored in entries.items()}

    return Contents(value, read)


_SAFE_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip


# ---- shards: an index beside the files it names ----


def _open_index(file: Path) -> Contents:
    if file.stat().st_size > MOST_HEADER:
        raise refused(file, "its index is longer than 32 MiB", "copy it again")
    index = json.loads(file.read_bytes())
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
        raise refused(file, "an index must have a 'weight_map' of names to files", "copy it again with its shards")
    shards = {}
    for part in sorted(set(places.values())):
        beside = file.parent / part
        if Path(part).name != part or part.endswith(".index.json"):
            raise refused(file, f"its shard {shown(part)} is not a file beside it", "put the shards beside the index")
        if not beside.is_file():
            raise refused(file, f"its shard {shown(part)} is missing", "put the shards beside the index")
        shards[part] = open_file(beside)
    whole = {name: _named(shards[part], name, part) for name, part in places.items()}

    def read(entries: Mapping[str, Stored]) -> dict[str, Tensor]:
        wanted: dict[str, dict[str, Stored]] = {}
        for name, stored in entries.items():
            wanted.setdefault(places[name], {})[name] = stored
        parts = {part: shards[part].read(named) for part, named in wanted.items()}
        return {name: parts[places[name]][name] for name in entries}

    return Contents(whole, read, tuple(name for shard in shards.values() for name in shard.harmful))


def _named(shard: Contents, name: str, part: str) -> Any:
    if not isinstance(shard.value, dict) or name not in shard.value:
        raise ValueError(f"its shard {shown(part)} does not hold {shown(name)}")
    return shard.value[name]
