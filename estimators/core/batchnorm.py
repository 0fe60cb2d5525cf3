"""Batch-norm statistics: who may write them, and how they are estimated again at a new point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

POLICIES = {
    "frozen": "running statistics of the checkpoint itself, the same at every point",
    "recompute": "running statistics estimated again at each point (cumulative mean over the examples)",
    "batch": "statistics of each batch of examples, as in training",
}


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


@torch.no_grad()
def recompute_statistics(
    module: nn.Module, batches: Iterable[Tensor], forward: Callable[[Tensor], object] | None = None
) -> int:
    """Re-estimate running statistics as the cumulative mean over `batches` (Izmailov et al. 2018, section 3.2).

    Every batch weighs the same, whatever the layers' momentum is, as in `torch.optim.swa_utils.update_bn`.
    Layers other than batch norm keep their mode, so dropout stays off.

    Parameters
    ----------
    module : nn.Module
        Changed in place: running means, variances and batch counters.
    batches : iterable of tensors
        Inputs, batch first.
    forward : callable or None
        Called with each batch; None calls `module`.

    Returns
    -------
    int
        How many layers were re-estimated; 0 means there was nothing to do.
    """
    layers = batch_norms(module)
    if not layers:
        return 0
    saved = [(m.training, m.momentum) for m in layers]
    for m in layers:
        m.reset_running_stats()
        m.momentum = None
        m.train()
    try:
        for batch in batches:
            (forward or module)(batch)
    finally:
        for m, (training, momentum) in zip(layers, saved, strict=True):
            m.train(training)
            m.momentum = momentum
    for m in layers:
        # an overflowed variance would switch its channel off and leave a finite, meaningless loss: let it be seen
        m.running_var.masked_fill_(m.running_var.isinf(), float("nan"))  # type: ignore[union-attr]
    return len(layers)
