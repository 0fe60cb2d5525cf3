"""Examples put together one after another: in memory, or in a file that is mapped into it where they are too many."""

from __future__ import annotations

import os
import shutil
from collections.abc import Hashable
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ..core.network.working_copy import free_memory
from ..temporary import temporary_folder

SHARE = 0.5  # of the free memory that examples may take before they go to a file
_BLOCK = 64  # examples converted at once


class Store:
    """Collects examples column by column.

    A mapped column is a tensor like every other, whose pages the system reads from the file when they are looked at and
    drops when memory is short: whatever walks over it in batches takes no more memory than a batch. Images lie in it as
    fast convolutions want them (channels last). The file is nameless and goes with the tensor.

    Parameters
    ----------
    stream : bool or None
        True maps from the first example on, False never, None where the examples take more than half the free memory.
    expected : int or None
        How many examples will come, where that is known.
    """

    def __init__(self, stream: bool | None, expected: int | None = None) -> None:
        self.expected = expected
        self._room = 0.0 if stream else float("inf") if stream is False else SHARE * free_memory(torch.device("cpu"))
        self._columns: dict[Hashable, _Column] = {}

    @property
    def streamed(self) -> bool:
        """Whether the examples lie in a file."""
        return any(column.file is not None for column in self._columns.values())

    def add(self, name: Hashable, rows: Tensor) -> None:
        """Append rows (n, ...) to a column.

        Raises
        ------
        ValueError
            When they have another shape than those before, or the disk is full.
        """
        if name not in self._columns:
            self._columns[name] = _Column(rows, self.expected)
        column = self._columns[name]
        if column.file is None and column.needed(rows) + sum(c.held for c in self._columns.values()) > self._room:
            column.spill()
        column.add(rows)

    def finish(self, name: Hashable) -> Tensor:
        """Give a whole column, (N, ...)."""
        return self._columns[name].finish()


class _Column:
    def __init__(self, first: Tensor, expected: int | None) -> None:
        self.shape, self.dtype, self.expected = tuple(first.shape[1:]), first.dtype, expected
        self.row = first[:1].nbytes
        self.pieces: list[Tensor] = []
        self.whole: Tensor | None = None
        self.file: BinaryIO | None = None
        self.count = 0

    @property
    def held(self) -> int:
        return 0 if self.file is not None else self.row * (self.count if self.whole is None else len(self.whole))

    def needed(self, rows: Tensor) -> int:
        """Bytes that must be had now: of all the rows that will come, or of these."""
        return self.row * (max(self.expected - self.count, 0) if self.expected else len(rows))

    def spill(self) -> None:
        folder = temporary_folder()
        free, wanted = shutil.disk_usage(folder).free, self.row * (self.expected or 0)
        if wanted > free:
            raise _disk_full(f"{wanted / 2**30:.1f} GiB for {self.expected} examples, {free / 2**30:.1f} GiB free")
        self.folder, self.file = folder, open(folder / "examples", "wb")  # noqa: SIM115  closed by finish
        held = self.pieces if self.whole is None else [self.whole[: self.count]]
        self.pieces, self.whole = [], None
        for piece in held:
            self._write(piece)

    def add(self, rows: Tensor) -> None:
        if tuple(rows.shape[1:]) != self.shape or rows.dtype != self.dtype:
            raise ValueError(
                f"Examples must have one shape and type, got {self.shape} in {self.dtype} and then "
                f"{tuple(rows.shape[1:])} in {rows.dtype}. Resize or pad them, or give image_size for images."
            )
        if self.file is not None:
            self._write(rows)
        elif self.expected:
            if self.whole is None:
                self.whole = torch.empty(self.expected, *self.shape, dtype=self.dtype)
            self.whole[self.count : self.count + len(rows)] = rows
        else:
            self.pieces.append(rows)
        self.count += len(rows)

    def _write(self, rows: Tensor) -> None:
        assert self.file is not None
        try:
            for block in rows.split(_BLOCK):
                lying = block.permute(0, 2, 3, 1) if block.dim() == 4 else block
                self.file.write(lying.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            raise _disk_full(str(error)) from error

    def finish(self) -> Tensor:
        if self.file is None:
            return torch.cat(self.pieces) if self.whole is None else self.whole[: self.count]
        try:
            self.file.close()
        except OSError as error:
            raise _disk_full(str(error)) from error
        numbers = self.count
        for side in self.shape:
            numbers *= side
        path = self.folder / "examples"
        flat = torch.from_file(str(path), shared=True, size=numbers, dtype=self.dtype)
        if os.name == "posix":
            path.unlink()  # what is mapped stays until nobody looks at it
        else:
            flat.folder = self.folder  # type: ignore[attr-defined]
        if len(self.shape) != 3:
            return flat.view(self.count, *self.shape)
        channels, height, width = self.shape
        return flat.view(self.count, height, width, channels).permute(0, 3, 1, 2)


def remapped(rows: Tensor, dtype: torch.dtype, layout: torch.memory_format) -> Tensor:
    """Give mapped examples in another precision or layout, in a file of their own; as they are where that fits."""
    real = rows.is_floating_point() or rows.is_complex()
    dtype = dtype if real and not rows.is_complex() else rows.dtype
    turned = rows.dim() == 4 and not rows[:1].is_contiguous(memory_format=layout)
    if rows.dtype == dtype and not turned:
        return rows
    store = Store(True, len(rows))
    for block in rows.split(_BLOCK):
        block = block.to(dtype)
        # the file keeps the order of axes that it is given: a contiguous layout goes in as plain rows
        store.add(0, block.flatten(1) if turned and layout == torch.contiguous_format else block)
    found = store.finish(0)
    return found.view(rows.shape) if found.dim() != rows.dim() else found


def _disk_full(what: str) -> ValueError:
    return ValueError(
        f"The disk must hold the examples that do not fit into memory, got {what}. Ask for fewer n_samples or a "
        "smaller image_size, or point TMPDIR to a larger disk."
    )


def streams(value: Any) -> bool | None:
    """Check the setting `stream`."""
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"stream must be True, False or None, got {value!r}. None decides by the free memory.")
    return value
