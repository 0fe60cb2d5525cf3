"""Broken and hostile files, made from good ones by a seed: for the tests, and by the thousand for the table in docs."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np

Mutator = Callable[[np.random.Generator, bytes], bytes]


def files(
    good: list[bytes], made: list[Callable[[np.random.Generator], bytes]], count: int, seed: int = 0
) -> Iterator[bytes]:
    """Yield `count` files: those in `made` first, each once, then good ones with damage of every kind in turn."""
    rng = np.random.default_rng(seed)
    for make in made[:count]:
        yield make(rng)
    for number in range(count - min(len(made), count)):
        content = good[number % len(good)]
        for _ in range(1 + int(rng.integers(3))):
            content = DAMAGE[number % len(DAMAGE)](rng, content)
        yield content


# ---- damage to bytes of any format ----


def _flip(rng: np.random.Generator, content: bytes) -> bytes:
    changed = np.frombuffer(content, np.uint8).copy()
    where = rng.integers(0, max(len(changed), 1), min(len(changed), 1 + int(rng.integers(16))))
    changed[where] ^= rng.integers(1, 256, len(where)).astype(np.uint8)
    return changed.tobytes()


def _flip_near_the_ends(rng: np.random.Generator, content: bytes) -> bytes:
    edge = max(1, min(400, len(content) // 2))
    if rng.random() < 0.5:
        return _flip(rng, content[:edge]) + content[edge:]
    return content[:-edge] + _flip(rng, content[-edge:])


def _truncate(rng: np.random.Generator, content: bytes) -> bytes:
    return content[: int(rng.integers(0, max(len(content), 1)))]


def _blank(rng: np.random.Generator, content: bytes) -> bytes:
    start = int(rng.integers(0, max(len(content), 1)))
    length = int(rng.integers(1, 600))
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def _repeat(rng: np.random.Generator, content: bytes) -> bytes:
    start, stop = sorted(int(i) for i in rng.integers(0, max(len(content), 1), 2))
    return content[:stop] + content[start:]


def _large_number(rng: np.random.Generator, content: bytes) -> bytes:
    """Write a large number over four or eight bytes: sizes, counts and offsets are among them."""
    packed = struct.pack("<Q" if rng.random() < 0.5 else "<I", (1 << int(rng.integers(16, 32))) - 1)
    start = int(rng.integers(0, max(len(content) - 8, 1)))
    return content[:start] + packed + content[start + len(packed) :]


DAMAGE: tuple[Mutator, ...] = (_flip, _flip_near_the_ends, _truncate, _blank, _repeat, _large_number)


# ---- NPZ files that are well formed and still not what they say ----


def npz(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Pack members, arrays or not, as they are."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Write an array whose header may say anything."""
    raw = header.encode("latin1")
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(raw) + 1)
    return b"\x93NUMPY" + version + length + raw + b"\n" + content


def array(value: object) -> bytes:
    """Write an array as numpy does."""
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(value), allow_pickle=True)
    return buffer.getvalue()


def result_file(header: object, **arrays: object) -> bytes:
    """Write a result whose header may be anything; a string is taken as it is."""
    text = header if isinstance(header, str) else json.dumps(header)
    return npz({"__header__.npy": array(text), **{f"{name}.npy": array(value) for name, value in arrays.items()}})


def bomb(size: int) -> bytes:
    """Give an NPZ whose one array unpacks to `size` zeros, a thousand times its own size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("losses.npy", "w") as member:
        member.write(npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},)}}"))
        for _ in range(size >> 20):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def lying_bomb(size: int) -> bytes:
    """Give an NPZ whose list says that little is packed where `size` zeros are."""
    content = bomb(size)
    at = content.rfind(b"PK\x01\x02")
    small = struct.pack("<I", 200)
    return content[: at + 24] + small + content[at + 28 :]


def overlapping(count: int) -> bytes:
    """Give an NPZ in which many names lead to the same packed megabytes."""
    body = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (8388608,)}", bytes(8 << 20))
    packed, checksum = zlib.compress(body)[2:-4], zlib.crc32(body)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 33, checksum, len(packed), len(body), 5, 0) + b"a.npy"
    listed = b"".join(
        struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 33, checksum, len(packed), len(body), 9, 0, 0, 0, 0, 0, 0
        )
        + f"{n:05d}.npy".encode()
        for n in range(count)
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(listed), len(local) + len(packed), 0)
    return local + packed + listed + end


TRAP = "/tmp/loss-atlas-was-executed"


class Trap:
    """Would write a file if anything unpickled it."""

    def __reduce__(self):
        return open, (TRAP, "w")


def has_checksum(content: bytes) -> bool:
    """Tell whether the header of a result's file still carries a checksum."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return "sha256" in json.loads(str(archive["__header__"]))
    except Exception:
        return False


