"""Work spread over joblib's workers: what all of it needs travels to each of them once, and goes when the parent goes.

Which workers there are is joblib's matter (`joblib.parallel_config`); here is what to send them, and how. Processes of
this machine read it from one file, Dask scatters it, Ray keeps it in its object store, threads share it as it is, and
a backend that is none of these gets it with every task. A worker opens it once and keeps it for the next task.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
import threading
import time
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import joblib
from joblib import Parallel, delayed

_OPEN_AT_ONCE = 2  # parcels a worker keeps ready: a landscape and its held-out sibling
_LOOK_AFTER_PARENT = 0.5  # seconds between two looks
_SERIAL = ("LokyBackend", "SequentialBackend")  # what joblib takes when nobody has asked for another
_LOST = ("TerminatedWorkerError", "BrokenProcessPool", "BrokenExecutor", "KilledWorker", "FutureCancelledError")
_LOST_BY_RAY = ("RayActorError", "ActorDiedError", "WorkerCrashedError", "OutOfMemoryError")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _LARGE = -1, -3, 32 * 2**20


class WorkerLost(RuntimeError):
    """A worker process ended in the middle of its work: it was killed, crashed, or the memory ran out."""


class Parcel:
    """A value on its way to workers, pickled once and opened once in each.

    Parameters
    ----------
    content : object
        Anything that can be pickled, functions defined in a script included.
    prepare : callable or None
        What a worker makes of the content before it keeps it.

    Attributes
    ----------
    size : int
        Bytes of the pickled content; 0 before it was pickled.
    """

    def __init__(self, content: Any, prepare: Callable[[Any], Any] | None = None) -> None:
        self.token = uuid.uuid4().hex
        self._content, self._prepare = content, prepare
        self._raw: bytes | None = None
        self._file: str | None = None
        self._stored: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()  # by Dask's client
        self._in_ray: Any = None
        self._opened: Any = None
        self.size = 0

    def for_backend(self, backend: Any) -> Any:
        """Give what a task of this backend takes along."""
        kind = type(backend).__name__
        if getattr(backend, "supports_sharedmem", False):
            return self
        if kind == "DaskDistributedBackend":
            client = backend.client
            if client not in self._stored:
                self._stored[client] = client.scatter(self, broadcast=True, hash=False)
            return self._stored[client]
        if kind in ("LokyBackend", "MultiprocessingBackend"):
            return _Reference(self.token, self.write(), os.getpid(), None)
        if kind == "RayBackend":
            import ray

            if self._in_ray is None:
                self._in_ray = ray.put(self)
            return _Reference(self.token, None, os.getpid(), self._in_ray)
        return self

    def write(self) -> str:
        """Write the content to a file, which goes with this parcel; give its path."""
        if self._file is None:
            handle, path = tempfile.mkstemp(prefix="loss-atlas-", suffix=".parcel")
            weakref.finalize(self, _remove, path, os.getpid())
            with os.fdopen(handle, "wb") as file:
                cloudpickle.dump((self._content, self._prepare), file)
            self._file, self.size = path, os.path.getsize(path)
        return self._file

    def open(self) -> Any:
        """Give the content, prepared."""
        with _lock:
            if self._opened is None:
                self._opened = _prepared(self._content, self._prepare)
            return self._opened

    def __reduce__(self) -> tuple:
        if self._raw is None:
            self._raw = cloudpickle.dumps((self._content, self._prepare))
            self.size = len(self._raw)
        return _arrived, (self.token, self._raw)


class _Arrived:
    """A parcel in another process, still packed, so that it can travel on to a third."""

    def __init__(self, token: str, raw: bytes) -> None:
        self.token, self.raw = token, raw

    def open(self) -> Any:
        return _opened(self.token, lambda: cloudpickle.loads(self.raw))

    def __reduce__(self) -> tuple:
        return _arrived, (self.token, self.raw)

    def __sizeof__(self) -> int:
        return len(self.raw)


class _Reference:
    """Where a parcel lies: in a file of this machine, or in Ray's object store."""

    def __init__(self, token: str, path: str | None, parent: int, stored: Any) -> None:
        self.token, self.path, self.parent, self.stored = token, path, parent, stored

    def open(self) -> Any:
        return _opened(self.token, self._read)

    def _read(self) -> Any:
        if self.path is None:
            import ray

            return cloudpickle.loads(ray.get(self.stored).raw)
        leave_with_parent(self.parent, self.path)
        with open(self.path, "rb") as file:
            return cloudpickle.load(file)


