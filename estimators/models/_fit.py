"""Weights fitted to a model: names matched, another image size resampled, a head replaced, differences said."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from torch import Tensor, nn

from ..checks import cut
from ._errors import listed, shown
from ._names import aligned
from ._read import clean_state_dict


def compatible_state_dict(
    model: nn.Module,
    state: Mapping[str, Tensor],
    notes: list[str] | None = None,
    *,
    new_head: bool = False,
    made_as: str | None = None,
) -> dict[str, Tensor]:
    """Match a state dict to a model's own names and shapes, entry by entry.

    Parameters
    ----------
    model : nn.Module
        The network.
    state : mapping of str to Tensor
        With its own names, or under a prefix, beside others (`criterion.*`, metrics, a second copy).
    notes : list or None
        What was done is added.
    new_head : bool, default=False
        Whether a head that does not fit keeps the model's own values.
    made_as : str or None
        The architecture the weights say they are of, for the message.

    Returns
    -------
    dict
        Every name of the model, in its order. A position table of another image size is resampled by timm's own
        function for the architecture.

    Raises
    ------
    ValueError
        Giving the number of differences, the first five of each kind in turn with both shapes, and the likely cause.
    """
    if not isinstance(state, Mapping):
        raise TypeError(
            f"A point must be a module, a state dict, a checkpoint file or a vector, got {type(state).__name__}. "
            "Give one of these."
        )
    notes = [] if notes is None else notes
    own = model.state_dict()
    given: dict[str, Any] = dict(state)
    if not own.keys() <= given.keys() or len(own) != len(given):
        if not set(own) & set(given):
            given, more = clean_state_dict(given)
            notes.extend(more)
        given, more = aligned(own, given)
        notes.extend(more)
    _fill_twins(model, own, given)
    heads = _heads(model)
    differences = _Differences.between(own, given)
    if differences.any and _resample(model, own, given, heads, notes):
        differences = _Differences.between(own, given)
    odd_heads = [name for name in heads if name in {*differences.missing, *differences.misshapen}]
    if new_head and odd_heads:
        classes = [f"{n} {tuple(given[n].shape)}" for n in odd_heads if n in given]
        given.update({name: own[name] for name in heads})
        head = listed(dict.fromkeys(name.rpartition(".")[0] for name in heads))
        notes.append(f"the head {head} is new and untrained" + (f", the file has {listed(classes)}" if classes else ""))
        differences = _Differences.between(own, given)
    if differences.any:
        raise ValueError(differences.sentence(model, own, given, heads, made_as))
    return {name: given.get(name, own[name]) for name in own}


class _Differences:
    """What keeps some weights from fitting a model, by kind."""

    def __init__(self, missing: list[str], unexpected: list[str], misshapen: list[str]) -> None:
        self.missing, self.unexpected, self.misshapen = missing, unexpected, misshapen

    @classmethod
    def between(cls, own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> _Differences:
        return cls(
            [k for k in own if k not in given and not k.endswith("num_batches_tracked")],
            # Names at the top say most about what kind of network it is.
            sorted((k for k in given if k not in own), key=lambda k: k.count(".")),
            [k for k in own if k in given and not _holds(own[k], given[k])],
        )

    @property
    def any(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def sentence(
        self,
        model: nn.Module,
        own: Mapping[str, Tensor],
        given: Mapping[str, Tensor],
        heads: Sequence[str],
        made_as: str | None,
    ) -> str:
        def both(name: str) -> str:
            ours, theirs = own[name], given[name]
            if not isinstance(theirs, Tensor):
                return f"{cut(name, 80)}: no tensor in the weights"
            if ours.shape == theirs.shape:
                return f"{cut(name, 80)}: {_kind(theirs)} in the weights, {_kind(ours)} in the model"
            return f"{cut(name, 80)}: {tuple(theirs.shape)} in the weights, {tuple(ours.shape)} in the model"

        kinds = (
            [f"missing: {cut(k, 80)}" for k in self.missing[:5]],
            [f"unexpected: {cut(k, 80)}" for k in self.unexpected[:5]],
            [both(k) for k in self.misshapen[:5]],
        )
        first = [line for turn in zip_longest(*kinds) for line in turn if line is not None][:5]
        count = len(self.missing) + len(self.unexpected) + len(self.misshapen)
        rest = f" and {count - len(first)} more" if count > len(first) else ""
        noted = getattr(model, "provenance", {}).get("architecture")
        name = noted or type(model).__name__
        cause = self._cause(own, given, heads, str(name), made_as)
        mismatches = "1 mismatch" if count == 1 else f"{count} mismatches"
        return f"The weights must fit {name}, got {mismatches} ({'; '.join(first)}{rest}): {cause}."

    def _cause(
        self,
        own: Mapping[str, Tensor],
        given: Mapping[str, Tensor],
        heads: Sequence[str],
        name: str,
        made_as: str | None,
    ) -> str:
        odd = {*self.missing, *self.misshapen}
        if made_as and made_as.partition(".")[0] != name.partition(".")[0]:
            return f"the file says that it is of {shown(made_as)}, choose that architecture"
        if heads and odd <= set(heads) and not self.unexpected:
            have = next((len(given[n]) for n in heads if n in given and given[n].dim()), None)
            need = next((len(own[n]) for n in heads if own[n].dim()), 0)
            if have is None:
                return "the file has no head, take a fresh one with new_head=True"
            return (
                f"their head tells {have} classes apart and the model's {need}, take num_classes={have} "
                "or a fresh head with new_head=True"
            )
        if odd and not self.unexpected and all(_is_position(n) for n in odd - set(heads)):
            return "they were made at another image size, choose the image_size they were made with"
        if not self.missing and not self.unexpected:
            return "they are of other widths, choose the architecture, num_classes and image_size they were made with"
        if 2 * (len(own) - len(odd)) < len(own):
            return (
                "they are of another architecture, or of a network with code of its own "
                "(register it with timm and start with --import)"
            )
        return "they are of another variant, choose the architecture, num_classes and image_size they were made with"


def _holds(ours: Tensor, theirs: Tensor) -> bool:
    """Whether a tensor can take the other's values: its shape, and no decimals or imaginary parts lost or made up."""
    if not isinstance(ours, Tensor):
        return True  # an extra state of the module's own making
    if not isinstance(theirs, Tensor) or ours.shape != theirs.shape:
        return False
    if ours.is_complex():
        return theirs.is_complex() or theirs.is_floating_point()
    return theirs.is_floating_point() if ours.is_floating_point() else not theirs.is_complex()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _is_position(name: str) -> bool:
    return any(word in name for word in ("pos_emb", "position", "rel_pos", "relative_", "attention_bias", "pos_table"))


