"""Values that are only ever taken apart along one dimension, such as the query, key and value of an attention.

One linear layer makes all three, and a reshape lays them along a dimension of three. By the shapes alone the rows of
that layer are a product 3 × heads × head width, which would give queries, keys and values one order. Where every use
of the value takes single entries of that dimension, the entries never meet: the rows are three segments laid end to
end, each with an order of its own, and only what follows (a contraction, a projection) ties any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

#: Tells an operation's name and its arguments by name.
Reader = Callable[[Node], tuple[str, dict[str, Any]]]


@dataclass(frozen=True)
class Stack:
    """Axes of a value that is taken apart along dimension `dim`: for each of its entries those that are left."""

    dim: int
    slices: list[list[int]]


def moved_dimensions(node: Node, read: Reader) -> list[int | None] | None:
    """Tell for each dimension of a value which one of its source it is; None where it is more than a move.

    Dimensions of one entry that appear are None; those that go are left out.
    """
    name, arguments = read(node)
    source = arguments.get("self")
    if not isinstance(source, Node) or not hasattr(node.meta.get("val"), "shape"):
        return None
    before, after = list(source.meta["val"].shape), list(node.meta["val"].shape)
    dims: list[int | None] = list(range(len(before)))
    if name in ("clone", "contiguous", "alias", "detach", "_to_copy", "lift_fresh_copy"):
        return dims
    if name == "permute":
        return [d % len(before) for d in arguments["dims"]]
    if name == "transpose":
        i, j = arguments["dim0"], arguments["dim1"]
        dims[i], dims[j] = dims[j], dims[i]
        return dims
    if name in ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "_reshape_alias"):
        if [n for n in before if n > 1] != [n for n in after if n > 1]:
            return None
        kept = iter([d for d, n in enumerate(before) if n > 1])
        return [next(kept) if n > 1 else None for n in after]
    return None


def is_taken_apart(node: Node, dim: int, read: Reader) -> bool:
    """Tell whether every use of a value takes single entries along `dim`, at once or after moves of its dimensions."""
    if not node.users:
        return False
    for user in node.users:
        name, arguments = read(user)
        if name in ("select", "unbind") and arguments["self"] is node:
            if arguments.get("dim", 0) % len(node.meta["val"].shape) != dim:
                return False
            continue
        moved = moved_dimensions(user, read)
        if moved is None or dim not in moved or not is_taken_apart(user, moved.index(dim), read):
            return False
    return True


def follow(stack: Stack, node: Node, read: Reader, new: Callable[[int], int]) -> Any:
    """Give the axes of what comes of a stack: another one after a move, its entries after a selection."""
    name, arguments = read(node)
    if name == "unbind":
        return [list(axes) for axes in stack.slices]
    if name == "select":
        return list(stack.slices[arguments["index"]])
    moved = moved_dimensions(node, read)
    if moved is None:
        raise AssertionError(f"{name} does not take a stack apart")  # `is_taken_apart` has looked at every use
    dim = moved.index(stack.dim)
    others = [d if d is None or d < stack.dim else d - 1 for d in moved[:dim] + moved[dim + 1 :]]
    return Stack(dim, [[new(1) if d is None else axes[d] for d in others] for axes in stack.slices])


def stacked_axes(sizes: Sequence[int], dim: int, new: Callable[[int], int]) -> list[list[int]]:
    """Make variables for every dimension but `dim`: shared before it, those of each entry behind it."""
    before = [new(n) for n in sizes[:dim]]
    return [before + [new(n) for n in sizes[dim + 1 :]] for _ in range(sizes[dim])]