def _arrived(token: str, raw: bytes) -> _Arrived:
    return _Arrived(token, raw)


_lock = threading.Lock()
_ready: OrderedDict[str, Any] = OrderedDict()


def _opened(token: str, load: Callable[[], Any]) -> Any:
    """Open a parcel, or take it as it was opened before in this process."""
    with _lock:  # the threads of one worker wait for the first of them
        if token in _ready:
            _ready.move_to_end(token)
        else:
            _keep_large_memory()
            _ready[token] = _prepared(*load())
            while len(_ready) > _OPEN_AT_ONCE:
                _ready.popitem(last=False)
        return _ready[token]


def _prepared(content: Any, prepare: Callable[[Any], Any] | None) -> Any:
    return content if prepare is None else prepare(content)


def _remove(path: str, owner: int) -> None:
    if os.getpid() == owner:  # not a forked worker's to remove
        Path(path).unlink(missing_ok=True)


# -- in a worker ------------------------------------------------------------------------------------------

_watched: set[int] = set()


def leave_with_parent(parent: int, path: str | None = None) -> None:
    """End this worker soon after the process that started it is gone, whose kill it would not notice otherwise."""
    if parent in _watched or os.getppid() != parent:  # a worker of another kind of pool: not this one's to end
        return
    _watched.add(parent)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_AFTER_PARENT)
        if path is not None:
            Path(path).unlink(missing_ok=True)
        os._exit(1)

    threading.Thread(target=watch, name="loss-atlas-watch", daemon=True).start()


def _keep_large_memory() -> None:
    """Keep the memory of a pass for the next one.

    A worker that gives freed memory back at once (Dask tells the C library to, and loky's come to it) takes every
    activation of every pass as a new mapping of empty pages: a point then costs up to twice the time.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, _LARGE)
            libc.mallopt(_M_TRIM_THRESHOLD, 16 * _LARGE)


def _run(function: Callable[[Any, Any], Any], parcel: Any, item: Any) -> Any:
    return function(parcel.open(), item)


# -- in the parent ----------------------------------------------------------------------------------------


def count_workers(n_jobs: int | None) -> int:
    """Count the tasks that run at once; 1 means here, one after the other, without a backend."""
    backend, _ = joblib.parallel.get_active_backend()
    if n_jobs in (None, 1) and type(backend).__name__ in _SERIAL:
        return 1
    return int(backend.effective_n_jobs(n_jobs))


def spread(
    function: Callable[[Any, Any], Any], parcel: Parcel, items: Iterable[Any], n_jobs: int | None
) -> Iterator[Any]:
    """Yield `function(content, item)` for each item as soon as each is ready, in any order.

    Parameters
    ----------
    function : callable
        Of a module, so that workers find it.
    parcel : Parcel
        Whose content each worker opens once.
    items : iterable
        Small values; taken as workers become free.
    n_jobs : int or None
        As in joblib.

    Raises
    ------
    WorkerLost
        If a worker was killed or died. Dask and Ray give its work to another one first.
    """
    backend, _ = joblib.parallel.get_active_backend()
    answers = "generator_unordered" if backend.supports_return_generator else "list"
    try:
        sent = parcel.for_backend(backend)
        work = (delayed(_run)(function, sent, item) for item in items)
        yield from Parallel(n_jobs=n_jobs, return_as=answers, batch_size=1)(work)
    except Exception as error:
        if not {cls.__name__ for cls in type(error).__mro__} & {*_LOST, *_LOST_BY_RAY}:
            raise
        raise WorkerLost(
            "The workers must live until the work is done, got one that was killed or ran out of memory: call fit "
            "again, which goes on from what `memory` keeps; lower n_jobs or batch_size if memory was short."
        ) from error
