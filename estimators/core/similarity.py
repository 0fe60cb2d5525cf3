"""How alike two networks are in what they compute, and a picture of many of them.

References
----------
Kornblith et al. 2019, *Similarity of Neural Network Representations Revisited* (linear CKA);
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
    """Linear centred kernel alignment of two representations of the same examples.

    Parameters
    ----------
    x, y : Tensor of shape (N, p) and (N, q)
        Rows belong to the same examples.

    Returns
    -------
    float
        In [0, 1]; 1 when one is a rotation and scaling of the other. NaN when one is constant.
    """
    x, y = x.double(), y.double()
    x, y = x - x.mean(0), y - y.mean(0)
    if x.shape[1] > len(x) or y.shape[1] > len(y):  # N × N instead of p × q, whichever is smaller
        k, m = x @ x.T, y @ y.T
        return float((k * m).sum() / (k.norm() * m.norm()))
    return float((x.T @ y).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


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
