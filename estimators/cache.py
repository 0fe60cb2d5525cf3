"""Content-addressed caching with joblib: what was computed once is loaded, also after a crash or in a new process.

A key is a SHA-256 over everything that changes the number. Live objects (a Landscape, tensors) ride along
unhashed, because joblib's own hash of a tensor differs from that of its clone.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import platformdirs
import torch
from torch import Tensor

SCHEMA = 1  # raise when a number means something else than before


def default_cache_folder() -> Path:
    """Give the folder of the cache: $LOSS_ATLAS_CACHE, or the platform's cache folder of the user."""
    return Path(os.environ.get("LOSS_ATLAS_CACHE") or platformdirs.user_cache_dir("loss-atlas"))


def check_memory(memory: str | os.PathLike | joblib.Memory | None) -> joblib.Memory:
    """Turn an estimator's `memory` into a `joblib.Memory`.

    Parameters
    ----------
    memory : None, str, path or joblib.Memory
        None caches nothing; "default" is the user's cache folder; another string is a folder.

    Raises
    ------
    TypeError
        For anything else.
    """
    if memory is None:
        return joblib.Memory(location=None, verbose=0)
    if isinstance(memory, joblib.Memory):
        return memory
    if isinstance(memory, str | os.PathLike):
        folder = default_cache_folder() if memory == "default" else Path(memory)
        return joblib.Memory(location=str(folder), verbose=0)
    raise TypeError(
        f"memory must be None, 'default', a folder or a joblib.Memory, got {memory!r}. Use None to cache nothing."
    )


def fingerprint(*parts: object) -> str:
    """SHA-256 over values: tensors and arrays by dtype, shape and bytes, the rest by JSON."""
    digest = hashlib.sha256(f"schema {SCHEMA}".encode())
    for part in parts:
        _update(digest, part)
    return digest.hexdigest()


def _update(digest: Any, part: object) -> None:
    if isinstance(part, Tensor):
        tensor = part.detach().cpu().contiguous()
        _head(digest, f"array {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}")
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")
    elif isinstance(part, np.ndarray):
        array = np.ascontiguousarray(part)
        _head(digest, f"array {array.dtype} {array.shape}")
        digest.update(array.tobytes())
    elif isinstance(part, dict):
        _head(digest, f"dict {len(part)}")
        for key in sorted(part, key=str):
            _head(digest, str(key))
            _update(digest, part[key])
    elif isinstance(part, list | tuple):
        _head(digest, f"list {len(part)}")
        for item in part:
            _update(digest, item)
    else:
        _head(digest, json.dumps(part, default=_describe))


def _head(digest: Any, text: str) -> None:
    digest.update(f"[{len(text)}]{text}".encode())


def _describe(value: object) -> str:
    if callable(value):
        return describe_callable(value)
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, os.PathLike):
        return str(value)
    raise TypeError(f"cannot fingerprint a {type(value).__name__}")


def describe_callable(function: Callable) -> str:
    """Identify a function by its name and its code, so that an edited function is another key."""
    code = getattr(function, "__code__", None)
    body = hashlib.sha256(_code_bytes(code)).hexdigest()[:16] if code else ""
    values = [repr(cell.cell_contents) for cell in getattr(function, "__closure__", None) or ()]
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', '')}.{name}:{body}:{values}"


def _code_bytes(code: Any) -> bytes:
    constants = b"".join(_code_bytes(c) if hasattr(c, "co_code") else repr(c).encode() for c in code.co_consts)
    return code.co_code + constants + repr(code.co_names).encode()


def cached_call(memory: joblib.Memory, function: Callable, key: str, /, *live: Any, **live_named: Any) -> Any:
    """Call `function(*live)`, or load its answer if one is stored under (`function`, `key`).

    Parameters
    ----------
    memory : joblib.Memory
        Where answers are stored; one without a location just calls.
    function : callable
        A module-level function.
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
    return _store(memory, function)(key, live, live_named)


def is_cached(memory: joblib.Memory, function: Callable, key: str) -> bool:
    """Tell whether an answer is stored, without loading it."""
    return memory.location is not None and _store(memory, function).check_call_in_cache(key, (), {})


def _store(memory: joblib.Memory, function: Callable) -> Any:
    if memory.location is None:
        return lambda key, live, named: function(*live, **named)

    def call(key: str, live: tuple, named: dict) -> Any:
        return function(*live, **named)

    # joblib files an entry under the function's module and name, and forgets all of them when its code changes;
    # the wrapped call stays the same text, SCHEMA says when a number changes its meaning
    call.__module__ = function.__module__
    call.__qualname__ = call.__name__ = function.__qualname__.replace("<locals>.", "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=UserWarning)
        return memory.cache(call, ignore=["live", "named"])
