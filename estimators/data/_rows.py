"""Data sets and loaders of any origin, read from front to back: rows or batches, tuples or dicts, images or tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from ._images import pixels_of, resized
from ._store import Store

IMAGE_KEYS = ("image", "images", "img", "pixel_values", "inputs", "input", "x")
TEXT_KEYS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "pixel_mask", "bool_masked_pos")
INPUT_KEYS = (*IMAGE_KEYS, *TEXT_KEYS)
TARGET_KEYS = ("label", "labels", "target", "targets", "y")

Keys = tuple[str | Sequence[str] | None, str | None]  # of the inputs and of the target, where they were given
Prepare = Callable[[Image.Image], Tensor]


def is_rows(source: Any) -> bool:
    """Whether something is a data set: rows by number, or rows one after another."""
    by_number = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return (by_number or hasattr(source, "__iter__")) and not isinstance(
        source, str | bytes | Mapping | tuple | Tensor | np.ndarray
    )


def is_counted(source: Any) -> bool:
    """Whether rows can be asked for by number; a loader gives batches in an order of its own."""
    return hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, DataLoader)


def read_rows(
    source: Any, chosen: Iterable[int] | None, keys: Keys, prepare: Prepare, stream: bool | None
) -> tuple[Any, Tensor, bool]:
    """Read a data set or loader into inputs and targets.

    Parameters
    ----------
    source : object
        With `__getitem__` and `__len__`, or something to walk over: rows or batches, tuples or dicts.
    chosen : sequence of int or None
        The rows to read, where they can be asked for by number.
    keys : tuple
        Names of the inputs (one, or several for a network with several) and of the target in rows that are dicts.
    prepare : callable
        Turns a PIL image into a tensor (C, H, W).
    stream : bool or None
        As in :class:`Store`.

    Returns
    -------
    inputs : Tensor, or dict of Tensor
    targets : Tensor
    streamed : bool
        Whether they lie in a file.
    """
    counted = is_counted(source)
    numbers = list(range(len(source)) if chosen is None else chosen) if counted else None
    store = Store(stream, None if numbers is None else len(numbers))
    names: Any = None
    for item in _items(source, numbers):
        x, y = pair_of(item, keys)
        single = counted or _is_one(x, y)
        parts = {str(name): value for name, value in x.items()} if isinstance(x, Mapping) else {None: x}
        names = list(parts) if names is None else names
        if list(parts) != names:
            raise ValueError(f"Rows must have the same inputs, got {names} and then {list(parts)}. Give input_key.")
        for name, value in parts.items():
            store.add(name, _tensor(value, single, prepare))
        store.add(_TARGET, _tensor(y, single, prepare))
    if names is None:
        raise ValueError(f"data must hold examples, got an empty {type(source).__name__}. Give one with at least two.")
    inputs = store.finish(None) if names == [None] else {name: store.finish(name) for name in names}
    return inputs, store.finish(_TARGET), store.streamed


_TARGET = ("target",)


def _items(source: Any, numbers: Iterable[int] | None) -> Iterator[Any]:
    if numbers is None:
        yield from source
        return
    for number in numbers:
        yield source[int(number)]


def pair_of(item: Any, keys: Keys) -> tuple[Any, Any]:
    """Find inputs and target in a row or batch.

    Raises
    ------
    ValueError
        Where its keys leave it open which they are, or it is neither a dict nor a tuple.
    """
    if isinstance(item, Mapping):
        return _inputs_of(item, keys), item[_target_key(item, keys)]
    if isinstance(item, tuple | list) and len(item) >= 2:
        return item[0], item[1]
    raise ValueError(f"A row must be (inputs, target) or a dict, got {type(item).__name__}. Give labelled examples.")


def _target_key(row: Mapping, keys: Keys) -> str:
    wanted = keys[1]
    found = [key for key in ([wanted] if wanted else TARGET_KEYS) if key in row]
    if len(found) != 1:
        raise ValueError(
            f"A row that is a dict must have one of {INPUT_KEYS} and one of {TARGET_KEYS}, got "
            f"{sorted(map(str, row))}, of which {len(found)} may be the target. Say which by target_key."
        )
    return found[0]


def _inputs_of(row: Mapping, keys: Keys) -> Any:
    wanted, target = keys[0], _target_key(row, keys)
    if isinstance(wanted, str):
        wanted = (wanted,)
    elif wanted is not None:
        return {name: row[name] for name in _present(wanted, row)}
    if wanted is None:
        images, texts = ([key for key in row if key in known] for known in (IMAGE_KEYS, TEXT_KEYS))
        if len(images) > 1 or not (images or texts):
            raise ValueError(
                f"A row that is a dict must have one of {INPUT_KEYS} and one of {TARGET_KEYS}, got "
                f"{sorted(map(str, row))}, of which {len(images)} may be the input beside {target!r}. Say which by "
                "input_key, several as a tuple."
            )
        wanted = (*images, *texts)
    found = _present(wanted, row)
    return row[found[0]] if len(found) == 1 else {name: row[name] for name in found}


def _present(wanted: Sequence[str], row: Mapping) -> list[str]:
    missing = [name for name in wanted if name not in row]
    if missing:
        raise ValueError(
            f"input_key must name entries of the rows, got {missing} beside {sorted(map(str, row))}. Choose among them."
        )
    return list(wanted)


def _is_one(x: Any, y: Any) -> bool:
    """Whether something walked over gave one example, not a batch: its target is one number, or its input an image."""
    return isinstance(x, Image.Image) or np.ndim(y.cpu() if isinstance(y, Tensor) else y) == 0


def _tensor(value: Any, single: bool, prepare: Prepare) -> Tensor:
    """Give a value, or a batch of them, as rows (n, ...)."""
    if isinstance(value, Image.Image):
        return prepare(value)[None]
    if not single and isinstance(value, tuple | list) and value and isinstance(value[0], Image.Image):
        return torch.stack([prepare(image) for image in value])
    try:
        rows = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Examples must be tensors, arrays, numbers or PIL images, got {type(value).__name__}. Decode them in the "
            "data set, or name other entries by input_key and target_key."
        ) from error
    rows = rows.detach().cpu()
    return rows[None] if single else rows


def image_to_rows(size: int | None, channels: int, normalise: Callable[[Tensor], Tensor]) -> Prepare:
    """Make what turns PIL images into normalised tensors (channels, size, size); None keeps the first one's width."""
    side = size

    def prepare(image: Image.Image) -> Tensor:
        nonlocal side
        side = side or image.width
        return normalise(resized(torch.from_numpy(pixels_of(image, channels)), side)[None])[0]

    return prepare
