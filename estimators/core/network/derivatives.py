"""Gradient and curvature products of L at the point where a network stands, batch-norm statistics included.

Under "recompute" L(θ) = F(θ, s(θ)), where F sums over batches of the examples and the statistics s over blocks of the
fixed ones (:mod:`batchnorm`). With J = ∂s/∂θ and u = J v,

    ∇L  = F_θ + Jᵀ F_s
    H v = F_θθ v + F_θs u + Jᵀ(F_sθ v + F_ss u) + ∇²(F_s · s) v
    G v = (∂z/∂θ + ∂z/∂s J)ᵀ (∂²ℓ/∂z²) (∂z/∂θ v + ∂z/∂s u)

so each graph is one batch's or one block's, and both sums go one after the other however many examples there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from .evaluation import Batch
from .losses import Loss, per_example_losses
from .products import ExampleGraph, HessianGraph, OutputGraph, StatisticsGraph, Tensors
from .working_copy import Network

Batches = Iterable[Batch]


def loss_and_gradient(network: Network, loss: Loss, data: Batches, n: int) -> tuple[float, Tensor]:
    """Mean loss over the n examples of `data` and its gradient (P,), in public layout."""
    total = torch.zeros((), dtype=torch.float64, device=network.device)
    gradient = torch.zeros_like(network.flat.flat)
    slope = network.zero_statistics()
    with network.differentiable() as sources, torch.enable_grad():
        for x, y in data:
            losses = per_example_losses(loss, network.scores(x), y)
            parts = torch.autograd.grad(losses.sum(), sources, allow_unused=True)
            total += losses.detach().sum(dtype=torch.float64)
            gradient += network.flat.join(parts[: len(network.flat.parameters)])
            _add(slope, parts)
    if network.statistics_move:
        for x in network.blocks():
            with torch.enable_grad():
                share = network.share_of_statistics(x)
            if share.requires_grad:  # else no parameter of θ lies before a batch norm
                gradient += network.flat.join(
                    torch.autograd.grad(share, network.flat.parameters, slope, allow_unused=True)
                )
    return (total / n).item(), gradient.div_(n)


def of_examples(network: Network, loss: Loss, data: Batches, read: Callable[[ExampleGraph], Tensor]) -> Tensor:
    """Read derivatives of the single examples' losses, (N, ...), off each batch's graph; statistics stay."""
    return torch.cat([read(ExampleGraph(network.scores, loss, network.flat.parameters, x, y)) for x, y in data])


class Products:
    """Sums of curvature products over the examples, by columns of vectors.

    Parameters
    ----------
    network : Network
        At its point.
    owner : object
        Whose examples these are; graphs are kept for it.
    kind : {"hessian", "outputs"}
        What the graphs hold.
    loss : callable
    data : callable
        Walks the batches.
    n : int
        Number of examples.
    """

    def __init__(
        self, network: Network, owner: object, kind: str, loss: Loss, data: Callable[[], Batches], n: int
    ) -> None:
        self.network, self.owner, self.kind, self.loss, self.data, self.n = network, owner, kind, loss, data, n
        self.n_parameters = len(network.flat.parameters)

    def apply(self, columns: Tensor, product: Callable[..., Tensors]) -> Tensor:
        """Sum `product(graph, pieces, keep)` over the batches for each column of (P, k), and carry it through s(θ)."""
        flat, moving, k = self.network.flat, self.network.statistics_move, columns.shape[1]
        vectors = [flat.split(column.contiguous()) for column in columns.T]
        pieces: list[Sequence[Tensor]] = list(vectors)
        if moving:
            pushed = [self.network.zero_statistics() for _ in vectors]
            for block, _ in self._blocks():
                for u, v in zip(pushed, vectors, strict=True):
                    u += block.push(v)
            pieces = [[*v, u] for v, u in zip(vectors, pushed, strict=True)]
        out, back = torch.zeros_like(columns), [self.network.zero_statistics() for _ in vectors]
        for graph, keep in self._batches():
            for j, split in enumerate(pieces):
                parts = product(graph, split, keep or j + 1 < k)
                out[:, j] += flat.join(parts[: self.n_parameters])
                _add(back[j], parts)
        if moving:
            for block, keep in self._blocks():
                for j, (split, w) in enumerate(zip(vectors, back, strict=True)):
                    along = split if self.kind == "hessian" else None
                    out[:, j] += flat.join(block.pull(w, along, keep or j + 1 < k))
        return out

    def _batches(self) -> Iterator[tuple[HessianGraph | OutputGraph, bool]]:
        return self.network.graphs(self.owner, self.kind, "batches", self.n, self._build_batches)

    def _build_batches(self) -> Iterator[HessianGraph | OutputGraph]:
        build = HessianGraph if self.kind == "hessian" else OutputGraph
        for x, y in self.data():
            with self.network.differentiable() as sources:
                graph = build(self.network.scores, self.loss, sources, x, y)
            yield graph

    def _blocks(self) -> Iterator[tuple[StatisticsGraph, bool]]:
        network = self.network
        return network.graphs(self.owner, self.kind, "blocks", network.n_statistics, self._build_blocks)

    def _build_blocks(self) -> Iterator[StatisticsGraph]:
        [(slope, _)] = self.network.graphs(self.owner, self.kind, "slope", 0, self._slope)
        for x in self.network.blocks():
            yield StatisticsGraph(partial(self.network.share_of_statistics, x), self.network.flat.parameters, slope)

    def _slope(self) -> Iterator[Tensor]:
        """∂F/∂s, by which the curvature of s counts for the Hessian; other matrices have no such term."""
        slope = self.network.zero_statistics()
        if self.kind == "hessian":
            for graph, _ in self._batches():
                _add(slope, graph.gradients)  # type: ignore[union-attr]
        yield slope


def _add(slope: Tensor, parts: Tensors) -> None:
    """Add the part that belongs to s(θ), the last one, where statistics move."""
    if len(slope) and parts[-1] is not None:
        slope += parts[-1].detach()
