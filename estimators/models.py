"""timm names and checkpoint files turned into modules; checkpoints read safely and written atomically."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")
STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict", "net", "weights")


def load_model(
    name: str,
    *,
    num_classes: int | None = None,
    in_chans: int = 3,
    image_size: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    pretrained: bool = False,
    random_state: int | None = 0,
    **kwargs: Any,
) -> nn.Module:
    """Build a timm model, with random, pretrained or checkpoint weights.

    Parameters
    ----------
    name : str
        A timm architecture ("test_resnet", "resnet18", "vit_tiny_patch16_224", ...).
    num_classes : int or None
        Outputs; None keeps the architecture's own number, or the checkpoint's where its head tells.
    in_chans : int, default=3
        Input channels.
    image_size : int or None
        Side of the images in pixels; passed on as `img_size` to architectures that take it.
    checkpoint : path or None
        A safetensors file, or a torch file that holds tensors only (read with `weights_only=True`).
    pretrained : bool, default=False
        Take timm's published weights through its own loader (needs a network or a local cache).
    random_state : int or None
        Seed of random weights; the global random state is left as it was.
    **kwargs
        Passed to `timm.create_model` (`drop_rate`, `pretrained_cfg_overlay`, ...).

    Returns
    -------
    nn.Module
        In eval mode, with `.provenance`: architecture, weights, and what was done to read them.

    Raises
    ------
    ValueError
        For an unknown name (near names are suggested), weights that do not fit (all mismatches listed), or
        pretrained weights that cannot be had.
    """
    if not isinstance(name, str) or not timm.is_model(name.split(".")[0]):
        near = difflib.get_close_matches(str(name), timm.list_models(), n=3, cutoff=0.5)
        raise ValueError(
            f"model name must be a timm architecture, got {name!r}. "
            + (f"Did you mean {', '.join(near)}?" if near else "See timm.list_models().")
        )
    if checkpoint is not None and pretrained:
        raise ValueError("pretrained must be False when a checkpoint is given, got True. Choose one source of weights.")
    if num_classes is not None and num_classes < 1:
        raise ValueError(
            f"num_classes must be at least 1, got {num_classes!r}. Give the number of classes of the data."
        )
    state, notes = (None, []) if checkpoint is None else read_checkpoint(checkpoint)
    options: dict[str, Any] = dict(kwargs, in_chans=in_chans)
    if num_classes is not None:
        options["num_classes"] = num_classes
    if image_size is not None and takes_image_size(name):
        options["img_size"] = image_size
    with torch.random.fork_rng(devices=[]):
        if random_state is not None:
            torch.manual_seed(random_state)
        try:
            model = timm.create_model(name, pretrained=pretrained, **options)
        except (TypeError, AssertionError) as error:
            raise ValueError(
                f"{name} must be built with arguments it takes, got {options}: {error}. Leave out the one it names."
            ) from error
        except Exception as error:
            if not pretrained:
                raise
            # hub, network and file errors come as many types; each means that the weights were not to be had
            raise ValueError(
                f"pretrained must be False where timm's weights for {name!r} cannot be read, got True "
                f"({type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else 'no detail'}). "
                "Connect to the network once so that they are cached, or give a checkpoint file."
            ) from error
    if state is not None:
        model.load_state_dict(compatible_state_dict(model, state, notes))
        weights = f"file {Path(checkpoint).name}"  # type: ignore[arg-type]
    else:
        weights = "timm pretrained" if pretrained else f"random (seed {random_state})"
    return with_provenance(model.eval(), name, weights, notes)


def with_provenance(model: nn.Module, architecture: str, weights: str, notes: list[str]) -> nn.Module:
    """Note on a module where it comes from: the `.provenance` that captions are made of."""
    model.__dict__["provenance"] = {"architecture": architecture, "weights": weights, "notes": list(notes)}
    return model


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


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], list[str]]:
    """Read a checkpoint file without executing anything in it.

    Parameters
    ----------
    path : path
        `.safetensors`, or a torch file holding a state dict or a dict around one.

    Returns
    -------
    state : dict of Tensor
        On the CPU, with wrapper prefixes ("module.", "_orig_mod.", "model.") stripped.
    notes : list of str
        What was done, for the person to see: which entry was taken, which prefix stripped.

    Raises
    ------
    ValueError
        If the file is missing or is not a checkpoint.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"checkpoint must be an existing file, got {str(path)!r}. Check the path.")
    try:
        if file.suffix == ".safetensors":
            content: Any = safetensors.torch.load_file(str(file))
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        OSError,
    ) as error:
        raise ValueError(
            f"checkpoint must be a safetensors file or a torch file that holds only tensors, got {file.name!r}: "
            f"{(str(error).splitlines() or [type(error).__name__])[0][:200]}. Save it again with "
            "safetensors.torch.save_file(model.state_dict(), ...)."
        ) from error
    state, notes = clean_state_dict(content, file.name)
    return state, [*notes, *_odd_values(state)]


