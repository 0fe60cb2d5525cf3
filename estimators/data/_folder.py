"""A folder of images: which file belongs to which class and split."""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import numpy as np
from sklearn.model_selection import train_test_split

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pnm"})
#: Split → the folders that hold one, in the order in which splits are joined.
SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
HELD_OUT_SHARE = 0.2
_SPLIT_OF = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}

#: A folder's visible entries by name, sorted: images, and folders of the same kind.
Tree = dict[str, Union[Path, "Tree"]]


class ImageFolder:
    """Images by class, with one rule for every split.

    A class is a folder, at any depth below it are its images. The root holds the classes, or folders `train`, `val`
    and `test` (or their longer names) that hold them. A class has one number in all splits: its place among the sorted
    names of all of them, so that a split without one of the classes shifts no label.

    Parameters
    ----------
    root : Path
        Hidden files and links that leave the root are left out, the latter with a warning.

    Attributes
    ----------
    class_names : tuple of str
        The names of the classes of all splits, sorted.

    Raises
    ------
    ValueError
        When the folder holds no images by class, or lies one level too high or too low.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not root.is_dir():
            raise ValueError(
                f"data must be 'digits' or an existing folder, got {str(root)!r}. "
                "Give a folder that holds one folder of images per class."
            )
        outside: list[str] = []
        tree = _read_tree(root, os.path.realpath(root), outside, (os.path.realpath(root),))
        self._splits = _split_trees(tree, root)
        self._parts = parts = [part for trees in self._splits.values() for part in trees] or [tree]
        for part in parts:
            _check_level(part, root)
        self.class_names = tuple(sorted({name for part in parts for name in _folders(part)}))
        self._all = self._labelled(parts)
        if not self._all:
            loose = sum(1 for _ in _images(tree))
            found = f"{loose} images in no class's folder" if loose else "no image"
            links = f" Links out of the folder are not followed: {_some(outside)}." if outside else ""
            raise ValueError(
                f"The folder must hold image files, one folder of them per class, got {found} in {str(root)!r}. "
                f"Images are {', '.join(sorted(IMAGE_SUFFIXES))}.{links}"
            )
        if outside:
            warnings.warn(f"Links out of {str(root)!r} are not followed: {_some(outside)}.", stacklevel=4)
        self._check_common_classes()

    @property
    def files(self) -> list[Path]:
        """The images of all splits."""
        return [path for path, _ in self._all]

    @property
    def holds_out(self) -> bool:
        """Whether "train" and "test" are parts of one folder."""
        return not ({"test", "val"} & set(self._splits))

    @property
    def notes(self) -> list[str]:
        """What a person may have meant otherwise: classes whose images lie in several folders inside them."""
        inside = {
            name: sorted(set(_full(tree)))
            for part in self._parts
            for name, tree in _folders(part).items()
            if not _lies_flat(tree) and len(_full(tree)) > 1
        }
        return [
            f"{name!r} is one class; its images lie in folders inside it: {_some(folders)}."
            for name, folders in sorted(inside.items())
        ]

    def select(self, split: str) -> tuple[list[Path], np.ndarray]:
        """Give the files of a split and their classes.

        Parameters
        ----------
        split : {"train", "test", "all"}
            "all" joins the splits. "test" is `test`, or `val` where there is none; where there is neither, a fixed
            stratified fifth of what there is, which "train" then lacks.

        Returns
        -------
        (list of Path, ndarray of shape (N,))
        """
        own = self._splits.get("test") or self._splits.get("val")
        if split == "all":
            chosen = self._all
        elif split == "test" and own:
            chosen = self._labelled(own)
        elif self._splits and "train" not in self._splits:
            names = ", ".join(sorted(self._splits))
            raise ValueError(
                f"split='train' must have a folder 'train' where there are folders for splits, got {names} alone in "
                f"{str(self.root)!r}. Add one, or choose split='test' or 'all'."
            )
        elif self._splits:
            chosen = self._labelled(self._splits["train"])
        else:
            chosen = self._all
        files, targets = [path for path, _ in chosen], np.array([index for _, index in chosen], dtype=np.int64)
        if split == "all" or own:
            return files, targets
        keep = split_indices(targets, split)
        return [files[i] for i in keep], targets[keep]

    def _labelled(self, parts: list[Tree]) -> list[tuple[Path, int]]:
        number = {name: index for index, name in enumerate(self.class_names)}
        return [
            (path, number[name]) for part in parts for name, tree in _folders(part).items() for path in _images(tree)
        ]

    def _check_common_classes(self) -> None:
        named = {split: {name for part in parts for name in _folders(part)} for split, parts in self._splits.items()}
        for split, names in named.items():
            if "train" in named and not names & named["train"]:
                raise ValueError(
                    f"Every split must hold classes of the same names, got {_some(sorted(named['train']))} in 'train' "
                    f"and {_some(sorted(names))} in {split!r}. Sort the images of {split!r} into folders of classes, "
                    "or move it out."
                )


def split_indices(targets: np.ndarray, split: str) -> np.ndarray:
    """Give the indices of a fixed split that holds out a fifth, sorted.

    Parameters
    ----------
    targets : ndarray of shape (N,)
        Classes. The held-out fifth has each in proportion where there are enough examples; both parts have at least two
        classes, where there are two.
    split : {"train", "test", "all"}

    Returns
    -------
    ndarray of int
    """
    everything = np.arange(len(targets))
    if split == "all" or len(targets) < 2:
        return everything
    classes, counts = np.unique(targets, return_counts=True)
    stratify = targets if counts.min() >= 2 and len(counts) * 5 <= len(targets) else None
    parts = train_test_split(everything, test_size=HELD_OUT_SHARE, random_state=0, stratify=stratify)
    test = parts[1]
    if len(classes) > 1 and min(len(np.unique(targets[part])) for part in parts) < 2:
        if (counts >= 2).sum() < 2:
            raise ValueError(
                "Holding out a fifth must leave two classes on both sides, got fewer than two classes with two "
                "images. Add images, give folders 'train' and 'test', or choose split='all'."
            )
        test = np.concatenate(
            [
                np.random.default_rng(0).permutation(np.flatnonzero(targets == c))[: max(1, round(n * HELD_OUT_SHARE))]
                for c, n in zip(classes, counts, strict=True)
                if n >= 2
            ]
        )
    return np.sort(test) if split == "test" else np.setdiff1d(everything, test)


def readable(name: str) -> str:
    """Give a file's name as text: accents in one spelling (macOS has another), bytes that are no text escaped."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def _read_tree(folder: Path, root: str, outside: list[str], above: tuple[str, ...]) -> Tree:
    """Read a folder's images and folders; `above` are the real folders on the way, since links may lead back."""
    tree: Tree = {}
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            continue
        real = os.path.realpath(entry.path) if entry.is_symlink() else ""
        if real and not Path(real).is_relative_to(root):
            outside.append(entry.path)
        elif entry.is_dir():
            real = real or os.path.join(above[-1], entry.name)
            if real not in above:
                name = readable(entry.name)
                inside = _read_tree(folder / entry.name, root, outside, (*above, real))
                same = tree.get(name)  # one name spelt in two ways is one class
                tree[name] = {**same, f"/{entry.name}": inside} if isinstance(same, dict) else inside
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            tree[entry.name] = folder / entry.name
    return tree


