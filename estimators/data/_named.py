"""Data sets by timm's names, their splits and the names of their classes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import timm.data

_NAME = re.compile(r"(torch|hfds|hfids|tfds|wds)/.+", re.I)
SPLITS_OF = {"train": ("train", "training"), "test": ("test", "validation", "val", "valid")}


def is_named(source: str) -> bool:
    """Whether a string is one of timm's names of data sets, not a folder that happens to be called so."""
    return _NAME.fullmatch(source) is not None and not os.path.isdir(source)


def named_data(name: str, root: str | os.PathLike | None, split: str) -> Any:
    """Open one of timm's data sets (`timm.data.create_dataset`); nothing is downloaded.

    Raises
    ------
    ValueError
        When it cannot be opened, with timm's reason.
    """
    if split == "all":
        raise ValueError(f"split must be 'train' or 'test' for {name!r}, got 'all'. Load both and join them.")
    place = None if root is None else os.fspath(root)
    if place is not None:
        place = os.path.expanduser(place)
    problem: Exception | None = None
    for found in SPLITS_OF[split]:
        try:
            return timm.data.create_dataset(name, root=place, split=found)
        except Exception as error:  # each kind of data set has its own: no such folder, no such split, not installed
            problem = problem or error
    reason = (str(problem) or type(problem).__name__).splitlines()[0][:200]
    raise ValueError(
        f"data {name!r} must be a data set of timm's that lies in root, got root={place!r}: {type(problem).__name__}: "
        f"{reason}. Give root=, the folder that holds it."
    ) from problem


def of_split(sources: Mapping, split: str) -> Any:
    """Take a split of several data sets by name (Hugging Face's DatasetDict).

    Raises
    ------
    ValueError
        When there is none of that name.
    """
    found = next((sources[name] for name in SPLITS_OF.get(split, ()) if name in sources), None)
    if found is None:
        raise ValueError(
            f"split must be one that the data hold, got {split!r} and data of {sorted(map(str, sources))}. Give one of "
            "them itself."
        )
    return found


def class_names_of(source: Any, target_key: str | None) -> tuple[str, ...]:
    """Read the names of the classes where a data set says them: torchvision, timm's folders, Hugging Face."""
    classes = getattr(source, "classes", None)
    if isinstance(classes, list | tuple):
        return tuple(map(str, classes))
    by_name = getattr(getattr(source, "reader", None), "class_to_idx", None)
    if isinstance(by_name, Mapping):
        return tuple(sorted(map(str, by_name), key=lambda name: by_name[name]))
    features = getattr(source, "features", None)
    if isinstance(features, Mapping):
        for key in (target_key,) if target_key else ("label", "labels", "target"):
            names = getattr(features.get(key), "names", None)
            if names:
                return tuple(map(str, names))
    return ()


def labels_of(source: Any, name: str) -> np.ndarray:
    """Read the labels alone, where a data set keeps them apart from its images.

    Torchvision's, timm's folders' and Hugging Face's do.

    Raises
    ------
    ValueError
        When only reading every image would tell them.
    """
    reader = getattr(source, "reader", None)
    for key in ("targets", "labels", "_labels"):
        found = getattr(source, key, None)
        if found is not None and len(found) == len(source):
            return np.asarray(found, dtype=np.int64)
    samples = getattr(reader, "samples", None)
    if samples:
        return np.array([target for _, target in samples], dtype=np.int64)
    table, column = getattr(reader, "dataset", None), getattr(reader, "label_key", None)
    if table is not None and isinstance(column, str):
        return np.asarray(table[column], dtype=np.int64)
    raise ValueError(
        f"data {name!r} must keep its labels apart from its images to be listed, got {type(source).__name__}. Load it "
        "with load_data in a script."
    )
