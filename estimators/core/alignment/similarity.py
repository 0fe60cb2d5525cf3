"""How alike two networks are in what they compute, and a picture of many of them.

References
----------
Kornblith et al. 2019, *Similarity of Neural Network Representations Revisited* (linear CKA);
Song et al. 2012, *Feature Selection via Dependence Maximization* (the unbiased estimate of HSIC);
Nguyen, Raghu & Kornblith 2021, *Do Wide and Deep Networks Learn the Same Things?* (CKA from it);
Murphy, Zylberberg & Fyshe 2024, *Correcting Biased Centered Kernel Alignment Measures* (why few examples need it);
Torgerson 1952, *Multidimensional Scaling: I. Theory and Method* (classical scaling).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same examples, without the bias of few examples.

    The plain estimate calls random features alike where they outnumber the examples (0.76 for 16 examples). Here the
    three HSICs are the unbiased ones of Song et al. (2012), as Nguyen et al. (2021) and Murphy et al. (2024) use
    them: independent features give 0 on average, whatever their number.

    Parameters
    ----------
    x, y : Tensor of shape (N, p) and (N, q)
        Rows belong to the same examples.

    Returns
    -------
    float
        At most 1 up to chance; 1 when one is a rotation and scaling of the other, about 0, and then as often below it,
        when they have nothing in common. NaN when one is constant, or for fewer than 4 examples.
    """
    n = len(x)
    if n < 4:
        return float("nan")
    x, y = x.double(), y.double()
    x, y = x - x.mean(0), y - y.mean(0)
    norms = _unbiased_hsic(x, x), _unbiased_hsic(y, y)
    return _unbiased_hsic(x, y) / (norms[0] * norms[1]) ** 0.5 if min(norms) > 0 else float("nan")


def _unbiased_hsic(x: Tensor, y: Tensor) -> float:
    """HSIC₁ of Song et al. (2012), equation 5, times n(n − 3), for linear kernels without their diagonals."""
    n = len(x)
    diagonals = x.square().sum(1), y.square().sum(1)
    rows = x @ x.sum(0) - diagonals[0], y @ y.sum(0) - diagonals[1]
    by_examples = x.shape[1] * y.shape[1] > n * n  # N × N instead of p × q, whichever is smaller
    both = ((x @ x.T) * (y @ y.T)).sum() if by_examples else (x.T @ y).square().sum()
    both = both - diagonals[0].dot(diagonals[1])
    return float(both + rows[0].sum() * rows[1].sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows[0].dot(rows[1]))


def find_classifier(module: nn.Module) -> nn.Module | None:
    """Find the layer whose input is called the features: timm's classifier, else the last linear layer."""
    get_classifier: Any = getattr(module, "get_classifier", None)
    found = get_classifier() if get_classifier is not None else None
    if isinstance(found, nn.Linear):
        return found
    layers = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return layers[-1] if layers else None


@torch.no_grad()
def features(module: nn.Module, batches: Iterable[Tensor]) -> Tensor | None:
    """Collect what enters the classifier, of shape (N, p); None where no linear layer is the last.

    Parameters
    ----------
    module : nn.Module
        The network, in the mode it is to be run in.
    batches : iterable of Tensor
        Inputs.
    """
    classifier = find_classifier(module)
    if classifier is None:
        return None
    seen: list[Tensor] = []
    handle = classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    try:
        for batch in batches:
            module(batch)
    finally:
        handle.remove()
    # tokens or pixels before a late pooling are averaged, the feature axis is the last one of a linear layer
    return torch.cat([s.reshape(len(s), -1, s.shape[-1]).mean(1) for s in seen]) if seen else None


def classical_scaling(distances: np.ndarray, n_dims: int = 2) -> tuple[np.ndarray, float]:
    """Place points so that their distances resemble those given.

    Parameters
    ----------
    distances : ndarray of shape (m, m)
        Symmetric, zero diagonal.
    n_dims : int, default=2
        Dimensions of the picture.

    Returns
    -------
    (ndarray of shape (m, n_dims), float)
        Coordinates, centred, each axis with its largest entry positive; and the share of the (absolute)
        squared spread that the picture keeps: 1 when it shows every distance as it is.
    """
    m = len(distances)
    centring = np.eye(m) - 1.0 / m
    values, vectors = np.linalg.eigh(-0.5 * centring @ np.square(distances) @ centring)
    values, vectors = values[::-1], vectors[:, ::-1]
    kept = np.zeros((m, n_dims))
    used = min(n_dims, m)
    kept[:, :used] = vectors[:, :used] * np.sqrt(np.maximum(values[:used], 0.0))
    signs = np.sign(kept[np.abs(kept).argmax(0), np.arange(n_dims)])
    total = np.abs(values).sum()
    share = float(np.maximum(values[:used], 0.0).sum() / total) if total > 0 else 1.0
    return kept * np.where(signs == 0, 1.0, signs), share


def connected_groups(barriers: np.ndarray, tolerance: float) -> np.ndarray:
    """Find the groups of points joined, directly or in steps, by barriers of at most ``tolerance``.

    Parameters
    ----------
    barriers : ndarray of shape (m, m)
        NaN counts as not joined.
    tolerance : float
        In the unit of the loss.

    Returns
    -------
    ndarray of shape (m,)
        Group numbers from 0, in the order of first appearance.
    """
    joined = np.nan_to_num(barriers, nan=np.inf) <= tolerance
    _, labels = connected_components(joined, directed=False)
    order: dict[int, int] = {}
    return np.array([order.setdefault(int(label), len(order)) for label in labels])
