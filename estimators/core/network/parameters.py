"""A module's parameters as views into one flat buffer, so that moving to a point is one vector operation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .copying import private_copy
from .layout import image_layout


class FlatParameters:
    """The chosen parameters of `module`, re-seated as views into one flat buffer.

    Public vectors θ have the order of :func:`torch.nn.utils.parameters_to_vector`, with parameters that
    share memory (tied weights) counted once. Inside the buffer, convolution weights have the layout of images
    (:func:`layout.image_layout`); `load` and `read` convert at the border.

    Parameters
    ----------
    module : nn.Module
        Changed in place: its chosen parameters become views. Give a private copy.
    patterns : iterable of str or None
        Regular expressions; a trainable parameter belongs to θ when any of them is found in its name.
        None takes every trainable parameter.
    """

    def __init__(self, module: nn.Module, patterns: Iterable[str] | None = None) -> None:
        groups = tied_groups(module, patterns)
        if not groups:
            raise ValueError(
                "The model must have at least one trainable parameter in θ, got none"
                + (f" matching {tuple(patterns)!r}" if patterns is not None else " (all are frozen)")
                + ". Set requires_grad_(True) on some parameters or change the filter on parameter names."
            )
        imaginary = [names[0] for names, params in groups if params[0].is_complex()]
        if imaginary:
            raise ValueError(
                f"The parameters in θ must be real, got complex {', '.join(imaginary)}: freeze them with "
                "requires_grad_(False), or keep real and imaginary parts as two parameters."
            )
        self.names = tuple(names[0] for names, _ in groups)
        self.tied = {names[0]: tuple(names[1:]) for names, _ in groups if len(names) > 1}
        self.shapes = tuple(tuple(p.shape) for _, ps in groups for p in ps[:1])
        self.sizes = tuple(ps[0].numel() for _, ps in groups)
        self.n = sum(self.sizes)
        self._channels_last = image_layout(module) == torch.channels_last
        first = groups[0][1][0]
        self.flat = torch.empty(self.n, device=first.device, dtype=first.dtype)
        self.parameters: list[nn.Parameter] = []
        offset = 0
        for (_, params), shape, size in zip(groups, self.shapes, self.sizes, strict=True):
            segment = slice(offset, offset + size)
            view = self._view(self.flat[segment], shape)
            view.copy_(params[0].data)
            for parameter in params:
                parameter.data = view
            self.parameters.append(params[0])
            offset += size
        # whether the order of θ is that of the buffer
        self.is_identity = not any(self._is_moved(shape) for shape in self.shapes)

    @property
    def slices(self) -> dict[str, slice]:
        """Where each parameter lies in θ, by name."""
        out, offset = {}, 0
        for name, size in zip(self.names, self.sizes, strict=True):
            out[name] = slice(offset, offset + size)
            offset += size
        return out

    @property
    def groups(self) -> list[tuple[str, ...]]:
        """All names of each parameter in θ, tied ones together."""
        return [(name, *self.tied.get(name, ())) for name in self.names]

    def to_internal(self, vectors: Tensor) -> Tensor:
        """Public layout (..., P) to buffer layout (..., P)."""
        return vectors if self.is_identity else self._moved(vectors, inwards=True)

    def to_public(self, vectors: Tensor) -> Tensor:
        """Buffer layout (..., P) to public layout (..., P)."""
        return vectors if self.is_identity else self._moved(vectors, inwards=False)

    def load(self, theta: Tensor) -> None:
        """Move the module to θ, given in public layout (P,)."""
        if self.is_identity:
            self.flat.copy_(theta)
        else:
            self._moved(theta.to(self.flat), inwards=True, out=self.flat)

    def load_sum(self, terms: Sequence[tuple[float, Tensor]]) -> None:
        """Move the module to Σ w·v of (w, v) in public layout, a parameter at a time; bit for bit as in buffer layout.

        No second copy of the vectors is made.
        """
        pieces = [vector.split(self.sizes) for _, vector in terms]
        largest = max(size for size, shape in zip(self.sizes, self.shapes, strict=True) if self._is_moved(shape))
        room = self.flat.new_empty(largest)
        for k, (target, shape, size) in enumerate(
            zip(self.flat.split(self.sizes), self.shapes, self.sizes, strict=True)
        ):
            moved = self._is_moved(shape)
            out = room[:size] if moved else target
            weighted_sum([(w, piece[k]) for (w, _), piece in zip(terms, pieces, strict=True)], out)
            if moved:
                self._view(target, shape).copy_(out.view(shape))

    def read(self) -> Tensor:
        """Give the module's θ in public layout (P,), as a copy."""
        return self.flat.clone() if self.is_identity else self._moved(self.flat, inwards=False)

    def split(self, vector: Tensor) -> list[Tensor]:
        """Cut a public vector (P,) into tensors of the parameters' shapes (views)."""
        return [
            piece.view(shape) for piece, shape in zip(torch.split(vector, list(self.sizes)), self.shapes, strict=True)
        ]

    def stacked(self, points: Tensor) -> list[Tensor]:
        """Cut k points (k, P) in buffer layout into tensors (k, *shape) of the parameters' shapes (views)."""
        pieces = torch.split(points, list(self.sizes), dim=1)
        return [self._view(piece, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def _is_moved(self, shape: tuple[int, ...]) -> bool:
        """Whether a parameter of this shape lies in another order in the buffer than in θ."""
        return len(shape) == 4 and self._channels_last and shape[1] > 1 and shape[2] * shape[3] > 1

    def _moved(self, vectors: Tensor, inwards: bool, out: Tensor | None = None) -> Tensor:
        """Bring vectors (..., P) from one layout into the other, a parameter at a time: an index would be larger."""
        out = torch.empty_like(vectors, memory_format=torch.contiguous_format) if out is None else out
        pieces = zip(vectors.split(self.sizes, -1), out.split(self.sizes, -1), self.shapes, strict=True)
        for source, target, shape in pieces:
            if not self._is_moved(shape):
                target.copy_(source)
            elif inwards:
                self._view(target, shape).copy_(source.view(*source.shape[:-1], *shape))
            else:
                target.view(*target.shape[:-1], *shape).copy_(self._view(source, shape))
        return out

    def _view(self, segment: Tensor, shape: tuple[int, ...]) -> Tensor:
        """View flat segments (..., size) as (..., *shape), convolution weights in the layout of images."""
        leading = segment.shape[:-1]
        if len(shape) == 4 and self._channels_last:
            o, i, h, w = shape
            return segment.view(*leading, o, h, w, i).movedim(-1, -3)
        return segment.view(leading + shape)

    def join(self, tensors: Iterable[Tensor | None]) -> Tensor:
        """Concatenate tensors of the parameters' shapes into a public vector (P,); None counts as zeros."""
        return torch.cat(
            [
                self.flat.new_zeros(size) if tensor is None else tensor.reshape(-1)
                for tensor, size in zip(tensors, self.sizes, strict=True)
            ]
        )


def copy_for_moving(template: nn.Module, patterns: Iterable[str] | None = None) -> nn.Module:
    """Copy a module whose θ is about to be laid into a buffer of its own: until then its values are the template's.

    A second copy of a large network would only be made to be thrown away.
    """
    members = [p for _, params in tied_groups(template, patterns) for p in params]
    return private_copy(template, {p: nn.Parameter(p.data) for p in members if type(p) is nn.Parameter})


def seat_on(theta: Tensor, flat: FlatParameters, template: nn.Module) -> None:
    """Let the template's parameters be pieces of θ (P,) where they are the same bytes, so that they lie there once."""
    named = dict(template.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for group, piece in zip(flat.groups, flat.split(theta), strict=True):
            for parameter in (named[name] for name in group):
                same = parameter.dtype == piece.dtype and parameter.device == piece.device
                if same and parameter.is_contiguous():
                    parameter.data = piece


def weighted_sum(terms: Sequence[tuple[float, Tensor]], out: Tensor) -> None:
    """Write Σ w·v of (w, v) into `out`, in their order; zeros without terms."""
    if not terms:
        out.zero_()
    for k, (weight, vector) in enumerate(terms):
        if k:
            out.add_(vector, alpha=weight)
        else:
            torch.mul(vector, weight, out=out)


def tied_groups(module: nn.Module, patterns: Iterable[str] | None = None) -> list[tuple[list[str], list[nn.Parameter]]]:
    """Group the trainable parameters that share memory.

    Parameters
    ----------
    module : nn.Module
        The model.
    patterns : iterable of str or None
        Regular expressions on the names; None takes every trainable parameter.

    Returns
    -------
    list of (names, parameters)
        One entry for each distinct parameter, in the order of `module.parameters()`.
    """
    groups: dict[tuple, tuple[list[str], list[nn.Parameter]]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        if not parameter.requires_grad:
            continue
        key = (parameter.data_ptr() or id(parameter), tuple(parameter.shape), parameter.stride())
        names, params = groups.setdefault(key, ([], []))
        names.append(name)
        if not any(parameter is p for p in params):
            params.append(parameter)
    if patterns is None:
        return list(groups.values())
    compiled = [re.compile(pattern) for pattern in patterns]
    return [g for g in groups.values() if any(c.search(name) for c in compiled for name in g[0])]


@contextmanager
def moved(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Stand at other weights nearby, 0.1 of each parameter's size away, and come back to the last bit."""
    generator = torch.Generator().manual_seed(0)
    before = [(p, p.detach().clone()) for p in parameters]
    try:
        with torch.no_grad():
            for p, _ in before:
                rows = torch.randn(p.shape[:1] + (1,) * (p.dim() - 1), generator=generator).to(p)
                p += rows * (0.1 * p.square().mean().sqrt()).clamp_min(0.02)
        yield
    finally:
        with torch.no_grad():
            for p, old in before:
                p.copy_(old)
