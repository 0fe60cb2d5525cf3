import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector

from estimators.core.network.parameters import FlatParameters


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.encode, self.decode = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x):
        return self.decode(self.encode(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 2), nn.Flatten(), nn.LazyLinear(4))


def test_order_is_parameters_to_vector_and_function_is_kept(net):
    x = torch.randn(2, 3, 8, 8)
    net(x)
    copied = copy.deepcopy(net)
    flat = FlatParameters(copied)
    assert torch.equal(flat.read(), parameters_to_vector(net.parameters()))
    torch.testing.assert_close(copied(x), net(x))
    assert copied[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_load_moves_the_module(net):
    net(torch.randn(1, 3, 8, 8))
    flat = FlatParameters(copy.deepcopy(net))
    theta = torch.randn(flat.n)
    flat.load(theta)
    assert torch.equal(flat.read(), theta)
    vector = torch.randn(3, flat.n)
    assert torch.equal(flat.to_public(flat.to_internal(vector)), vector)
    assert torch.equal(flat.join(flat.split(theta)), theta)


def test_tied_weights_count_once():
    module = Tied()
    flat = FlatParameters(module)
    assert flat.n == 16 and flat.names == ("encode.weight",)
    flat.load(torch.arange(16.0))
    assert torch.equal(module.decode.weight, module.encode.weight)


def test_tied_by_memory_alone_count_once():
    module = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    module[1].weight.data = module[0].weight.data
    flat = FlatParameters(module)
    assert flat.n == 9
    flat.load(torch.ones(9))
    assert (module[0].weight == 1).all() and (module[1].weight == 1).all()


def test_frozen_and_filtered_parameters_stay_out(net):
    net(torch.randn(1, 3, 8, 8))
    net[0].weight.requires_grad_(False)
    assert "0.weight" not in FlatParameters(copy.deepcopy(net)).names
    assert FlatParameters(copy.deepcopy(net), [r"^4\."]).names == ("4.weight", "4.bias")
    with pytest.raises(ValueError, match="at least one trainable parameter"):
        FlatParameters(copy.deepcopy(net), ["nothing"])
