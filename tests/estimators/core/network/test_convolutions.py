"""Derivatives of convolutions against PyTorch's own, in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from estimators.core.network.convolutions import Convolution, TwiceDifferentiable

KINDS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
GEOMETRIES = {
    "plain": {},
    "stride and padding": {"stride": 2, "padding": 1},
    "rows unlike columns": {"stride": (1, 2), "padding": (0, 1), "dilation": (1, 2)},
    "groups": {"padding": 1, "groups": 2},
    "depthwise": {"padding": 1, "groups": 4},
    "what a stride leaves over": {"stride": 3},
}


def examples(n_axes, groups, bias=True):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    return draw(3, 4, *[7] * n_axes), draw(4, 4 // groups, *[3] * n_axes), draw(4) if bias else None


def derivatives(convolve, inputs):
    """Value, gradient, a Hessian product, and the gradient of its square, of a loss that bends in everything."""
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    along = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t) for t in wanted]
    loss = torch.tanh(convolve(*inputs)).square().sum()
    gradient = torch.autograd.grad(loss, wanted, create_graph=True)
    product = torch.autograd.grad(gradient, wanted, along, create_graph=True)
    third = torch.autograd.grad(sum(p.square().sum() for p in product), wanted)
    return [loss, *gradient, *product, *third]


def assert_same(convolve, inputs):
    expected = derivatives(convolve, inputs)
    with TwiceDifferentiable():
        found = derivatives(convolve, inputs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
def test_three_derivatives_agree_with_pytorchs(geometry):
    inputs = examples(2, geometry.get("groups", 1))
    assert_same(lambda x, w, b: F.conv2d(x, w, b, **geometry), inputs)
    with TwiceDifferentiable():
        assert type(F.conv2d(*inputs, **geometry).grad_fn)._forward_cls is Convolution


@pytest.mark.parametrize("n_axes", [1, 3])
def test_other_numbers_of_axes(n_axes):
    assert_same(lambda x, w, b: KINDS[n_axes](x, w, b, stride=2, padding=1), examples(n_axes, 1))


@pytest.mark.parametrize("fixed", [0, 1, 2])
def test_what_is_fixed_has_no_derivative(fixed):
    inputs = list(examples(2, 1))
    inputs[fixed] = inputs[fixed].detach()
    assert_same(lambda x, w, b: F.conv2d(x, w, b, padding=1), inputs)
    assert_same(lambda x, w, b: F.conv2d(x, w, None, padding=1), [*inputs[:2], None])


def test_what_is_unusual_is_pytorchs():
    x, w, b = examples(2, 1)
    with TwiceDifferentiable():
        for y in (F.conv2d(x, w, b, padding="same"), F.conv2d(x[0], w, b)):
            assert not hasattr(y.grad_fn, "_forward_cls")
        with torch.autocast("cpu", torch.bfloat16):
            assert F.conv2d(x.float(), w.float()).dtype == torch.bfloat16


def test_layers_go_through_it_and_keep_their_layout():
    layer = nn.Conv2d(4, 4, 3, padding=1).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).to(memory_format=torch.channels_last)
    plain = layer(x)
    with TwiceDifferentiable():
        y = layer(x)
    assert torch.equal(y, plain) and y.is_contiguous(memory_format=torch.channels_last)
    assert type(y.grad_fn)._forward_cls is Convolution
