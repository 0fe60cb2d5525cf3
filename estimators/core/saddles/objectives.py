"""A scalar objective as a pure function of a parameter vector, evaluated for many vectors at once.

Critical-point searches and optimiser races need what a module cannot give: the loss of many parameter vectors
in one call, on the same or on different examples for each, with gradients and dense Hessians from
`torch.func`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacfwd, vmap

from ..network.evaluation import logits
from ..network.losses import Loss, per_example_losses
from ..network.operations import PlainOperations
from ..network.products import double_backward

Function = Callable[..., Tensor]
# Rows of a batch that share one vectorised pass; beyond this size a pass is bound by arithmetic, not by
# overhead.
SMALL = 20_000


@dataclass(frozen=True)
class Objective:
    """f(θ) = mean over examples of f_n(θ), plus what does not depend on examples (L2, say).

    Attributes
    ----------
    function : callable
        `(theta (P,), *examples)` → scalar; must be made of operations `torch.func` can transform.
    examples : tuple of Tensor
        Tensors with a common first dimension N; `function` gets all of them or the rows of a minibatch.
    size : int
        P.
    l2 : float
        Coefficient of ½‖θ‖² that `function` includes, in loss units per squared weight; 0 when it has none.
    """

    function: Function
    examples: tuple[Tensor, ...]
    size: int
    l2: float = 0.0

    @property
    def n_examples(self) -> int:
        """N."""
        return len(self.examples[0])

    def __call__(self, theta: Tensor) -> Tensor:
        """Value at θ (P,), a scalar tensor that can be differentiated."""
        return self.function(theta, *self.examples)

    def values(self, thetas: Tensor) -> Tensor:
        """Values at many points (S, P) → (S,)."""
        with torch.no_grad():
            return torch.cat([self._forward(rows, None) for rows in self._split(thetas)])

    def values_and_gradients(self, thetas: Tensor, indices: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Values (S,) and gradients (S, P) at many points.

        Parameters
        ----------
        thetas : Tensor of shape (S, P)
            The points.
        indices : Tensor of shape (S, B), default=None
            Examples of each point's own minibatch; None takes all examples for every point.

        Returns
        -------
        values : Tensor of shape (S,)
        gradients : Tensor of shape (S, P)
        """
        values, gradients = [], []
        picks = [None] * len(thetas) if indices is None else self._split(indices)
        for rows, pick in zip(self._split(thetas), picks, strict=False):
            points = rows.detach().requires_grad_()
            with torch.enable_grad():
                # Points do not interact, so the gradient of the sum holds each point's own gradient.
                losses = self._forward(points, pick)
                (slopes,) = torch.autograd.grad(losses.sum(), points)
            values.append(losses.detach())
            gradients.append(slopes)
        return torch.cat(values), torch.cat(gradients)

    def hessians(self, thetas: Tensor) -> Tensor:
        """Dense Hessians at many points (S, P) → (S, P, P), made symmetric."""
        with double_backward(), PlainOperations():
            second = jacfwd(grad(self.__call__))
            dense = vmap(second, chunk_size=max(1, SMALL // (10 * self.size)))(thetas.detach())
        return (dense + dense.transpose(-1, -2)) / 2

    def restrict(self, base: Tensor, coordinates: Tensor) -> Objective:
        """Give the objective of some coordinates (k,), the others held at `base` (P,)."""
        base, inner = base.detach().clone(), self.function

        def function(part: Tensor, *examples: Tensor) -> Tensor:
            return inner(base.index_copy(0, coordinates, part), *examples)

        return replace(self, function=function, size=len(coordinates))

    def _split(self, rows: Tensor) -> Sequence[Tensor]:
        return (rows,) if self.size <= SMALL else torch.split(rows, 1)

    def _forward(self, thetas: Tensor, indices: Tensor | None) -> Tensor:
        with double_backward():
            if indices is None:
                return vmap(self.__call__)(thetas)
            return vmap(self.function)(thetas, *(values[indices] for values in self.examples))


def network_objective(
    module: nn.Module,
    names: Sequence[str],
    shapes: Sequence[tuple[int, ...]],
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    l2: float = 0.0,
) -> Objective:
    """Wrap a network's mean loss on fixed examples as an objective of its flat parameter vector.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode, with the dtype and device of `inputs`; never changed.
    names, shapes : sequence
        The parameters that make up θ, in order; all others stay as they are in `module`.
    inputs, targets : Tensor
        N examples.
    loss : callable
        `(outputs, targets)` → per-example losses (N,).
    l2 : float, default=0
        Adds `l2`/2 · ‖θ‖² to the mean loss.

    Returns
    -------
    Objective
    """
    sizes = [torch.Size(shape).numel() for shape in shapes]

    def function(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        pieces = torch.split(theta, sizes)
        parameters = {n: p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        data_loss = per_example_losses(loss, logits(functional_call(module, parameters, (x,))), y).mean()
        return data_loss + 0.5 * l2 * theta.dot(theta) if l2 else data_loss

    return Objective(function, (inputs, targets), sum(sizes), l2)
