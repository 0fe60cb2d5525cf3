"""Any module is a landscape: loss, gradient and one product against plain autograd in float64, or a refusal's words."""

import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint

from estimators import CurvatureEstimator, Landscape, ModeConnector, SharpnessEstimator, SurfaceMapper, load_data, train
from estimators.core.network.evaluation import logits

N, WIDTH = 12, 6


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DATA = (normal(N, WIDTH), torch.arange(N) % 3)


def made(build, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build().double().eval()


def called(model, inputs):
    """The model on inputs of its own, as anybody would call it."""
    if isinstance(inputs, dict):
        return logits(model(**{name: part.clone() for name, part in inputs.items()}))
    return logits(model(*(part.clone() for part in (inputs if isinstance(inputs, tuple) else (inputs,)))))


def by_autograd(model, inputs, loss):
    """Loss, gradient and the product with a fixed vector, by nothing but torch."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    v = normal(sum(p.numel() for p in parameters), seed=9)
    with sdpa_kernel(SDPBackend.MATH):
        value = loss(called(model, inputs))
        parts = torch.autograd.grad(value, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([g.reshape(-1) for g in parts])
        parts = torch.autograd.grad(gradient, parameters, v, allow_unused=True, materialize_grads=True)
    return value.item(), gradient.detach(), torch.cat([h.reshape(-1) for h in parts])


def agrees(model, data=DATA, reference=None, **options):
    """A landscape, whose loss, gradient and product are those of plain autograd on `reference`, the model itself."""
    inputs, targets = data
    model.eval()
    before = [part.clone() for part in tensors(inputs)]
    land = Landscape(model, data, batch_size=5, precision="float64", **options)  # a short last batch
    value, gradient, product = by_autograd(reference or model, inputs, lambda z: F.cross_entropy(z, targets))
    assert land.loss() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(land.gradient(), gradient, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(land.hvp(normal(land.n_parameters, seed=9)), product, rtol=1e-8, atol=1e-10)
    assert all(torch.equal(part, old) for part, old in zip(tensors(inputs), before, strict=True))
    return land


def tensors(inputs):
    return [inputs] if isinstance(inputs, torch.Tensor) else list(getattr(inputs, "values", lambda: inputs)())


# -- several inputs ------------------------------------------------------------------------------------------


class Captioned(nn.Module):
    """An image's features and a caption's tokens, some of them masked; writes into the first."""

    def __init__(self):
        super().__init__()
        self.image, self.words, self.head = nn.Linear(WIDTH, 4), nn.Embedding(7, 4), nn.Linear(4, 3)

    def forward(self, image, tokens, mask=None):
        words = self.words(tokens).mean(1)
        hidden = self.image(image.sub_(1.0)).tanh() + (words if mask is None else words * mask[:, None])
        return {"logits": self.head(hidden), "hidden": hidden}


TOKENS = torch.randint(0, 7, (N, 3), generator=torch.Generator().manual_seed(1))
SEVERAL = {
    "tuple": (DATA[0], TOKENS),
    "dict": {"tokens": TOKENS, "image": DATA[0], "mask": (normal(N, seed=2) > 0).double()},
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_inputs_and_inputs_by_name(kind):
    model, data = made(Captioned), (SEVERAL[kind], DATA[1])
    land = agrees(model, data)
    assert land.changes_input
    assert pickle.loads(pickle.dumps(land)).loss() == land.loss()
    assert land.on(land.data.take(slice(0, 7))).n_examples == 7
    assert agrees(model, data).fingerprint == land.fingerprint != Landscape(made(Captioned, 1), data).fingerprint
    torch.testing.assert_close(land.point(made(Captioned, 1)), Landscape(made(Captioned, 1), data).theta.double())
    single = SurfaceMapper(resolution=3).fit(model, data)
    assert single.losses_[1, 1] == Landscape(model, data).loss()
    together = SurfaceMapper(resolution=3, points_per_pass=4).fit(model, data)
    assert together.losses_ == pytest.approx(single.losses_, rel=1e-5)
    head = Landscape(model, data, parameters="head", precision="float64")
    assert head.settings["backbone"] == "run once" and head.loss() == pytest.approx(land.loss(), rel=1e-12)


@pytest.mark.parametrize("kind", SEVERAL)
def test_estimators_and_training_take_several_inputs(kind):
    data = load_data((SEVERAL[kind], DATA[1]))
    run = train(Captioned(), data, epochs=3, batch_size=5, held_out=data, sam_rho=0.01)
    assert run.history["held_out_loss"][-1] == pytest.approx(Landscape(run.model, data).loss(), rel=1e-5)
    assert not run.model._forward_pre_hooks and len(data.subset(5)) == 5
    SharpnessEstimator(n_draws=4, n_steps=2, m=4).fit(run.model, data)
    CurvatureEstimator(n_eigenvalues=1, n_lanczos=0).fit(run.model, data)
    ModeConnector(path="bezier", epochs=1, n_points=3).fit((run.model, made(Captioned).float()), data)


def test_inputs_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"inputs and targets must have equal lengths, got 12, 5 and 12\."):
        Landscape(made(Captioned), ((DATA[0], TOKENS[:5]), DATA[1]))
    with pytest.raises(ValueError, match=r"must accept inputs of shape picture: \(6,\), got an error.*names"):
        Landscape(made(Captioned), ({"picture": DATA[0]}, DATA[1]))


# -- what comes out, and what is shared ----------------------------------------------------------------------


class Two(nn.Module):
    """Two layers, something between them, and something done with the scores."""

    def __init__(self, between=torch.tanh, after=lambda z: z, width=WIDTH):
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, width), nn.Linear(width, 3)
        self.between, self.after = between, after

    def forward(self, x):
        return self.after(self.last(self.between(self.first(x))))


class Box:
    def __init__(self, logits):
        self.logits = logits


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.last(self.second(self.first(x).tanh()).tanh())


class Symmetric(nn.Module):
    def forward(self, w):
        return w.triu() + w.triu(1).mT


def tied():
    model = Tied()
    model.second.weight = model.first.weight
    return model


def tied_originals(both):
    model = Tied()
    for layer in (model.first, model.second)[: 1 + both]:
        parametrize.register_parametrization(layer, "weight", Symmetric())
    if both:
        model.second.parametrizations.weight.original = model.first.parametrizations.weight.original
    else:
        model.second.weight = model.first.parametrizations.weight.original
    return model


def with_norm(norm):
    model = Two()
    norm(model.first)
    return model


class Scaled(Two):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.3))

    def forward(self, x):
        return super().forward(x) * self.scale.exp()


class Complex(nn.Module):
    """Complex numbers inside, and in a table that does not move."""

    def __init__(self, moves=False):
        super().__init__()
        self.head = nn.Linear(WIDTH // 2, 3)
        self.turn = nn.Parameter(torch.polar(torch.ones(3), torch.arange(3.0)), requires_grad=moves)

    def forward(self, x):
        return self.head((torch.view_as_complex(x.unflatten(1, (3, 2))) * self.turn).real.tanh())


class Keeps(Two):
    """Keeps a lock, and what it computed last."""

    def __init__(self):
        super().__init__()
        self.guard = threading.Lock()

    def forward(self, x):
        with self.guard:
            self.seen = self.first(x).tanh()
        return self.last(self.seen)


class Writes(Two):
    def forward(self, x):
        x.view(-1, 2, 3).mul_(2.0)
        x[:, 0] = 0.5
        return super().forward(x)


class Checkpointed(Two):
    def forward(self, x):
        return self.last(checkpoint(lambda v: self.between(self.first(v)), x, use_reentrant=False))


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.cells = kind(2, 4, batch_first=True, **options)
        self.head = nn.LazyLinear(3)
        self(torch.zeros(2, WIDTH))

    def forward(self, x):
        return self.head(self.cells(x.view(-1, 3, 2))[0][:, -1])


class Attends(nn.Module):
    def __init__(self, encoder=False):
        super().__init__()
        self.embed, self.head = nn.Linear(2, 8), nn.Linear(8, 3)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) if encoder else None
        self.body = nn.TransformerEncoder(layer, 2) if encoder else nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        h = self.embed(x.view(-1, 3, 2))
        h = self.body(h, h, h, need_weights=False)[0] if isinstance(self.body, nn.MultiheadAttention) else self.body(h)
        return self.head(h.mean(1))


class Branches(Two):
    """Goes another way where its weights are large."""

    def forward(self, x):
        h = self.first(x).tanh()
        return self.last(h * 2.0 if self.first.weight.norm() > 0.1 else h)


def inside(model):
    return nn.Sequential(nn.Identity(), model)


old, new = nn.utils, nn.utils.parametrizations
MODELS = {
    "a tensor": Two,
    "a tuple": lambda: Two(after=lambda z: (z, None)),
    "a dict": lambda: Two(after=lambda z: {"logits": z, "hidden": 1.0}),
    "logits": lambda: Two(after=Box),
    "tied weights": tied,
    "a weight tied to what a parametrization reads": lambda: tied_originals(False),
    "parametrizations of one original": lambda: tied_originals(True),
    "spectral norm, old": lambda: with_norm(old.spectral_norm),
    "spectral norm": lambda: with_norm(new.spectral_norm),
    "orthogonal": lambda: with_norm(new.orthogonal),
    "a parameter of no axis": Scaled,
    "a complex table": Complex,
    "locks and activations": Keeps,
    "writes into its input": Writes,
    "an activation in place": lambda: nn.Sequential(nn.ReLU(inplace=True), Two(between=F.silu)),
    "checkpointing": Checkpointed,
    "rnn": lambda: Recurrent(nn.RNN, num_layers=2, bidirectional=True),
    "lstm": lambda: Recurrent(nn.LSTM, proj_size=3),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": Attends,
    "transformer": lambda: Attends(encoder=True),
    "branches": Branches,
    "replicated": lambda: nn.DataParallel(Two()),
    "replicated inside": lambda: inside(nn.DataParallel(Two())),
    "averaged": lambda: AveragedModel(Two()),
    "hardswish": lambda: Two(between=F.hardswish),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_loss_gradient_and_product(kind):
    model = made(MODELS[kind])
    if kind == "locks and activations":
        model(DATA[0])
    land = agrees(model)
    mapped = SurfaceMapper(resolution=3).fit(model, DATA)
    assert mapped.losses_[1, 1] == Landscape(model, DATA).loss()
    moved = land.model_at(land.theta + 0.1)
    assert F.cross_entropy(called(moved.eval(), DATA[0]), DATA[1]).item() == pytest.approx(land.loss(land.theta + 0.1))
    torch.testing.assert_close(land.point(moved), land.theta + 0.1)


# -- weight normalisation and other functions that are computed in plain operations for products ---------------


class Plainly(nn.Module):
    """What another network computes, from its own parameters, in plain operations."""

    def __init__(self, net, forward):
        super().__init__()
        self.net, self.plain = net, forward

    def forward(self, x):
        return self.plain(self.net, x)


def normalised(net, x):
    named = dict(net.first.named_parameters())
    (g, v) = (named[k] for k in sorted(named) if "original" in k or "weight_" in k)
    weight = v * g / v.flatten(1).norm(dim=1, keepdim=True)
    return net.last((x @ weight.mT + net.first.bias).tanh())


def bag():
    return nn.Sequential(nn.EmbeddingBag(7, 4, mode="mean"), nn.Tanh(), nn.Linear(4, 3))


PLAIN = {
    "weight norm, old": (lambda: with_norm(old.weight_norm), normalised, DATA),
    "weight norm": (lambda: with_norm(new.weight_norm), normalised, DATA),
    "hardsigmoid": (
        lambda: Two(between=F.hardsigmoid),
        lambda net, x: net.last((net.first(x) + 3).clamp(0, 6) / 6), DATA,
    ),
    "hardsigmoid in place and checkpointed": (
        lambda: Checkpointed(between=nn.Hardsigmoid(inplace=True)),
        lambda net, x: net.last((net.first(x) + 3).clamp(0, 6) / 6), DATA,
    ),
    "embedding bag": (bag, lambda net, x: net[2](net[0].weight[x].mean(1).tanh()), (TOKENS, DATA[1])),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", PLAIN)
def test_functions_without_a_right_second_derivative_have_one_here(kind):
    build, plain, data = PLAIN[kind]
    model = made(build)
    land = agrees(model, data, reference=Plainly(model, plain))
    basis = torch.eye(land.n_parameters, dtype=torch.float64)
    dense = land.hvp(basis)
    torch.testing.assert_close(dense, dense.mT, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(land.ggn_vp(basis), land.ggn_vp(basis).mT, rtol=1e-9, atol=1e-11)
    together = SurfaceMapper(resolution=3, points_per_pass=4).fit(model, data)
    assert together.losses_ == pytest.approx(SurfaceMapper(resolution=3).fit(model, data).losses_, rel=1e-5)


# -- refused by name, while maps go on --------------------------------------------------------------------------


class Ragged(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Parameter(torch.randn(7, 4)), nn.Linear(4, 3)

    def forward(self, x):
        starts = torch.arange(0, x.numel(), x.shape[1])
        return self.head(F.embedding_bag(x.flatten(), self.table, starts, mode="sum").tanh())


def test_an_operation_without_a_second_derivative_is_named_and_mapped():
    model, data = made(Ragged), (TOKENS, DATA[1])
    land = Landscape(model, data, batch_size=5, precision="float64")
    value = F.cross_entropy(model(TOKENS), DATA[1])
    parts = torch.autograd.grad(value, list(model.parameters()))
    assert land.loss() == pytest.approx(value.item(), rel=1e-12)
    torch.testing.assert_close(land.gradient(), torch.cat([g.reshape(-1) for g in parts]))
    with pytest.raises(ValueError, match=r"second derivative .*'_embedding_bag_backward' is not implemented"):
        land.hvp(land.theta)
    assert SurfaceMapper(resolution=3).fit(model, data).losses_[1, 1] == Landscape(model, data).loss()


def test_complex_parameters_that_move_and_branches_in_one_pass_are_refused():
    with pytest.raises(ValueError, match="The parameters in θ must be real, got complex turn: freeze them"):
        Landscape(Complex(moves=True), DATA)
    with pytest.raises(ValueError, match="points_per_pass must be 1 for a network that several points can't pass"):
        Landscape(made(Branches).float(), DATA, points_per_pass=4)


# -- compiled, replicated, averaged --------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["outside", "inside", "by method"])
def test_a_compiled_network_is_run_as_written(where):
    model = made(Two)
    if where == "by method":
        compiled = made(Two)
        compiled.compile(backend="eager")
    else:
        compiled = torch.compile(made(Two), backend=lambda *_: pytest.fail("it was compiled"))
        compiled = inside(compiled) if where == "inside" else compiled
    land = agrees(compiled, reference=model)
    assert torch.equal(land.point(compiled), land.theta) and set(land.state_dict()) == set(land.model_at().state_dict())
    if where == "outside":
        assert land.names == Landscape(model, DATA).names
        assert torch.equal(
            land.point(torch.compile(made(Two, 1))), Landscape(made(Two, 1), DATA, precision="float64").theta
        )


def test_wrapped_networks_are_the_points_of_plain_ones():
    plain = Landscape(made(Two), DATA, precision="float64")
    for wrap in (nn.DataParallel, AveragedModel, inside):
        wrapped = Landscape(wrap(made(Two)), DATA, precision="float64")
        assert torch.equal(wrapped.theta, plain.theta) and wrapped.loss() == plain.loss()
        if wrap is not inside:
            assert wrapped.fingerprint == plain.fingerprint
            other = made(Two, 1)
            assert torch.equal(plain.point(wrap(other)), wrapped.point(other))
            if wrap is nn.DataParallel:
                assert torch.equal(wrapped.point(wrap(other).state_dict()), wrapped.point(other))
