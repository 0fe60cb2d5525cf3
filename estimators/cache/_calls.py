"""Content-addressed caching with joblib: what was computed once is loaded, also after a crash or in a new process.

A key is a SHA-256 over everything that changes the number (`fingerprint`); to it the cache adds the schema, the
version and source of this package and the versions of what computes. Live objects (a Landscape, tensors) ride along
unhashed. Of joblib the memory and its store are used, without its check of a function's source.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import re
import sys
import time
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import platformdirs
import torch
from joblib._store_backends import FileSystemStoreBackend

from ._store import AGE_LIMIT, BACKEND, SealedStore

SCHEMA = 2  # raise when a number means something else than before
MISSING = object()  # what `recall` gives when there is no answer
_IMPORTED = time.time()


def default_cache_folder() -> Path:
    """Give the folder of the cache: $LOSS_ATLAS_CACHE, or the platform's cache folder of the user."""
    return Path(os.environ.get("LOSS_ATLAS_CACHE") or platformdirs.user_cache_dir("loss-atlas"))


def check_memory(memory: str | os.PathLike | joblib.Memory | None) -> joblib.Memory:
    """Turn an estimator's `memory` into a `joblib.Memory`.

    Parameters
    ----------
    memory : None, str, path or joblib.Memory
        None caches nothing; "default" is the user's cache folder; another string is a folder. Of a `joblib.Memory`
        with joblib's own backend the folder is used: answers lie in it in the sealed format of Loss Atlas, and
        nothing there is unpickled.

    Raises
    ------
    TypeError
        For anything else, such as a `joblib.Memory` that keeps its answers elsewhere than in a folder.
    """
    if memory is None:
        return joblib.Memory(location=None, verbose=0)
    if isinstance(memory, joblib.Memory):
        if memory.store_backend is not None and not isinstance(memory.store_backend, FileSystemStoreBackend):
            raise TypeError(
                f"memory must be a joblib.Memory that keeps its answers in a folder, got {memory.store_backend!r}. "
                "Give the folder, or None to cache nothing."
            )
        return memory
    if isinstance(memory, str | os.PathLike):
        folder = default_cache_folder() if memory == "default" else Path(memory)
        return joblib.Memory(location=str(folder), backend=BACKEND, verbose=0)
    raise TypeError(
        f"memory must be None, 'default', a folder or a joblib.Memory, got {memory!r}. Use None to cache nothing."
    )


def cached_call(memory: joblib.Memory, function: Callable, key: str, /, *live: Any, **live_named: Any) -> Any:
    """Call `function(*live)`, or load its answer if one is stored under (`function`, `key`).

    Parameters
    ----------
    memory : joblib.Memory
        Where answers are stored; one without a location just calls.
    function : callable
        A module-level function that gives arrays, tensors, numbers, strings, None, or dicts, lists, tuples and
        dataclasses of Loss Atlas around them.
    key : str
        A `fingerprint` of everything that changes the answer.
    *live, **live_named
        Arguments, not hashed.

    Returns
    -------
    object
        The answer. A damaged entry is computed anew; an answer that cannot be written (a full disk) is
        returned all the same, with a warning.
    """
    answer = recall(memory, function, key)
    if answer is MISSING:
        answer = function(*live, **live_named)
        keep(memory, function, key, answer)
    return answer


def keep(memory: joblib.Memory, function: Callable, key: str, answer: Any) -> None:
    """Store an answer, in the place of an earlier one."""
    if memory.location is not None:
        _store(memory).dump_item(_place(function, key), answer)


def discard(memory: joblib.Memory, function: Callable, key: str) -> None:
    """Remove an answer, where there is one."""
    if memory.location is not None:
        _store(memory).clear_item(_place(function, key))


def recall(memory: joblib.Memory, function: Callable, key: str) -> Any:
    """Load an answer; `MISSING` if there is none that can be believed."""
    if memory.location is None:
        return MISSING
    try:
        return _store(memory).load_item(_place(function, key))
    except KeyError:
        return MISSING


def is_cached(memory: joblib.Memory, function: Callable, key: str) -> bool:
    """Tell whether an answer is stored, without loading it."""
    return memory.location is not None and _store(memory).contains_item(_place(function, key))


def working_folder(memory: joblib.Memory, key: str) -> Path | None:
    """Name a folder in the cache, and within its limits, for what long work leaves on the way; None without a cache."""
    return None if memory.location is None else _store(memory).folder / "unfinished" / key


