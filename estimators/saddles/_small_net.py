"""The small smooth network and the pooled digits on which critical points can be found exactly."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from ..data import Examples


def small_net(n_features: int = 4, hidden: int = 4, n_classes: int = 3, random_state: int = 0) -> nn.Module:
    """Make a tanh network with one hidden layer, in float64.

    Parameters
    ----------
    n_features, hidden, n_classes : int, default=4, 4, 3
        Widths; the defaults give 35 parameters.
    random_state : int, default=0
        Seed of the initial weights; the global random state is left alone.

    Returns
    -------
    nn.Module
    """
    generator = torch.Generator().manual_seed(random_state)
    with torch.random.fork_rng(devices=[]):
        net = nn.Sequential(nn.Linear(n_features, hidden), nn.Tanh(), nn.Linear(hidden, n_classes)).double()
    with torch.no_grad():
        for parameter in net.parameters():
            draws = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.5 * draws)
    net.provenance = {  # type: ignore[assignment]
        "architecture": f"tanh network {n_features}-{hidden}-{n_classes}",
        "weights": f"random, seed {random_state}",
    }
    return net.eval()


def pooled_digits(side: int = 2, n_classes: int = 3, n_samples: int = 200) -> Examples:
    """Take scikit-learn's digits, average-pooled to a few features and standardised.

    Parameters
    ----------
    side : int, default=2
        Images of 8 × 8 are pooled to `side` × `side`; 1, 2, 4 or 8.
    n_classes : int, default=3
        Digits 0 to n_classes − 1 are kept, 2 to 10.
    n_samples : int, default=200
        The first so many of them.

    Returns
    -------
    data : Examples
        Inputs of shape (N, side²), float64.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if side not in (1, 2, 4, 8):
        raise ValueError(f"side must be 1, 2, 4 or 8, got {side!r}. Images have 8 × 8 pixels.")
    if not 2 <= n_classes <= 10:
        raise ValueError(f"n_classes must be between 2 and 10, got {n_classes!r}. There are ten digits.")
    images, targets = load_digits(return_X_y=True)
    kept = targets < n_classes
    pixels = torch.as_tensor(images[kept]).view(-1, 1, 8, 8)
    features = F.avg_pool2d(pixels, 8 // side).flatten(1)[:n_samples]
    features = (features - features.mean(0)) / features.std(0).clamp_min(1e-6)
    name = f"digits 0–{n_classes - 1} pooled to {side * side} features"
    return Examples(
        features, torch.as_tensor(targets[kept][:n_samples]), tuple(map(str, range(n_classes))), name, "all"
    )
