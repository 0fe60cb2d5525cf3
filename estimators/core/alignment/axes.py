"""Which axes of a network's tensors must be reordered together: unification over axis variables.

Every axis of every tensor is a *variable*. A variable starts free and ends as one of

- ``free``: any order of its entries is allowed, as long as every axis that holds the variable follows;
- ``pinned``: the order is fixed (pixels, classes, or an operation we know nothing about);
- ``product``: a row-major product of variables, e.g. the features behind a flatten are channels × pixels, the
  rows of an attention projection are 3 × heads × head width;
- ``sum``: variables laid end to end, e.g. the channels behind a concatenation.

Two axes that an operation forces to agree are unified, splitting variables into products or sums where
needed. Whatever cannot be unified is pinned: that only gives up a symmetry, it never breaks the function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from torch import Tensor


class AxisVariables:
    """Store of axis variables with unification.

    Variables are integers. All methods accept variables that have since been unified with another one.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._size: list[int] = []
        self._kind: list[str] = []
        self._parts: list[tuple[int, ...]] = []
        self._reason: list[str] = []

    def new(self, size: int, pinned: str = "") -> int:
        """Make a variable of ``size`` entries, pinned for the reason given if there is one."""
        self._parent.append(len(self._parent))
        self._size.append(int(size))
        self._kind.append("pinned" if pinned or size <= 1 else "free")
        self._parts.append(())
        self._reason.append(pinned)
        return len(self._parent) - 1

    def find(self, v: int) -> int:
        """Follow a variable to the one that stands for it."""
        while self._parent[v] != v:
            self._parent[v] = self._parent[self._parent[v]]
            v = self._parent[v]
        return v

    def size(self, v: int) -> int:
        """Entries of a variable."""
        return self._size[v]

    def kind(self, v: int) -> str:
        """``free``, ``pinned``, ``product`` or ``sum``."""
        return self._kind[self.find(v)]

    def reason(self, v: int) -> str:
        """Why a pinned variable is pinned."""
        return self._reason[self.find(v)]

    def product(self, parts: Iterable[int]) -> int:
        """Make the variable of a row-major product; factors of one entry are dropped."""
        return self._compose("product", parts, 1)

    def sum(self, parts: Iterable[int]) -> int:
        """Make the variable of segments laid end to end; empty segments are dropped."""
        return self._compose("sum", parts, 0)

    def parts(self, v: int, kind: str) -> list[int]:
        """Factors or segments of a variable with nesting of the same kind removed; itself if it has none."""
        v = self.find(v)
        if self._kind[v] != kind:
            return [v]
        return [leaf for part in self._parts[v] for leaf in self.parts(part, kind)]

    def pin(self, v: int, reason: str) -> None:
        """Fix the order of a variable and of everything it is made of."""
        v = self.find(v)
        if self._kind[v] == "pinned":
            return
        for part in self._parts[v]:
            self.pin(part, reason)
        self._kind[v], self._parts[v], self._reason[v] = "pinned", (), reason

    def unify(self, a: int, b: int, reason: str) -> None:
        """Make two variables of equal size one; what cannot agree is pinned, for ``reason``."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        if self._size[a] != self._size[b]:
            raise ValueError(f"{reason}: axes of {self._size[a]} and {self._size[b]} entries cannot agree")
        kinds = self._kind[a], self._kind[b]
        if kinds[0] == "free" or kinds[1] == "free":
            child, parent = (a, b) if kinds[0] == "free" else (b, a)
            self._parent[child] = parent
        elif "pinned" in kinds:
            pinned, other = (a, b) if kinds[0] == "pinned" else (b, a)
            self.pin(other, self._reason[pinned] or reason)
        elif kinds[0] == kinds[1]:
            self._align(a, b, kinds[0], reason)
        else:
            self.pin(a, reason)
            self.pin(b, reason)

    def _compose(self, kind: str, parts: Iterable[int], neutral: int) -> int:
        kept = [p for p in parts if self._size[p] != neutral]
        if len(kept) == 1:
            return kept[0]
        total = 1 if kind == "product" else 0
        for p in kept:
            total = total * self._size[p] if kind == "product" else total + self._size[p]
        v = self.new(total)
        if kept:
            self._kind[v], self._parts[v] = kind, tuple(kept)
        return v

    def _align(self, a: int, b: int, kind: str, reason: str) -> None:
        left, right = self.parts(a, kind)[::-1], self.parts(b, kind)[::-1]
        while left and right:
            x, y = left.pop(), right.pop()
            if kind in (self.kind(x), self.kind(y)):  # cut while a repeated variable was unified
                left += self.parts(x, kind)[::-1]
                right += self.parts(y, kind)[::-1]
                continue
            small = min(self._size[x], self._size[y])
            try:
                x_head, x_rest = self._split(x, small, kind, reason)
                y_head, y_rest = self._split(y, small, kind, reason)
            except ArithmeticError:
                for v in (a, b):
                    self.pin(v, reason)
                return
            self.unify(x_head, y_head, reason)
            left += x_rest
            right += y_rest
        if self._parent[a] == a and self._kind[a] == kind:
            self._parent[a] = b

    def _split(self, v: int, head: int, kind: str, reason: str) -> tuple[int, list[int]]:
        """Cut a variable into its first ``head`` entries (or factor) and the rest."""
        v = self.find(v)
        size = self._size[v]
        if size == head:
            return v, []
        if kind == "product" and size % head:
            raise ArithmeticError
        if self._kind[v] not in ("free", "pinned"):
            self.pin(v, reason)
        rest = size // head if kind == "product" else size - head
        why = self._reason[v] or reason if self._kind[v] == "pinned" else ""
        first, second = self.new(head, why), self.new(rest, why)
        if self._kind[v] == "free":
            self._kind[v], self._parts[v] = kind, (first, second)
        return first, [second]

    def blocks(self, tensor: Tensor, axes: Sequence[int]) -> Iterator[tuple[Tensor, list[int]]]:
        """Cut a tensor into views each of whose dimensions is one free or pinned variable.

        Parameters
        ----------
        tensor : Tensor
            Any tensor; what is yielded are views of it.
        axes : sequence of int
            The variable of each of its dimensions.

        Yields
        ------
        (Tensor, list of int)
            A view and the variables of its dimensions.
        """
        axes = [self.find(v) for v in axes]
        for dim, v in enumerate(axes):
            if self._kind[v] == "product":
                parts = self.parts(v, "product")
                split = tensor.unflatten(dim, [self._size[p] for p in parts])
                yield from self.blocks(split, axes[:dim] + parts + axes[dim + 1 :])
                return
            if self._kind[v] == "sum":
                start = 0
                for part in self.parts(v, "sum"):
                    piece = tensor.narrow(dim, start, self._size[part])
                    yield from self.blocks(piece, [*axes[:dim], part, *axes[dim + 1 :]])
                    start += self._size[part]
                return
        yield tensor, axes
