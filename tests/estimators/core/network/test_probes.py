"""What every landscape checks once: each fault here gave a wrong number without a word."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from estimators import (
    Landscape,
    MinimaMapper,
    ModeConnector,
    SharpnessEstimator,
    SurfaceMapper,
    SWAAverager,
    load_model,
    train,
)
from estimators.models import read_checkpoint


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


DATA = (normal(40, 4), torch.arange(40) // 14)  # sorted by class, so that the first targets are all alike


def linear(*shape, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Linear(*shape)


class Net(nn.Module):
    """A network whose activation is an attribute, which no weight and no layer shows."""

    def __init__(self, act=F.relu, seed=0):
        super().__init__()
        self.first, self.last, self.act = linear(4, 8, seed=seed), linear(8, 3, seed=seed + 1), act

    def forward(self, x):
        return self.last(self.act(self.first(x)))


# -- the loss ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss",
    [
        lambda z, y: (z - y.to(z.dtype)).square(),  # (N, 1) and (N,) make (N, N)
        lambda z, y: F.cross_entropy(z.expand(-1, 3), y, reduction="none") / z.std(),
        lambda z, y: (z[:, 0] - y).square() - (z[:, 0] - y).square().mean(),
    ],
)
def test_a_loss_that_couples_examples_is_refused(loss):
    with pytest.raises(ValueError, match=r"does not depend on the others.*outputs \(5, 1\) and targets \(5,\)"):
        Landscape(linear(4, 1), DATA, loss=loss)
    with pytest.raises(ValueError, match="does not depend on the others"):
        train(linear(4, 1), DATA, loss=loss, epochs=1)


def test_losses_by_position_keep_their_mean():
    model = nn.Sequential(linear(4, 12), nn.Unflatten(1, (4, 3)))
    y = torch.randint(0, 3, (40, 4), generator=torch.Generator().manual_seed(0))
    by_position = Landscape(model, (DATA[0], y), loss=lambda z, t: F.cross_entropy(z.mT, t, reduction="none"))
    assert by_position.loss() == pytest.approx(F.cross_entropy(model(DATA[0]).mT, y).item(), rel=1e-5)
    assert Landscape(model, (DATA[0], y)).loss() == pytest.approx(by_position.loss(), rel=1e-6)
    squeezing = Landscape(linear(4, 1), DATA, loss=lambda z, t: (z.squeeze() - t).square(), batch_size=39)
    assert np.isfinite(squeezing.loss())


def test_one_output_an_example():
    with pytest.raises(ValueError, match=r"one output an example, got shape \(20, 3\) for 5"):
        Landscape(nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Flatten(0, 1), linear(1, 3)), DATA)


# -- a model that writes into its input, or draws random numbers -----------------------------------------------


class Centring(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = linear(4, 4), linear(4, 3)

    def forward(self, x):
        return self.head(self.body(x.sub_(1.0)).mul_(0.5))


class WritingTail(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = linear(4, 3)

    def forward(self, x):
        return self.layer(x.mul_(2.0))


@pytest.mark.parametrize("parameters", [None, "head"])
def test_a_model_that_changes_its_input_gets_a_copy(parameters):
    model, x = Centring(), DATA[0].clone()
    right = F.cross_entropy(model(x.clone()), DATA[1]).item()
    land = Landscape(model, (x, DATA[1]), parameters=parameters)
    values = [land.loss(), land.loss(), land.loss_and_gradient()[0], land.on((x, DATA[1])).loss()]
    land.hvp(land.theta), land.outputs(), land.model_at()
    assert values == pytest.approx([right] * 4, rel=1e-6)
    assert torch.equal(x, DATA[0]) and torch.equal(land.data.inputs, DATA[0])
    assert land.changes_input and not Landscape(Net(), DATA).changes_input


def test_a_tail_that_changes_its_input_gets_a_copy():
    model = nn.Sequential(linear(4, 4), WritingTail())
    land = Landscape(model, DATA, parameters="1.layer")
    right = F.cross_entropy(model(DATA[0].clone()), DATA[1]).item()
    assert [land.loss(), land.loss()] == pytest.approx([right] * 2, rel=1e-6)
    assert land.settings["backbone"] == "run once"


def test_training_keeps_the_examples():
    x = DATA[0].clone()
    run = train(Centring(), (x, DATA[1]), epochs=2, held_out=(x, DATA[1]), sam_rho=0.05)
    assert torch.equal(x, DATA[0])
    assert run.history["held_out_loss"][-1] == pytest.approx(Landscape(run.model, (x, DATA[1])).loss(), rel=1e-5)


class AlwaysDrops(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.2, training=True)


def test_randomness_before_the_parameters_is_not_frozen():
    model = nn.Sequential()
    model.add_module("body", linear(4, 4))
    model.add_module("noise", AlwaysDrops())
    model.add_module("head", linear(4, 3))
    for parameters in ("head", None):
        with pytest.raises(ValueError, match=r"draws random numbers in eval mode.*'noise' \(AlwaysDrops\)"):
            Landscape(model, DATA, parameters=parameters)


def test_the_probe_looks_beyond_the_first_examples_and_tells_memory_from_chance():
    class Late(nn.Linear):
        def forward(self, x):
            last = (x[:, :1] > 2.5).to(x.dtype)
            return super().forward(x) + last * torch.randn(len(x), 3)

    x = normal(500, 4).clamp(max=2.0)
    x[-1, 0] = 3.0
    with pytest.raises(ValueError, match="same loss twice"):
        Landscape(Late(4, 3), (x, torch.arange(500) % 3), batch_size=64)

    class Counts(nn.Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) * self.calls

    with pytest.raises(ValueError, match="remembers earlier calls"):
        Landscape(Counts(4, 3), DATA)
    with pytest.raises(ValueError, match="loss must give the same values twice"):
        Landscape(Net(), DATA, loss=lambda z, y: F.cross_entropy(F.dropout(z, 0.1), y, reduction="none"))


# -- a second network --------------------------------------------------------------------------------------


def test_a_second_network_with_another_forward_is_refused_everywhere():
    a, same, b = Net(), Net(seed=3), Net(torch.tanh, seed=3)
    words = r"must be the same function of its weights, got a Net .* they differ in act"
    land = Landscape(a, DATA)
    assert torch.equal(land.point(same), torch.nn.utils.parameters_to_vector(same.parameters()).detach())
    uses = [
        lambda other: land.point(other),
        lambda other: ModeConnector(n_points=3).fit((a, other), DATA),
        lambda other: SurfaceMapper(directions="models", resolution=3).fit([a, Net(seed=5), other], DATA),
        lambda other: SurfaceMapper(resolution=3).fit(a, DATA).transform([other]),
        lambda other: SurfaceMapper(resolution=3).fit({"a": a, "run": [Net(seed=5), other]}, DATA),
        lambda other: SWAAverager(method="uniform_soup").fit([a, other], DATA),
        lambda other: MinimaMapper(n_points=3).fit([a, other], DATA),
    ]
    for use in uses:
        use(same)
        with pytest.raises(ValueError, match=words):
            use(b)


def test_a_second_network_is_compared_with_its_own_statistics():
    def net(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
            made[1].running_mean.normal_()
            made[1].running_var.uniform_(0.5, 4.0)
        return made

    a, b = net(0), net(1)
    before = {k: v.clone() for k, v in b.state_dict().items()}
    for policy in ("frozen", "recompute", "batch"):
        land = Landscape(a, DATA, batch_norm=policy)
        assert land.point(b).shape == land.theta.shape and land.point(b.double()).dtype == torch.float32
        b.float()
    assert b.training and all(torch.equal(v, before[k]) for k, v in b.state_dict().items())
    other = net(1)
    other[1].eps = 0.5  # in no state dict
    with pytest.raises(ValueError, match=r"they differ in 1\.eps"):
        Landscape(a, DATA).point(other)


# -- accuracy, weights -------------------------------------------------------------------------------------


def test_without_an_accuracy_there_is_no_bound_and_a_soup_goes_by_loss():
    soft = F.one_hot(DATA[1], 3) * 0.8 + 0.1
    result = SharpnessEstimator(measures=("pac_bayes",)).fit(Net(), (DATA[0], soft)).result_
    assert np.isnan(result.pac_bayes_bound) and any("no classes" in note for note in result.notes)
    good = train(Net(), DATA, epochs=20, lr=0.1).model
    bad = copy.deepcopy(good)
    with torch.no_grad():
        bad.last.weight.mul_(-5.0)
    soup = SWAAverager(method="greedy_soup", barrier_points=0).fit([bad, good], (DATA[0], soft))
    assert [row["kept"] for row in soup.report_[:2]] == [False, True]
    assert any("chosen by their loss" in note for note in soup.result_.notes)


def test_variances_below_zero_and_values_that_are_not_finite_are_named():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    model[1].running_var[2] = -0.5
    with pytest.raises(ValueError, match="Running variances must be 0 or more, got negative ones in 1"):
        Landscape(model, DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(Landscape(model, DATA, batch_norm="recompute").loss())  # they are not used
    model[1].running_var[2] = 0.5
    with torch.no_grad():
        model[2].bias[0] = float("nan")
    with pytest.warns(RuntimeWarning, match=r"NaN or infinite values in 2\.bias"):
        land = Landscape(model, DATA)
    assert land.settings["non_finite"] == ["2.bias"] and np.isnan(land.loss())


def test_checkpoints_say_what_is_not_finite_or_below_zero(tmp_path):
    state = load_model("test_resnet", num_classes=10).state_dict()
    state["fc.bias"][0] = float("nan")
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = float("inf")
    state["bn1.running_var"][1] = -1.0
    torch.save(state, tmp_path / "odd.pt")
    wanted = ["NaN or infinite values in layer1.0.conv1.weight, fc.bias", "variances below zero in bn1.running_var"]
    assert read_checkpoint(tmp_path / "odd.pt")[1] == wanted
    model = load_model("test_resnet", num_classes=10, checkpoint=tmp_path / "odd.pt")
    assert model.provenance["notes"] == wanted


def test_float64_arrays_stay_float64():
    x = normal(40, 4).double() + 1e-9 * normal(40, 4, seed=1).double()
    model = Net().double()
    exact = F.cross_entropy(model(x), DATA[1]).item()
    rounded = F.cross_entropy(model(x.float().double()), DATA[1]).item()
    found = Landscape(model, (x.numpy(), DATA[1].numpy()), precision="float64").loss()
    assert abs(found - exact) < 1e-14 < abs(rounded - exact)
    assert Landscape(Net(), (x, DATA[1])).outputs().dtype == torch.float32
    run = train(Net(), (x, DATA[1]), epochs=1, held_out=(x, DATA[1]))
    assert next(run.model.parameters()).dtype == torch.float32
    ModeConnector(n_points=3, align="weights").fit((Net(), Net(seed=3)), (x, DATA[1]))
    MinimaMapper(n_points=3).fit([Net(), Net(seed=3)], (x, DATA[1]))
