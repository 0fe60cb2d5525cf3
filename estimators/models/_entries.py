"""Which of the things in a checkpoint are the weights: its entries, and the one that is taken."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ._pickle import Inert, Name, Stored

# In the order in which they are taken; timm prefers the average of the weights too.
STATE_KEYS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "state_dict", "model", "model_state_dict", "model_state",
    "net", "network", "weights", "params", "module",
)  # fmt: skip
_BESIDE = re.compile(
    r"optim|sched|scaler|callback|loop|hyper|^args$|config|cfg|rng|saver|^hparams|metric|task_state|criterion", re.I
)
_DEEPEST = 4


def entries_of(value: Any) -> dict[str, dict[str, Any]]:
    """Find the mappings of names to tensors, the one to take first; `""` is the file itself.

    An entry inside an entry is called "outer.inner". Mappings that are an optimiser's, a scheduler's and the like do
    not count.
    """
    found = dict(_walk(value, "", 0, set()))
    rank = {key: i for i, key in enumerate(STATE_KEYS)}
    most = max((_count(mapping) for mapping in found.values()), default=0)

    def order(label: str) -> tuple[int, int]:
        first = label.partition(".")[0]
        if first in rank:
            return 0, rank[first]
        # A lone tensor beside unknown entries (an accuracy, a step) is not the weights.
        return (1 if not label and _count(found[label]) == most else 2 if label else 3), 0

    return {label: found[label] for label in sorted(found, key=order)}


def _walk(value: Any, label: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(value, Mapping) or depth >= _DEEPEST or id(value) in seen:
        return
    seen.add(id(value))
    named = {k: v for k, v in value.items() if isinstance(k, str)}
    if any(isinstance(v, Stored) for v in named.values()):
        yield label, named
    for key, inner in named.items():
        if not _BESIDE.search(key):
            yield from _walk(inner, f"{label}.{key}" if label else key, depth + 1, seen)


def _count(mapping: Mapping[str, Any]) -> int:
    return sum(isinstance(value, Stored) for value in mapping.values())


def objects_in(value: Any) -> list[str]:
    """Name the classes of whole objects that a file holds where its weights should be, the outermost first."""
    if isinstance(value, Inert):
        return [value.name]
    if isinstance(value, Name):
        return [value.text]
    if isinstance(value, Mapping):
        inner = [value[k] for k in STATE_KEYS if k in value] + list(value.values())
        return [v.name for v in inner if isinstance(v, Inert)]
    return []


def facts_of(value: Any) -> dict[str, Any]:
    """Read what timm's training script notes of the architecture: `arch`, and the arguments it was started with."""
    if not isinstance(value, Mapping):
        return {}
    args = value.get("args")
    args = args.state if isinstance(args, Inert) else args
    noted = args if isinstance(args, Mapping) else {}
    found = {"architecture": noted.get("model", value.get("arch")), "image_size": noted.get("img_size")}
    return {
        key: fact
        for key, fact in found.items()
        if (isinstance(fact, str) and 0 < len(fact) < 200) or (isinstance(fact, int) and not isinstance(fact, bool))
    }


def is_lightning(value: Any) -> bool:
    """Whether Lightning wrote the file."""
    return isinstance(value, Mapping) and any(isinstance(k, str) and "lightning" in k for k in value)
