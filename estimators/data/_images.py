"""Image files as numbers in [0, 1], whatever their depth and mode."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..checks import check_memory_fits
from ._store import Store

GUESSED_BYTES = 2 * 2**30  # what images at a size that nobody asked for may take
MOST_NAMED = 10
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
Image.init()  # without it only some of these are known
_HEADERS = 256  # looked at for the usual size
_AT_ONCE = 512  # images of a batch
_LARGE = 2**24  # pixels of an image whose memory is looked at first
_BYTES_OF_A_NUMBER = 9  # of a pixel and channel while an image is unpacked: as a byte and as two floats
_TIFF_BITS, _TIFF_FORMAT, _TIFF_SIGNED = 258, 339, 2


def read_images(
    files: Sequence[Path],
    size: int | None,
    channels: int,
    among: Sequence[Path],
    *,
    prepare: Callable[[Tensor], Tensor] = lambda image: image,
    skip: bool = False,
    stream: bool | None = None,
) -> tuple[Tensor, list[int], list[str], bool]:
    """Read images at one size.

    Parameters
    ----------
    files : sequence of Path
    size : int or None
        Side in pixels; None is the middle one of the widths of `among`.
    channels : int
        1 or 3.
    among : sequence of Path
        The images that set the size where none is given: of a few hundred, spread evenly, the headers are read.
    prepare : callable
        Applied to each image, (1, channels, size, size).
    skip : bool
        Leave out images that cannot be read, instead of refusing all.
    stream : bool or None
        As in :class:`Store`.

    Returns
    -------
    images : Tensor of shape (N, channels, size, size)
        Values in [0, 1], before `prepare`.
    kept : list of int
        Which of `files` they are.
    unreadable : list of str
        Those left out, with the reason.
    streamed : bool
        Whether the images lie in a file.

    Raises
    ------
    ValueError
        When files cannot be read, all of which are named, or when the images would take too much memory.
    """
    guessed, unreadable = size is None, []
    if size is None:
        size = _usual_width(among)
        if not skip and among[0] not in files and _width(among[0]) is None:
            unreadable.append(f"{str(among[0])!r} (the first of all)")
    needed = len(files) * channels * size * size * 4
    if guessed and needed > GUESSED_BYTES:
        raise ValueError(
            f"image_size must be given where images at the usual one's size would take more than "
            f"{GUESSED_BYTES / 2**30:.0f} GiB, got {len(files)} images at {size} × {size} pixels, "
            f"{needed / 2**30:.1f} GiB. Give image_size, such as 32 or 224, or fewer n_samples."
        )
    # streamed or not, one image and a batch of them are in memory
    at_once = needed if stream is False else min(len(files), _AT_ONCE) * channels * size * size * 4
    cure = "Lower image_size or n_samples."
    check_memory_fits(at_once, torch.device("cpu"), f"{len(files)} images of {size} × {size} pixels", cure)
    store, kept = Store(stream, len(files)), []
    for i, path in enumerate(files):
        try:
            pixels = torch.from_numpy(read_pixels(path, channels))
        except Exception as error:  # decoders fail in ways of their own; whatever it was, the file is named
            unreadable.append(f"{str(path)!r} ({(str(error) or type(error).__name__).splitlines()[0]})")
            continue
        if unreadable and not skip:
            continue  # it ends in a refusal: the rest is looked at for what else is wrong
        kept.append(i)
        store.add(0, prepare(resized(pixels, size)[None]))
    if unreadable and (not skip or not kept):
        more = f" and {len(unreadable) - MOST_NAMED} more" if len(unreadable) > MOST_NAMED else ""
        cure = "" if skip else ", or leave them out: unreadable='skip'"
        raise ValueError(
            f"Every image must be readable, got {len(unreadable)} that are not: "
            f"{'; '.join(unreadable[:MOST_NAMED])}{more}. Remove or replace them{cure}."
        )
    return store.finish(0), kept, unreadable, store.streamed


def resized(pixels: Tensor, size: int) -> Tensor:
    """Bring an image (C, H, W) to size × size, whatever its proportions."""
    if pixels.shape[-2:] == (size, size):
        return pixels
    return F.interpolate(pixels[None], size=(size, size), mode="bilinear", antialias=True, align_corners=False)[0]


def read_pixels(path: Path, channels: int) -> np.ndarray:
    """Read one image file as (channels, height, width) numbers in [0, 1]; see `pixels_of`.

    What a file is, its content says, and only what an image folder may hold is looked at: a PostScript file under the
    name of a picture would be handed to another program.
    """
    with Image.open(path, formats=FORMATS) as image:
        return pixels_of(image, channels)


def pixels_of(image: Image.Image, channels: int) -> np.ndarray:
    """Give an image as (channels, height, width) numbers in [0, 1].

    Grey values of more than 8 bits are divided by the largest value of their depth. What is transparent lies on
    white. Colours become grey, and others RGB, by Pillow's own rules.

    Raises
    ------
    ValueError
        For an image beyond Pillow's limit, or one that would not fit into memory: looked at before it is unpacked.
    """
    limit, count = Image.MAX_IMAGE_PIXELS, image.width * image.height
    if limit is not None and count > limit:
        raise ValueError(
            f"{image.width} × {image.height} pixels, more than Pillow's limit of {limit}: make it smaller, "
            "or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it"
        )
    if count > _LARGE:
        needed = count * (4 + channels * _BYTES_OF_A_NUMBER)
        check_memory_fits(needed, torch.device("cpu"), f"{image.width} × {image.height} pixels", "Make it smaller.")
    grey = _deep_grey(image)
    if grey is not None:
        return np.repeat(grey[None], channels, axis=0)
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
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


def _usual_width(files: Sequence[Path]) -> int:
    """Give the middle width of images spread evenly over `files`, as far as their headers can be read."""
    widths = [width for path in files[:: -(-len(files) // _HEADERS)] if (width := _width(path))]
    if not widths:  # those looked at are all damaged: one that is not is enough
        widths = [next((width for path in files if (width := _width(path))), 1)]
    return statistics.median_high(widths)


def _width(path: Path) -> int | None:
    """Give the width of an image from its header; None where it has none that can be read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.width
    except Exception:  # named with all others when the images are read
        return None
