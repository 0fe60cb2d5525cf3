"""The one error that leaves the reader of checkpoints, and how names from files are shown in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..checks import cut
from ..core.network.probes import listed as joined

SAVE_WEIGHTS = "save the weights alone with torch.save(model.state_dict(), 'weights.pt')"


class CheckpointError(ValueError):
    """A file is not a checkpoint that can be read; the message is one sentence."""


def refused(file: Path, why: str, advice: str = SAVE_WEIGHTS) -> CheckpointError:
    """Give the error for a file: what it must be, what it is, what to do."""
    return CheckpointError(
        "checkpoint must be a safetensors file or a torch file that holds only tensors, got "
        f"{shown(file.name)} ({why}): {advice}."
    )


def shown(name: object) -> str:
    """Quote a name that a file chose, cut, so that it can stand in a sentence."""
    return f"'{cut(name, 80)}'"


def listed(names: Iterable[object], most: int = 5) -> str:
    """Give the first few names and how many more there are."""
    return joined([cut(name, 80) for name in names], most)
