"""Batch-norm statistics: who may write them, and how they follow from θ.

Under "recompute" the statistics s(θ) are part of the function L. They are defined by the fixed examples alone,
whatever the batch size: the examples are cut, in their order, into blocks of near-equal size
(:func:`statistics_blocks`). In each block every layer normalises with the block's own statistics, as in training,
and its mean and its unbiased variance are kept; s is their mean over the blocks, every example weighing the same.
With blocks of one size that is what `torch.optim.swa_utils.update_bn` computes over them (Izmailov et al. 2018, 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .fields import Inputs

POLICIES = {
    "frozen": "running statistics of the checkpoint itself, the same at every point",
    "recompute": "running statistics estimated again at each point from the fixed examples",
    "batch": "statistics of each batch of examples, as in training",
}
AUTO = "auto"  # frozen around one network, recompute where points come from several

LARGEST_BLOCK, SMALLEST_BLOCK = 512, 64  # examples that are normalised together at most, however large they are
NUMBERS_IN_BLOCK = 2**24  # of the inputs: 512 images of 96 × 96 pixels, 111 of 224 × 224


def resolved_policy(batch_norm: str, several_networks: bool) -> str:
    """Give the policy that "auto" stands for; any other stands for itself."""
    if batch_norm != AUTO:
        return batch_norm
    return "recompute" if several_networks else "frozen"


def policy_settings(batch_norm: str, several_networks: bool) -> dict[str, str]:
    """Say in a result which policy was taken, and that "auto" chose it."""
    by = {"batch_norm_chosen_by": AUTO} if batch_norm == AUTO else {}
    return {"batch_norm": resolved_policy(batch_norm, several_networks), **by}


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """List the batch-norm layers that keep running statistics."""
    return [m for m in module.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


def uses_batch_statistics(module: nn.Module) -> bool:
    """Tell whether a layer normalises a training batch with its own statistics, which one example does not have."""
    return any(isinstance(m, _BatchNorm) for m in module.modules())


@contextmanager
def batch_statistics(module: nn.Module):
    """Let batch-norm layers normalise with each batch's own statistics; running statistics stay as they are."""
    layers = batch_norms(module)
    saved = [(m.training, m.running_mean, m.running_var, m.num_batches_tracked) for m in layers]
    for m in layers:
        m.running_mean, m.running_var = m.running_mean.clone(), m.running_var.clone()  # type: ignore[union-attr]
        if m.num_batches_tracked is not None:
            m.num_batches_tracked = m.num_batches_tracked.clone()
        m.train()
    try:
        yield
    finally:
        for m, (training, mean, var, count) in zip(layers, saved, strict=True):
            m.running_mean, m.running_var, m.num_batches_tracked = mean, var, count
            m.train(training)


