"""What a network takes is told from its shapes: right, quickly, and without allocating it."""

from __future__ import annotations

import resource
import sys

import pytest
import torch
from torch import nn

from estimators import Landscape, footprint, free_memory, load_data, load_model
from estimators.memory import _Peak


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "deep_thin_resnet", "levit_128s"])
def test_parameters_and_weights_are_those_of_the_built_network(name):
    side = 224 if name == "levit_128s" else 32
    size = footprint(name, num_classes=7, image_size=side, batch_size=2)
    model = load_model(name, num_classes=7, image_size=side)
    tensors = [*model.parameters(), *model.buffers()]
    assert size.n_parameters == sum(p.numel() for p in model.parameters())
    assert size.vector == 4 * size.n_parameters
    assert size.weights == pytest.approx(sum(t.nbytes for t in tensors), rel=0.1)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_activations_are_those_that_autograd_keeps(name):
    """Networks without batch norm to fold, whose landscape measures the same on real tensors."""
    land = Landscape(load_model(name, num_classes=10, image_size=32), load_data("digits", n_samples=8))
    kept = land._network.activation_bytes(land)
    size = footprint(name, num_classes=10, image_size=32, batch_size=16, derivatives=True)
    assert size.activations / 16 == pytest.approx(kept, rel=0.25)


def test_a_forward_pass_alone_needs_less_and_grows_with_the_batch():
    few = footprint("test_resnet", num_classes=10, image_size=32, batch_size=8)
    many = footprint("test_resnet", num_classes=10, image_size=32, batch_size=32)
    kept = footprint("test_resnet", num_classes=10, image_size=32, batch_size=32, derivatives=True)
    assert many.activations == pytest.approx(4 * few.activations, rel=0.05)
    assert few.activations < many.activations < kept.activations
    wide = footprint("test_resnet", num_classes=10, image_size=32, batch_size=32, precision="float64")
    assert (wide.weights, wide.vector) == (2 * many.weights, 2 * many.vector)
    assert many.total(vectors=3, networks=2) == 5 * many.weights + 3 * many.vector + many.activations


def test_a_model_of_300_million_weights_is_not_allocated():
    footprint("test_vit", num_classes=10, image_size=32)  # imports, and torch's meta kernels
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = footprint("vit_large_patch16_224", num_classes=10, image_size=224, batch_size=64)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert size.n_parameters == 303_311_882
    assert grown * (1 if sys.platform == "darwin" else 1024) < 0.1 * size.weights


def test_the_random_state_and_other_threads_are_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    footprint("test_resnet", num_classes=10, image_size=32)
    assert torch.equal(torch.rand(3), expected)
    assert torch.empty(2).device.type == "cpu"


def test_an_unknown_name_is_refused_and_free_memory_is_told():
    with pytest.raises(ValueError, match="timm architecture"):
        footprint("vit_hugest")
    assert free_memory("cpu") > 2**28


class Wide(nn.Module):
    """Mostly weights; its convolution makes the layout of the buffer another one than that of θ."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.Sequential(nn.Flatten(), *(nn.Linear(512, 512) for _ in range(16)))
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        return self.head(self.wide(self.conv(x)))


def test_building_a_landscape_takes_three_times_the_weights():
    """Its own copy, the one that moves, and θ; vit_base took twelve times its weights for tables of the layout."""
    model = Wide()
    weights = sum(p.nbytes for p in model.parameters())
    with _Peak(model) as peak:
        land = Landscape(model, (torch.randn(8, 3, 8, 8), torch.randint(0, 10, (8,))))
    assert peak.most < 3.2 * weights
    assert land.loss() == land.loss(land.theta.clone())
