"""Attention: queries and keys share an order in each head, values have their own, and heads move together."""

import math

import pytest
import timm
import torch
from torch import nn

from estimators.core.alignment.alignment import largest_change, match_weights, permute_state, random_permutations
from estimators.core.alignment.graph import derive_symmetry
from estimators.core.alignment.matching import identity


def state_of(module):
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def moved_rows(tensor, heads, orders):
    """Reorder heads × head width rows by hand: which head comes to each place, and its units' order."""
    rows = tensor.unflatten(0, (heads, -1))
    return torch.stack([rows[h][order] for h, order in orders]).flatten(0, 1)


def plant(state, layers, heads, hidden, seed):
    """Permute heads, queries with keys, values with the projection, and hidden units, written out by hand."""
    generator = torch.Generator().manual_seed(seed)
    state = dict(state)
    for weight, bias, projection in layers:
        width = len(state[bias]) // 3 // heads
        places = torch.randperm(heads, generator=generator).tolist()
        keys, values = ([(h, torch.randperm(width, generator=generator)) for h in places] for _ in range(2))
        for name in (weight, bias):
            q, k, v = state[name].chunk(3)
            state[name] = torch.cat([moved_rows(x, heads, o) for x, o in ((q, keys), (k, keys), (v, values))])
        state[projection] = moved_rows(state[projection].T, heads, values).T.contiguous()
    for first, second in hidden:
        order = torch.randperm(len(state[f"{first}.bias"]), generator=generator)
        for name in (f"{first}.weight", f"{first}.bias"):
            state[name] = state[name][order]
        state[f"{second}.weight"] = state[f"{second}.weight"][:, order]
    return state


def timm_layers(model):
    blocks = [f"blocks.{i}" for i in range(len(model.blocks))]
    layers = [(f"{b}.attn.qkv.weight", f"{b}.attn.qkv.bias", f"{b}.attn.proj.weight") for b in blocks]
    return layers, model.blocks[0].attn.num_heads, [(f"{b}.mlp.fc1", f"{b}.mlp.fc2") for b in blocks]


class Attending(nn.Module):
    """PyTorch's own attention between two linear layers."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Linear(6, 16), nn.Linear(16, 5)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x):
        x = self.embed(x)
        return self.out((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


def check_planted(model, layers, heads, hidden, inputs, seeds):
    state, recovered, symmetry = state_of(model.eval()), 0, derive_symmetry(model, inputs)
    for seed in seeds:
        planted = plant(state, layers, heads, hidden, seed)
        assert largest_change(model, state, planted, inputs) <= 1e-5  # the same function, to rounding
        alignment = match_weights(state, planted, symmetry, n_restarts=1)
        back = permute_state(planted, symmetry, alignment.permutations)
        assert largest_change(model, state, back, inputs) <= 1e-5 and alignment.converged
        recovered += all(torch.equal(back[k], state[k]) for k in state)
    assert recovered == len(seeds)


@pytest.mark.parametrize("name, seeds", [("test_vit", range(20)), ("vit_tiny_patch16_224", range(1))])
def test_planted_orders_of_heads_and_units_are_recovered_in_timm_transformers(name, seeds):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, img_size=32)
    check_planted(model, *timm_layers(model), torch.randn(2, 3, 32, 32), seeds)


def test_planted_orders_are_recovered_in_torchs_own_attention():
    torch.manual_seed(0)
    layers = [("attention.in_proj_weight", "attention.in_proj_bias", "attention.out_proj.weight")]
    model = Attending()
    with torch.no_grad():
        model.attention.in_proj_bias.normal_()  # zero biases would hide a wrong order
    check_planted(model, layers, 4, [], torch.randn(2, 7, 6), range(20))


class Net(nn.Module):
    """A network given by its layers and a function of them."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.layers = nn.ModuleDict(layers)
        self._forward = forward

    def forward(self, x):
        return self._forward(self.layers, x)


def separate(m, x):
    """Three parts that never meet, heads behind them: 2 × 3 × 4."""
    a, b = m["up"](x).view(-1, 2, 3, 4).permute(1, 0, 2, 3).unbind(0)
    return m["out"](a.flatten(1).tanh()) + m["other"](b.flatten(1).tanh())


def summed(m, x):
    """Taken apart, then added: one order after all."""
    parts = m["up"](x).tanh().view(-1, 2, 12)
    return m["out"](parts[:, 0] + 2 * parts[:, 1])


def heads_outside(m, x):
    """The parts lie inside the heads: 3 × 2 × 4."""
    parts = m["up"](x).view(-1, 3, 2, 4)
    return m["out"](parts[:, :, 0].flatten(1).tanh()) + m["other"](parts.select(2, 1).flatten(1).tanh())


def shuffled(m, x):
    """Never taken apart: a channel shuffle."""
    return m["out"](m["up"](x).view(-1, 2, 12).transpose(1, 2).flatten(1).tanh())


def both(m, x):
    """Taken apart, and used whole beside it."""
    parts = m["up"](x).view(-1, 2, 12)
    return m["out"](parts[:, 0].tanh()) + m["other"](parts.sum(1).tanh()).square()


@pytest.mark.parametrize(
    "forward, width, units",
    [
        (separate, 12, [3, 3, 4, 4]),
        (summed, 12, [12]),
        (heads_outside, 12, [3, 4, 4]),
        (shuffled, 24, [2, 12]),
        (both, 12, [12]),
    ],
)
def test_what_is_taken_apart_is_ordered_apart_unless_it_meets_again(forward, width, units):
    torch.manual_seed(0)
    layers = {name: nn.Linear(width, 5) for name in ("out", "other")}
    net, inputs = Net(forward, up=nn.Linear(7, 24), **layers), torch.randn(3, 7)
    symmetry, state = derive_symmetry(net, inputs), state_of(net)
    assert sorted(g["units"] for g in symmetry.describe()) == units
    for seed in range(5):
        orders = random_permutations(symmetry, seed)
        assert largest_change(net, state, permute_state(state, symmetry, orders), inputs) <= 1e-5


def test_units_are_nested_in_the_heads_around_their_part():
    net = Net(heads_outside, up=nn.Linear(7, 24), out=nn.Linear(12, 5), other=nn.Linear(12, 5))
    symmetry = derive_symmetry(net, torch.randn(2, 7))
    (heads,) = set(symmetry.nested.values())
    assert symmetry.size(heads) == 3 and len(symmetry.nested) == 2
    assert math.prod(identity(symmetry)[g].numel() for g in symmetry.nested) == 12 * 12