def statistics_blocks(inputs: Inputs) -> Sequence[Inputs]:
    """Cut the fixed examples, in their order, into the blocks that statistics are estimated on.

    Parameters
    ----------
    inputs : Tensor of shape (N, ...)

    Returns
    -------
    sequence of Tensor
        Views, as few as keep each at 512 examples or fewer (large examples: at `NUMBERS_IN_BLOCK` numbers, but at least
        64 examples); sizes differ by one at most, so that none is a rest of a few examples.
    """
    most = NUMBERS_IN_BLOCK // max(1, inputs[0].numel())
    most = max(min(most, LARGEST_BLOCK), min(SMALLEST_BLOCK, LARGEST_BLOCK))
    return inputs.tensor_split(-(-len(inputs) // most))


@torch.no_grad()
def recompute_statistics(
    module: nn.Module, batches: Iterable[Inputs], forward: Callable[[Any], object] | None = None
) -> int:
    """Set running statistics to their mean over `batches`, every example weighing the same.

    Layers other than batch norm keep their mode, so dropout stays off; a layer that the forward pass does not reach
    keeps its statistics. The layers' momentum does not matter.

    Parameters
    ----------
    module : nn.Module
        Changed in place: running means, variances and batch counters.
    batches : iterable of tensors
        Inputs, batch first; :func:`statistics_blocks` of the fixed examples for the statistics of L.
    forward : callable or None
        Called with each batch; None calls `module`.

    Returns
    -------
    int
        How many layers there are; 0 means there was nothing to do.
    """
    layers = batch_norms(module)
    if not layers:
        return 0
    saved = [(m.training, m.momentum) for m in layers]
    seen = dict.fromkeys(layers, 0)

    def weigh(layer: _BatchNorm, inputs: tuple) -> None:
        if not seen[layer]:
            layer.reset_running_stats()
        seen[layer] += len(inputs[0])
        layer.momentum = len(inputs[0]) / seen[layer]

    hooks = [m.register_forward_pre_hook(weigh) for m in layers]
    for m in layers:
        m.train()
    try:
        for batch in batches:
            (forward or module)(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for m, (training, momentum) in zip(layers, saved, strict=True):
            m.train(training)
            m.momentum = momentum
    for m in layers:
        # an overflowed variance would switch its channel off and leave a finite, meaningless loss: let it be seen
        m.running_var.masked_fill_(m.running_var.isinf(), float("nan"))  # type: ignore[union-attr]
    return len(layers)


# -- the same statistics as one vector (S,), with derivatives ----------------------------------------------------


def statistics_vector(layers: Sequence[_BatchNorm]) -> Tensor:
    """Join running means and variances of all layers, (S,): mean and variance of the first, of the second, ..."""
    return torch.cat([part for m in layers for part in (m.running_mean, m.running_var)])  # type: ignore[misc]


def statistics_of_block(module: nn.Module, forward: Callable[[Any], object], x: Inputs) -> Tensor:
    """Give the statistics (S,) of one block, with the graph that leads back to the parameters."""
    layers = batch_norms(module)
    seen: dict[_BatchNorm, list[Tensor]] = {m: [] for m in layers}

    def look(layer: _BatchNorm, inputs: tuple) -> None:
        values = inputs[0].to(layer.running_mean.dtype)  # type: ignore[union-attr]
        variance, mean = torch.var_mean(values, [d for d in range(values.dim()) if d != 1], correction=1)
        seen[layer].append(torch.cat([mean, variance.masked_fill(variance.isinf(), float("nan"))]))

    own = [statistics_vector([m]) for m in layers]
    hooks = [m.register_forward_pre_hook(look) for m in layers]
    try:
        with batch_statistics(module):
            forward(x)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.cat([torch.stack(seen[m]).mean(0) if seen[m] else kept for m, kept in zip(layers, own, strict=True)])


@contextmanager
def normalising_by(layers: Sequence[_BatchNorm], statistics: Tensor) -> Iterator[None]:
    """Let layers in eval mode normalise by `statistics` (S,), which torch's own kernel would not differentiate by."""
    pieces = torch.split(statistics, [n for m in layers for n in (m.num_features, m.num_features)])
    mean_of, variance_of = dict(zip(layers, pieces[::2], strict=True)), dict(zip(layers, pieces[1::2], strict=True))
    saved = [(m.running_mean, m.running_var) for m in layers]

    def normalise(layer: _BatchNorm, inputs: tuple) -> tuple:
        x = inputs[0]
        shape = (1, -1) + (1,) * (x.dim() - 2)
        scale = (variance_of[layer] + layer.eps).rsqrt()
        shift = -mean_of[layer] * scale
        return (torch.addcmul(shift.view(shape), x, scale.view(shape)).to(x.dtype),)

    hooks = [m.register_forward_pre_hook(normalise) for m in layers]
    for m in layers:  # what is left to the layer is its weight and bias
        m.running_mean = torch.zeros_like(m.running_mean)  # type: ignore[arg-type]
        m.running_var = torch.full_like(m.running_var, 1.0 - m.eps)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for m, (mean, variance) in zip(layers, saved, strict=True):
            m.running_mean, m.running_var = mean, variance
