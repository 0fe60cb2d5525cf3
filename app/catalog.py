"""What can be chosen: architectures, points and data, described by small frozen values.

A :class:`PointSpec` or :class:`DataSpec` is a few strings and numbers: it can live in a URL, be compared, go
to the worker thread and be written into a run. It is turned into a network or into examples only where the
work is done, by the same ``load_model`` and ``load_data`` a script uses, so that the Python it prints gives
the same numbers.
"""

from __future__ import annotations

import difflib
import re
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.names import names_apart
from app.own_models import import_lines
from app.workspace import library

if TYPE_CHECKING:
    from torch import nn

    from estimators import DataList, Examples

# Trained in seconds on two cores at 32 px; ``test_*`` are timm's own small relatives of the large families.
QUICK_NAMES = (
    "test_resnet",
    "test_vit",
    "test_convnext",
    "test_efficientnet",
    "deep_thin_resnet",
    "test_mambaout",
    "test_nfnet",
    "test_byobnet",
    "test_efficientnet_gn",
    "test_efficientnet_ln",
    "test_vit2",
    "test_convnext2",
    "resnet10t",
    "resnet14t",
    "resnet18",
    "mobilenetv3_small_050",
    "lcnet_035",
    "vit_tiny_patch16_224",
    "ghostnet_050",
    "tinynet_e",
    "convnext_atto",
)


# ---- architectures ----


@lru_cache(maxsize=1)
def architectures() -> tuple[str, ...]:
    """Return every timm architecture, the small and quick ones first."""
    import timm

    from estimators import variants  # noqa: F401  registers deep_thin_resnet with timm

    names = timm.list_models()
    known = set(names)
    quick = [name for name in QUICK_NAMES if name in known]
    return (*quick, *(name for name in names if name not in set(quick)))


def ready() -> bool:
    """Tell whether the list of architectures has been read; reading it the first time imports timm."""
    return architectures.cache_info().currsize > 0


def matching(words: str) -> tuple[str, ...]:
    """Return the architectures whose names hold all of some words, in any order, the best one first.

    A name that is, or begins with, what was typed comes before others; whole parts of a name count more than pieces of
    them, short names more than long ones.

    Examples
    --------
    >>> matching("large eva02")[0]
    'eva02_large_patch14_224'
    """
    wanted = _parts(words)
    found = [name for name in architectures() if wanted and all(word in name.lower() for word in wanted)]
    typed = "".join(wanted)

    def worth(name: str) -> tuple[bool, bool, int, int, str]:
        parts = _parts(name)
        whole = "".join(parts)
        return whole != typed, not whole.startswith(typed), -sum(word in parts for word in wanted), len(name), name

    return tuple(sorted(found, key=worth))


def _parts(words: str) -> list[str]:
    """Return the words and the numbers in a name."""
    return re.findall(r"[a-z]+|[0-9]+", words.lower())


def is_shared(name: str) -> bool:
    """Tell whether a name stands for a model that someone shared, on the Hugging Face hub or in a folder."""
    return name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))


