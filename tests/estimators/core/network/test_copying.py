"""Models that hold more than parameters and buffers: locks, files, activations, complex tables, scalars."""

import copy
import threading

import pytest
import torch
from torch import nn

from estimators import (
    CurvatureEstimator,
    Landscape,
    ModeConnector,
    SharpnessEstimator,
    SurfaceMapper,
    SWAAverager,
    train,
)
from estimators.core.network import working_copy as network_module
from estimators.core.network.copying import cast, private_copy, sharing_copy


def data(n=24, width=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, width, generator=generator), torch.arange(n) % 3


class Holder(nn.Module):
    """A small network with one more attribute."""

    def __init__(self, thing=None):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.thing = thing

    def forward(self, x):
        return self.head(self.inner(x).tanh())


class KeepsActivation(Holder):
    def forward(self, x):
        self.thing = {"hidden": [self.inner(x).tanh()]}
        return self.head(self.thing["hidden"][0])


def with_activation():
    model = KeepsActivation()
    model(data()[0])
    return model


def with_weight_norm():
    model = Holder()
    model.inner = torch.nn.utils.weight_norm(model.inner)
    return model


MODELS = {
    "lock": lambda: Holder({"guard": threading.Lock(), "again": [threading.RLock()]}),
    "file": lambda: Holder(open(__file__)),  # noqa: SIM115
    "python module": lambda: Holder([copy]),
    "activation": with_activation,
    "weight norm": with_weight_norm,
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_what_deepcopy_refuses_is_copied(kind):
    torch.manual_seed(0)
    model = MODELS[kind]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = dict(vars(model))
    with pytest.raises((RuntimeError, TypeError)):
        copy.deepcopy(model)
    x, y = data()
    land = Landscape(model, (x, y))
    away = land.theta + 0.3
    expected = nn.functional.cross_entropy(model.eval()(x), y).item()
    assert land.loss() == pytest.approx(expected, rel=1e-6)
    moved = land.model_at(away)
    assert nn.functional.cross_entropy(moved.eval()(x), y).item() == pytest.approx(land.loss(away), rel=1e-6)
    assert land.gradient(away).abs().sum() > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    if kind != "activation":
        assert all(vars(model)[name] is value for name, value in kept.items() if name != "training")
    assert train(model, (x, y), epochs=1, batch_size=8).model is not model
    if kind == "file":
        model.thing.close()


def test_copies_share_nothing_with_the_model_but_what_has_no_copy():
    lock, file, hidden = threading.Lock(), open(__file__), nn.Linear(2, 2)(torch.ones(1, 2))  # noqa: SIM115
    model = Holder([lock, file, hidden])
    model.again = model.thing
    new = private_copy(model)
    assert type(new.thing[0]) is type(lock) and new.thing[0] is not lock
    assert new.thing[1] is file
    assert torch.equal(new.thing[2], hidden) and new.thing[2].is_leaf and new.thing[2] is not hidden
    assert new.again is new.thing and new.thing is not model.thing
    assert new.inner.weight is not model.inner.weight
    sharing = sharing_copy(model)
    assert sharing.inner is not model.inner and sharing.inner.weight is model.inner.weight
    file.close()


def test_what_is_used_up_by_reading_is_refused_by_name():
    model = Holder()
    model.inner.stream = (i for i in range(3))
    with pytest.raises(
        ValueError, match=r"^The model must be one that can be copied, got a generator in inner\.stream"
    ):
        Landscape(model, data())


class Rotary(nn.Module):
    """Multiplies pairs of features by a complex table."""

    def __init__(self, trainable=False):
        super().__init__()
        table = torch.polar(torch.ones(3), torch.tensor([0.3, 1.1, 2.0]))
        if trainable:
            self.table = nn.Parameter(table)
        else:
            self.register_buffer("table", table)
        self.turn = nn.Parameter(table.conj().clone(), requires_grad=False)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        pairs = torch.view_as_complex(x.unflatten(1, (3, 2)))
        return self.head(torch.view_as_real(pairs * self.table * self.turn).flatten(1).tanh())


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.filterwarnings("error:Casting complex values")
def test_complex_tables_keep_their_imaginary_part(precision):
    torch.manual_seed(0)
    model, (x, y) = Rotary(), data()
    model.turn.data = torch.polar(torch.ones(3), torch.tensor([0.5, 0.1, -2.0]))
    land = Landscape(model, (x, y), precision=precision)
    assert land.loss() == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-6)
    module = cast(private_copy(model), torch.device("cpu"), torch.float64)
    assert module.table.dtype == torch.complex128 and module.head.weight.dtype == torch.float64
    torch.testing.assert_close(module.table.to(torch.complex64), model.table)


