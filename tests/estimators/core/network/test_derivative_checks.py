import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from estimators import Landscape, load_model
from estimators.core.network.derivative_checks import check_derivatives
from estimators.core.network.losses import cross_entropy

KINDS = ("gradient", "hessian", "outputs")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def net(*layers):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(layer() for layer in layers))


def names(model):
    return [(name,) for name, _ in model.named_parameters()]


DATA = (normal(12, 4), torch.arange(12) % 3)


class Half(torch.autograd.Function):
    """Doubles, and says that it does nothing."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, g):
        return g


class WrongGradient(nn.Module):
    def forward(self, x):
        return Half.apply(x)


class Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return CubedBackward.apply(g, x)


class CubedBackward(torch.autograd.Function):
    """A right first derivative with a wrong one of its own."""

    @staticmethod
    def forward(ctx, g, x):
        ctx.save_for_backward(g, x)
        return 3 * x**2 * g

    @staticmethod
    def backward(ctx, h):
        g, x = ctx.saved_tensors
        return 3 * x**2 * h, 5 * x * g * h


class WrongSecond(nn.Module):
    def forward(self, x):
        return Cubed.apply(x)


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = net(lambda: nn.Linear(4, 5), nn.Tanh), net(lambda: nn.Linear(5, 3))

    def forward(self, x):
        return self.head(checkpoint(self.body, x, use_reentrant=True))


class Single(nn.Module):
    """Computes in float32 whatever comes, as some layer norms and attentions do."""

    def forward(self, x):
        return F.silu(x.float()).to(x.dtype)


def test_a_wrong_gradient_is_refused_by_name():
    land = Landscape(net(lambda: nn.Linear(4, 5), WrongGradient, nn.Tanh, lambda: nn.Linear(5, 3)), DATA)
    land.loss()  # a map needs no derivative
    for _ in range(2):  # and is refused each time
        with pytest.raises(
            ValueError, match=r"gradient must be that of its loss.*function Half is.*wrong for 0\.weight"
        ):
            land.gradient()


def test_reentrant_checkpointing_is_refused_by_name():
    with pytest.raises(ValueError, match="call checkpoint with use_reentrant=False"):
        Landscape(Reentrant(), DATA).loss_and_gradient()


def test_a_wrong_second_derivative_is_refused_by_name():
    land = Landscape(net(lambda: nn.Linear(4, 5), WrongSecond, lambda: nn.Linear(5, 3)), DATA)
    land.gradient()
    with pytest.raises(ValueError, match=r"second derivative must be that of its loss.*Cubed"):
        land.hvp(land.theta)


def test_weight_norm_has_the_right_products():
    """Fused, its double backward is wrong on the CPU in torch 2.14: vᵀHw and wᵀHv are 25 % apart."""
    model = net(lambda: nn.Linear(4, 5), nn.Tanh, lambda: nn.Linear(5, 3)).double()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model[0] = weight_norm(model[0])
        model[0].parametrizations.weight.original0.data.mul_(1.5)
    x = DATA[0].double()
    land = Landscape(model, (x, DATA[1]), precision="float64")
    basis = torch.eye(land.n_parameters, dtype=torch.float64)
    dense = torch.stack(
        [(land.gradient(land.theta + e) - land.gradient(land.theta - e)) / 2e-5 for e in 1e-5 * basis], 1
    )
    torch.testing.assert_close(land.hvp(basis), dense, rtol=1e-5, atol=1e-7)
    assert land.loss() == pytest.approx(F.cross_entropy(model(x), DATA[1]).item(), rel=1e-6)
    assert torch.equal(land.point(model), land.theta) and set(land.state_dict()) == set(model.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_the_check_itself_finds_fused_weight_norm(kind):
    model = weight_norm(net(lambda: nn.Linear(4, 3))[0])
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    if kind == "hessian":
        with pytest.raises(ValueError, match="second derivative"):
            check_derivatives(kind, model, theta, names(model), cross_entropy, *DATA)
    elif kind == "gradient":
        assert check_derivatives(kind, model, theta, names(model), cross_entropy, *DATA) == ""


NETS = [*timm.list_models("test_*"), "resnet18"]


@pytest.mark.parametrize("name", NETS)
def test_no_false_alarm_on_networks_with_kinks(name, digits):
    own_size = name in ("test_coatnet", "test_maxvit")  # their windows fit into that one
    model = load_model(name, num_classes=10, image_size=None if own_size else 64).eval()
    x = F.interpolate(digits.inputs[:4], size=model.pretrained_cfg["input_size"][-1] if own_size else 64)
    theta = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
    for kind in KINDS:
        try:
            assert check_derivatives(kind, model, theta, names(model), cross_entropy, x, digits.targets[:4]) == ""
        except ValueError as error:
            assert "double backward" in str(error) and kind != "gradient"  # hard swish and the like have none


@pytest.mark.parametrize("policy", ["frozen", "batch"])
def test_no_false_alarm_on_small_networks(policy):
    zero = net(lambda: nn.Linear(4, 3))
    nn.init.zeros_(zero[0].weight)
    nn.init.zeros_(zero[0].bias)
    nets = {
        "linear": net(lambda: nn.Linear(4, 3)),
        "zero": zero,
        "relu": net(lambda: nn.Linear(4, 6), nn.ReLU, lambda: nn.Linear(6, 3)),
        "dead": net(lambda: nn.Linear(4, 6), lambda: nn.Threshold(1e9, 0.0), lambda: nn.Linear(6, 3)),
        "single": net(lambda: nn.Linear(4, 6), Single, lambda: nn.Linear(6, 3)),
        "kinks": net(
            lambda: nn.Linear(4, 400), nn.ReLU, lambda: nn.Linear(400, 400), nn.Hardtanh, lambda: nn.Linear(400, 3)
        ),
        "norm": net(lambda: nn.Linear(4, 6), lambda: nn.BatchNorm1d(6), nn.GELU, lambda: nn.Linear(6, 3)),
    }
    for loss in ("cross_entropy", "mse"):
        for model in nets.values():
            for x in (DATA[0], torch.zeros(12, 4)):
                land = Landscape(model.eval(), (x, DATA[1]), loss=loss, batch_norm=policy)
                land.gradient(), land.hvp(land.theta), land.ggn_vp(land.theta)
                assert "derivatives" not in land.settings


def test_integers_and_one_layer_work():
    tokens = torch.randint(0, 11, (6, 5), generator=torch.Generator().manual_seed(0))
    model = net(lambda: nn.Embedding(11, 4), nn.Flatten, lambda: nn.Linear(20, 2))
    land = Landscape(model, (tokens, torch.tensor([0, 1, 0, 1, 0, 1])), parameters="2")
    land.hvp(land.gradient())
