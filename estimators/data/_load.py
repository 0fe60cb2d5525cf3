"""A name, a folder, arrays, a Dataset or a DataLoader turned into Examples: fixed tensors in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..cache import fingerprint
from ..checks import check_integer
from ..core.network.fields import Given, Inputs, each, packed, shapes
from ._folder import ImageFolder, split_indices
from ._images import read_images

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUT_KEYS = ("image", "images", "pixel_values", "inputs", "input", "input_ids", "x")
TARGET_KEYS = ("label", "labels", "target", "targets", "y")
SPLITS = ("train", "test", "all")
DIGIT_NAMES = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, eq=False)
class Examples:
    """A fixed set of examples in a fixed order.

    Attributes
    ----------
    inputs : Tensor of shape (N, ...), or tuple or dict of such
        Already resized and normalised; images are (N, C, H, W). Several are the network's arguments, by position or by
        name.
    targets : Tensor of shape (N,)
        Class indices (int64), or floats for a regression loss.
    class_names : tuple of str
        Names of the classes where known.
    name, split : str
        Where they come from, for captions.

    Examples
    --------
    >>> from estimators import load_data
    >>> data = load_data("digits", image_size=8, n_samples=32)
    >>> data.inputs.shape, len(data.subset(8)), data.name, data.split
    (torch.Size([32, 3, 8, 8]), 8, 'digits', 'train')
    """

    inputs: Any  # of fields.Given; who made them knows which
    targets: Tensor
    class_names: tuple[str, ...] = ()
    name: str = "arrays"
    split: str = "all"

    def __len__(self) -> int:
        return len(self.targets)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of inputs and targets."""
        return fingerprint(self.inputs, self.targets)

    @property
    def fields(self) -> Inputs:
        """The inputs as one value that is cut and moved like a tensor, several of them too."""
        return packed(self.inputs)

    @property
    def images(self) -> Tensor:
        """The inputs of a network for images, (N, C, H, W)."""
        if not isinstance(self.inputs, Tensor) or self.inputs.dim() != 4:
            raise ValueError(
                f"Inputs must be images (N, C, H, W) here, got {shapes(self.fields)} an example. Give images, or an "
                "estimator that takes a model of your own."
            )
        return self.inputs

    def take(self, index: Any) -> Examples:
        """Take the examples at an index: a slice or a tensor of integers."""
        inputs = each(lambda part: part[index], self.inputs)
        return Examples(inputs, self.targets[index], self.class_names, self.name, self.split)

    def subset(self, n: int | None, random_state: int | None = 0) -> Examples:
        """Draw n examples without replacement, kept in their order; None gives all."""
        chosen = _drawn(len(self), n, random_state, self.name)
        return self if chosen is None else self.take(torch.from_numpy(chosen))


@dataclass(frozen=True, eq=False)
class DataList:
    """What a source holds, before anything is read.

    Attributes
    ----------
    class_names : tuple of str
        Names of the classes, of all splits together; a class's number is its place here.
    targets : ndarray of shape (N,)
        Classes of the examples of the split.
    files : tuple of Path
        Their files, in the same order; none for "digits".

    Examples
    --------
    >>> from estimators import list_data
    >>> listed = list_data("digits", split="test")
    >>> len(listed.class_names), len(listed) == len(listed.targets), listed.files
    (10, True, ())
    """

    class_names: tuple[str, ...]
    targets: np.ndarray
    files: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)


