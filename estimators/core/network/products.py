"""Products of curvature matrices with vectors, from one backward graph that serves many vectors.

All matrices belong to the mean loss over the examples given: H = ∇²L, the Gauss-Newton matrix
G = (1/N) Σ Jₙᵀ (∂²ℓₙ/∂z²) Jₙ, and the Fisher matrices (1/N) Σ gₙ gₙᵀ with gₙ = Jₙᵀ rₙ, where r is the
gradient of the loss at the outputs for the true labels ("empirical") or averaged over labels drawn from the
model ("model"; Kunstner et al. 2019). J v comes from differentiating Jᵀu with respect to u, so that every
network with a double backward works.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from .convolutions import Convolution, TwiceDifferentiable
from .evaluation import logits
from .fields import Inputs
from .losses import Loss, binary_cross_entropy, cross_entropy, mean_squared_error, per_example_losses

Tensors = Sequence[Tensor | None]
ATTENTION = threading.RLock()  # which kernel computes attention is one choice for the whole process
_OF_SLOPE = 0.1  # of the length of a loss's gradient, as against the trace of its Hessian, see `output_weights`
CHOOSE_KERNELS = {F.scaled_dot_product_attention, F.multi_head_attention_forward}


@contextmanager
def double_backward() -> Iterator[None]:
    """Context in which attention has a second derivative (the fused kernels have none).

    PyTorch keeps this choice for the whole process: one thread at a time makes it, and networks that attend wait for
    the same lock.
    """
    with ATTENTION, sdpa_kernel(SDPBackend.MATH):
        yield


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """Context for a forward pass and a gradient that are differentiated again."""
    with double_backward(), torch.enable_grad(), TwiceDifferentiable():
        yield


class HessianGraph:
    """The gradient of one batch's summed loss, with the graph that a Hessian-vector product walks.

    Parameters
    ----------
    forward : callable
        Inputs to model output.
    loss : callable
        `(outputs, targets)` to per-example losses.
    parameters : sequence of Tensor
        What to differentiate by.
    x, y : Tensor
        The batch.
    """

    def __init__(self, forward: Callable, loss: Loss, parameters: Sequence[Tensor], x: Inputs, y: Tensor) -> None:
        self.parameters = list(parameters)
        with twice_differentiable():
            total = per_example_losses(loss, logits(forward(x)), y).sum()
            self.gradients = _gradients(total, self.parameters, create_graph=True)
        _refuse_broken_graph(self.gradients, total)
        used = [i for i, g in enumerate(self.gradients) if g is not None and g.requires_grad]
        self._used = used

    def product(self, pieces: Sequence[Tensor], keep: bool = True) -> Tensors:
        """H v, summed over the batch's examples; `keep` leaves the graph for another vector."""
        if not self._used:
            return [None] * len(self.parameters)
        outputs = [self.gradients[i] for i in self._used]
        with double_backward():
            return _gradients(outputs, self.parameters, [pieces[i] for i in self._used], retain_graph=keep)


class OutputGraph:
    """One batch's outputs z with the graphs of Jᵀu and J v, for Gauss-Newton and Fisher products."""

    def __init__(self, forward: Callable, loss: Loss, parameters: Sequence[Tensor], x: Inputs, y: Tensor) -> None:
        self.parameters, self.loss, self.targets = list(parameters), loss, y
        with twice_differentiable():
            self.outputs = logits(forward(x))
            self._u = torch.zeros_like(self.outputs, requires_grad=True)
            self._pulled = _gradients(self.outputs, self.parameters, self._u, create_graph=True)
        _refuse_broken_graph(self._pulled, self.outputs)
        self._used = [i for i, g in enumerate(self._pulled) if g is not None and g.requires_grad]

    def push(self, pieces: Sequence[Tensor]) -> Tensor:
        """J v, of the outputs' shape."""
        with double_backward():
            pushed = _gradients(
                [self._pulled[i] for i in self._used],
                [self._u],
                [pieces[i] for i in self._used],
                retain_graph=True,
            )[0]
        return torch.zeros_like(self.outputs) if pushed is None else pushed

    def pull(self, w: Tensor) -> Tensors:
        """Jᵀ w, of the parameters' shapes."""
        with double_backward():
            return _gradients(self.outputs, self.parameters, w, retain_graph=True)

    def gauss_newton(self, pieces: Sequence[Tensor]) -> Tensors:
        """Σ Jᵀ (∂²ℓ/∂z²) J v over the batch."""
        return self.pull(output_hessian_product(self.loss, self.outputs.detach(), self.targets, self.push(pieces)))

    def fisher(self, pieces: Sequence[Tensor], kind: str) -> Tensors:
        """Σ g (gᵀ v) over the batch, for `kind` "empirical" or "model"."""
        pushed, z = self.push(pieces), self.outputs.detach()
        if kind == "model":
            return self.pull(model_fisher_product(self.loss, z, pushed))
        with torch.enable_grad():
            leaf = z.requires_grad_(True)
            residual = torch.autograd.grad(per_example_losses(self.loss, leaf, self.targets).sum(), leaf)[0]
        weight = (residual * pushed).flatten(1).sum(1)
        return self.pull(residual * weight.view(-1, *([1] * (residual.dim() - 1))))