def head_names(config: Any) -> tuple[str, ...]:
    """Name the modules that a timm configuration calls its classifier."""
    named = config.get("classifier") if isinstance(config, Mapping) else getattr(config, "classifier", None)
    return (named,) if isinstance(named, str) else tuple(named or ())


def _heads(model: nn.Module) -> list[str]:
    """Name the weights of a model's head, where its configuration or its `get_classifier` says which it is."""
    modules = head_names(getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {})
    if not modules and callable(getattr(model, "get_classifier", None)):
        head = model.get_classifier()  # type: ignore[operator]
        modules = tuple(name for name, module in model.named_modules() if module is head)
    return [name for name in model.state_dict() if any(name.startswith(f"{module}.") for module in modules)]


def _resample(
    model: nn.Module, own: Mapping[str, Tensor], given: dict[str, Tensor], heads: Sequence[str], notes: list[str]
) -> bool:
    """Let timm's own function for the architecture turn other sizes (and other people's names) into the model's."""
    module = type(model).__module__
    function = getattr(sys.modules.get(module), "checkpoint_filter_fn", None)
    if function is None or not module.startswith("timm."):
        return False
    before = {name: tuple(tensor.shape) for name, tensor in given.items()}
    try:
        turned = function(dict(given), model)
        turned = {name: tensor for name, tensor in turned.items() if isinstance(tensor, Tensor)}
        fewer = len(set(own) & turned.keys()) < len(set(own) & given.keys())
    except Exception:  # it is made for weights of its own architecture and meets any others here
        return False
    changed = [n for n in turned if n in own and n in before and tuple(turned[n].shape) != before[n]]
    renamed = [n for n in turned if n in own and n not in before]
    better = [n for n in changed if _holds(own[n], turned[n])]
    if fewer or not (better or renamed) or len(better) < len(changed):
        return False
    given.clear()
    given.update(turned)
    if changed:
        shapes = [f"{n} from {before[n]} to {tuple(turned[n].shape)}" for n in changed]
        notes.append(f"resampled by timm for another image size: {listed(shapes, 3)}")
    if renamed:
        notes.append(f"timm's own function turned the names of {len(renamed)} weights into the model's")
    return True


def _fill_twins(model: nn.Module, own: Mapping[str, Tensor], given: dict[str, Tensor]) -> None:
    """Give a tied weight under each of its names where the file has it under one."""
    tied = _tied_names(model)
    for name in own:
        if name not in given:
            twin = next((t for t in tied.get(name, ()) if t in given), None)
            if twin is not None:
                given[name] = given[twin]


def _tied_names(model: nn.Module) -> dict[str, list[str]]:
    by_storage: dict[tuple, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        by_storage.setdefault((p.data_ptr(), tuple(p.shape)), []).append(name)
    return {name: group for group in by_storage.values() if len(group) > 1 for name in group}