def list_data(source: str | os.PathLike, *, split: str = "train") -> DataList:
    """List what :func:`load_data` would load from a name or a folder, by the same rule, without reading an image.

    Parameters
    ----------
    source : str or path
        "digits" or a folder of images.
    split : {"train", "test", "all"}, default="train"

    Returns
    -------
    DataList
        `len`, `.class_names`, `.targets` and `.files`.

    Raises
    ------
    ValueError
        As :func:`load_data` for a folder that holds no images by class, or not that split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}. 'train' is the default.")
    if source == "digits":
        targets = _digits_bunch().target
        return DataList(DIGIT_NAMES, targets[split_indices(targets, split)])
    folder = ImageFolder(Path(source).expanduser())
    files, targets = folder.select(split)
    return DataList(folder.class_names, targets, tuple(files))


def load_data(
    source: Any,
    *,
    image_size: int | None = None,
    n_samples: int | None = None,
    split: str = "train",
    random_state: int | None = 0,
    channels: int = 3,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> Examples:
    """Load examples as fixed tensors in a fixed order, without augmentation.

    Parameters
    ----------
    source : str, path, (inputs, targets), Dataset, DataLoader or Examples
        Inputs are one array, or a tuple or a dict of arrays for a network of several arguments.
        "digits" is the embedded set of 1,797 handwritten digits (8×8 pixels, ten classes; UCI). A folder
        holds one folder of images per class, or `train/` and `test/` (or `val/`) folders of such; a class has one
        number in all of them. Arrays are taken as they are. Datasets are read once from front to back, loaders in the
        order they give.
    image_size : int or None
        Side in pixels of the square to which images of "digits" and folders are resized (bilinear, whatever their
        proportions); None is 32 for digits and the width of the first image of all splits for a folder, refused
        where all would take more than 2 GiB at it. Other sources keep their size.
    n_samples : int or None
        How many examples to draw without replacement; None takes all. Of a folder only those are read.
    split : {"train", "test", "all"}, default="train"
        "digits" and folders without splits of their own have a fixed stratified fifth held out, as have folders with
        `train/` alone. "test" is `test/`, else `val/`; "all" joins all there are. Other sources are taken whole.
    random_state : int or None
        Seed of the draw of `n_samples`; the split never depends on it.
    channels : int, default=3
        Channels of "digits" and folder images (1 or 3).
    mean, std : sequence of float
        Normalisation of pixel values in [0, 1], one value per channel; ImageNet's by default. Grey values of 16 and 32
        bits are divided by the largest of their depth; what is transparent lies on white.

    Returns
    -------
    :class:`Examples`
        Fixed tensors; `len`, `.fingerprint` and `.subset` work on them.

    Raises
    ------
    ValueError
        For an unknown name, a folder without images by class or one level too high, images that cannot be read (all
        are named), too large for memory or for Pillow's limit, one example only, or arrays whose lengths differ.
    """
    if isinstance(source, Examples):
        return source if n_samples is None else source.subset(n_samples, random_state)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}. 'train' is the default.")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}. Most timm models want 3.")
    if image_size is not None:
        check_integer("image_size", image_size, "32 suits digits.")
    if isinstance(source, str) and source == "digits":
        examples = _digits(image_size or 32, split, channels, mean, std)
    elif isinstance(source, str | os.PathLike):
        drawn = (n_samples, random_state)
        return _folder(Path(source).expanduser(), image_size, split, channels, mean, std, drawn)
    elif isinstance(source, DataLoader):
        examples = _collect(source, "data loader", split)
    elif isinstance(source, Dataset):
        examples = _collect(DataLoader(source, batch_size=256), type(source).__name__, split)
    elif isinstance(source, tuple | list) and len(source) == 2:
        examples = Examples(_inputs(source[0]), _tensor(source[1]), (), "arrays", split)
    else:
        raise TypeError(
            "data must be 'digits', a folder, a pair (inputs, targets), a Dataset, a DataLoader or Examples, got "
            f"{type(source).__name__}. See load_data."
        )
    return _check(examples).subset(n_samples, random_state)


def data_settings(model: torch.nn.Module) -> dict[str, Any]:
    """Read from a timm model how its images should be normalised: channels, mean, std.

    Their size is not among them: most networks take several, and the one they were trained at is in
    `model.pretrained_cfg`.

    Returns
    -------
    dict
        Keyword arguments for :func:`load_data`; empty for a model that says nothing.
    """
    config = getattr(model, "pretrained_cfg", None)
    if config is None:
        return {}
    get = config.get if isinstance(config, dict) else lambda key, default=None: getattr(config, key, default)
    channels = getattr(model, "in_chans", 3) or 3
    mean, std = get("mean") or IMAGENET_MEAN, get("std") or IMAGENET_STD
    return {"channels": channels, "mean": tuple(mean)[:channels], "std": tuple(std)[:channels]}


@lru_cache(maxsize=1)
def _digits_bunch() -> Any:
    return load_digits()


def _digits(size: int, split: str, channels: int, mean: Sequence[float], std: Sequence[float]) -> Examples:
    bunch = _digits_bunch()
    images = torch.from_numpy(bunch.images.astype(np.float32) / 16.0)[:, None]
    images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    keep = torch.from_numpy(split_indices(bunch.target, split))
    inputs = _normalise(images[keep].expand(-1, channels, -1, -1).contiguous(), mean, std)
    return Examples(inputs, torch.from_numpy(bunch.target.astype(np.int64))[keep], DIGIT_NAMES, "digits", split)


def _folder(
    root: Path,
    size: int | None,
    split: str,
    channels: int,
    mean: Sequence[float],
    std: Sequence[float],
    drawn: tuple[int | None, int | None],
) -> Examples:
    folder = ImageFolder(root)
    files, targets = folder.select(split)
    _check_count(len(files))
    chosen = _drawn(len(files), *drawn, root.name)
    if chosen is not None:  # only these are read
        files, targets = [files[i] for i in chosen], targets[chosen]
    images = read_images(files, size, channels, folder.first)
    return Examples(_normalise(images, mean, std), torch.from_numpy(targets), folder.class_names, root.name, split)


def _drawn(count: int, n: int | None, random_state: int | None, name: str) -> np.ndarray | None:
    """Draw n of `count` indices without replacement, sorted; None for all of them."""
    if n is None:
        return None
    if check_integer("n_samples", n, "Ask for a whole number, or None for all.", least=0) == count:
        return None
    if not 1 <= n <= count:
        raise ValueError(
            f"n_samples must be between 1 and {count} (what {name!r} holds), got {n!r}. Ask for fewer, or None for all."
        )
    return np.sort(np.random.default_rng(random_state).permutation(count)[:n])


def _normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise images of one's own in place: a folder of them may take half the memory."""
    channels = images.shape[1]
    m, s = (torch.tensor(tuple(v)[:channels], dtype=images.dtype).view(1, -1, 1, 1) for v in (mean, std))
    return images.sub_(m).div_(s)


