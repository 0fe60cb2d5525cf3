"""The one error that leaves the reader of checkpoints, and how names from files are shown in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

SAVE_WEIGHTS = "save the weights alone with torch.save(model.state_dict(), 'weights.pt')"


class CheckpointError(ValueError):
    """A file is not a checkpoint that can be read; the message is one sentence."""


def refused(file: Path, why: str, advice: str = SAVE_WEIGHTS) -> CheckpointError:
    """Give the error for a file: what it must be, what it is, what to do."""
    return CheckpointError(
        "checkpoint must be a safetensors file or a torch file that holds only tensors, got "
        f"{shown(file.name)} ({why}): {advice}."
    )


def cut(words: object, most: int = 160) -> str:
    """Give the first line of some words, without control characters, at most that long."""
    line = next(iter(str(words)[: 4 * most].splitlines()), "")
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line).strip()
    return line if len(line) <= most else line[: most - 1] + "…"


def shown(name: object) -> str:
    """Quote a name that a file chose, cut, so that it can stand in a sentence."""
    return f"'{cut(name, 80)}'"


def listed(names: Iterable[object], most: int = 5) -> str:
    """Give the first few names and how many more there are."""
    every = [cut(name, 80) for name in names]
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" if len(every) > most else "")
