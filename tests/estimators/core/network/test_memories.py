"""Networks that remember something computed from their weights: it follows them, or the network is refused by name."""

import functools

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from estimators import Landscape, ModeConnector
from estimators.core.network.working_copy import Network


def data(n=8):
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 3


class Plain(nn.Module):
    """exp(W) x, computed anew in each pass."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.inner, self.head = nn.Linear(6, 3), nn.Linear(3, 3)

    def weight(self):
        return self.inner.weight.exp()

    def forward(self, x):
        return self.head(F.linear(x, self.weight()).tanh())


class Attribute(Plain):
    memory = None

    def weight(self):
        if self.training:
            return super().weight()
        if self.memory is None:
            self.memory = super().weight()
        return self.memory


class Dictionary(Plain):
    def __init__(self, seed=0):
        super().__init__(seed)
        self.memory = {}

    def weight(self):
        if "w" not in self.memory:
            self.memory["w"] = super().weight()
        return self.memory["w"]


class OnEval(Plain):
    """As the original LeViT: computed when evaluation mode is entered."""

    def train(self, mode=True):
        super().train(mode)
        if mode:
            self.__dict__.pop("memory", None)
        else:
            self.memory = Plain.weight(self)
        return self

    def weight(self):
        return Plain.weight(self) if self.training else self.memory


class Inner(nn.Module):
    """Hides its memory where nobody can empty it."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    @functools.lru_cache  # noqa: B019
    def weight(self):
        return self.inner.weight.exp()

    def forward(self, x):
        return F.linear(x, self.weight()).tanh()


class Hidden(Plain):
    def __init__(self, seed=0):
        super().__init__(seed)
        self.inner = Inner(self.inner)

    def forward(self, x):
        return self.head(self.inner(x))


@pytest.mark.parametrize("kind", [Attribute, Dictionary, OnEval])
@pytest.mark.parametrize("used", [False, True])
def test_values_and_derivatives_follow_the_weights(kind, used):
    model, (x, y) = kind().eval(), data()
    if used:
        with torch.no_grad():
            model(x)
    expected, land = Landscape(Plain(), (x, y)), Landscape(model, (x, y))
    away, v = land.theta + 0.3, torch.linspace(-1, 1, land.n_parameters)
    for theta in (land.theta, away, land.theta):
        assert land.loss(theta) == pytest.approx(expected.loss(theta), rel=1e-6)
        torch.testing.assert_close(land.gradient(theta), expected.gradient(theta))
        torch.testing.assert_close(land.hvp(v, theta), expected.hvp(v, theta))
        fresh = land.model_at(theta).eval()
        torch.testing.assert_close(F.cross_entropy(fresh(x), y).item(), expected.loss(theta))


def test_only_the_last_layers_move():
    model, (x, y) = Attribute().eval(), data()
    wrapped = nn.Sequential(nn.Linear(6, 6), model)
    land = Landscape(wrapped, (x, y), parameters=r"^1\.")
    assert land.settings["backbone"] == "run once"
    away = land.theta + 0.3
    fresh = land.model_at(away).eval()
    assert land.loss(away) == pytest.approx(F.cross_entropy(fresh(x), y).item(), rel=1e-6)
    assert land.loss(away) != pytest.approx(land.loss(), rel=1e-3)


def test_a_path_ends_at_model_b():
    first, second, (x, y) = Dictionary(0).eval(), Dictionary(1).eval(), data()
    losses = [F.cross_entropy(Plain(seed)(x), y).item() for seed in (0, 1)]
    for model in (first, second):
        model(x)
    found = ModeConnector(n_points=3).fit((first, second), (x, y))
    assert list(found.losses_[[0, -1]]) == pytest.approx(losses, rel=1e-6)


def test_a_memory_that_cannot_be_emptied_is_refused_by_name():
    with pytest.raises(ValueError, match=r"got a memory of other weights in evaluation mode, in inner \(Inner\)"):
        Landscape(Hidden().eval(), data())


def test_a_memory_of_other_weights_is_refused_by_name():
    model, (x, y) = Dictionary().eval(), data()
    model(x)
    with torch.no_grad():
        model.inner.weight += 1
    with pytest.raises(ValueError, match="got 'memory' in Dictionary, which it remembers"):
        Landscape(model, (x, y))


def test_what_does_not_depend_on_the_weights_is_left_alone():
    class Masked(Plain):
        def __init__(self):
            super().__init__()
            self.mask, self.seen = torch.tensor([1.0, 0.0, 1.0]), {}

        def forward(self, x):
            if "scale" not in self.seen:
                self.seen["scale"] = torch.full((3,), 2.0)
            return super().forward(x) * self.mask * self.seen["scale"]

    land = Landscape(Masked(), data())
    network: Network = land._network
    assert network.memories == [] and not network.module._forward_pre_hooks


@pytest.mark.parametrize("name", ["levit_128s", "tiny_vit_5m_224"])
def test_attention_biases_of_timm_follow_the_weights(name):
    torch.manual_seed(0)
    model, fresh = (timm.create_model(name, num_classes=3).eval() for _ in range(2))
    x, y = torch.randn(2, 3, 224, 224), torch.tensor([0, 2])
    with torch.no_grad():
        model(x)
        for m in model.modules():
            if isinstance(m, nn.BatchNorm2d | nn.BatchNorm1d):
                m.weight.normal_(1, 0.2)  # levit's branches begin at zero, and nothing in them would count
        for parameter_name, p in model.named_parameters():
            if "attention_biases" in parameter_name:
                p += torch.randn_like(p)  # what the model keeps is stale now
    fresh.load_state_dict(model.state_dict())
    land = Landscape(model, (x, y))
    with torch.no_grad():
        assert land.loss() == pytest.approx(F.cross_entropy(fresh(x), y).item(), rel=1e-4)
    biases = [land.slices[n] for n in land.names if "attention_biases" in n]
    step = torch.zeros_like(land.theta)
    for where in biases:
        step[where] = torch.randn(where.stop - where.start)
    fresh.load_state_dict(land.state_dict(land.theta + step))
    fresh.train().eval()
    with torch.no_grad():
        right = F.cross_entropy(fresh(x), y).item()
        assert land.loss(land.theta + step) == pytest.approx(right, rel=1e-4)
        assert F.cross_entropy(land.model_at(land.theta + step).eval()(x), y).item() == pytest.approx(right, rel=1e-4)
    fresh.train().eval()
    F.cross_entropy(fresh(x), y).backward()
    gradient, named = land.gradient(land.theta + step), dict(fresh.named_parameters())
    for parameter_name in (n for n in land.names if "attention_biases" in n):
        right = named[parameter_name].grad.flatten()
        torch.testing.assert_close(gradient[land.slices[parameter_name]], right, rtol=1e-3, atol=1e-7)
    assert max(gradient[where].abs().max() for where in biases) > 0
