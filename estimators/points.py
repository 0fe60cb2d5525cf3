"""Many values of one L: kept in chunks, worked on in pieces, here or by joblib's workers, and handed on as they come.

A chunk is what the cache keeps together, always the same points, whoever computes them. A piece is what is computed in
one go: as many points as take about a second, fewer where many workers share what is left. A chunk that is not whole
is written down every few seconds, so a kill costs seconds however long a point takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor

from .cache import MISSING, check_memory, discard, fingerprint, keep, recall
from .landscape import Anchors, Evaluation, Landscape
from .progress import OnProgress, ignore_progress, resumed
from .workers import Parcel, count_workers, spread

Where = slice | np.ndarray
OnChunk = Callable[[Where, Evaluation, bool], None]
CHUNK = 32  # points that are kept together
_PIECE = 1.0  # seconds of work between two reports, at most where a point is faster
_SHORTEST = 0.05  # seconds of a piece below which sending it would cost more than computing it
_ROUNDS = 4  # pieces of what is left that each worker can still get, so that all end at about the same time
_WRITTEN_EVERY = 2.0  # seconds


def evaluate_points(
    land: Landscape,
    anchors: Tensor | Sequence[Tensor],
    coefficients: Any,
    *,
    memory: joblib.Memory | None = None,
    n_jobs: int | None = 1,
    on_progress: OnProgress = ignore_progress,
    on_chunk: OnChunk | None = None,
    first_chunk: int | None = None,
) -> Evaluation:
    """Evaluate points in chunks that are cached, resumable and spread over `n_jobs`.

    Parameters
    ----------
    land : Landscape
        Where.
    anchors : Tensor of shape (K, P) or sequence of K tensors
        See :meth:`Landscape.evaluate`.
    coefficients : array-like of shape (n, K)
        Point i is `coefficients[i] @ anchors`.
    memory : joblib.Memory or None
        Where chunks are kept.
    n_jobs : int or None
        As in joblib; with 1 and no other backend chosen, points are evaluated here.
    on_progress : callable
        Called after each piece; may raise `Cancelled`, what was finished stays in the cache.
    on_chunk : callable or None
        Called as `on_chunk(where, evaluation, from_cache)` with the points (a slice or positions) that became known.
    first_chunk : int or None
        Points of the first chunk, where a longer list is to share its chunks with one that begins elsewhere.

    Raises
    ------
    WorkerLost
        If a worker was killed; what was finished is kept.
    """
    work = _Work(land, anchors, coefficients, memory or check_memory(None), on_progress, on_chunk, first_chunk or CHUNK)
    work.remember()
    workers = count_workers(n_jobs)
    try:
        if workers == 1:
            work.run_here()
        elif not work.known.all():
            work.run_elsewhere(n_jobs, workers)
    finally:
        work.write_down()
    return Evaluation(work.losses, work.accuracies)


def evaluate_chunk(land: Landscape, anchors: Any, coefficients: np.ndarray) -> Evaluation:
    """Evaluate one chunk of points: the unit of caching."""
    return land.evaluate(anchors, coefficients)


def unfinished_chunk(losses: np.ndarray, accuracies: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, ...]:
    """Give what is known of a chunk so far; the cache keeps it under this name until the chunk is whole."""
    return losses, accuracies, known


@dataclass
class _Chunk:
    where: slice
    key: str
    written: float = field(default_factory=time.monotonic)
    is_new: bool = False  # whether something is known that was not written


class _Work:
    """The points of one call: what is known of them, and the two ways to know the rest."""

    def __init__(
        self,
        land: Landscape,
        anchors: Tensor | Sequence[Tensor],
        coefficients: Any,
        memory: joblib.Memory,
        on_progress: OnProgress,
        on_chunk: OnChunk | None,
        first_chunk: int,
    ) -> None:
        self.land, self.anchors, self.memory = land, anchors, memory
        self.on_progress, self.on_chunk = on_progress, on_chunk
        self.table = np.asarray(coefficients, dtype=np.float64)
        n = len(self.table)
        self.losses, self.accuracies = np.full(n, np.nan), np.full(n, np.nan)
        self.known = np.zeros(n, dtype=bool)
        self.n_stored = 0  # points that were known before
        self.pace: float | None = None  # seconds a point
        caching = memory.location is not None
        self._content = fingerprint(list(anchors)) if caching else ""
        base = fingerprint(land.fingerprint, self._content) if caching else ""
        cuts = [0, *range(min(first_chunk, n), n, CHUNK), n] if n else [0]
        slices = [slice(a, b) for a, b in pairwise(cuts)]
        self.chunks = [_Chunk(w, fingerprint(base, self.table[w]) if caching else "") for w in slices]

    # -- what is known ----------------------------------------------------------------------------------

    def remember(self) -> None:
        """Take what the cache has, of whole chunks and of unfinished ones."""
        for chunk in self.chunks:
            found = recall(self.memory, evaluate_chunk, chunk.key)
            if found is not MISSING:
                self._take(chunk.where, found)
                continue
            found = recall(self.memory, unfinished_chunk, chunk.key)
            if found is not MISSING:
                losses, accuracies, known = found
                rows = np.flatnonzero(known)
                self._take(chunk.where.start + rows, Evaluation(losses[rows], accuracies[rows]))

    def write_down(self) -> None:
        """Keep what is known of unfinished chunks."""
        for chunk in self.chunks:
            if chunk.is_new:
                self._keep(chunk)

    def _take(self, where: Where, values: Evaluation) -> None:
        self._put(where, values)
        self.n_stored = int(self.known.sum())
        self._report(where, stored=True)

    def _put(self, where: Where, values: Evaluation) -> None:
        self.losses[where], self.accuracies[where] = values.losses, values.accuracies
        self.known[where] = True

    def _report(self, where: Where, stored: bool = False) -> None:
        if self.on_chunk is not None:
            self.on_chunk(where, Evaluation(self.losses[where], self.accuracies[where]), stored)
        done, total = int(self.known.sum()), len(self.known)
        said = "points (from the cache)" if stored else resumed("points", self.n_stored, total)
        self.on_progress(done, total, said)

    def _finished(self, chunk: _Chunk, where: slice) -> None:
        """Keep and report points that were computed."""
        chunk.is_new = True
        if self.known[chunk.where].all() or time.monotonic() - chunk.written > _WRITTEN_EVERY:
            self._keep(chunk)
        self._report(where)

    def _keep(self, chunk: _Chunk) -> None:
        chunk.is_new, chunk.written = False, time.monotonic()
        if self.memory.location is None:
            return
        losses, accuracies, known = (values[chunk.where] for values in (self.losses, self.accuracies, self.known))
        if known.all():
            keep(self.memory, evaluate_chunk, chunk.key, Evaluation(losses, accuracies))
            discard(self.memory, unfinished_chunk, chunk.key)
        else:
            keep(self.memory, unfinished_chunk, chunk.key, unfinished_chunk(losses, accuracies, known))

    def _gaps(self) -> Iterator[tuple[_Chunk, int, int]]:
        """Yield the runs of unknown points, each inside one chunk."""
        for chunk in self.chunks:
            rows = np.flatnonzero(~self.known[chunk.where]) + chunk.where.start
            for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else ():
                yield chunk, int(run[0]), int(run[-1]) + 1

    def _piece(self, left: int) -> int:
        """Points of the next piece, of those left in a run; several points in a pass must stay together."""
        if self.land.points_per_pass > 1:
            return left
        return 1 if self.pace is None else min(left, max(1, int(_PIECE / self.pace)))

    # -- here -------------------------------------------------------------------------------------------

    def run_here(self) -> None:
        """Evaluate the rest in this process."""
        anchors: Anchors | None = None
        for chunk, start, stop in self._gaps():
            if anchors is None:
                anchors = self.land.anchored(self.anchors)
            since, reported = start, time.perf_counter()
            while since < stop:
                at = since
                while at < stop and (at == since or time.perf_counter() - reported < _PIECE):
                    began, size = time.perf_counter(), self._piece(stop - at)
                    self._put(slice(at, at + size), evaluate_chunk(self.land, anchors, self.table[at : at + size]))
                    self.pace = (time.perf_counter() - began) / size
                    at += size
                self._finished(chunk, slice(since, at))
                since, reported = at, time.perf_counter()

    # -- elsewhere --------------------------------------------------------------------------------------

    def run_elsewhere(self, n_jobs: int | None, workers: int) -> None:
        """Let joblib's workers evaluate the rest."""
        owner = {}

        def items() -> Iterator[tuple[int, np.ndarray]]:
            left = int((~self.known).sum())
            for chunk, start, stop in list(self._gaps()):
                at = start
                while at < stop:
                    size = self._piece(stop - at)
                    if self.pace is not None and self.land.points_per_pass == 1:
                        fair = max(left / (_ROUNDS * workers), _SHORTEST / self.pace)
                        size = max(1, min(size, int(fair)))
                    owner[at] = chunk
                    yield at, self.table[at : at + size]
                    at += size
                    left -= size

        for start, values, seconds in spread(evaluate_piece, self._parcel(), items(), n_jobs):
            size = len(values.losses)
            pace = seconds / size
            self.pace = pace if self.pace is None else 0.7 * self.pace + 0.3 * pace
            where = slice(start, start + size)
            self._put(where, values)
            self._finished(owner.pop(start), where)

    def _parcel(self) -> Parcel:
        """Give what workers need: the same as last time where that is the same, so that they have it already."""
        content = self._content or fingerprint(list(self.anchors))
        if self.land.parcel is None or self.land.parcel[0] != content:
            stacked = torch.stack(list(self.anchors))
            self.land.parcel = content, Parcel((self.land, stacked), _anchored)
        return self.land.parcel[1]


def _anchored(content: tuple[Landscape, Tensor]) -> tuple[Landscape, Anchors]:
    land, anchors = content
    return land, land.anchored(anchors)


def evaluate_piece(content: tuple[Landscape, Anchors], item: tuple[int, np.ndarray]) -> tuple[int, Evaluation, float]:
    """Evaluate a piece in a worker; the answer says which it is and how many seconds it took."""
    (land, anchors), (start, table) = content, item
    began = time.perf_counter()
    values = land.evaluate(anchors, table)
    return start, values, time.perf_counter() - began