def check_architecture(name: str) -> str | None:
    """Return a sentence when timm does not know the architecture, else None."""
    if is_shared(name) or name in set(architectures()):
        return None
    near = difflib.get_close_matches(name.strip().lower(), architectures(), n=3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else " Choose one from the list."
    return f"model must be a timm architecture, got {name!r}.{hint}"


# ---- data ----


@dataclass(frozen=True)
class DataSpec:
    """A fixed set of examples.

    Attributes
    ----------
    source : str
        ``"digits"`` (the 1,797 handwritten digits shipped with scikit-learn), the path of a folder with one
        sub-folder of images for each class, or one of timm's names of data sets ("torch/cifar10", "hfds/…").
    split : {"train", "test", "all"}
    n_samples : int or None
        How many, drawn once with ``seed``; None takes all.
    image_size : int
        Pixels on a side after resizing.
    seed : int
        Of the draw.
    mean, std : tuple of float or None
        Normalisation of the pixels, where a pretrained model wants another one than ImageNet's.
    unreadable : {"raise", "skip"}
        What to do with image files that cannot be read.
    root : str
        The folder that holds a data set given by name.
    """

    source: str = "digits"
    split: str = "train"
    n_samples: int | None = 512
    image_size: int = 32
    seed: int = 0
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    unreadable: str = "raise"
    root: str = ""

    def load(self) -> Examples:
        """Return the examples themselves."""
        from estimators import load_data

        return load_data(self.source, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "image_size": self.image_size,
            "n_samples": self.n_samples,
            "split": self.split,
            "random_state": self.seed,
        }
        arguments |= {"mean": self.mean, "std": self.std} if self.mean and self.std else {}
        arguments |= {"root": self.root} if self.root else {}
        return arguments | ({"unreadable": self.unreadable} if self.unreadable != "raise" else {})

    def for_point(self, point: PointSpec) -> DataSpec:
        """Return the same images, normalised as a pretrained architecture was trained to see them."""
        if point.weights != PRETRAINED:
            return self
        mean, std = normalisation(point.architecture)
        return replace(self, mean=mean, std=std)

    def drawn(self, n_samples: int) -> DataSpec:
        """Return another number of the same images; all where there are not so many."""
        return replace(self, n_samples=n_samples if n_samples < self.available else None)

    def held_out(self, n_samples: int | None = 512) -> DataSpec:
        """Return the other split of the same source."""
        return replace(self, split="test" if self.split == "train" else "train", n_samples=n_samples)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the source, of all its splits together."""
        return class_names(self.source, self.root)

    @property
    def available(self) -> int:
        """How many images the split holds."""
        return available(self.source, self.split, self.root)

    @property
    def label(self) -> str:
        """One line for people."""
        name = self.source if self.source == "digits" or is_named(self.source) else Path(self.source).name
        count = "all" if self.n_samples is None else f"{self.n_samples:,}"
        return f"{name}, {self.split}, {count} images at {self.image_size} px"

    def code(self, name: str = "data") -> str:
        """Return the Python line that builds it."""
        listed = ", ".join(f"{key}={value!r}" for key, value in self._arguments().items())
        return f"{name} = load_data({self.source!r}, {listed})"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


_LOOK_AGAIN_SECONDS = 3
NAMED = ("torch", "hfds", "hfids", "tfds", "wds")
DIGITS = {"train": 1437, "test": 360, "all": 1797}  # at hand before torch has been imported


def is_named(source: str) -> bool:
    """Tell whether a source is one of timm's names of data sets, not a folder that happens to be called so."""
    return source.partition("/")[0].lower() in NAMED and not Path(source).is_dir()


def class_names(source: str, root: str = "") -> tuple[str, ...]:
    """Return the class names of a source, of all its splits together; empty when there are none to find."""
    if source == "digits":
        return tuple(str(digit) for digit in range(10))
    try:
        return listed(source, "train" if is_named(source) else "all", root).class_names
    except ValueError:
        return ()


def available(source: str, split: str, root: str = "") -> int:
    """Return how many images a split holds, by the rule of ``load_data``."""
    if source == "digits":
        return DIGITS[split]
    return len(listed(source, split, root))


def listed(source: str, split: str, root: str = "") -> DataList:
    """List a source as ``load_data`` sees it; one drawing of a page asks several times and walks through it once."""
    return _walked(source, split, root, int(time.monotonic() / _LOOK_AGAIN_SECONDS))


@lru_cache(maxsize=8)
def _walked(source: str, split: str, root: str, tick: int) -> DataList:
    from estimators import list_data

    return list_data(source, split=split, root=root or None)


@lru_cache(maxsize=32)
def normalisation(architecture: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of the pixels that timm's weights of an architecture expect."""
    import timm

    if is_shared(architecture):  # its configuration comes with it
        shared = timm.create_model(architecture).pretrained_cfg
        return tuple(shared["mean"]), tuple(shared["std"])
    config = timm.get_pretrained_cfg(architecture)
    if config is None:
        return (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return tuple(config.mean), tuple(config.std)


def check_source(source: str, split: str = "all", root: str = "") -> str | None:
    """Return a sentence when a split of a source cannot be used, else None. Cheap: it looks, it does not decode."""
    if source == "digits":
        return None
    folder = Path(source).expanduser()
    if not source.strip():
        return "data folder must be a path, got nothing. Type one, or choose digits."
    if not folder.is_dir() and not is_named(source):
        return f"data folder must exist on this computer, got {source!r}. Check the path."
    try:
        names = listed(source, split, root).class_names
    except ValueError as error:
        return str(error)
    if len(names) < 2:
        return f"data folder must hold at least two class sub-folders, got {len(names)} in {source!r}."
    return None


# ---- points ----

RANDOM, PRETRAINED = "random", "pretrained"


@dataclass(frozen=True)
class PointSpec:
    """A point of weight space: an architecture and where its weights come from.

    Attributes
    ----------
    architecture : str
        A timm name.
    weights : str
        ``"random"``, ``"pretrained"`` (timm's own loader, needs a network the first time),
        ``"library:<id>"``, ``"library:<id>/<epoch>"`` or ``"file:<path>"``.
    num_classes, image_size : int
        0 classes are as many as the file's head tells apart.
    seed : int
        Of the random initialisation.
    name : str
        What a person calls it.
    entry : str
        Which set of weights of a file, "" for the first.
    new_head : bool
        Whether a head of the file that does not fit is left out.
    """

    architecture: str = "test_resnet"
    weights: str = RANDOM
    num_classes: int = 10
    image_size: int = 32
    seed: int = 0
    name: str = ""
    entry: str = ""
    new_head: bool = False

    @classmethod
    def from_checkpoint(cls, checkpoint: library.Checkpoint, epoch: str | None = None) -> PointSpec:
        """Return the point of a library entry, or of one of its epochs (file stem)."""
        weights = f"library:{checkpoint.id}" + (f"/{epoch}" if epoch else "")
        label = names_apart(library.list_checkpoints())[checkpoint.id] + (f", epoch {int(epoch)}" if epoch else "")
        return cls(checkpoint.architecture, weights, checkpoint.num_classes, checkpoint.image_size, 0, label)

    @property
    def checkpoint(self) -> Path | None:
        """The weights file, or None for random and pretrained weights."""
        kind, _, rest = self.weights.partition(":")
        if kind == "file":
            return Path(rest)
        if kind == "library":
            entry, _, epoch = rest.partition("/")
            found = library.Checkpoint.get(entry)
            return found.path.parent / "epochs" / f"{epoch}.safetensors" if epoch else found.path
        return None

    @property
    def trajectory(self) -> tuple[Path, ...]:
        """The training epochs kept for this point, in order; empty unless it comes from the library."""
        kind, _, rest = self.weights.partition(":")
        return library.Checkpoint.get(rest.partition("/")[0]).trajectory if kind == "library" else ()

    @property
    def label(self) -> str:
        """One line for people."""
        origin = f"random, seed {self.seed}" if self.weights == RANDOM else self.weights
        return self.name or f"{self.architecture} ({origin})"

    def meta(self, data: DataSpec) -> dict[str, Any]:
        """Return what the library notes of a network of this kind that learnt from ``data``."""
        shape = {"architecture": self.architecture, "num_classes": self.num_classes, "image_size": self.image_size}
        return {**shape, "data": data.as_dict()}

    def _arguments(self) -> dict[str, Any]:
        arguments: dict[str, Any] = {"num_classes": self.num_classes or None, "image_size": self.image_size}
        if self.checkpoint is not None:
            arguments["checkpoint"] = str(self.checkpoint)
            arguments |= {"entry": self.entry} if self.entry else {}
            arguments |= {"new_head": True} if self.new_head else {}
        elif self.weights == PRETRAINED:
            arguments["pretrained"] = True
        else:
            arguments["random_state"] = self.seed
        return arguments

    def load(self) -> nn.Module:
        """Return the network at this point."""
        from estimators import load_model

        return load_model(self.architecture, **self._arguments())

    def write(self, path: Path) -> Path:
        """Write the weights of this point alone, by the network's own names, as safetensors."""
        from estimators import save_checkpoint

        return save_checkpoint(path, self.load().state_dict())

    def code(self, name: str = "model") -> str:
        """Return the Python that builds it, with the import of its module where it is a person's own."""
        listed = ", ".join(f"{key}={value!r}" for key, value in self._arguments().items())
        return "\n".join([*import_lines(self.architecture), f"{name} = load_model({self.architecture!r}, {listed})"])

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)
