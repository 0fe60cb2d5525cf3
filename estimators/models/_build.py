"""timm names and checkpoint files turned into modules."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models._hub import load_model_config_from_hf, load_model_config_from_path
from torch import Tensor, nn

from ..checks import cut
from ._fit import compatible_state_dict, head_names
from ._hub import hub_or_cache
from ._read import describe_checkpoint, read_checkpoint

SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")


def load_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    image_size: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    entry: str | None = None,
    new_head: bool = False,
    pretrained: bool = False,
    random_state: int | None = 0,
    **kwargs: Any,
) -> nn.Module:
    """Build a timm model, with random, pretrained or checkpoint weights.

    Parameters
    ----------
    name : str
        A timm architecture ("test_resnet", "resnet18", "vit_tiny_patch16_224", ...), or a model someone shared:
        "hf-hub:owner/name", or "local-dir:/path" of a folder that `timm.models.save_for_hf` wrote.
    num_classes : int or None
        Outputs; None keeps the architecture's own number, or the checkpoint's where its head tells.
    in_chans : int, default=3
        Input channels.
    image_size : int or None
        Side of the images in pixels; passed on as `img_size` to architectures that take it.
    checkpoint : path or None
        What :func:`read_checkpoint` reads.
    entry : str or None
        Which weights of the checkpoint to take, see :func:`read_checkpoint`.
    new_head : bool, default=False
        Whether a head that does not fit `num_classes` is left out and starts with random weights.
    pretrained : bool, default=False
        Take timm's published weights through its own loader (needs a network or a local cache).
    random_state : int or None
        Seed of random weights; the global random state is left as it was.
    **kwargs
        Passed to `timm.create_model` (`drop_rate`, `pretrained_cfg_overlay`, `cache_dir`, ...).

    Returns
    -------
    nn.Module
        In eval mode, with `.provenance`: architecture, weights, and what was done to read them.

    Raises
    ------
    ValueError
        For an unknown name (near names are suggested), weights that do not fit (the first differences and the likely
        cause), or pretrained weights that cannot be had.
    """
    architecture = _architecture_of(name, kwargs)
    if checkpoint is not None and pretrained:
        raise ValueError("pretrained must be False when a checkpoint is given, got True. Choose one source of weights.")
    if checkpoint is None and (entry is not None or new_head):
        raise ValueError(
            f"{'entry' if entry is not None else 'new_head'} must be left out without a checkpoint, got "
            f"{entry if entry is not None else new_head!r}. Give the checkpoint it is about."
        )
    if num_classes is not None and num_classes < 1:
        raise ValueError(
            f"num_classes must be at least 1, got {num_classes!r}. Give the number of classes of the data."
        )
    state, notes = (None, []) if checkpoint is None else read_checkpoint(checkpoint, entry=entry)
    if num_classes is None and state is not None:
        num_classes = _classes_in(state, head_names(timm.get_pretrained_cfg(architecture) or {}))
    options: dict[str, Any] = dict(kwargs, in_chans=in_chans)
    if num_classes is not None:
        options["num_classes"] = num_classes
    if image_size is not None and takes_image_size(architecture):
        options["img_size"] = image_size
    with torch.random.fork_rng(devices=[]):
        if random_state is not None:
            torch.manual_seed(random_state)
        try:
            with hub_or_cache(pretrained and "file" not in (kwargs.get("pretrained_cfg_overlay") or {})):
                model = timm.create_model(name, pretrained=pretrained, **options)
        except (TypeError, AssertionError) as error:
            raise ValueError(
                f"{name} must be built with arguments it takes, got {options}: {error}. Leave out the one it names."
            ) from error
        except Exception as error:
            if not pretrained:
                raise
            raise _not_to_be_had(name, error) from error
    with_provenance(model.eval(), name, "timm pretrained" if pretrained else f"random (seed {random_state})", notes)
    if state is not None and checkpoint is not None:
        try:
            fitted = compatible_state_dict(model, state, notes, new_head=new_head)
        except ValueError:  # once more, with what the file says of itself in the message
            made_as = describe_checkpoint(checkpoint).architecture
            fitted = compatible_state_dict(model, state, new_head=new_head, made_as=made_as)
        model.load_state_dict(fitted)
        with_provenance(model, name, f"file {Path(checkpoint).name}", notes)
    return model


def with_provenance(model: nn.Module, architecture: str, weights: str, notes: list[str]) -> nn.Module:
    """Note on a module where it comes from: the `.provenance` that captions are made of."""
    model.__dict__["provenance"] = {"architecture": architecture, "weights": weights, "notes": list(notes)}
    return model


def _architecture_of(name: Any, options: Mapping[str, Any]) -> str:
    """Give the timm architecture that a name stands for; a shared model's configuration says it."""
    if isinstance(name, str) and name.startswith(SOURCES):
        source, _, ident = name.partition(":")
        try:
            if source == "local-dir":
                return str(load_model_config_from_path(ident)[1])
            with hub_or_cache(True):
                return str(load_model_config_from_hf(ident, cache_dir=options.get("cache_dir"))[1])
        except Exception as error:  # hub, network and file errors come as many types
            raise ValueError(
                f"model name must be one that timm can reach, got {name!r} ({type(error).__name__}: {cut(error)}). "
                "Check the name, and connect to the network once so that it is cached."
            ) from error
    if not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(str(name), timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(
            f"model name must be a timm architecture, got {name!r}. "
            + (f"Did you mean {', '.join(near)}?" if near else "See timm.list_models(), or write hf-hub:owner/name.")
        )
    return name


def _classes_in(state: Mapping[str, Tensor], heads: tuple[str, ...]) -> int | None:
    """Read the number of classes from the head in a checkpoint, whatever prefix its names have."""
    for head in heads:
        for kind in ("weight", "bias"):
            found = [v for name, v in state.items() if f".{name}".endswith(f".{head}.{kind}") and v.dim()]
            if found:
                return len(found[0])
    return None


def _not_to_be_had(name: str, error: Exception) -> ValueError:
    # hub, network and file errors come as many types; each means that the weights were not to be had
    return ValueError(
        f"pretrained must be False where timm's weights for {name!r} cannot be read, got True "
        f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no detail'}). "
        "Connect to the network once so that they are cached, or give a checkpoint file."
    )


def takes_image_size(name: str) -> bool:
    """Whether an architecture wants `img_size` (vision transformers do, convolutional networks refuse it)."""
    entry = timm.model_entrypoint(name.split(".")[0])
    config = timm.get_pretrained_cfg(name.split(".")[0], allow_unregistered=True)
    module = inspect.getmodule(entry)
    fixed = bool(config and getattr(config, "fixed_input_size", False))
    if fixed:
        return True
    for _, cls in inspect.getmembers(module, inspect.isclass):
        if (
            cls.__module__ == getattr(module, "__name__", "")
            and "img_size" in inspect.signature(cls.__init__).parameters
        ):
            return fixed or "img_size" in _root_signature(module)
    return False


def _root_signature(module: Any) -> set[str]:
    roots = [
        cls
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if cls.__module__ == module.__name__ and "num_classes" in inspect.signature(cls.__init__).parameters
    ]
    return set().union(*(inspect.signature(cls.__init__).parameters for cls in roots)) if roots else set()


def trainable_names(model: nn.Module) -> list[str]:
    """Name the parameters that a training moves."""
    return [name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