def test_complex_parameters_in_theta_are_refused_by_name():
    with pytest.raises(ValueError, match="The parameters in θ must be real, got complex table: freeze"):
        Landscape(Rotary(trainable=True), data())


class Scaled(nn.Module):
    """CLIP's logit scale: a parameter of shape ()."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(6, 5), nn.Linear(5, 3)
        self.logit_scale = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.head(self.inner(x).tanh()) * self.logit_scale.exp()


def scaled(seed):
    torch.manual_seed(seed)
    return Scaled()


def test_scalar_parameters_work_everywhere():
    model, examples = scaled(0), data()
    land = Landscape(model, examples, precision="float64")
    at = land.slices["logit_scale"]
    step = torch.zeros_like(land.theta)
    step[at] = 1e-4
    slope = (land.loss(land.theta + step) - land.loss(land.theta - step)) / 2e-4
    assert land.gradient()[at].item() == pytest.approx(slope, rel=1e-6)
    assert torch.isfinite(land.hvp(torch.ones_like(land.theta))).all()
    assert land.state_dict(land.theta + step)["logit_scale"].shape == ()
    other, run = scaled(1), train(model, examples, epochs=3, batch_size=8)
    for normalization in ("filter", "layer", "model", None):
        mapped = SurfaceMapper(resolution=5, normalization=normalization).fit(model, examples)
        assert mapped.losses_[2, 2] == pytest.approx(Landscape(model, examples).loss(), rel=1e-6)
    curved = SurfaceMapper(directions="hessian", resolution=3).fit(model, examples)
    assert torch.isfinite(torch.tensor(curved.losses_)).all()
    for adaptive in (False, True):
        SharpnessEstimator(adaptive=adaptive, n_steps=2, n_draws=4).fit(model, examples)
    CurvatureEstimator(n_eigenvalues=2).fit(model, examples)
    for path in ("linear", "bezier", "polychain"):
        ModeConnector(path=path, epochs=1, n_points=3).fit((model, other), examples)
    SWAAverager(start=0.0).fit(run, examples)


def test_free_memory_counts_what_the_system_could_give(tmp_path, monkeypatch):
    cpu = torch.device("cpu")
    with open("/proc/meminfo") as lines:
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    monkeypatch.setattr(network_module, "_free_in_group", lambda: iter(()))
    assert network_module.free_memory(cpu) / 1024 == pytest.approx(kilobytes["MemAvailable"], rel=0.1)
    monkeypatch.setattr(network_module, "_free_in_group", lambda: iter((12345,)))
    assert network_module.free_memory(cpu) == 12345


def test_the_limit_of_a_container_counts(tmp_path):
    from estimators.core.network.working_copy import _free_in_group

    assert list(_free_in_group(tmp_path)) == []
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 5\ninactive_file 100\n")
    assert list(_free_in_group(tmp_path)) == []
    (tmp_path / "memory.max").write_text("1000\n")
    assert list(_free_in_group(tmp_path)) == [400]
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("900\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("800\n")
    (tmp_path / "memory" / "memory.stat").write_text("total_inactive_file 50\n")
    assert list(_free_in_group(tmp_path)) == [400, 150]
