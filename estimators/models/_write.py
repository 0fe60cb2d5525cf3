"""Writing checkpoints whole or not at all, and reading the facts in their headers."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from ..writing import whole


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

    Raises
    ------
    OSError
        In one sentence, when the disk is full or the folder can't be written to.
    """
    file = Path(path)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items()}
    header = {k: json.dumps(v) for k, v in (metadata or {}).items()} | {"format": "pt"}
    with whole(file) as temporary:
        try:
            safetensors.torch.save_file(tensors, str(temporary), header)
        except safetensors.SafetensorError as error:  # the library hides what the system said
            code = re.search(r"os error (\d+)", str(error))
            if code is None:
                raise
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(file)) from error
    return file


def read_metadata(path: str | os.PathLike) -> dict[str, Any]:
    """Read the facts stored in a safetensors header by :func:`save_checkpoint`."""
    with safetensors.safe_open(str(path), "pt") as handle:
        header = handle.metadata() or {}
    return {k: json.loads(v) for k, v in header.items() if k != "format"}
