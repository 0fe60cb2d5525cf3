"""What a timm model is made of, read from its shapes: nothing of its size is allocated."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .memory import by_shapes, meta_images, meta_model

_SUMS = (torch.add, Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__radd__, Tensor.__iadd__)
_BATCH = 3  # no other size in a network is likely to be, so that what has it is an activation


@dataclass(frozen=True)
class LayerCard:
    """One module: its name ("layer1.0.conv1"), what it is, and the parameters in it, those of its children included.

    Examples
    --------
    >>> from estimators import model_card
    >>> model_card("resnet18", num_classes=10).layers[-1]
    LayerCard(name='fc', kind='Linear', n_parameters=5130)
    """

    name: str
    kind: str
    n_parameters: int


@dataclass(frozen=True)
class ModelCard:
    """What a model is made of.

    Attributes
    ----------
    name : str
    n_parameters : int
    layers : tuple of LayerCard
        Every module below the model itself, in the order of ``named_modules``.
    norms : dict of str to int
        Normalisation layers by kind.
    n_skips : int
        Sums of two activations of one shape in a forward pass: residual connections.
    licence : str
        Of timm's weights for this name; empty where timm says nothing.
    source : str
        Where timm's weights come from.

    Examples
    --------
    >>> from estimators import model_card
    >>> card = model_card("test_resnet", num_classes=10)
    >>> card.name, card.n_skips, [layer.name for layer in card.layers if "." not in layer.name][-2:]
    ('test_resnet', 4, ['global_pool', 'fc'])
    """

    name: str
    n_parameters: int
    layers: tuple[LayerCard, ...]
    norms: dict[str, int]
    n_skips: int
    licence: str
    source: str


def model_card(name: str, *, num_classes: int | None = None, image_size: int | None = None) -> ModelCard:
    """Describe a timm model without building it.

    Parameters
    ----------
    name, num_classes, image_size
        As for :func:`load_model`.

    Returns
    -------
    ModelCard

    Raises
    ------
    ValueError
        For a name that timm does not know, and for a network whose shapes depend on its values.

    Examples
    --------
    >>> from estimators import model_card
    >>> card = model_card("resnet18", num_classes=10)
    >>> card.n_parameters, card.norms, card.n_skips
    (11181642, {'BatchNorm2d': 20}, 8)
    """
    with by_shapes(name, "What a model is made of", "it"):
        model = meta_model(name, num_classes=num_classes, image_size=image_size)
        config = vars(model)["pretrained_cfg"]
        with _Sums() as sums, torch.no_grad():
            model(meta_images(model, _BATCH, int(config["input_size"][0]), image_size))
    layers = tuple(
        LayerCard(where, type(module).__name__, sum(p.numel() for p in module.parameters()))
        for where, module in model.named_modules()
        if where
    )
    norms = Counter(type(m).__name__ for m in model.modules() if _is_norm(m))
    known = {key: str(config.get(key) or "") for key in ("license", "origin_url", "hf_hub_id")}
    return ModelCard(
        name,
        sum(p.numel() for p in model.parameters()),
        layers,
        dict(norms.most_common()),
        sums.count,
        known["license"],
        known["origin_url"] or known["hf_hub_id"],
    )


class _Sums(TorchFunctionMode):
    """Count the sums of two activations of one shape."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _SUMS and len(args) > 1 and all(isinstance(part, Tensor) for part in args[:2]):
            one, other = args[:2]
            self.count += one.shape == other.shape and one.dim() > 1 and one.shape[0] == _BATCH
        return func(*args, **(kwargs or {}))


def _is_norm(module: nn.Module) -> bool:
    kind = type(module).__name__.lower()
    return "norm" in kind and any(True for _ in module.parameters(recurse=False))