def arithmetic(device: str) -> list[object]:
    """Give the process's switches that change what torch computes on a device."""
    cuda = [torch.backends.cudnn.allow_tf32, torch.backends.cudnn.enabled] if device == "cuda" else []
    return [str(torch.get_default_dtype()), torch.get_float32_matmul_precision(), *cuda]


# -- looking at it --------------------------------------------------------------------------------------


class CacheInfo(NamedTuple):
    """What a cache holds.

    Attributes
    ----------
    folder : str
        Where it is.
    entries : int
        Stored answers.
    size : int
        Bytes.
    oldest : datetime or None
        When the entry that was used longest ago was last used.
    limit : int
        Bytes beyond which entries go, those used longest ago first.
    max_age : timedelta
        Time without use after which an entry goes.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from estimators import cache_info
    >>> with TemporaryDirectory() as folder:
    ...     info = cache_info(folder)
    >>> info.entries, info.size, info.oldest, info.limit > 0
    (0, 0, None, True)
    """

    folder: str
    entries: int
    size: int
    oldest: datetime.datetime | None
    limit: int
    max_age: datetime.timedelta


def cache_info(memory: str | os.PathLike | joblib.Memory = "default") -> CacheInfo:
    """Look at a cache: how many answers, how many bytes, how old, and its limits."""
    store = _store(check_memory(memory))
    items = store.get_items()
    oldest = min((item.last_access for item in items), default=None)
    size = sum(item.size for item in items)
    return CacheInfo(str(store.folder), len(items), size, oldest, store.size_limit, AGE_LIMIT)


def clear_cache(memory: str | os.PathLike | joblib.Memory = "default") -> None:
    """Remove every answer of Loss Atlas from a cache, those of earlier versions as well."""
    _store(check_memory(memory)).clear()


def reduce_cache(
    memory: str | os.PathLike | joblib.Memory = "default",
    *,
    size: int | str | None = None,
    age: datetime.timedelta | None = None,
) -> None:
    """Make a cache fit into a size and an age; what was used longest ago goes first.

    Parameters
    ----------
    memory : str, path or joblib.Memory
    size : int, str or None
        Bytes, or a number with K, M or G ("500M").
    age : timedelta or None
        Since an entry was last used.

    Raises
    ------
    ValueError
        If `size` is no size.
    """
    if isinstance(size, str) and not re.fullmatch(r"\d+(\.\d+)?[KMG]", size.upper()):
        raise ValueError(f"size must be a number with K, M or G, got {size!r}. Use 500M, say.")
    store = _store(check_memory(memory))
    store.enforce_store_limits(size.upper() if isinstance(size, str) else size, age_limit=age)


# -- inside ---------------------------------------------------------------------------------------------


def _store(memory: joblib.Memory) -> SealedStore:
    store = memory.store_backend
    return store if isinstance(store, SealedStore) else _store_at(str(memory.location))


@lru_cache(maxsize=64)
def _store_at(folder: str) -> SealedStore:
    return joblib.Memory(location=folder, backend=BACKEND, verbose=0).store_backend


def _place(function: Callable, key: str) -> tuple[str, str]:
    """Where an answer lies: a folder for its function, and a name of all that it depends on."""
    name = f"{function.__module__}.{function.__qualname__}"
    entry = hashlib.sha256(f"{machinery()}|{name}|{key}".encode()).hexdigest()
    return re.sub(r"[^\w.]", "_", name), entry


@lru_cache(maxsize=1)
def machinery() -> str:
    """Say what computes: schema, this package by version and by the digest of its source, torch and its helpers."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]  # the package, of which this room is a folder
    for file in sorted(root.rglob("*.py")):
        digest.update(f"{file.relative_to(root).as_posix()} {file.stat().st_size} ".encode() + file.read_bytes())
        if _IMPORTED < file.stat().st_mtime <= time.time():
            # the code that runs is not the one on disk: nobody's answers
            digest.update(uuid.uuid4().bytes)
    try:
        version = importlib.metadata.version("loss-atlas")
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    others = {"numpy": np.__version__, "scipy": importlib.metadata.version("scipy"), "python": sys.version_info[:2]}
    return f"schema {SCHEMA} loss-atlas {version} {digest.hexdigest()} torch {torch.__version__} {others}"
