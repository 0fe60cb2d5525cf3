"""Whether automatic differentiation gives the derivatives of the loss: looked at once, before the first of a kind.

A network may hold operations whose derivative is wrong or missing without a word: reentrant checkpointing, a custom
function, a rounding with a straight-through gradient. On a few examples, in a float64 copy, along one random direction,
a gradient is compared with a difference of losses and a product with a difference of gradients. The directions and
the point are random, so that no kink lies exactly there; a step of 1e-7 crosses almost none. A mismatch counts where
two steps agree with each other and both disagree with the derivative, for each of two directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from .batchnorm import batch_statistics
from .copying import cast, private_copy
from .evaluation import logits
from .fields import Inputs, in_precision
from .losses import Loss, per_example_losses
from .products import HessianGraph, OutputGraph, double_backward, graph_nodes
from .working_copy import free_memory

#: Relative to the size a derivative along a random direction has.
TOLERANCE = 1e-3
_STEPS = (1e-7, 1e-6, 1e-5, 1e-3)  # the larger ones for a network that computes in float32 inside
_SEEDS = (0, 1)


class _Copy:
    """A float64 copy of a network standing near the network's point."""

    def __init__(
        self,
        module: nn.Module,
        theta: Tensor,
        groups: Sequence[Sequence[str]],
        loss: Loss,
        x: Inputs,
        y: Tensor,
        batch_norm: str,
    ) -> None:
        self.module = cast(private_copy(module), x.device, torch.float64)
        named = dict(self.module.named_parameters(remove_duplicate=False))
        self.parameters = [named[names[0]] for names in groups]
        for names in groups:
            for other in names[1:]:  # tied by memory, which a copy loses
                named[other].data = named[names[0]].data
        self.names = [names[0] for names in groups]
        self.sizes = [p.numel() for p in self.parameters]
        self.loss, self.batch_norm = loss, batch_norm
        self.x, self.y = in_precision(x, torch.float64), in_precision(y, torch.float64)
        self.theta = self.base = theta.double()

    def split(self, vector: Tensor) -> list[Tensor]:
        return [v.view(p.shape) for v, p in zip(vector.split(self.sizes), self.parameters, strict=True)]

    def join(self, tensors: Sequence[Tensor | None]) -> Tensor:
        pairs = zip(tensors, self.parameters, strict=True)
        return torch.cat([(torch.zeros_like(p) if t is None else t).reshape(-1) for t, p in pairs]).detach()

    @torch.no_grad()
    def load(self, theta: Tensor) -> None:
        for parameter, value in zip(self.parameters, self.split(theta), strict=True):
            parameter.copy_(value)

    def directions(self, seed: int) -> tuple[Tensor, Tensor]:
        """Go near the point; give two directions in which every layer moves by its own size."""
        generator = torch.Generator().manual_seed(seed)
        n = len(self.theta)
        # a block of random numbers, over and over: of a length that no layer has, and quick for large networks
        blocks = torch.randn(3, min(n, 100_003), generator=generator, dtype=torch.float64).to(self.theta)
        noise = blocks.repeat(1, -(-n // blocks.shape[1]))[:, :n]
        for piece, part in zip(noise.split(self.sizes, dim=1), self.theta.split(self.sizes), strict=True):
            piece *= float(part.square().mean().sqrt()) or 0.1
        self.base = self.theta + 1e-3 * noise[0]
        self.load(self.base)
        return noise[1], noise[2]

    def policy(self) -> AbstractContextManager:
        return nullcontext() if self.batch_norm == "frozen" else batch_statistics(self.module)

    def forward(self, x: Inputs) -> Tensor:
        return logits(self.module(x.clone()))

    def total(self, theta: Tensor) -> Tensor:
        self.load(theta)
        return per_example_losses(self.loss, self.forward(self.x), self.y).sum()

    @torch.no_grad()
    def value(self, theta: Tensor) -> Tensor:
        return self.total(theta)[None]

    @torch.no_grad()
    def outputs(self, theta: Tensor) -> Tensor:
        self.load(theta)
        return self.forward(self.x)

    def gradient(self, theta: Tensor) -> Tensor:
        with torch.enable_grad(), double_backward():
            parts = torch.autograd.grad(self.total(theta), self.parameters, allow_unused=True)
        return self.join(parts)


def check_derivatives(
    kind: str,
    module: nn.Module,
    theta: Tensor,
    groups: Sequence[Sequence[str]],
    loss: Loss,
    x: Inputs,
    y: Tensor,
    batch_norm: str = "frozen",
) -> str:
    """Compare derivatives of one kind with differences.

    Parameters
    ----------
    kind : {"gradient", "hessian", "outputs"}
        The gradient of the loss; its products with the Hessian; those of the outputs with the Jacobian.
    module : nn.Module
        In eval mode; it is copied.
    theta : Tensor of shape (P,)
        Near which to look.
    groups : sequence of sequences of str
        The names of each parameter in θ; of more than one, the parameters share their memory.
    loss : callable
        `(outputs, targets)` → per-example losses.
    x, y : Tensor
        A few examples.
    batch_norm : str
        Policy: under other ones than "frozen" the copy uses the statistics of these examples.

    Returns
    -------
    str
        Why nothing was compared; empty where it was.

    Raises
    ------
    ValueError
        If the derivative is not that of the loss, with what was found and where.
    """
    n_bytes = sum(t.numel() for t in (*module.parameters(), *module.buffers())) * 8
    if 3 * n_bytes > 0.25 * free_memory(x.device):
        return "not compared with differences: a float64 copy of the network would take too much memory"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            made = _Copy(module, theta, groups, loss, x, y, batch_norm)
            with made.policy():
                made.value(made.theta)
        except RuntimeError as error:
            return f"not compared with differences: no float64 copy of the network runs ({str(error).splitlines()[0]})"
        try:
            with made.policy():
                found = [_compare(made, kind, seed) for seed in _SEEDS[:1]]
                if found[0]:
                    found += [_compare(made, kind, seed) for seed in _SEEDS[1:]]
        except RuntimeError as error:
            if "use_reentrant" not in str(error):
                raise
            found = ["is not to be had through it"]
    if all(found):
        what = {"gradient": "gradient", "hessian": "second derivative", "outputs": "derivative of its outputs"}[kind]
        raise ValueError(
            f"The model's {what} must be that of its loss, but automatic differentiation gives another one: along a "
            f"random direction it {found[0]}.{_cause(made, kind, [str(w.message) for w in said])} "
            "Replace that operation by one written in plain PyTorch operations, or use measures that need no "
            "derivative."
        )
    return ""


def _compare(made: _Copy, kind: str, seed: int) -> str:
    """Say how a derivative differs from the differences; empty where it does not, or where these are not clear."""
    v, w = made.directions(seed)
    base, function, symmetric = made.base, made.value, True
    if kind == "gradient":
        terms = made.gradient(base) * v
        derivative, size, floor = terms.sum()[None], terms.norm(), made.value(base).abs().max() * 1e-6
    elif kind == "hessian":
        graph = HessianGraph(made.forward, made.loss, made.parameters, made.x, made.y)
        hv = made.join(graph.product(made.split(v)))
        hw = made.join(graph.product(made.split(w), keep=False))
        derivative, size = (w * hv).sum()[None], torch.maximum((w * hv).norm(), (v * hw).norm())
        floor = (w * made.gradient(base)).norm() * 1e-6
        symmetric = bool((derivative - v.dot(hw)).abs() <= TOLERANCE * torch.maximum(size, derivative.abs()) + floor)

        def function(theta: Tensor) -> Tensor:
            return w.dot(made.gradient(theta))[None]
    else:
        jacobian = OutputGraph(made.forward, made.loss, made.parameters, made.x, made.y)
        derivative, function = jacobian.push(made.split(v)).detach(), made.outputs
        size, floor = derivative.norm(), function(base).norm() * 1e-6
    if not derivative.isfinite().all():
        return ""
    seen: list[Tensor] = []
    for step in _STEPS:
        difference = (function(base + step * v) - function(base - step * v)) / (2 * step)
        allowed = TOLERANCE * torch.maximum(size, difference.norm()) + floor
        if (difference - derivative).norm() <= allowed:
            made.load(base)
            if symmetric:
                return ""
            return f"gives vᵀHw = {float(derivative.sum()):.6g} and wᵀHv = {float(v.dot(hw)):.6g}, which must be equal"
        if any((difference - other).norm() <= allowed for other in seen):
            given, right = (float(t.norm() if len(t) > 1 else t.sum()) for t in (derivative, difference))
            return f"gives {given:.6g} where the difference of {_DIFFERENCES[kind]} is {right:.6g}"
        seen.append(difference)
    return ""


_DIFFERENCES = {"gradient": "losses", "hessian": "gradients", "outputs": "outputs"}


def _cause(made: _Copy, kind: str, said: Sequence[str]) -> str:
    """Name what is to blame: warnings, custom functions, and the parameters whose part is wrong."""
    causes = []
    if any("requires_grad=True. Gradients will be None" in text for text in said) or _uses_reentrant(made):
        causes.append("reentrant checkpointing cuts the graph: call checkpoint with use_reentrant=False")
    with torch.enable_grad():
        names = _custom_functions(made.total(made.base))
    if names:
        causes.append(f"the custom autograd function {' or '.join(names)} is in it")
    if kind == "gradient":
        wrong = _wrong_parameters(made)
        if wrong:
            causes.append(f"wrong for {', '.join(wrong[:5])}{' and others' if len(wrong) > 5 else ''}")
    return f" Found: {'; '.join(causes)}." if causes else ""


def _uses_reentrant(made: _Copy) -> bool:
    with torch.enable_grad():
        return "CheckpointFunctionBackward" in {n.name() for n in graph_nodes([made.total(made.base)])}


def _custom_functions(value: Tensor) -> list[str]:
    return sorted({n.name().removesuffix("Backward") for n in graph_nodes([value]) if hasattr(n, "_forward_cls")})


def _wrong_parameters(made: _Copy) -> list[str]:
    """Name the parameters whose own part of the gradient along a direction is wrong (of the first hundred)."""
    v, _ = made.directions(_SEEDS[0])
    try:
        gradient = made.gradient(made.base)
    except RuntimeError:
        return []
    wrong = []
    for i, name in enumerate(made.names[:100]):
        part = made.join([piece if j == i else None for j, piece in enumerate(made.split(v))])
        step = _STEPS[0]
        difference = (made.value(made.base + step * part) - made.value(made.base - step * part)) / (2 * step)
        size = (gradient * part).norm() + difference.abs() + 1e-6 * made.value(made.base).abs()
        if bool((difference - gradient.dot(part)).abs() > 10 * TOLERANCE * size):
            wrong.append(name)
    return wrong
