"""Several inputs of a network as one value that is cut, moved and copied like a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .copying import COMPLEX

#: What a person gives: one tensor, several by position (`model(*inputs)`) or by name (`model(**inputs)`).
Given = Tensor | tuple[Tensor, ...] | dict[str, Tensor]


class Fields:
    """Tensors that share their first axis, which runs over the examples.

    Whatever walks over examples treats them as one tensor; at the door of the network (:func:`spread_at_the_door`)
    they are its arguments.

    Parameters
    ----------
    parts : mapping of int or str to Tensor
        By position, or by the name of the argument.
    """

    def __init__(self, parts: Mapping[Any, Tensor]) -> None:
        self.parts = dict(parts)

    def map(self, function: Callable[[Tensor], Tensor]) -> Fields:
        """Apply a function to each part."""
        return Fields({name: function(part) for name, part in self.parts.items()})

    @property
    def positional(self) -> tuple[Tensor, ...]:
        """The arguments that have no name."""
        return tuple(part for name, part in self.parts.items() if isinstance(name, int))

    @property
    def named(self) -> dict[str, Tensor]:
        """The arguments that have one."""
        return {name: part for name, part in self.parts.items() if isinstance(name, str)}

    @property
    def first(self) -> Tensor:
        """The first part, whose place is that of all."""
        return next(iter(self.parts.values()))

    @property
    def device(self) -> torch.device:
        """Where the parts lie."""
        return self.first.device

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.nbytes for part in self.parts.values())

    def numel(self) -> int:
        """Count the numbers in all parts."""
        return sum(part.numel() for part in self.parts.values())

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, index: Any) -> Fields:
        return self.map(lambda part: part[index])

    def to(self, *args: Any, **kwargs: Any) -> Fields:
        """Move each part."""
        return self.map(lambda part: part.to(*args, **kwargs))

    def clone(self) -> Fields:
        """Copy each part."""
        return self.map(Tensor.clone)

    def pin_memory(self) -> Fields:
        """Pin each part."""
        return self.map(Tensor.pin_memory)

    def split(self, size: int) -> Iterator[Fields]:
        """Cut into batches of `size` examples."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def tensor_split(self, sections: int) -> list[Fields]:
        """Cut into so many parts of near-equal length."""
        cut = {name: part.tensor_split(sections) for name, part in self.parts.items()}
        return [Fields({name: pieces[i] for name, pieces in cut.items()}) for i in range(sections)]


Inputs = Tensor | Fields


def packed(inputs: Given) -> Inputs:
    """Take several inputs as one value; one tensor stays what it is."""
    if isinstance(inputs, Tensor):
        return inputs
    return Fields(inputs if isinstance(inputs, Mapping) else dict(enumerate(inputs)))


def each(function: Callable[[Tensor], Tensor], inputs: Given) -> Given:
    """Apply a function to every tensor of what a person gave."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {name: function(part) for name, part in inputs.items()}
    return tuple(function(part) for part in inputs)


def in_precision(x: Any, dtype: torch.dtype) -> Any:
    """Give real and complex inputs the precision `dtype`; integers stay."""
    if isinstance(x, Fields):
        return x.map(lambda part: in_precision(part, dtype))
    if x.is_complex():
        return x.to(COMPLEX[dtype])
    return x.to(dtype) if x.is_floating_point() else x


def shapes(x: Any) -> str:
    """Say the shape of one example."""
    if isinstance(x, Fields):
        return ", ".join(f"{name}: {tuple(part.shape[1:])}" for name, part in x.parts.items())
    return str(tuple(x.shape[1:]))


def equal(a: Any, b: Any) -> bool:
    """Whether two inputs hold the same values."""
    if isinstance(a, Fields):
        return all(torch.equal(part, b.parts[name]) for name, part in a.parts.items())
    return torch.equal(a, b)


def spread_at_the_door(module: nn.Module) -> RemovableHandle:
    """Let a network that is handed :class:`Fields` see its own arguments, in place; what comes back undoes it."""
    return module.register_forward_pre_hook(_spread, with_kwargs=True)


def _spread(_: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    if not (args and isinstance(args[0], Fields)):
        return None
    return args[0].positional, {**kwargs, **args[0].named}