def _collect(loader: Iterable, name: str, split: str) -> Examples:
    xs, ys = [], []
    for batch in loader:
        x, y = _pair(batch)
        xs.append(torch.as_tensor(x))
        ys.append(torch.as_tensor(y))
    if not xs:
        raise ValueError(f"data must hold examples, got an empty {name}. Give one with at least two.")
    return Examples(torch.cat(xs), torch.cat(ys), (), name, split)


def _pair(batch: Any) -> tuple[Any, Any]:
    if isinstance(batch, dict):
        x = next((batch[k] for k in INPUT_KEYS if k in batch), None)
        y = next((batch[k] for k in TARGET_KEYS if k in batch), None)
        if x is None or y is None:
            raise ValueError(
                f"A batch that is a dict must have one of {INPUT_KEYS} and one of {TARGET_KEYS}, got "
                f"{sorted(batch)}. Rename its keys or give arrays."
            )
        return x, y
    if isinstance(batch, tuple | list) and len(batch) >= 2:
        return batch[0], batch[1]
    raise ValueError(
        f"A batch must be (inputs, targets) or a dict, got {type(batch).__name__}. Give labelled examples."
    )


def _inputs(values: Any) -> Given:
    """Take one array, or the arguments of a network: a dict, or a tuple of arrays."""
    if isinstance(values, Mapping):
        return {str(name): _tensor(part) for name, part in values.items()}
    if isinstance(values, tuple) and values and all(isinstance(part, Tensor | np.ndarray) for part in values):
        return tuple(_tensor(part) for part in values)
    return _tensor(values)


def _tensor(values: Any) -> Tensor:
    """Take an array as it is: its precision is the landscape's to choose."""
    return torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values).detach().cpu()


def _check(examples: Examples) -> Examples:
    x, y = examples.inputs, examples.targets
    parts = [x] if isinstance(x, Tensor) else list(x.values() if isinstance(x, Mapping) else x)
    lengths = [len(part) if part.dim() else 0 for part in parts]
    if any(length != len(y) for length in lengths):
        raise ValueError(
            f"inputs and targets must have equal lengths, got {', '.join(map(str, lengths))} and {len(y)}. "
            "Pair them one to one."
        )
    _check_count(len(y))
    if not y.is_floating_point() and y.dtype != torch.int64:
        y = y.long()
    return Examples(x, y, examples.class_names, examples.name, examples.split)


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError(f"data must hold at least 2 examples, got {count}. A landscape is a mean over many.")
