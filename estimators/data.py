"""A name, a folder, arrays, a Dataset or a DataLoader turned into Examples: fixed tensors in a fixed order."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from .cache import fingerprint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"}
INPUT_KEYS = ("image", "images", "pixel_values", "inputs", "input", "input_ids", "x")
TARGET_KEYS = ("label", "labels", "target", "targets", "y")
SPLITS = ("train", "test", "all")
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Examples:
    """A fixed set of examples in a fixed order.

    Attributes
    ----------
    inputs : Tensor of shape (N, ...)
        Already resized and normalised; images are (N, C, H, W).
    targets : Tensor of shape (N,)
        Class indices (int64), or floats for a regression loss.
    class_names : tuple of str
        Names of the classes where known.
    name, split : str
        Where they come from, for captions.
    """

    inputs: Tensor
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

    def subset(self, n: int | None, random_state: int | None = 0) -> Examples:
        """Draw n examples without replacement, kept in their order; None gives all."""
        if n is None or n == len(self):
            return self
        if not 1 <= n <= len(self):
            raise ValueError(
                f"n_samples must be between 1 and {len(self)} (what {self.name!r} holds), got {n!r}. "
                "Ask for fewer, or None for all."
            )
        chosen = np.sort(np.random.default_rng(random_state).permutation(len(self))[:n])
        index = torch.from_numpy(chosen)
        return Examples(self.inputs[index], self.targets[index], self.class_names, self.name, self.split)


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
        "digits" is the embedded set of 1,797 handwritten digits (8×8 pixels, ten classes; UCI). A folder
        holds one folder of images per class, or `train/` and `test/` (or `val/`) folders of such. Arrays are
        taken as they are. Datasets are read once from front to back, loaders in the order they give.
    image_size : int or None
        Side in pixels to which images of "digits" and folders are resized (bilinear); None is 32 for digits
        and each folder's first image's side.
    n_samples : int or None
        How many examples to draw without replacement; None takes all.
    split : {"train", "test", "all"}, default="train"
        For "digits" and folders without train and test folders of their own, a fixed stratified fifth is held out.
    random_state : int or None
        Seed of the draw of `n_samples`; the split never depends on it.
    channels : int, default=3
        Channels of "digits" and folder images (1 or 3).
    mean, std : sequence of float
        Normalisation of pixel values in [0, 1], one value per channel; ImageNet's by default.

    Returns
    -------
    :class:`Examples`
        Fixed tensors; `len`, `.fingerprint` and `.subset` work on them.

    Raises
    ------
    ValueError
        For an unknown name, an empty folder, one example only, or arrays whose lengths differ.
    """
    if isinstance(source, Examples):
        return source if n_samples is None else source.subset(n_samples, random_state)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}. 'train' is the default.")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels!r}. Most timm models want 3.")
    if isinstance(source, str) and source == "digits":
        examples = _digits(image_size or 32, split, channels, mean, std)
    elif isinstance(source, str | os.PathLike):
        examples = _folder(Path(source), image_size, split, channels, mean, std)
    elif isinstance(source, DataLoader):
        examples = _collect(source, "data loader", split)
    elif isinstance(source, Dataset):
        examples = _collect(DataLoader(source, batch_size=256), type(source).__name__, split)
    elif isinstance(source, tuple | list) and len(source) == 2:
        examples = Examples(_tensor(source[0]), _tensor(source[1]), (), "arrays", split)
    else:
        raise TypeError(
            "data must be 'digits', a folder, a pair (inputs, targets), a Dataset, a DataLoader or Examples, got "
            f"{type(source).__name__}. See load_data."
        )
    return _check(examples).subset(n_samples, random_state)