_PLAIN = {"class": "SurfaceResult", "version": 1, "fields": {"losses": {"$array": "losses"}}}
_HEADERS = (
    "",
    "null",
    "[]",
    "3",
    "{",
    "{}",
    '{"class": 3}',
    '{"class": "SurfaceResult"}',
    '{"class": "Nobody", "fields": {}}',
    '{"class": "SurfaceResult", "fields": []}',
    '{"class": "SurfaceResult", "fields": {"losses": {"$array": "none"}}}',
    '{"class": "SurfaceResult", "fields": {"losses": {"$array": []}}}',
    '{"class": "SurfaceResult", "fields": {"no": 1}}',
    '{"class": "SurfaceResult", "fields": {"losses": {"$dict": 3}}}',
    '{"class": "SurfaceResult", "fields": {"losses": {}}}',
    '{"class": "SurfaceResult", "fields": {"axes": "AAAA"}}',
    '{"class": "SurfaceResult", "fields": {"losses": "high"}}',
    '{"class": "SurfaceResult", "fields": {"notes": [1, 2]}}',
    '{"class": "EscapeResult", "version": [], "fields": {}}',
    '{"class": "SurfaceResult", "fields": {"markers": {"$tuple": 1}}}',
    "9" * 6000,
    '{"class":' * 60_000,
    "[" * 200_000 + "]" * 200_000,
    '{"class": "SurfaceResult", "fields": {"notes": ' + "[" * 900 + "]" * 900 + "}}",
    '{"class": "' + "n" * 10_000_000 + '", "fields": {}}',
    '{"class": "SurfaceResult", "fields": {"settings": {"$dict": [[[], 1]]}}}',
)
_ARRAY_HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 0)}",
    "{'descr': '<U0', 'fortran_order': False, 'shape': (10**9,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)*70}",
    "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}",
    "{'descr': '<f8', 'fortran_order': 7, 'shape': (1,)}",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,)}",
    "(" * 5000,
    "-" * 9000 + "1",
    "{'descr': '<f8',",
    "'" * 9,
    "\x00",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (1L,)",
    "lambda: 0",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (5,)}",
)


def hostile_npz() -> list[Callable[[np.random.Generator], bytes]]:
    """List what makes NPZ files that mean harm or make no sense."""
    losses = np.arange(9.0).reshape(3, 3)
    made: list[Callable[[np.random.Generator], bytes]] = [
        lambda rng: b"",
        lambda rng: b"PK",
        lambda rng: b"PK\x05\x06" + bytes(18),
        lambda rng: npz({}),
        lambda rng: npz({"__header__.npy": b"no array"}),
        lambda rng: npz({"../../escape.npy": array(1), "__header__.npy": array("{}")}),
        lambda rng: pickle.dumps(Trap()),
        lambda rng: npz({"__header__.npy": array(np.array([Trap()], object))}),
        lambda rng: npz({"__header__.npy": array(json.dumps(_PLAIN)), "losses.npy": pickle.dumps(Trap())}),
        lambda rng: npz({"__header__.npy": array(json.dumps(_PLAIN)), "losses.npy": array(losses)}, zipfile.ZIP_BZIP2),
        lambda rng: npz({"__header__.npy": array(json.dumps(_PLAIN)), "losses.npy": array(losses)}, zipfile.ZIP_LZMA),
        lambda rng: bomb(300 << 20),
        lambda rng: lying_bomb(300 << 20),
        lambda rng: overlapping(2000),
        lambda rng: npz({f"{n}{'x' * 60_000}.npy": b"" for n in range(80)}, zipfile.ZIP_STORED),
        lambda rng: result_file(_PLAIN, losses=losses.astype(object)),
    ]
    made += [lambda rng, text=text: result_file(text, losses=losses) for text in _HEADERS]
    for text in _ARRAY_HEADERS:
        for version in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
            members = {"__header__.npy": array(json.dumps(_PLAIN)), "losses.npy": npy(text, bytes(8), version)}
            made.append(lambda rng, members=members: npz(members))
    return made


# ---- torch files that mean harm ----


def hostile_pickles() -> list[Callable[[np.random.Generator], bytes]]:
    """List what makes torch files that run code, hold themselves, or claim or unpack to more than memory holds."""
    import torch

    def saved(content: object, new: bool = True) -> bytes:
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=new)
        return buffer.getvalue()

    loop: dict[str, object] = {"epoch": 1}
    loop["state_dict"] = loop
    wide = {"w": torch.ones(1).expand(2**15, 2**20)}
    pickled = pickle.dumps({"w": 1})
    made: list[Callable[[np.random.Generator], bytes]] = [
        lambda rng: b"",
        lambda rng: pickle.dumps(Trap()),
        lambda rng: saved({"state_dict": Trap()}),
        lambda rng: saved({"state_dict": Trap()}, new=False),
        lambda rng: saved(loop),
        lambda rng: saved(loop, new=False),
        lambda rng: saved(wide),
        lambda rng: saved(wide, new=False),
        lambda rng: saved({"a" * 10_000_000: torch.ones(1)}),
        lambda rng: b"\x80\x02}(" + b"X\x01\x00\x00\x00a\x85" + b"2\x86" * 80 + b"K\x01u.",
        lambda rng: npz({"x/data.pkl": b"\x80\x02" + b"]0" * 3_000_000 + b"}."}),
    ]
    for name in ("x/data/0", "x/data.pkl", "x/other"):
        members = {"x/data.pkl": pickled, name: bytes(300 << 20)}
        made.append(lambda rng, members=members: npz(members))
    return made
