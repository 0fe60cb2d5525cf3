"""Reading a checkpoint: the file looked into, an entry chosen, its tensors read and its names cleaned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import cut
from ..core.network.working_copy import free_memory
from ._entries import entries_of, facts_of, is_lightning, objects_in
from ._errors import CheckpointError, listed, refused, shown
from ._files import Contents, open_file
from ._names import under, without_wrappers
from ._pickle import Inert, Stored

_HALF = (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint file holds, without its tensors.

    Attributes
    ----------
    entries : tuple of str
        The sets of weights in it, the one taken by default first; `""` where the file itself is one.
    architecture : str or None
        What timm's training script noted that it trained.
    image_size : int or None
        The same, in pixels.

    Examples
    --------
    >>> from estimators import describe_checkpoint, load_model, save_checkpoint
    >>> describe_checkpoint(save_checkpoint("a.safetensors", load_model("test_resnet").state_dict()))
    CheckpointInfo(entries=('',), architecture=None, image_size=None)
    """

    entries: tuple[str, ...]
    architecture: str | None
    image_size: int | None


def describe_checkpoint(path: str | os.PathLike) -> CheckpointInfo:
    """Say which sets of weights a checkpoint file holds; none of them is read.

    Raises
    ------
    CheckpointError
        If the file is missing, damaged, or is not a checkpoint.
    """
    file = _existing(path)
    contents, entries = _look(file)
    facts = facts_of(contents.value)
    architecture, size = facts.get("architecture"), facts.get("image_size")
    return CheckpointInfo(
        tuple(entries), architecture if isinstance(architecture, str) else None, size if isinstance(size, int) else None
    )