def data_settings(model: torch.nn.Module) -> dict[str, Any]:
    """Read from a timm model what its images should look like: image_size, channels, mean, std.

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


def _digits(size: int, split: str, channels: int, mean: Sequence[float], std: Sequence[float]) -> Examples:
    bunch = load_digits()
    images = torch.from_numpy(bunch.images.astype(np.float32) / 16.0)[:, None]
    images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    targets = torch.from_numpy(bunch.target.astype(np.int64))
    keep = _split(targets.numpy(), split)
    inputs = _normalise(images[keep].expand(-1, channels, -1, -1), mean, std)
    return Examples(inputs, targets[keep], tuple(str(i) for i in range(10)), "digits", split)


def _folder(
    root: Path, size: int | None, split: str, channels: int, mean: Sequence[float], std: Sequence[float]
) -> Examples:
    if not root.is_dir():
        raise ValueError(
            f"data must be 'digits' or an existing folder, got {str(root)!r}. "
            "Give a folder that holds one folder of images per class."
        )
    own_split, base = False, root
    names = {"train": ("train", "training"), "test": ("test", "val", "valid", "validation")}.get(split, ())
    for name in names:
        if (root / name).is_dir():
            own_split, base = True, root / name
            break
    classes = sorted(p.name for p in base.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [
        (path, index)
        for index, name in enumerate(classes)
        for path in sorted((base / name).rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not files:
        raise ValueError(
            f"The folder must hold one folder of images per class, got no image in {str(base)!r}. "
            f"Images are {', '.join(sorted(IMAGE_SUFFIXES))}."
        )
    if size is None:
        size = _open(files[0][0], channels).shape[-1]
    images = torch.stack([_read_image(path, size, channels) for path, _ in files])
    targets = torch.tensor([index for _, index in files], dtype=torch.int64)
    if not own_split and split != "all":
        keep = _split(targets.numpy(), split)
        images, targets = images[keep], targets[keep]
    return Examples(_normalise(images, mean, std), targets, tuple(classes), root.name, split)


def _open(path: Path, channels: int) -> np.ndarray:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"), dtype=np.float32) / 255.0
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"Every image must be readable, got {str(path)!r}: {error}. Remove or replace it.") from error
    return pixels.transpose(2, 0, 1) if channels == 3 else pixels[None]


def _read_image(path: Path, size: int, channels: int) -> Tensor:
    image = torch.from_numpy(np.ascontiguousarray(_open(path, channels)))
    if image.shape[-2:] == (size, size):
        return image
    return F.interpolate(image[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def _normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    channels = images.shape[1]
    m, s = (torch.tensor(tuple(v)[:channels], dtype=images.dtype).view(1, -1, 1, 1) for v in (mean, std))
    return ((images - m) / s).contiguous()


def _split(targets: np.ndarray, split: str) -> Tensor:
    """Give the indices of a fixed stratified split, sorted."""
    everything = np.arange(len(targets))
    if split == "all":
        return torch.from_numpy(everything)
    counts = np.bincount(targets)
    stratify = targets if counts[counts > 0].min() >= 2 and len(counts) * 5 <= len(targets) else None
    train, test = train_test_split(everything, test_size=HELD_OUT_SHARE, random_state=0, stratify=stratify)
    return torch.from_numpy(np.sort(train if split == "train" else test))


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


def _tensor(values: Any) -> Tensor:
    tensor = torch.as_tensor(np.asarray(values) if not isinstance(values, Tensor) else values).detach().cpu()
    return tensor.float() if tensor.dtype == torch.float64 and tensor.dim() > 1 else tensor


def _check(examples: Examples) -> Examples:
    x, y = examples.inputs, examples.targets
    if len(x) != len(y):
        raise ValueError(
            f"inputs and targets must have equal lengths, got {len(x)} and {len(y)}. Pair them one to one."
        )
    if len(y) < 2:
        raise ValueError(f"data must hold at least 2 examples, got {len(y)}. A landscape is a mean over many.")
    if not y.is_floating_point() and y.dtype != torch.int64:
        y = y.long()
    return Examples(x, y, examples.class_names, examples.name, examples.split)
