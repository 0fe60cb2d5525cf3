"""Names that tell things apart: no two of a list are equal, whatever a person called them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from app.workspace import library


def names_apart(entries: Sequence[library.Checkpoint]) -> dict[str, str]:
    """Return what a person calls each checkpoint; equal names get their seeds, then their times, then their ids."""
    names = {entry.id: entry.name for entry in entries}
    for more in (_seed_of, lambda entry: entry.created[:19].replace("T", " "), lambda entry: entry.id[-6:]):
        said = Counter(names.values())
        for entry in entries:
            detail = more(entry)
            if said[names[entry.id]] > 1 and detail:
                names[entry.id] += f", {detail}"
    return names


def _seed_of(entry: library.Checkpoint) -> str:
    seed = entry.info.get("start", {}).get("seed")
    return "" if seed is None else f"seed {seed}"


def distinct(names: Sequence[str]) -> list[str]:
    """Give numbers to names that occur more than once, so that each stands for one thing.

    Examples
    --------
    >>> distinct(["a", "b", "a"])
    ['a', 'b', 'a (2)']
    """
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