def _folders(tree: Tree) -> dict[str, Tree]:
    return {name: entry for name, entry in tree.items() if isinstance(entry, dict)}


def _full(tree: Tree) -> dict[str, Tree]:
    """Give the folders that hold an image at some depth."""
    return {name: entry for name, entry in _folders(tree).items() if any(True for _ in _images(entry))}


def _images(tree: Tree) -> Iterator[Path]:
    for entry in tree.values():
        if isinstance(entry, dict):
            yield from _images(entry)
        else:
            yield entry


def _lies_flat(tree: Tree) -> bool:
    return any(not isinstance(entry, dict) for entry in tree.values())


def _split_trees(tree: Tree, root: Path) -> dict[str, list[Tree]]:
    """Find the folders of splits: named so, and with folders of images in them (a class may be called 'train')."""
    found: dict[str, list[Tree]] = {split: [] for split in SPLIT_FOLDERS}
    others = []
    for name, entry in _folders(tree).items():
        split = _SPLIT_OF.get(name.lower())
        if split and _full(entry):
            found[split].append(entry)
        elif _lies_flat(entry):
            others.append(name)
    splits = {split: entries for split, entries in found.items() if entries}
    if len(splits) == 1 and others:
        raise ValueError(
            f"The folder must hold classes or splits, got {next(iter(splits))!r} with folders of images beside "
            f"{_some(others)} with images in {str(root)!r}. Give each split one folder per class and move what is no "
            "split out; or, if all of them are classes, put their images directly into their folders."
        )
    return splits


def _check_level(tree: Tree, root: Path) -> None:
    """Refuse a folder whose "classes" hold the folders of the classes."""
    tops = _full(tree)
    below = [set(_full(entry)) for entry in tops.values()]
    names = set().union(*below)
    repeated = {name for name in names if sum(name in some for some in below) > 1}
    splits = {name for name in names if name.lower() in _SPLIT_OF}
    flat = any(_lies_flat(entry) for entry in tops.values())
    if not flat and (splits or len(repeated) > 1 or (len(tops) == 1 and len(names) > 1)):
        raise ValueError(
            f"The folder must hold one folder of images per class, got folders of folders, {_some(sorted(names))}, in "
            f"each of {_some(list(tops))}: {str(root)!r} lies one level too high. "
            f"Give one of its folders, such as {str(root / next(iter(tops)))!r}; or, if these are the classes, put "
            "their images directly into them."
        )
    deep = next(_splits_inside(tops), None)
    if deep is not None:
        raise ValueError(
            f"The folder must hold one folder of images per class, got a set with splits of its own in {deep!r}: "
            f"{str(root)!r} lies too high. Give {str(root / deep)!r}."
        )


def _splits_inside(folders: dict[str, Tree], place: str = "") -> Iterator[str]:
    """Yield the places where folders of splits lie that hold folders of images."""
    for name, tree in folders.items():
        inside = _full(tree)
        here = f"{place}{name}"
        if any(part.lower() in _SPLIT_OF and _full(entry) for part, entry in inside.items()):
            yield here
        yield from _splits_inside(inside, f"{here}/")


def _some(names: list[str], most: int = 5) -> str:
    """List names, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(name) for name in names[:most]) + more
