"""Image files as numbers in [0, 1], whatever their depth and mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..checks import check_memory_fits

GUESSED_BYTES = 2 * 2**30  # what images at a size that nobody asked for may take
MOST_NAMED = 10
_TIFF_BITS, _TIFF_FORMAT, _TIFF_SIGNED = 258, 339, 2


def read_images(files: Sequence[Path], size: int | None, channels: int, first: Path) -> Tensor:
    """Read images at one size.

    Parameters
    ----------
    files : sequence of Path
    size : int or None
        Side in pixels; None is the width of `first`.
    channels : int
        1 or 3.
    first : Path
        The image that sets the size where none is given.

    Returns
    -------
    Tensor of shape (N, channels, size, size)
        Values in [0, 1].

    Raises
    ------
    ValueError
        When files cannot be read, all of which are named, or when the images would take too much memory.
    """
    guessed, unreadable = size is None, []
    if size is None:
        size = _width(first)
        if size is None and first not in files:
            unreadable.append(f"{str(first)!r} (the first of all)")
        size = size or next((n for path in files if (n := _width(path))), 1)
    needed = len(files) * channels * size * size * 4
    if guessed and needed > GUESSED_BYTES:
        raise ValueError(
            f"image_size must be given where images at the first one's size would take more than "
            f"{GUESSED_BYTES / 2**30:.0f} GiB, got {len(files)} images at {size} × {size} pixels (as {str(first)!r}), "
            f"{needed / 2**30:.1f} GiB. Give image_size, such as 32 or 224, or fewer n_samples."
        )
    cure = "Lower image_size or n_samples."
    check_memory_fits(needed, torch.device("cpu"), f"{len(files)} images of {size} × {size} pixels", cure)
    images = torch.empty(len(files), channels, size, size)
    for i, path in enumerate(files):
        try:
            pixels = torch.from_numpy(read_pixels(path, channels))
        except Exception as error:  # decoders fail in ways of their own; whatever it was, the file is named
            unreadable.append(f"{str(path)!r} ({(str(error) or type(error).__name__).splitlines()[0]})")
            continue
        if pixels.shape[-2:] != (size, size):
            pixels = F.interpolate(
                pixels[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False
            )[0]
        images[i] = pixels
    if unreadable:
        more = f" and {len(unreadable) - MOST_NAMED} more" if len(unreadable) > MOST_NAMED else ""
        raise ValueError(
            f"Every image must be readable, got {len(unreadable)} that are not: "
            f"{'; '.join(unreadable[:MOST_NAMED])}{more}. Remove or replace them."
        )
    return images


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """Read one image as (channels, height, width) numbers in [0, 1].

    Grey values of more than 8 bits are divided by the largest value of their depth. What is transparent lies on
    white. Colours become grey, and others RGB, by Pillow's own rules.
    """
    with Image.open(path) as image:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ValueError(
                f"{image.width} × {image.height} pixels, more than Pillow's limit of {limit}: make it smaller, "
                "or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
            )
        grey = _deep_grey(image)
        if grey is not None:
            return np.repeat(grey[None], channels, axis=0)
        if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
            over = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)  # type: ignore[assignment]
        pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"), dtype=np.float32) / 255.0
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)) if channels == 3 else pixels[None]


def _deep_grey(image: Image.Image) -> np.ndarray | None:
    """Give grey values of more than 8 bits in [0, 1]; None for other images."""
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1):
            raise ValueError(f"float pixels from {low:g} to {high:g}: divide them, so that they lie in [0, 1]")
        return values
    if not image.mode.startswith("I"):
        return None
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    signed = _TIFF_SIGNED in tags.get(_TIFF_FORMAT, ())
    bits = 16 if image.mode.startswith("I;16") else max(tags.get(_TIFF_BITS, (16,)))
    if bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow reads them as signed
    if values.min() < 0:
        raise ValueError("negative pixels: shift and scale them into 16 bits without a sign")
    if bits == 32 and 0 < values.max() < 2**16:
        raise ValueError("32-bit pixels whose values fit into 16 bits, which would come out black: save it with 16")
    return (values / float(2 ** (bits - signed) - 1)).astype(np.float32)


def _width(path: Path) -> int | None:
    """Give the width of an image from its header; None where it has none that can be read."""
    try:
        with Image.open(path) as image:
            return image.width
    except Exception:  # named with all others when the images are read
        return None
