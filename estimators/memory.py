"""What a network takes in memory, from its shapes alone: nothing of its size is allocated to find out."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .checks import check_device, check_integer
from .core.network import working_copy
from .core.network.evaluation import logits
from .models import load_model

COPIES = 4  # of the weights while a landscape is built: the caller's, its own, the one that moves, and θ
_FILLERS = (Tensor.uniform_, Tensor.normal_, Tensor.erfinv_, Tensor.mul_, Tensor.add_, Tensor.clamp_, Tensor.fill_)
_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


@dataclass(frozen=True)
class Footprint:
    """Bytes that measuring a network takes.

    Attributes
    ----------
    n_parameters : int
        P, tied ones once.
    weights : int
        Of the parameters and buffers, once.
    activations : int
        Alive at once in a pass over a batch: the largest moment of a forward pass, or all that a backward pass needs.
    vector : int
        Of one vector (P,).

    Examples
    --------
    >>> from estimators import footprint
    >>> size = footprint("vit_large_patch16_224", num_classes=10, batch_size=32)
    >>> f"{size.n_parameters:,} parameters, {size.weights / 2**30:.1f} GiB of weights"
    '303,311,882 parameters, 1.1 GiB of weights'
    """

    n_parameters: int
    weights: int
    activations: int
    vector: int

    def total(self, vectors: int = 0, networks: int = 1) -> int:
        """Bytes of a landscape, `vectors` vectors beside it, and further networks that are loaded for it."""
        return (COPIES + networks - 1) * self.weights + vectors * self.vector + self.activations


def return_freed_memory() -> None:
    """Give the system back what the C library keeps of freed memory, where it can be asked to (glibc)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def footprint(
    name: str,
    *,
    num_classes: int | None = None,
    image_size: int | None = None,
    in_chans: int = 3,
    batch_size: int = 512,
    derivatives: bool = False,
    precision: str = "float32",
) -> Footprint:
    """Tell what a timm model takes, before it is built.

    Its shapes are computed on torch's meta device, which allocates nothing.

    Parameters
    ----------
    name, num_classes, image_size, in_chans
        As for :func:`load_model`.
    batch_size : int, default=512
        Examples in one pass.
    derivatives : bool, default=False
        Whether gradients or products are taken, which keep what a backward pass needs.
    precision : {"float32", "float64", "bfloat16"}, default="float32"
        As for :class:`Landscape`.

    Returns
    -------
    Footprint

    Raises
    ------
    ValueError
        For a name that timm does not know, and for a network whose shapes depend on its values.
    """
    check_integer("batch_size", batch_size, "Use 512 when in doubt.")
    with by_shapes(name, "The size of a model", "what it takes"):
        model = meta_model(name, num_classes=num_classes, image_size=image_size, in_chans=in_chans)
        activations = _activations(model, meta_images(model, batch_size, in_chans, image_size), derivatives)
    wide = 2 if precision == "float64" else 1
    n = sum(p.numel() for p in model.parameters())
    vector = sum(p.nbytes for p in model.parameters()) * wide
    return Footprint(n, sum(t.nbytes for t in _tensors(model)) * wide, activations * wide, vector)


def meta_model(name: str, **options: Any) -> nn.Module:
    """Build a timm model of shapes alone, on torch's meta device; options as for :func:`load_model`."""
    with _Shapes():
        model = load_model(name, **options, random_state=None)
    return model.to("meta")


def meta_images(model: nn.Module, n: int, in_chans: int, image_size: int | None) -> Tensor:
    """Give n images of a timm model's size (or another), shapes alone."""
    side = image_size or int(vars(model)["pretrained_cfg"]["input_size"][-1])
    return torch.empty(n, in_chans, side, side, device="meta")


@contextmanager
def by_shapes(name: str, what: str, cure: str) -> Iterator[None]:
    """Say of a timm model whose shapes depend on values that `what` can't be told before it is built."""
    try:
        yield
    except (NotImplementedError, RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{what} must follow from its shapes, got {name!r}, which needs values: {error}. "
            f"Build it with load_model to see {cure}."
        ) from error


def free_memory(device: str = "auto") -> int:
    """Bytes that can still be allocated on a device."""
    return working_copy.free_memory(check_device(device))


class _Shapes(TorchFunctionMode):
    """Make tensors on the meta device, in this thread alone; small tables of indices stay what they are."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _FILLERS and args[0].is_meta:
            return args[0]  # there are no values to write
        named = dict(kwargs or {})
        if func in _MAKERS and named.get("device") is None:
            named["device"] = "meta"
        return func(*args, **named)


class _Peak(TorchDispatchMode):
    """Count the bytes of the tensors that are alive at once, besides those of a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen = weakref.WeakSet(t.untyped_storage() for t in _tensors(model))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._seen:
            self._seen.add(storage)
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._gone, storage.nbytes())

    def _gone(self, size: int) -> None:
        self.now -= size


def _activations(model: nn.Module, x: Tensor, derivatives: bool) -> int:
    """Bytes of the largest moment of a forward pass, or of what it leaves for a backward pass."""
    if not derivatives:
        with _Peak(model) as peak, torch.no_grad():
            logits(model(x))
        return peak.most
    own = {t.untyped_storage()._cdata for t in _tensors(model)}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        logits(model(x))
    return sum(saved.values())


def _tensors(model: nn.Module) -> list[Tensor]:
    """Parameters and buffers, tied ones once."""
    return list({id(t): t for t in [*model.parameters(), *model.buffers()]}.values())