def _odd_values(state: Mapping[str, Tensor]) -> list[str]:
    """Note entries that make a loss meaningless: values that are not finite, and variances below zero."""
    floating = {k: v for k, v in state.items() if v.is_floating_point() or v.is_complex()}
    broken = [k for k, v in floating.items() if not bool(v.isfinite().all())]
    below = [k for k, v in floating.items() if k.endswith("running_var") and bool((v < 0).any())]
    found = (("NaN or infinite values in", broken), ("variances below zero in", below))
    return [
        f"{what} {', '.join(names[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for what, names in found
        if names
    ]


def clean_state_dict(content: Any, source: str = "the checkpoint") -> tuple[dict[str, Tensor], list[str]]:
    """Find the state dict in what a checkpoint holds and strip wrapper prefixes, saying so in notes."""
    notes: list[str] = []
    while isinstance(content, Mapping) and not any(isinstance(v, Tensor) for v in content.values()):
        key = next((k for k in STATE_KEYS if isinstance(content.get(k), Mapping)), None)
        if key is None:
            break
        notes.append(f"took the entry {key!r}")
        content = content[key]
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not state:
        raise ValueError(f"A checkpoint must hold named tensors, got none in {source!r}. Save model.state_dict().")
    stripped = True
    while stripped:
        stripped = False
        for prefix in WRAPPER_PREFIXES:
            if all(k.startswith(prefix) for k in state):
                state = {k[len(prefix) :]: v for k, v in state.items()}
                notes.append(f"stripped the prefix {prefix!r}")
                stripped = True
    if any(k == "n_averaged" for k in state):
        state.pop("n_averaged")
        notes.append("left out the counter 'n_averaged' of an AveragedModel")
    return state, notes


def compatible_state_dict(
    model: nn.Module, state: Mapping[str, Tensor], notes: list[str] | None = None
) -> dict[str, Tensor]:
    """Check that a state dict fits a model, entry by entry.

    Raises
    ------
    ValueError
        Listing every missing, unexpected and misshapen entry with both shapes.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"A point must be a module, a state dict, a checkpoint file or a vector, got {type(state).__name__}. "
            "Give one of these."
        )
    own = model.state_dict()
    given = dict(state)
    if not set(own) & set(given):
        given, extra = clean_state_dict(given)
        if notes is not None:
            notes.extend(extra)
    tied = _tied_names(model)
    for name in own:
        if name not in given:
            twin = next((t for t in tied.get(name, ()) if t in given), None)
            if twin is not None:
                given[name] = given[twin]
    missing = [k for k in own if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in given if k not in own]
    shapes = [
        f"{k}: {tuple(given[k].shape)} in the weights, {tuple(own[k].shape)} in the model"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    if missing or unexpected or shapes:
        lines = [f"missing: {k}" for k in missing] + [f"unexpected: {k}" for k in unexpected] + shapes
        name = getattr(model, "provenance", {}).get("architecture", type(model).__name__)
        raise ValueError(
            f"The weights must fit {name}, got {len(lines)} mismatches. Choose the architecture, num_classes and "
            "image_size they were made with:\n" + "\n".join(lines)
        )
    return {k: given.get(k, own[k]) for k in own}


def _tied_names(model: nn.Module) -> dict[str, list[str]]:
    by_storage: dict[tuple, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        by_storage.setdefault((p.data_ptr(), tuple(p.shape)), []).append(name)
    return {name: group for group in by_storage.values() if len(group) > 1 for name in group}


def save_checkpoint(
    path: str | os.PathLike, state: Mapping[str, Tensor], metadata: Mapping[str, Any] | None = None
) -> Path:
    """Write a state dict as safetensors, whole or not at all.

    Parameters
    ----------
    path : path
        Where to; the suffix should be `.safetensors`. Plain timm loads the file.
    state : mapping of str to Tensor
        Tied tensors are written under each of their names.
    metadata : mapping or None
        JSON-able facts stored in the file's header.

    Returns
    -------
    Path
        The file written.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    header = {k: json.dumps(v) for k, v in (metadata or {}).items()} | {"format": "pt"}
    try:
        safetensors.torch.save_file(tensors, str(temporary), header)
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    return file


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Read the facts stored in a safetensors header by :func:`save_checkpoint`."""
    with safetensors.safe_open(str(path), "pt") as handle:
        header = handle.metadata() or {}
    return {k: json.loads(v) for k, v in header.items() if k != "format"}


def trainable_names(model: nn.Module) -> list[str]:
    """Name the parameters that a training moves."""
    return [name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad]


def count_parameters(model: nn.Module) -> int:
    """Count the trainable parameters, tied ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
