"""Embedding, the origin and the surfaces: what vanishes, what is unchanged, and the theory's leaving time."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import grad, vmap

from estimators.core.saddles.optimizers import OPTIMIZERS, Settings
from estimators.core.saddles.saddles import hidden_layers, hidden_units, linear_leaving_step, removed_outputs, settle
from estimators.core.saddles.test_functions import surface_objective
from tests.estimators.small_nets import blobs, objective_of, small_objective, tanh_mlp


def slices_of(module):
    out, offset = {}, 0
    for name, parameter in module.named_parameters():
        out[name] = slice(offset, offset + parameter.numel())
        offset += parameter.numel()
    return out


def embed(module, units):
    theta = nn.utils.parameters_to_vector(module.parameters()).detach().clone()
    theta[units.coordinates] = 0.0
    theta[units.out_bias] = 0.0
    return theta


def per_example_gradients(objective, theta):
    def single(t, x, y):
        return objective.function(t, x[None], y[None])

    return vmap(grad(single), in_dims=(None, 0, 0))(theta, *objective.examples)


def test_a_unit_embedded_in_an_mlp():
    inputs, targets = blobs()
    net = tanh_mlp(hidden=5)
    units = hidden_units(net, slices_of(net), unit=2)
    assert len(units.coordinates) == 4 + 1 + 3
    theta = embed(net, units)
    embedded = tanh_mlp(hidden=5)
    nn.utils.vector_to_parameters(theta, embedded.parameters())
    change = (embedded(inputs) - removed_outputs(net, units, inputs)).abs().max()
    assert float(change) <= 1e-12
    # removing a unit that works is a change against the network it worked in
    assert float((embedded(inputs) - net(inputs)).abs().max()) > 1e-3
    rows = per_example_gradients(objective_of(net, inputs, targets), theta)[:, units.coordinates]
    assert rows.shape == (48, 8) and not rows.any()


def test_a_unit_whose_activation_is_not_zero_at_zero_has_gradients():
    inputs, targets = blobs()
    net = nn.Sequential(nn.Linear(4, 3), nn.Sigmoid(), nn.Linear(3, 3)).double()
    units = hidden_units(net, slices_of(net), unit=0)
    rows = per_example_gradients(objective_of(net, inputs, targets), embed(net, units))
    assert rows[:, units.out].any() and not rows[:, units.into].any()


def test_a_transformer_block_without_its_mlp():
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model("test_vit", num_classes=10, img_size=32).double().eval()
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    units = hidden_units(net, slices_of(net), layer=1)
    assert units.name == "blocks.1.mlp"
    theta = embed(net, units)
    embedded = timm.create_model("test_vit", num_classes=10, img_size=32).double().eval()
    nn.utils.vector_to_parameters(theta, embedded.parameters())
    with torch.no_grad():
        assert float((embedded(images) - removed_outputs(net, units, images)).abs().max()) <= 1e-12
    loss = nn.functional.cross_entropy(embedded(images[:1]), torch.tensor([3]))
    gradients = torch.autograd.grad(loss, list(embedded.parameters()))
    flat = torch.cat([g.flatten() for g in gradients])
    assert not flat[units.coordinates].any() and flat.any()


def test_removing_units_leaves_no_hook_behind():
    net = tanh_mlp()
    removed_outputs(net, hidden_units(net, slices_of(net), unit=0), blobs()[0])
    assert not net[2]._forward_hooks and not net[2]._forward_pre_hooks


def test_layers_and_mistakes():
    net = tanh_mlp()
    assert hidden_layers(net) == [("0 → 2", "0", "2")]
    with pytest.raises(ValueError, match=r"layer must be between 0 and 0, got 3"):
        hidden_units(net, slices_of(net), layer=3)
    with pytest.raises(ValueError, match=r"unit must be between 0 and 3, got 9"):
        hidden_units(net, slices_of(net), unit=9)
    with pytest.raises(ValueError, match=r"parameters must include \['2.weight'\]"):
        hidden_units(net, {"0.weight": slice(0, 16)})
    with pytest.raises(ValueError, match=r"model must have two linear layers"):
        hidden_units(nn.Linear(3, 2), {})


def test_settling_the_origin_gives_the_class_frequencies():
    objective = small_objective(l2=0.0)
    theta, live = settle(objective, torch.zeros(objective.size, dtype=torch.float64))
    assert live.tolist() == [32, 33, 34]
    _, gradient = objective.values_and_gradients(theta[None])
    assert float(gradient.norm()) <= 1e-12
    shares = np.bincount(objective.examples[1]) / 48
    np.testing.assert_allclose(torch.softmax(theta[32:], 0).numpy(), shares, atol=1e-10)


def test_the_tilts_of_a_surface_cancel_exactly():
    objective = surface_objective("strict_surface")
    origin = torch.zeros(1, 2, dtype=torch.float64)
    value, gradient = objective.values_and_gradients(origin)
    assert float(value[0]) == 0.0 and not gradient.any()
    _, noisy = objective.values_and_gradients(origin, torch.tensor([[0, 3, 5]]))
    assert noisy.abs().min() > 0


@pytest.mark.parametrize("name", ["gd", "momentum", "nesterov", "large_step"])
def test_leaving_time_of_the_linear_rules(name):
    settings, curvature, start, radius = Settings(lr=0.02), -0.3, 1e-5, 0.05
    rule = OPTIMIZERS[name]
    theta = torch.tensor([[start]], dtype=torch.float64)
    state = {key: torch.zeros_like(theta) for key in rule.state}
    steps = 0
    while abs(float(theta)) < radius:
        steps += 1
        theta = rule.step(theta, lambda t, c=curvature: c * t, state, settings, steps, torch.zeros_like)
    predicted = linear_leaving_step(rule.growth(settings, curvature), start, radius)
    assert steps == pytest.approx(predicted, rel=0.01, abs=1)


def test_leaving_time_in_closed_form_and_at_its_edges():
    growth = OPTIMIZERS["gd"].growth(Settings(lr=0.1), -0.5)
    assert linear_leaving_step(growth, 1e-6, 1e-1) == pytest.approx(math.log(1e5) / math.log(1.05))
    assert linear_leaving_step(growth, 0.0, 0.1) == math.inf
    assert linear_leaving_step(growth, 0.2, 0.1) == 0.0
    assert linear_leaving_step(OPTIMIZERS["gd"].growth(Settings(lr=0.1), 0.5), 1e-3, 0.1) == math.inf
