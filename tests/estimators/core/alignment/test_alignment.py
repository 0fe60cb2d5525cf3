import math
from itertools import permutations

import pytest
import timm
import torch
from torch import nn

from estimators import Cancelled
from estimators.core.alignment.alignment import (
    align_states,
    largest_change,
    match_weights,
    permute_state,
    random_permutations,
)
from estimators.core.alignment.graph import SymmetryError, derive_symmetry
from estimators.core.alignment.matching import identity


def state_of(module):
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def roughen(module, seed=0):
    """Make units distinguishable: zero biases, unit scales and fresh statistics hide a wrong permutation."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator) * (0.2 if tensor.ndim < 2 else 0.02))
    return module.eval()


def check_recovery(module, inputs):
    """Shuffle every group, see the function unchanged, and get the order back exactly."""
    symmetry = derive_symmetry(module, inputs[:2])
    state = state_of(module)
    shuffled = permute_state(state, symmetry, random_permutations(symmetry, 3))
    assert any(not torch.equal(state[k], shuffled[k]) for k in state)
    assert largest_change(module, state, shuffled, inputs) <= 1e-5
    alignment = match_weights(shuffled, state, symmetry, n_restarts=2)
    back = permute_state(state, symmetry, alignment.permutations)
    assert all(torch.equal(back[k], shuffled[k]) for k in state)
    assert alignment.similarity_after == pytest.approx(1.0, abs=1e-6)
    assert alignment.converged
    return symmetry


MODELS = {
    "test_resnet": {},
    "test_convnext": {},
    "test_vit": {"img_size": 32},
    "test_efficientnet": {},
}


@pytest.mark.parametrize("name", MODELS)
def test_identity_is_recovered_on_timm_models(name):
    torch.manual_seed(0)
    model = roughen(timm.create_model(name, num_classes=10, **MODELS[name]))
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    check_recovery(model, inputs)


@pytest.mark.parametrize("name, kwargs", [("resnet18", {}), ("vgg11_bn", {"mlp_ratio": 0.05})])
def test_large_timm_models_keep_their_function(name, kwargs):
    torch.manual_seed(0)
    model = roughen(timm.create_model(name, num_classes=10, **kwargs))
    inputs = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    symmetry = derive_symmetry(model, inputs)
    state = state_of(model)
    shuffled = permute_state(state, symmetry, random_permutations(symmetry, 3))
    assert any(not torch.equal(state[k], shuffled[k]) for k in state)
    assert largest_change(model, state, shuffled, inputs) <= 1e-4


def test_groups_are_what_the_graph_says():
    resnet = timm.create_model("resnet18", num_classes=10)
    units = sorted(g["units"] for g in derive_symmetry(resnet, torch.randn(2, 3, 32, 32)).describe())
    # one stream a stage and one hidden width a block
    assert units == sorted([64] * 3 + [128] * 3 + [256] * 3 + [512] * 3)
    vit = timm.create_model("test_vit", num_classes=10, img_size=32)
    symmetry = derive_symmetry(vit, torch.randn(2, 3, 32, 32))
    hidden = [g for g in symmetry.describe() if g["made_by"].endswith("mlp.fc1.weight")]
    assert len(hidden) == 6
    # inside each head of each block queries and keys have one order, values and the projection another
    assert len(symmetry.nested) == 12


class Net(nn.Module):
    """A network given by its layers and a function of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self._forward = forward

    def forward(self, x):
        return self._forward(self.layers, x)


def conv_flatten():
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(96, 5))


def concatenated():
    def forward(m, x):
        y = m["a"](x).relu()
        return m["out"](torch.cat([y, m["b"](y).relu()], 1).mean((2, 3)))

    return Net(forward, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 4, 3, padding=1), out=nn.Linear(10, 5))


def zero_padded_shortcut():
    def forward(m, x):
        y = m["a"](x).relu()
        short = nn.functional.pad(y, (0, 0, 0, 0, 2, 2))
        return m["out"]((m["b"](y) + short).relu().mean((2, 3)))

    return Net(forward, a=nn.Conv2d(3, 6, 3), b=nn.Conv2d(6, 10, 3, padding=1), out=nn.Linear(10, 5))


