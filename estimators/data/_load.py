"""A name, a folder, arrays, a Dataset or a DataLoader turned into Examples: fixed tensors in a fixed order."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from ..cache import fingerprint
from ..checks import check_choice, check_integer
from ..core.network.fields import Given, Inputs, each, packed, shapes
from ._folder import ImageFolder, readable, split_indices
from ._images import read_images
from ._named import class_names_of, is_named, labels_of, named_data, of_split
from ._rows import Keys, image_to_rows, is_counted, is_rows, read_rows
from ._store import streams

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
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
    skipped : tuple of str
        Files left out by choice, with the reason.
    streamed : bool
        Whether the inputs lie in a file that is read as they are looked at.

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
    skipped: tuple[str, ...] = ()
    streamed: bool = False

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
        return replace(self, inputs=inputs, targets=self.targets[index], streamed=False)

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
    notes : tuple of str
        What a person may have meant otherwise, such as classes that hold folders.
    held_out : bool
        Whether "train" and "test" are parts of one folder, cut by a fixed seed, for want of folders of their own.

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
    notes: tuple[str, ...] = ()
    held_out: bool = False

    def __len__(self) -> int:
        return len(self.targets)


def list_data(source: str | os.PathLike, *, split: str = "train", root: str | os.PathLike | None = None) -> DataList:
    """List what :func:`load_data` would load from a name or a folder, by the same rule, without reading an image.

    Parameters
    ----------
    source : str or path
        "digits", a folder of images, or one of timm's names of data sets.
    split : {"train", "test", "all"}, default="train"
    root : path or None
        The folder of a data set given by name.

    Returns
    -------
    DataList
        `len`, `.class_names`, `.targets` and `.files`.

    Raises
    ------
    ValueError
        As :func:`load_data` for a folder that holds no images by class, or not that split; for a data set by name
        whose labels cannot be read without its images.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}. 'train' is the default.")
    if source == "digits":
        targets = _digits_bunch().target
        return DataList(DIGIT_NAMES, targets[split_indices(targets, split)])
    if isinstance(source, str) and is_named(source):
        named = named_data(source, root, split)
        targets = labels_of(named, source)
        numbers = tuple(map(str, range(int(targets.max(initial=-1)) + 1)))
        return DataList(class_names_of(named, None) or numbers, targets)
    folder = ImageFolder(Path(source).expanduser())
    files, targets = folder.select(split)
    return DataList(folder.class_names, targets, tuple(files), tuple(folder.notes), folder.holds_out)


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
    root: str | os.PathLike | None = None,
    input_key: str | Sequence[str] | None = None,
    target_key: str | None = None,
    unreadable: str = "raise",
    stream: bool | None = None,
) -> Examples:
    """Load examples as fixed tensors in a fixed order, without augmentation.

    Parameters
    ----------
    source : str, path, (inputs, targets), data set, loader or Examples
        "digits" is the embedded set of 1,797 handwritten digits (8×8 pixels, ten classes; UCI). A folder
        holds one folder of images per class, or `train/` and `test/` (or `val/`) folders of such; a class has one
        number in all of them. "torch/cifar10", "hfds/…", "tfds/…" and "wds/…" are timm's names of data sets
        (`timm.data.create_dataset`), read from `root`. Arrays are taken as they are; several inputs of a network are a
        tuple of them (by position) or a dict (by name). Data sets (torchvision's, timm's, Hugging Face's: rows by
        number, tuples or dicts) are read once from front to back, loaders in the order they give.
    image_size : int or None
        Side in pixels of the square to which images are resized (bilinear, whatever their proportions); None is 32
        for digits, the middle one of the widths of all splits for a folder, refused where all would take more than
        2 GiB at it, and the first one's width for a data set of PIL images. Tensors keep their size.
    n_samples : int or None
        How many examples to draw without replacement; None takes all. Of folders and data sets only those are read.
    split : {"train", "test", "all"}, default="train"
        "digits" and folders without splits of their own have a fixed stratified fifth held out, as have folders with
        `train/` alone. "test" is `test/`, else `val/`; "all" joins all there are. Data sets by name have the splits of
        their own. Other sources are taken whole.
    random_state : int or None
        Seed of the draw of `n_samples`; the split never depends on it.
    channels : int, default=3
        Channels of "digits" and images (1 or 3).
    mean, std : sequence of float
        Normalisation of pixel values in [0, 1], one value per channel; ImageNet's by default. Grey values of 16 and 32
        bits are divided by the largest of their depth; what is transparent lies on white. Tensors are not normalised.
    root : path or None
        The folder of a data set given by name.
    input_key, target_key : str or None
        The entries of rows that are dicts; None takes the usual names ("image", "pixel_values", "input_ids", … and
        "label", "target", …). A tuple of names gives a network several inputs.
    unreadable : {"raise", "skip"}
        Whether image files that cannot be read are refused, all named, or left out with a warning and listed in
        `.skipped`.
    stream : bool or None
        Keep the inputs in a temporary file that is mapped into memory; None does where they would take more than half
        of what is free. Every number is the same.

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
    check_choice("unreadable", unreadable, ("raise", "skip"))
    streams(stream)
    drawn, name = (n_samples, random_state), type(source).__name__
    if isinstance(source, str) and source == "digits":
        examples = _digits(image_size or 32, split, channels, mean, std)
    elif isinstance(source, str) and is_named(source):
        source, name = named_data(source, root, split), source
    elif isinstance(source, str | os.PathLike):
        folder = ImageFolder(Path(source).expanduser())
        pixels = (image_size, channels, mean, std)
        return _folder(folder, split, pixels, drawn, skip=unreadable == "skip", stream=stream)
    elif isinstance(source, tuple | list) and len(source) == 2:
        examples = Examples(_inputs(source[0]), _tensor(source[1]), (), "arrays", split)
    elif isinstance(source, Mapping):
        source = of_split(source, split)
    if is_rows(source):
        return _rows(source, name, split, (image_size, channels, mean, std), drawn, (input_key, target_key), stream)
    if not (isinstance(source, str) or (isinstance(source, tuple | list) and len(source) == 2)):
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


_Pixels = tuple[int | None, int, Sequence[float], Sequence[float]]  # size, channels, mean and deviation of images
_Drawn = tuple[int | None, int | None]  # how many examples, and the seed


def _folder(
    folder: ImageFolder, split: str, pixels: _Pixels, drawn: _Drawn, *, skip: bool, stream: bool | None
) -> Examples:
    size, channels, mean, std = pixels
    files, targets = folder.select(split)
    _check_count(len(files))
    name = readable(folder.root.name)
    chosen = _drawn(len(files), *drawn, name)
    if chosen is not None:  # only these are read
        files, targets = [files[i] for i in chosen], targets[chosen]
    for note in folder.notes:
        warnings.warn(note, stacklevel=3)
    images, kept, skipped, streamed = read_images(
        files, size, channels, folder.files, prepare=lambda x: _normalise(x, mean, std), skip=skip, stream=stream
    )
    if skipped:
        warnings.warn(f"{len(skipped)} images were left out: {'; '.join(skipped[:5])}.", stacklevel=3)
        _check_count(len(kept))
    labels = torch.from_numpy(targets[kept])
    return Examples(images, labels, folder.class_names, name, split, tuple(skipped), streamed)


def _rows(
    source: Any, name: str, split: str, pixels: _Pixels, drawn: _Drawn, keys: Keys, stream: bool | None
) -> Examples:
    size, channels, mean, std = pixels
    counted = is_counted(source)
    chosen = _drawn(len(source), *drawn, name) if counted else None
    prepare = image_to_rows(size, channels, lambda x: _normalise(x, mean, std))
    inputs, targets, streamed = read_rows(source, chosen, keys, prepare, stream)
    examples = _check(Examples(inputs, targets, class_names_of(source, keys[1]), name, split, streamed=streamed))
    return examples if counted else examples.subset(*drawn)


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
    return replace(examples, targets=y)


def _check_count(count: int) -> None:
    if count < 2:
        raise ValueError(f"data must hold at least 2 examples, got {count}. A landscape is a mean over many.")