class ExampleGraph:
    """The gradient of one batch's losses, each under a weight of its own, for derivatives of single examples.

    The slope ∇(Σ uᵢℓᵢ)·v is linear in the weights u, and its derivative by u holds every ∇ℓᵢ·v; after one more
    derivative by θ it holds every vᵀ∇²ℓᵢw. That takes reverse mode alone, which every operation has (forward mode
    stops at some, the derivative of SiLU say), and never a matrix.

    Parameters
    ----------
    forward, loss, parameters, x, y
        As of :class:`HessianGraph`.
    """

    def __init__(self, forward: Callable, loss: Loss, parameters: Sequence[Tensor], x: Inputs, y: Tensor) -> None:
        self.parameters = list(parameters)
        with twice_differentiable():
            self._losses = per_example_losses(loss, logits(forward(x)), y)
            self._weights = torch.ones_like(self._losses, requires_grad=True)
            self._gradients = _gradients(self._weights @ self._losses, self.parameters, create_graph=True)
        _refuse_broken_graph(self._gradients, self._losses)

    def slopes(self, pieces: Sequence[Tensor]) -> Tensor:
        """∇ℓᵢ·v of each example, (n,)."""
        return self._each(self._gradients, pieces)

    def curvatures(self, pieces: Sequence[Tensor], others: Iterable[Sequence[Tensor]]) -> Tensor:
        """vᵀ∇²ℓᵢw of each example for each of k vectors w, (n, k), after one product with v."""
        with double_backward(), torch.enable_grad():
            slope = _inner(self._gradients, pieces)
            product: Tensors = [None] * len(self.parameters)
            if slope is not None:
                product = _gradients(slope, self.parameters, create_graph=True)
        _refuse_broken_graph(product, self._losses)
        return torch.stack([self._each(product, other) for other in others], dim=1)

    def _each(self, gradients: Tensors, pieces: Sequence[Tensor]) -> Tensor:
        """Differentiate the inner product of gradients and pieces by the weights of the examples."""
        with double_backward(), torch.enable_grad():
            along = _inner(gradients, pieces)
            found = None if along is None else _gradients(along, [self._weights], retain_graph=True)[0]
        return torch.zeros_like(self._losses) if found is None else found.detach()


class StatisticsGraph:
    """A block's share of the batch-norm statistics s(θ), with the graphs of Jᵀu and J v for its Jacobian J.

    Parameters
    ----------
    share : callable
        Gives the share, (S,).
    parameters : sequence of Tensor
        What to differentiate by.
    slope : Tensor of shape (S,)
        ∂L/∂s: the curvature of s that counts is that of slope · s.
    """

    def __init__(self, share: Callable[[], Tensor], parameters: Sequence[Tensor], slope: Tensor) -> None:
        self.parameters = list(parameters)
        with twice_differentiable():
            self.share = share()
            self._u = slope.detach().clone().requires_grad_()
            self._pulled: Tensors = [None] * len(self.parameters)
            if self.share.requires_grad:  # else no parameter of θ lies before a batch norm
                self._pulled = _gradients(self.share, self.parameters, self._u, create_graph=True)
        _refuse_broken_graph(self._pulled, self.share)
        self._used = [i for i, g in enumerate(self._pulled) if g is not None and g.requires_grad]

    def push(self, pieces: Sequence[Tensor]) -> Tensor:
        """J v, of shape (S,)."""
        if not self._used:
            return torch.zeros_like(self._u)
        outputs, along = [self._pulled[i] for i in self._used], [pieces[i] for i in self._used]
        with double_backward():
            pushed = _gradients(outputs, [self._u], along, retain_graph=True)[0]
        return torch.zeros_like(self._u) if pushed is None else pushed

    def pull(self, w: Tensor, pieces: Sequence[Tensor] | None, keep: bool = True) -> Tensors:
        """Jᵀ w, plus ∇²(slope · s) v where `pieces` of v are given."""
        if not self._used:
            return [None] * len(self.parameters)
        used = [] if pieces is None else self._used
        outputs, along = [self.share, *(self._pulled[i] for i in used)], [w, *(pieces[i] for i in used)]  # type: ignore
        with double_backward():
            return _gradients(outputs, self.parameters, along, retain_graph=keep)