def read_checkpoint(path: str | os.PathLike, *, entry: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Read a checkpoint file without executing anything in it.

    Parameters
    ----------
    path : path
        `.safetensors`; the `.index.json` of shards; or a torch file holding a state dict, or a dict around one (timm's
        training script, Lightning, and most others). What stands beside the weights is neither read nor run.
    entry : str or None
        Which set of weights to take where there are several: "state_dict", "state_dict_ema", ... as
        :func:`describe_checkpoint` lists them, or a prefix of names inside the first ("teacher.model"). None takes an
        average (EMA) where there is one, as timm does, and says so.

    Returns
    -------
    state : dict of Tensor
        On the CPU. What wrappers put into the names is taken out: "_orig_mod." and FSDP's wherever they stand,
        "module." before all names of a torch file, "model." in Lightning's. Other prefixes are matched where the model
        is known, by :class:`Landscape`, `load_model` and every estimator.
    notes : list of str
        What was done, for the person to see: which entry was taken, which prefix stripped, what was left out, which
        values are not finite.

    Raises
    ------
    CheckpointError
        (a ValueError) If the file is missing, damaged, or is not a checkpoint: one sentence that says why.
    """
    file = _existing(path)
    contents, entries = _look(file)
    label, named = _chosen(file, entries, entry)
    notes = [f"took the entry '{label}'"] if label else []
    others = [other for other in entries if other not in (label, "")]
    if others:
        notes.append(f"also there: {listed(others)} (choose with entry=)")
    tensors = {name: value for name, value in named.items() if isinstance(value, Stored)}
    objects = {name: value for name, value in named.items() if isinstance(value, Inert)}
    if objects:
        _check_objects(file, objects)
        notes.append(f"left out objects that are not tensors: {listed(objects)}")
    try:
        _check_size(file, tensors)
        state = contents.read(tensors)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are readers
        raise refused(file, _why(error), "copy or save it again") from None
    from_torch = file.suffix != ".safetensors" and not file.name.endswith(".index.json")
    prefixes = ("module.", "model.") if is_lightning(contents.value) else ("module.",) if from_torch else ()
    state, more = without_wrappers(state, prefixes)
    return state, [*notes, *more, *odd_values(state)]


def clean_state_dict(content: Any) -> tuple[dict[str, Tensor], list[str]]:
    """Take what wrappers put into the names of a state dict out of them, saying so in notes."""
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    return without_wrappers(state)


def _existing(path: str | os.PathLike) -> Path:
    try:
        file = Path(path).expanduser()
        there = file.is_file()
    except (OSError, ValueError, TypeError, RuntimeError):  # a name that no file can have
        there = False
    if not there:
        raise CheckpointError(f"checkpoint must be an existing file, got {cut(repr(str(path)))}: check the path.")
    return file


def _look(file: Path) -> tuple[Contents, dict[str, dict[str, Any]]]:
    try:
        contents = open_file(file)
        entries = entries_of(contents.value)
    except CheckpointError:
        raise
    except Exception as error:  # a damaged file fails in as many ways as there are readers
        raise refused(file, _why(error), "copy or save it again") from None
    if contents.harmful:
        raise refused(
            file,
            f"it calls {listed(contents.harmful)} when it is unpickled, which was not done",
            "do not open it with anything that does",
        )
    if entries:
        return contents, entries
    objects = objects_in(contents.value)
    if objects:
        raise refused(file, f"it holds a whole object of {shown(objects[0])}, whose code was not run")
    raise refused(file, "it holds no named tensors")


def _chosen(file: Path, entries: dict[str, dict[str, Any]], entry: str | None) -> tuple[str, dict[str, Any]]:
    first = next(iter(entries))
    if entry is None or entry == first:
        return first, entries[first]
    if entry in entries:
        return entry, entries[entry]
    inside = under(without_wrappers(entries[first])[0], entry) if entry else {}
    if any(isinstance(value, Stored) for value in inside.values()):
        return f"{first}.{entry}" if first else entry, inside
    raise CheckpointError(
        f"entry must be one of {listed(map(shown, entries), 20)} in {shown(file.name)}, got {shown(entry)}: "
        "leave it out to take the first."
    )


def _check_size(file: Path, tensors: Mapping[str, Stored]) -> None:
    """Refuse tensors that claim more numbers than the file can hold, or than memory can."""
    needed = sum(stored.n_bytes for stored in tensors.values())
    size = file.stat().st_size
    if not file.name.endswith(".index.json") and needed > 4 * size + 64 * 2**20:
        raise refused(
            file, f"its {size:,} bytes claim tensors of {needed:,}", "do not open it, or save the weights again"
        )
    available = free_memory(torch.device("cpu"))
    if needed > 0.8 * available:
        raise CheckpointError(
            f"checkpoint must fit into memory, got {shown(file.name)} with {needed / 2**30:.1f} GiB of weights and "
            f"{available / 2**30:.1f} GiB free: close other programs, or take a larger machine."
        )


def _check_objects(file: Path, objects: Mapping[str, Inert]) -> None:
    """Refuse weights in pieces, or packed, by the name of one of them."""
    for name, value in objects.items():
        kind = value.name.rpartition(".")[2]
        if "DTensor" in value.name or "Shard" in kind or "wrapper_subclass" in kind:
            raise refused(
                file,
                f"{shown(name)} is a piece of a tensor ({shown(kind)})",
                "save the full state dict (FSDP: get_model_state_dict with full_state_dict=True)",
            )
        if kind in ("_rebuild_qtensor", "_rebuild_sparse_tensor", "_rebuild_nested_tensor"):
            raise refused(
                file,
                f"{shown(name)} is a {kind.split('_')[-1].replace('qtensor', 'quantised tensor')}",
                "save the weights as plain numbers",
            )


def odd_values(state: Mapping[str, Tensor]) -> list[str]:
    """Note what makes a loss meaningless or rounds it: values not finite, variances of zero or below, few bits."""
    ranges = {name: _range(v) for name, v in state.items() if v.is_floating_point() or v.is_complex()}
    variances = {name: low for name, (low, _) in ranges.items() if name.endswith("running_var")}
    half = [name for name, v in state.items() if v.dtype in _HALF]
    found = (
        ("NaN or infinite values in", [n for n, r in ranges.items() if not all(abs(x) < float("inf") for x in r)]),
        ("variances below zero in", [n for n, low in variances.items() if low < 0]),
        ("variances of zero in", [n for n, low in variances.items() if low == 0]),
    )
    notes = [f"{what} {listed(names)}" for what, names in found if names]
    if half:
        kinds = sorted({str(state[name].dtype).removeprefix("torch.") for name in half})
        notes.append(f"{len(half)} of {len(state)} tensors are {' and '.join(kinds)}")
    return notes


def _range(values: Tensor) -> tuple[float, float]:
    """Give the least and the largest value, NaN where there is one; no copy of a tensor of any size is made."""
    if values.numel() == 0:
        return 0.0, 0.0
    if values.is_complex():
        values = torch.view_as_real(values)
    if values.dtype.itemsize == 1:
        values = values.float()
    low, high = torch.aminmax(values)
    return low.item(), high.item()


def _why(error: Exception) -> str:
    """Say in a few words why a damaged file could not be read."""
    words = cut(error).rstrip(".")
    if isinstance(error, MemoryError):
        return "it asks for more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, ValueError) and words.startswith(("it ", "its ", "'")):
        return words
    return f"damaged: {type(error).__name__}" + (f", {words}" if words else "")
