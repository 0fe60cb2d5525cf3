"""Small smooth objectives that the tests of critical points, saddles and optimisers share."""

import torch
from torch import nn

from estimators.core.network.losses import cross_entropy
from estimators.core.saddles.objectives import Objective, network_objective


def blobs(n=48, n_features=4, n_classes=3, seed=0):
    """Noisy clusters, unbalanced on purpose."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n_classes, n_features, generator=generator, dtype=torch.float64)
    targets = torch.arange(n) % (n_classes + 1)
    targets = torch.where(targets == n_classes, 0, targets)
    noise = torch.randn(n, n_features, generator=generator, dtype=torch.float64)
    return centres[targets] + 1.5 * noise, targets


def tanh_mlp(n_features=4, hidden=4, n_classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(n_features, hidden), nn.Tanh(), nn.Linear(hidden, n_classes))
    return net.double()


def objective_of(module, inputs, targets, l2=0.0):
    named = dict(module.named_parameters())
    return network_objective(
        module, tuple(named), tuple(tuple(p.shape) for p in named.values()), inputs, targets, cross_entropy, l2
    )


def small_objective(l2=1e-2, **kwargs):
    inputs, targets = blobs()
    return objective_of(tanh_mlp(**kwargs), inputs, targets, l2)


def quadratic(curvatures, n_examples=8):
    """½ Σ λᵢ θᵢ², with no noise between examples."""
    diagonal = torch.as_tensor(curvatures, dtype=torch.float64)

    def function(theta, zeros):
        return 0.5 * (diagonal * theta * theta).sum() + (zeros.mean(0) * theta).sum()

    return Objective(function, (torch.zeros(n_examples, len(diagonal), dtype=torch.float64),), len(diagonal))