def output_hessian_product(loss: Loss, z: Tensor, y: Tensor, v: Tensor) -> Tensor:
    """Multiply v by the Hessian of the per-example loss with respect to the outputs."""
    if loss is cross_entropy and z.dim() == 2 and not y.is_floating_point() and y.shape[1:] in ((), (1,)):
        p = z.softmax(1)
        return p * (v - (p * v).sum(1, keepdim=True))
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        first = torch.autograd.grad(per_example_losses(loss, leaf, y).sum(), leaf, create_graph=True)[0]
        if not first.requires_grad:
            return torch.zeros_like(z)
        return torch.autograd.grad(first, leaf, v, allow_unused=True, materialize_grads=True)[0]


def output_weights(loss: Loss, z: Tensor, y: Tensor, n_probes: int = 8) -> Tensor:
    """Tell how much each example weighs in the Hessian, as far as its outputs tell, (N,).

    The trace of the loss's Hessian in the outputs, which the network's Jacobian carries to its parameters, by probes of
    signs that are the same for all examples; and a tenth of the length of the loss's gradient, which scales the
    network's own curvature: an example that it is sure of and wrong about has no other.
    """
    generator = torch.Generator().manual_seed(0)
    trace = z.new_zeros(len(z))
    for _ in range(n_probes):
        signs = (torch.randint(0, 2, z.shape[1:], generator=generator).to(z) * 2 - 1).expand_as(z)
        trace += (signs * output_hessian_product(loss, z, y, signs)).flatten(1).sum(1) / n_probes
    with torch.enable_grad():
        leaf = z.detach().requires_grad_(True)
        slope = torch.autograd.grad(per_example_losses(loss, leaf, y).sum(), leaf)[0]
    return trace.abs() + _OF_SLOPE * slope.flatten(1).norm(dim=1)


def is_likelihood(loss: Loss, n_dims: int) -> bool:
    """Whether a loss of outputs with so many axes names a distribution that labels can be drawn from."""
    return loss in (mean_squared_error, binary_cross_entropy) or (loss is cross_entropy and n_dims == 2)


def model_fisher_product(loss: Loss, z: Tensor, v: Tensor) -> Tensor:
    """Multiply v by the Fisher matrix of the outputs under the model's own predictive distribution.

    For cross-entropy this is diag(p) − ppᵀ. The squared error belongs to a Gaussian whose gradient has
    variance 2/C for each output when its own variance is that of ℓ = ‖z − y‖²/C read as a negative log-likelihood, and
    the binary cross-entropy in the same way to labels drawn by themselves, with p(1 − p)/C.
    """
    if loss is binary_cross_entropy:
        p = z.sigmoid()
        return v * p * (1 - p) / z[0].numel()
    if loss is cross_entropy and z.dim() == 2:
        p = z.softmax(1)
        return p * (v - (p * v).sum(1, keepdim=True))
    if loss is mean_squared_error:
        return v * (2.0 / z[0].numel())
    raise ValueError(
        "kind must be 'empirical' for a loss that is not the log-likelihood of a known distribution (a mean over "
        "positions is none), got 'model'. Use loss='cross_entropy', 'mse' or 'bce' with one prediction per example, or "
        "the empirical Fisher."
    )


def _inner(gradients: Tensors, pieces: Sequence[Tensor]) -> Tensor | None:
    """Inner product of gradients that have a graph with the pieces of a vector; None where none has."""
    terms = [(g * v).sum() for g, v in zip(gradients, pieces, strict=True) if g is not None and g.requires_grad]
    return torch.stack(terms).sum() if terms else None


def graph_nodes(roots: Sequence[Tensor | None]) -> set:
    """Collect every node of the graphs that end in `roots`."""
    seen: set = set()
    waiting = [root.grad_fn for root in roots if root is not None and root.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += [following for following, _ in node.next_functions if following is not None]
    return seen


def _refuse_broken_graph(gradients: Tensors, value: Tensor) -> None:
    """Raise where a `once_differentiable` function cuts the graph: autograd prunes its error node and says 0."""
    if all(node.name() != "torch::autograd::Error" for node in graph_nodes(gradients)):
        return
    foreign = [node for node in graph_nodes([value]) if getattr(node, "_forward_cls", Convolution) is not Convolution]
    names = {node.name().removesuffix("Backward") for node in foreign}
    raise ValueError(
        "The model must have a second derivative (double backward) for curvature, and it does not: its custom "
        f"autograd function {' or '.join(sorted(names)) or 'of unknown name'} is once_differentiable. Replace that "
        "operation by one written in plain PyTorch operations, or use measures that need no Hessian."
    )


def _gradients(outputs: Any, inputs: Sequence[Tensor], grad_outputs: Any = None, **options: bool) -> Tensors:
    try:
        return torch.autograd.grad(outputs, inputs, grad_outputs, allow_unused=True, **options)
    except (RuntimeError, NotImplementedError) as error:
        text = str(error)
        if "derivative for" in text or "does not require grad" in text or "not implemented" in text:
            raise ValueError(
                "The model must have a second derivative (double backward) for curvature, and it does not: "
                f"{text.splitlines()[0]} Replace that operation by one written in plain PyTorch operations, "
                "or use measures that need no Hessian."
            ) from error
        raise
