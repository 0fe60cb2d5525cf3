"""Names of weights: what wrappers put into them, and which of a file's names are which of a model's.

What a wrapper adds is known without the model only where no network of one's own would be named so (`_orig_mod.`).
A `model.` or `module.` may be a wrapper's or the network's own, and beside the network's names others may stand (a
criterion, a metric, a counter): with the model's names at hand, the prefix is that under which most of them are found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

from ..checks import cut
from ._errors import listed

T = TypeVar("T")

WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "_forward_module.")
_COUNTER = "n_averaged"
# What stands beside a network by convention, at the top: losses, metrics, counters of tools that count operations.
_BESIDE = re.compile(
    r"^(criterion|criteria|loss|losses|loss_fn|loss_func|loss_function|metrics?|\w*_metrics?|\w*_loss|\w*acc(uracy)?\d*|"
    r"\w*auroc|\w*f1|n_averaged|total_ops|total_params|step|steps|epoch|global_step|num_updates|best_\w+)(\.|$)|"
    r"(^|\.)(total_ops|total_params)$"
)


def without_wrappers(state: Mapping[str, T], prefixes: Iterable[str] = ()) -> tuple[dict[str, T], list[str]]:
    """Take out of the names what `torch.compile`, FSDP and the like put in, and `prefixes` common to all of them."""
    state, notes = dict(state), []
    if _COUNTER in state and len(state) > 1:
        del state[_COUNTER]
        notes.append(f"left out the counter '{_COUNTER}' of an AveragedModel")
    again = True
    while again:
        again = False
        for wrapper in WRAPPERS:
            pattern = re.compile(rf"(^|\.){re.escape(wrapper)}")
            renamed = {pattern.sub(r"\1", name): value for name, value in state.items()}
            if len(renamed) == len(state) and renamed.keys() != state.keys():
                whole = all(name.startswith(wrapper) for name in state)
                notes.append(f"stripped the prefix '{wrapper}'" if whole else f"took '{wrapper}' out of the names")
                state, again = renamed, True
        for prefix in prefixes:
            if state and all(name.startswith(prefix) and len(name) > len(prefix) for name in state):
                state = {name[len(prefix) :]: value for name, value in state.items()}
                notes.append(f"stripped the prefix '{prefix}'")
                again = True
    return state, notes


def under(state: Mapping[str, T], prefix: str) -> dict[str, T]:
    """Take what stands under a prefix, without it."""
    start = prefix.rstrip(".") + "."
    return {name[len(start) :]: value for name, value in state.items() if name.startswith(start)}


def aligned(own: Collection[str], given: Mapping[str, T]) -> tuple[dict[str, T], list[str]]:
    """Rename what a file gives to a model's own names, and leave out what stands beside the model.

    Parameters
    ----------
    own : collection of str
        The model's names.
    given : mapping
        The file's.

    Returns
    -------
    state : dict
        What is left, by the model's names; what fits none of them keeps its name, for the caller to refuse.
    notes : list of str
        What was stripped, added and left out.
    """
    own = set(own)
    as_written = sum(name in own for name in given)
    under_prefixes = _prefixes(given, own)
    strip, n_stripped = _most(under_prefixes)
    add, n_added = _most(_prefixes(own, given))
    notes: list[str] = []
    left_out: list[str] = []
    state, stripped = dict(given), ""
    # A prefix counts where it explains most of the names: a few agree between any two networks.
    if n_stripped > as_written and n_stripped >= n_added and 2 * n_stripped >= len(own):
        state = {name[len(strip) :]: value for name, value in given.items() if name.startswith(strip)}
        left_out = [name for name in given if not name.startswith(strip)]
        stripped = strip
        notes.append(f"stripped the prefix '{cut(strip, 80)}'")
    elif n_added > as_written and 2 * n_added >= len(given):
        state = {add + name: value for name, value in given.items()}
        notes.append(f"put '{cut(add, 80)}' before the names, as the model has it")
    # The same network once more, under another name (an average, a teacher): it can be chosen instead.
    once_more = [p for p, n in under_prefixes.items() if 10 * n >= 9 * len(own) and p != stripped]
    if once_more and (stripped or as_written == len(own)):
        notes.append(f"weights of the same names stand under {listed(once_more)} too (choose with entry=)")
        left_out += [name for name in state if name not in own and name.startswith(tuple(once_more))]
    left_out += [name for name in state if name not in own and _BESIDE.search(name)]
    if left_out:
        left_out = list(dict.fromkeys(left_out))
        notes.append(f"left out {len(left_out)} beside the model's: {listed(left_out)}")
        gone = set(left_out)
        state = {name: value for name, value in state.items() if name not in gone}
    return state, notes


def _prefixes(longer: Iterable[str], shorter: Collection[str]) -> Counter[str]:
    """Count, for each prefix of the longer names, how many of the shorter ones are found under it."""
    found: Counter[str] = Counter()
    for name in longer:
        place = name.find(".")
        while place >= 0:
            if name[place + 1 :] in shorter:
                found[name[: place + 1]] += 1
            place = name.find(".", place + 1)
    return found


def _most(found: Counter[str]) -> tuple[str, int]:
    return min(found.items(), key=lambda item: (-item[1], len(item[0])), default=("", 0))
