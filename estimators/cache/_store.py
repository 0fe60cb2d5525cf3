"""Answers on disk: a joblib store whose entries are sealed NPZ files without pickle.

An entry is an NPZ file: arrays as they are, everything else as JSON in the array `header`. It ends in a seal (the
comment of the ZIP archive) with the entry's name, the length of the file and the SHA-256 of all before. What does
not carry the seal of its own place is no answer, so a damaged, exchanged or planted file is computed anew and
nothing in it is ever run.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib
import io
import json
import os
import re
import shutil
import struct
import time
import uuid
import warnings
from contextlib import suppress
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import register_store_backend
from joblib._store_backends import CacheItemInfo, CacheWarning, FileSystemStoreBackend
from joblib.disk import memstr_to_bytes
from torch import Tensor

BACKEND = "loss-atlas"
FOLDER = "entries"  # below the location that joblib gives
SUFFIX = ".npz"
SIZE_LIMIT = "10G"  # or $LOSS_ATLAS_CACHE_SIZE; what was used longest ago goes first
AGE_LIMIT = datetime.timedelta(days=180)  # since an entry was last used
_SEAL = "loss-atlas {name} {length:016d} {digest}"
_SEAL_BYTES = len(_SEAL.format(name="0" * 64, length=0, digest="0" * 64))
_PACKAGE = __name__.partition(".")[0]
_TRIMMED = ".trimmed"  # its time says when the limits were last applied


def encode(value: Any, name: str) -> bytes:
    """Write an answer as a sealed NPZ file.

    Parameters
    ----------
    value : object
        Arrays, tensors, numbers, strings, None, and dicts, lists, tuples and dataclasses of Loss Atlas around them.
    name : str
        Where it belongs: the 64 hex digits of the entry.

    Raises
    ------
    TypeError
        For anything else.
    """
    arrays: dict[str, np.ndarray] = {}
    content = _pack(value, arrays)
    shapes = {key: [array.dtype.str, list(array.shape)] for key, array in arrays.items()}
    buffer = io.BytesIO()
    header = np.array(json.dumps({"content": content, "arrays": shapes}))
    np.savez(buffer, allow_pickle=False, header=header, **arrays)
    body = bytearray(buffer.getbuffer())
    body[-2:] = struct.pack("<H", _SEAL_BYTES)  # the length of the archive's comment, which was empty
    return bytes(body + _seal(body, name))


def decode(raw: bytes, name: str) -> Any:
    """Read what `encode` wrote for this name.

    Raises
    ------
    ValueError
        If the seal, a shape or a type is not the right one.
    """
    body, seal = memoryview(raw)[:-_SEAL_BYTES], raw[-_SEAL_BYTES:]
    if len(raw) <= _SEAL_BYTES or seal != _seal(body, name):
        raise ValueError("not the entry that was written here")
    with np.load(io.BytesIO(raw), allow_pickle=False) as archive:
        header = json.loads(str(archive["header"]))
        arrays = {key: archive[key] for key in archive.files if key != "header"}
    if {key: [array.dtype.str, list(array.shape)] for key, array in arrays.items()} != header["arrays"]:
        raise ValueError("arrays are not as its header says")
    return _unpack(header["content"], arrays)


def _seal(body: bytes | bytearray | memoryview, name: str) -> bytes:
    digest = hashlib.sha256(name.encode())
    digest.update(body)
    return _SEAL.format(name=name, length=len(body) + _SEAL_BYTES, digest=digest.hexdigest()).encode()


def _pack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [_pack(item, arrays) for item in value]
    if kind is tuple:
        return {"tuple": [_pack(item, arrays) for item in value]}
    if kind is dict or (isinstance(value, dict) and kind.__name__ == "OrderedDict"):
        return {"dict": [[_pack(key, arrays), _pack(item, arrays)] for key, item in value.items()]}
    if isinstance(value, Tensor):
        tensor = value.detach()
        flat = tensor.cpu().contiguous().reshape(-1)
        stored = flat.view(torch.uint8) if flat.numel() else flat.new_empty(0, dtype=torch.uint8)
        where = str(tensor.device)
        return {
            "tensor": _keep(stored.numpy(), arrays),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "device": where,
        }
    if isinstance(value, np.generic | np.ndarray):
        if kind is not np.ndarray and not isinstance(value, np.generic):
            value = np.asarray(value)
        if value.dtype.hasobject:
            raise TypeError("an array of objects")
        return {"array" if isinstance(value, np.ndarray) else "scalar": _keep(np.asarray(value), arrays)}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if is_dataclass(kind) and kind.__module__.partition(".")[0] == _PACKAGE:
        content = {f.name: _pack(getattr(value, f.name), arrays) for f in fields(value)}
        return {"class": [kind.__module__, kind.__qualname__], "fields": content}
    raise TypeError(f"a {kind.__module__}.{kind.__qualname__}")


def _keep(array: np.ndarray, arrays: dict[str, np.ndarray]) -> str:
    key = f"a{len(arrays)}"
    arrays[key] = array
    return key


def _unpack(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "tuple" in value:
        return tuple(_unpack(item, arrays) for item in value["tuple"])
    if "dict" in value:
        return {_unpack(key, arrays): _unpack(item, arrays) for key, item in value["dict"]}
    if "tensor" in value:
        dtype = getattr(torch, value["dtype"])
        flat = torch.from_numpy(arrays[value["tensor"]])
        tensor = flat.view(dtype) if flat.numel() else torch.empty(0, dtype=dtype)
        return tensor.reshape(value["shape"]).to(value["device"])
    if "array" in value:
        return arrays[value["array"]]
    if "scalar" in value:
        return arrays[value["scalar"]][()]
    if "complex" in value:
        return complex(*value["complex"])
    module, name = value["class"]
    return _instance(module, name, {field: _unpack(item, arrays) for field, item in value["fields"].items()})


def _instance(module: str, name: str, content: dict[str, Any]) -> Any:
    """Make a dataclass of Loss Atlas, and of nothing else, from its fields."""
    if not re.fullmatch(rf"{_PACKAGE}(\.\w+)*", module):
        raise ValueError(f"{module} is not part of Loss Atlas")
    cls = getattr(importlib.import_module(module), name)
    if not (isinstance(cls, type) and is_dataclass(cls) and {f.name for f in fields(cls)} == set(content)):
        raise ValueError(f"{name} has other fields")
    made = object.__new__(cls)
    for field, value in content.items():
        object.__setattr__(made, field, value)
    return made


class SealedStore(FileSystemStoreBackend):
    """joblib's store in files, with sealed entries, a bound on size and age, and a folder of the user alone.

    Use it through `joblib.Memory(folder, backend="loss-atlas")`.
    """

    size_limit: int
    _written: int  # bytes since the limits were last applied here
    _looked: bool  # whether this process has looked if they are due

    def configure(self, location: str, verbose: int = 1, backend_options: dict | None = None) -> None:
        """Make the folder; one that can't be made answers nothing and keeps nothing."""
        self.location, self.verbose = str(location), verbose
        self.compress, self.mmap_mode, self._written, self._looked = False, None, 0, False
        self.size_limit = memstr_to_bytes((os.environ.get("LOSS_ATLAS_CACHE_SIZE") or SIZE_LIMIT).upper())
        try:
            super().configure(self.location, verbose, {})
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
        except OSError as error:
            _warn(f"the folder {self.location} can't be used ({error})")

    @property
    def folder(self) -> Path:
        """Where the entries are."""
        return Path(self.location) / FOLDER

    def _file(self, call_id: Any) -> Path:
        return self.folder.joinpath(*call_id[:-1], call_id[-1] + SUFFIX)

    def contains_item(self, call_id: Any) -> bool:
        """Tell whether there is a file for an entry; reading it decides whether it is an answer."""
        return self._file(call_id).is_file()

    def load_item(self, call_id: Any, verbose: int = 1, timestamp: Any = None, metadata: Any = None) -> Any:
        """Read an entry.

        Raises
        ------
        KeyError
            If there is none, or if it is damaged.
        """
        file = self._file(call_id)
        try:
            value = decode(file.read_bytes(), _name(call_id))
        except Exception as error:  # whatever a damaged file leads to, it is no answer
            raise KeyError(f"no answer in {file}: {error}") from error
        with suppress(OSError):
            os.utime(file)  # when it was last used: the oldest go first
        return value

    def dump_item(self, call_id: Any, item: Any, verbose: int = 1) -> None:
        """Write an entry whole or not at all; one that can't be written is said and forgotten."""
        file = self._file(call_id)
        temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}.tmp")
        try:
            raw = encode(item, _name(call_id))
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                temporary.write_bytes(raw)
                if file.is_dir():
                    shutil.rmtree(file)
                os.replace(temporary, file)
            finally:
                temporary.unlink(missing_ok=True)
            self._keep_within_limits(len(raw))
        except (OSError, TypeError, ValueError) as error:
            _warn(f"an answer could not be kept in {self.folder} ({error})")

    def clear_item(self, call_id: Any) -> None:
        """Remove an entry."""
        self.clear_location(str(self._file(call_id)))

    def get_items(self) -> list[CacheItemInfo]:
        """List the entries, with what earlier versions and interrupted writers left."""
        items = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = os.path.join(folder, name)
                with suppress(OSError):
                    status = os.stat(path)
                    young = name.endswith(".tmp") and status.st_mtime > time.time() - 3600
                    if name != _TRIMMED and not young:
                        used = datetime.datetime.fromtimestamp(status.st_mtime)
                        items.append(CacheItemInfo(path, status.st_size, used))
        # up to version 1 answers were pickled below the name of this package
        old = os.path.join(self.location, _PACKAGE) + os.sep
        if os.path.isdir(old):
            items += [item for item in super().get_items() if item.path.startswith(old)]
        return items

    def clear_location(self, location: str) -> None:
        """Remove an entry, or a folder of them."""
        if location == self.location:
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.rmtree(os.path.join(location, _PACKAGE), ignore_errors=True)
            left = len(self.get_items())
            if left:
                _warn(f"{left} answers in {self.location} could not be removed", "Look at the folder's permissions.")
        elif os.path.isdir(location):
            shutil.rmtree(location, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(location)

    def store_metadata(self, call_id: Any, metadata: Any) -> None:
        """Keep nothing beside an entry: what isn't there can't be damaged."""

    def get_metadata(self, call_id: Any) -> dict:
        """Give nothing, since nothing is kept beside an entry."""
        return {}

    def _keep_within_limits(self, written: int) -> None:
        """Apply the limits once a day, and when much was written.

        A clock that was set forward makes every entry look unused for long. So where nobody looked for as long, age
        counts only from the next day on, and a look that seems to lie ahead is none.
        """
        stamp, now = self.folder / _TRIMMED, time.time()
        try:
            since = now - stamp.stat().st_mtime
        except OSError:  # the first time, or another process has just cleared the cache
            since = float("inf")
        self._written += written
        due, self._looked = not self._looked and not 0 <= since <= 86400, True
        if due or self._written > self.size_limit // 8:
            self._written = 0
            stamp.touch(mode=0o600)
            limit = None if AGE_LIMIT.total_seconds() <= since < float("inf") else AGE_LIMIT
            self.enforce_store_limits(self.size_limit, age_limit=limit)


def _name(call_id: Any) -> str:
    return hashlib.sha256("/".join(call_id).encode()).hexdigest()


def _warn(what: str, then: str = "The work goes on; without the entry it is done anew next time.") -> None:
    warnings.warn(f"Cache: {what}. {then}", CacheWarning, 3)


register_store_backend(BACKEND, SealedStore)