def grouped_and_group_norm():
    return nn.Sequential(
        nn.Conv2d(3, 12, 3),
        nn.GroupNorm(3, 12),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, groups=3),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 24, 3, groups=24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 5),
    )


def gated():
    def forward(m, x):
        a, b = m["up"](x.mean((2, 3))).chunk(2, dim=-1)
        return m["out"](a * b.sigmoid())

    return Net(forward, up=nn.Linear(3, 16), out=nn.Linear(8, 5))


def transposed():
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, stride=4),
        nn.GELU(),
        nn.ConvTranspose2d(8, 6, 2, stride=2),
        nn.Flatten(),
        nn.Linear(384, 5),
    )


@pytest.mark.parametrize(
    "make", [conv_flatten, concatenated, zero_padded_shortcut, grouped_and_group_norm, gated, transposed]
)
def test_identity_is_recovered_on_explicit_nets(make):
    torch.manual_seed(0)
    check_recovery(roughen(make()), torch.randn(3, 3, 16, 16))


def test_what_must_stay_fixed_is_not_in_a_group():
    symmetry = derive_symmetry(conv_flatten(), torch.randn(2, 3, 16, 16))
    assert [g["units"] for g in symmetry.describe()] == [6]
    places = next(iter(symmetry.groups.values()))
    assert places == [("0.weight", 0), ("0.bias", 0), ("4.weight", 1)]  # not pixels, colours or classes
    padded = derive_symmetry(zero_padded_shortcut(), torch.randn(2, 3, 16, 16))
    assert [g["units"] for g in padded.describe()] == [6]  # the padded places have no partner to swap with


def test_unknown_operations_pin_instead_of_breaking():
    def forward(m, x):
        hidden = m["a"](x.mean((2, 3))).relu()
        return m["out"](m["b"](hidden.cumsum(1)).relu())

    net = Net(forward, a=nn.Linear(3, 8), b=nn.Linear(8, 6), out=nn.Linear(6, 5))
    symmetry = check_recovery(roughen(net), torch.randn(3, 3, 16, 16))
    assert [g["units"] for g in symmetry.describe()] == [6]
    assert any("cumsum" in reason for reason in symmetry.pinned_by)


def test_weights_used_twice_are_permuted_once():
    def forward(m, x):
        hidden = m["a"](x.mean((2, 3))).relu()
        return m["out"](m["b"](m["b"](hidden).relu()).relu() + hidden)

    net = Net(forward, a=nn.Linear(3, 8), b=nn.Linear(8, 8), out=nn.Linear(8, 5))
    check_recovery(roughen(net), torch.randn(3, 3, 16, 16))


def test_one_hidden_layer_is_matched_to_the_brute_force_optimum():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    a, b = ({k: torch.randn(v.shape, generator=generator) for k, v in net.state_dict().items()} for _ in range(2))
    symmetry = derive_symmetry(net, torch.randn(2, 4))
    group = next(iter(symmetry.groups))
    best = max(
        sum(float((a[k] * permuted[k]).sum()) for k in a if k != "2.bias")
        for order in permutations(range(5))
        for permuted in [permute_state(b, symmetry, {group: torch.tensor(order)})]
    )
    assert match_weights(a, b, symmetry).objectives[0] == pytest.approx(best, rel=1e-6)


def test_matching_never_ends_below_its_start():
    torch.manual_seed(0)
    models = [roughen(timm.create_model("test_resnet", num_classes=10), seed) for seed in (0, 1)]
    symmetry = derive_symmetry(models[0], torch.randn(2, 3, 32, 32))
    alignment = match_weights(state_of(models[0]), state_of(models[1]), symmetry, n_restarts=1)
    assert alignment.similarity_after > alignment.similarity_before
    again = match_weights(state_of(models[0]), state_of(models[1]), symmetry, n_restarts=1)
    assert all(torch.equal(alignment.permutations[g], again.permutations[g]) for g in symmetry.groups)


def test_matching_can_be_stopped_between_groups():
    models = [roughen(timm.create_model("test_resnet", num_classes=10), seed) for seed in (0, 1)]
    symmetry = derive_symmetry(models[0], torch.randn(2, 3, 32, 32))
    told = []

    def stop(done, total):
        told.append((done, total))
        if len(told) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        match_weights(state_of(models[0]), state_of(models[1]), symmetry, on_progress=stop)
    assert told == [(0, 3)] * 3  # long before the first start is through


def test_model_and_global_generator_are_left_alone():
    model = timm.create_model("test_resnet", num_classes=10).train()
    before, rng = state_of(model), torch.get_rng_state()
    symmetry = derive_symmetry(model, torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    shuffled = permute_state(before, symmetry, random_permutations(symmetry, 0))
    largest_change(model, before, shuffled, torch.ones(2, 3, 32, 32))
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_a_wrong_permutation_is_caught():
    net = roughen(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)))
    wrong = state_of(net)
    wrong["0.weight"] = wrong["0.weight"].flip(0)
    with pytest.raises(ValueError, match=r"same outputs to 0\.0001, got a change of .* for Sequential"):
        largest_change(net, state_of(net), wrong, torch.randn(8, 4))


def test_models_without_hidden_units_are_refused_by_name():
    with pytest.raises(SymmetryError, match=r"got Linear, where all are fixed by.*Handled are linear layers"):
        derive_symmetry(nn.Linear(4, 3), torch.randn(2, 4))


def test_models_that_cannot_be_traced_are_refused_by_name():
    class Deciding(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x):
            return self.linear(x) if float(x.sum()) > 0 else self.linear(-x)

    with pytest.raises(SymmetryError, match=r"model must be traceable for align='weights', got Deciding"):
        derive_symmetry(Deciding(), torch.randn(2, 4))


def test_what_leaves_the_traced_graph_is_caught_by_the_outputs():
    def forward(m, x):
        return m["b"](torch.from_numpy(m["a"](x).relu().detach().numpy()))

    net = roughen(Net(forward, a=nn.Linear(4, 6), b=nn.Linear(6, 3)))
    inputs = torch.randn(3, 4)
    other = {k: torch.randn(v.shape, generator=torch.Generator().manual_seed(5)) for k, v in state_of(net).items()}
    with pytest.raises(ValueError, match="Its units cannot be reordered"):
        align_states(net, state_of(net), other, inputs)


def test_places_that_are_mixed_share_one_order():
    def forward(m, x):
        rows = m["a"](x).unflatten(1, (4, 3))
        return m["out"](rows.sum(1).tanh().square().sum(-1, keepdim=True))

    net = roughen(Net(forward, a=nn.Linear(5, 12), out=nn.Linear(1, 3)))
    inputs = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    assert derive_symmetry(net, inputs).nested  # by the weights alone each of the four rows could be ordered apart
    generator = torch.Generator().manual_seed(1)
    other = {k: torch.randn(v.shape, generator=generator) for k, v in state_of(net).items()}
    symmetry = derive_symmetry(net, inputs)
    apart = permute_state(other, symmetry, match_weights(state_of(net), other, symmetry).permutations)
    with pytest.raises(ValueError, match="same outputs"):
        largest_change(net, other, apart, inputs)
    moved, alignment, change = align_states(net, state_of(net), other, inputs)
    assert change <= 1e-5
    assert not torch.equal(moved["layers.a.weight"], other["layers.a.weight"])
    assert alignment.similarity_after > alignment.similarity_before


def test_identity_orders_change_nothing():
    vit = timm.create_model("test_vit", num_classes=10, img_size=32)
    symmetry = derive_symmetry(vit, torch.randn(2, 3, 32, 32))
    state = state_of(vit)
    same = permute_state(state, symmetry, identity(symmetry))
    assert all(torch.equal(state[k], same[k]) for k in state)
    assert math.prod(symmetry.size(g) for g in symmetry.nested) > 1
