"""SWAAverager: against torch's own averaging, on every kind of member, and on bad input."""

import copy
import math
import pickle

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

from estimators import Landscape, SharpnessEstimator, load_data, load_model, save_checkpoint
from estimators.averaging._averager import SWAAverager
from estimators.averaging._result import AverageResult
from estimators.core.network import batchnorm
from estimators.core.network.copying import private_copy
from estimators.core.paths.paths import barrier
from estimators.progress import Cancelled
from estimators.results import Result


class Net(nn.Module):
    """Convolution, batch norm, linear: 8 classes of 12×12 images."""

    def __init__(self, seed: int = 0, norm: bool = True, width: int = 6, momentum: float | None = 0.1) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, width, 3)
            self.norm = nn.BatchNorm2d(width, momentum=momentum) if norm else nn.Identity()
            self.head = nn.Linear(width, 4)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def data():
    g = torch.Generator().manual_seed(0)
    return load_data((torch.randn(96, 1, 12, 12, generator=g), torch.randint(4, (96,), generator=g)))


@pytest.fixture(scope="module")
def other():
    g = torch.Generator().manual_seed(1)
    return load_data((torch.randn(40, 1, 12, 12, generator=g), torch.randint(4, (40,), generator=g)))


def members(n=4, **options):
    nets = [Net(seed, **options).eval() for seed in range(n)]
    for seed, net in enumerate(nets):
        if isinstance(net.norm, nn.BatchNorm2d):
            net.norm.running_var.uniform_(0.5, 2, generator=torch.Generator().manual_seed(seed))
            net.norm.num_batches_tracked.fill_(seed + 1)
    return nets


@pytest.fixture
def blocks_of(monkeypatch):
    """Cut the 96 examples into smaller blocks than 512, as `update_bn` over such batches does."""
    return lambda size: monkeypatch.setattr(batchnorm, "LARGEST_BLOCK", size)


def torchs_average(nets, data, batch_size, **options):
    averaged = AveragedModel(nets[0], **options)
    for net in nets:
        averaged.update_parameters(net)
    update_bn(list(data.inputs.split(batch_size)), averaged)
    return averaged.module.state_dict()


def far(a, b):
    assert set(a) == set(b)
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


@pytest.mark.parametrize("batch_size", [512, 24, 7])
@pytest.mark.parametrize("momentum", [0.1, 0.0, None])
def test_swa_and_its_statistics_agree_with_torch(data, momentum, batch_size, blocks_of):
    nets = members(momentum=momentum)
    ours = SWAAverager(batch_size=batch_size).fit(nets, data)
    assert far(ours.state_dict_, torchs_average(nets, data, 96)) < 1e-6
    blocks_of(24)
    ours = SWAAverager(batch_size=batch_size).fit(nets, data)
    assert far(ours.state_dict_, torchs_average(nets, data, 24)) < 1e-6
    assert ours.n_averaged_ == 4
    assert ours.state_dict_["norm.running_var"].min() > 0


def test_ema_and_its_statistics_agree_with_torch(data, blocks_of):
    nets = members()
    blocks_of(24)
    ours = SWAAverager(method="ema", decay=0.9, warmup=False, batch_size=24).fit(nets, data)
    theirs = torchs_average(nets, data, 24, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    assert far(ours.state_dict_, theirs) < 1e-6
    shares = [row["share"] for row in ours.report_ if row["role"] == "member"]
    assert shares == pytest.approx([0.9**3, 0.1 * 0.9**2, 0.1 * 0.9, 0.1])


def test_partial_fit_equals_fit(data, other):
    nets = members()
    whole = SWAAverager().fit(nets, data, held_out=other)
    step = SWAAverager()
    for net in nets[:-1]:
        step.partial_fit(net)
    assert step.n_averaged_ == 3 and step.report_ == []
    assert torch.equal(step.state_dict_["norm.running_var"], nets[2].norm.running_var)
    step.partial_fit(nets[-1], data, held_out=other)
    assert far(step.state_dict_, whole.state_dict_) == 0
    assert step.result_.row("average") == whole.result_.row("average")
    whole.partial_fit(Net(9), data)
    assert whole.n_averaged_ == 5


def test_modules_state_dicts_and_files_give_one_average(data, tmp_path):
    nets = members()
    expected = SWAAverager().fit(nets, data).state_dict_
    states = [net.state_dict() for net in nets]
    tensors = [tmp_path / f"{i}.safetensors" for i in range(4)]
    pickles = [tmp_path / f"{i}.pt" for i in range(4)]
    for state, a, b in zip(states, tensors, pickles, strict=True):
        save_checkpoint(a, state)
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, b)
    for given in (states, tensors, [str(p) for p in pickles], [nets[0], states[1], tensors[2], pickles[3]]):
        got = SWAAverager().fit(given, data, model=Net(50))
        assert far(got.state_dict_, expected) == 0
    assert [r["name"] for r in got.report_[:4]] == ["#0", "#1", "2", "3"]


def test_half_precision_members_are_averaged_in_float32(data):
    nets = members()
    halves = [{k: v.half() if v.is_floating_point() else v for k, v in net.state_dict().items()} for net in nets]
    got = SWAAverager().fit(halves, data, model=Net(7).half()).state_dict_
    expected = torch.stack([h["conv.weight"].float() for h in halves]).mean(0)
    assert got["conv.weight"].dtype == torch.float32
    assert torch.allclose(got["conv.weight"], expected, atol=1e-7)


def test_report_holds_each_member_and_the_average_as_the_landscape_measures_them(data, other):
    nets = members()
    got = SWAAverager().fit(nets, data, held_out=other)
    rows = [row for row in got.report_ if row["role"] == "member"]
    assert len(rows) == 4
    for net, row in zip(nets, rows, strict=True):
        land = Landscape(net, data, batch_norm="recompute")
        assert row["train_loss"] == pytest.approx(land.loss(), abs=1e-7)
        assert row["held_out_accuracy"] == land.on(other).accuracy()
    average = got.transform(nets[0])
    frozen = Landscape(average, data)
    assert got.result_.row("average")["train_loss"] == pytest.approx(frozen.loss(), abs=1e-5)
    assert got.result_.row("average")["held_out_loss"] == pytest.approx(frozen.on(other).loss(), abs=1e-5)


def test_statistics_before_and_after_are_shown(data):
    nets = members()
    nets[-1].norm.running_mean.fill_(5.0)
    got = SWAAverager().fit(nets, data)
    stale = copy.deepcopy(nets[0])
    stale.load_state_dict({**got.state_dict_, **{k: v for k, v in nets[-1].state_dict().items() if "running" in k}})
    assert got.result_.row("average_before")["train_loss"] == pytest.approx(Landscape(stale, data).loss(), abs=1e-6)
    assert got.result_.row("average_before")["train_loss"] != got.result_.row("average")["train_loss"]
    assert got.statistics_["layers"] == 1
    assert got.statistics_["mean_shift"] > 1
    frozen = SWAAverager(batch_norm="frozen").fit(nets, data)
    assert torch.equal(frozen.state_dict_["norm.running_mean"], nets[-1].norm.running_mean)
    assert any("do not belong to the average" in note for note in frozen.notes_)


def test_a_model_without_batch_norm_says_that_there_is_nothing_to_recompute(data):
    got = SWAAverager().fit(members(norm=False), data)
    assert any("nothing to recompute" in note for note in got.notes_)
    assert all(row["role"] != "average_before" for row in got.report_)


def test_integers_and_plain_buffers_come_from_the_last_member_and_ties_stay(data):
    class Tied(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.a, self.b = nn.Linear(144, 144), nn.Linear(144, 144)
            self.b.weight = self.a.weight
            self.register_buffer("table", torch.tensor([value]))
            self.register_buffer("count", torch.tensor(int(value)))
            with torch.no_grad():
                self.a.weight.fill_(value)

        def forward(self, x):
            return self.b(self.a(x.flatten(1)))[:, :4] * 1e-4 + self.table

    got = SWAAverager().fit([Tied(1.0), Tied(2.0), Tied(6.0)], data)
    assert got.state_dict_["table"].item() == 6.0 and got.state_dict_["count"].item() == 6
    assert torch.equal(got.state_dict_["b.weight"], torch.full((144, 144), 3.0))
    out = got.transform(Tied(0.0))
    assert out.b.weight is out.a.weight


def test_transform_never_changes_its_input_nor_what_was_averaged(data):
    nets = members()
    nets[0].train()
    nets[1].conv.weight.requires_grad_(False)
    before = [copy.deepcopy(net.state_dict()) for net in nets]
    rng = torch.get_rng_state()
    fitted = SWAAverager(method="uniform_soup").fit(nets, data)
    new = fitted.transform(nets[0])
    for net, state in zip(nets, before, strict=True):
        assert far(net.state_dict(), state) == 0
    assert nets[0].training and not nets[2].training
    assert not nets[1].conv.weight.requires_grad and nets[0].conv.weight.requires_grad
    assert torch.equal(rng, torch.get_rng_state())
    assert new is not nets[0] and new.training
    with torch.no_grad():
        new.conv.weight.zero_()
    assert far(fitted.transform(nets[1]).state_dict(), fitted.state_dict_) == 0


def test_loaders_of_tuples_and_dicts_and_models_that_return_dicts(data):
    class Wrapped(Net):
        def forward(self, x):
            return {"logits": super().forward(x)}

    class Dicts(torch.utils.data.Dataset):
        def __len__(self):
            return len(data)

        def __getitem__(self, i):
            return {"image": data.inputs[i], "label": data.targets[i]}

    expected = SWAAverager(batch_size=32).fit(members(), data).state_dict_
    pairs = torch.utils.data.TensorDataset(data.inputs, data.targets)
    nets = [Wrapped(seed) for seed in range(4)]
    for source in (
        torch.utils.data.DataLoader(Dicts(), batch_size=10),
        torch.utils.data.DataLoader(pairs, batch_size=7),
    ):
        got = SWAAverager(batch_size=32).fit(nets, source)
        assert far(got.state_dict_, expected) < 1e-6


def test_greedy_soup_gives_a_verdict_for_each_member_and_never_does_worse(data, other):
    nets = members(5)
    with torch.no_grad():
        nets[3].head.weight.mul_(40)
        nets[3].head.bias.add_(torch.tensor([30.0, -30.0, 0.0, 0.0]))
    got = SWAAverager(method="greedy_soup", score="loss").fit(nets, data, held_out=other)
    rows = [r for r in got.report_ if r["role"] == "member"]
    assert sorted(r["order"] for r in rows) == list(range(5))
    assert rows[3]["order"] == 4 and not rows[3]["kept"] and rows[3]["share"] == 0
    kept = [r["kept"] for r in rows]
    assert got.n_averaged_ == sum(kept)
    best = min(r["held_out_loss"] for r in rows)
    assert got.result_.row("average")["held_out_loss"] <= best + 1e-6
    mean = torch.stack([n.conv.weight for n, k in zip(nets, kept, strict=True) if k]).mean(0)
    assert torch.allclose(got.state_dict_["conv.weight"], mean, atol=1e-6)
    assert any("optimistic" in n for n in got.notes_)
    assert any("training data" in n for n in SWAAverager(method="greedy_soup").fit(nets, data).notes_)


def test_barriers_between_trained_members_are_measured_and_pointed_out(trained_pair, digits):
    a, b = trained_pair
    got = SWAAverager(method="uniform_soup").fit([a, b], digits)
    assert got.barriers_.shape == (2, 2)
    assert got.barriers_[0, 1] == got.barriers_[1, 0] > 0.5
    assert got.barriers_[0, 0] == 0
    assert any("barrier" in note for note in got.notes_)
    assert got.result_.row("average")["train_loss"] > 0.5
    assert SWAAverager(method="uniform_soup", barrier_points=0).fit([a, b], digits).barriers_.size == 0


def test_an_average_saved_loads_in_plain_timm(trained_pair, digits, digits_test, tmp_path):
    a, b = trained_pair
    fitted = SWAAverager(method="greedy_soup").fit([a, b], digits, held_out=digits_test)
    path = tmp_path / "soup.safetensors"
    fitted.save(path)
    plain = timm.create_model("test_resnet", num_classes=10, checkpoint_path=str(path)).eval()
    ours = fitted.transform(a)
    with torch.no_grad():
        assert torch.equal(plain(digits.inputs[:8]), ours(digits.inputs[:8]))
    assert set(safetensors.torch.load_file(path)) == set(a.state_dict())


def test_train_follows_the_schedule_and_its_average_is_that_of_its_checkpoints(digits, digits_test, tmp_path):
    model = load_model("test_resnet", num_classes=10)
    before = copy.deepcopy(model.state_dict())
    rng = torch.get_rng_state()
    small = digits.subset(128)
    seen = []
    swa = SWAAverager(start=0.5, swa_lr=0.05, anneal_epochs=0.5)
    swa.train(
        model, small, epochs=4, held_out=digits_test, checkpoint_dir=tmp_path, compare=True, on_partial=seen.append
    )
    assert far(model.state_dict(), before) == 0
    assert torch.equal(rng, torch.get_rng_state())
    assert sorted(p.name for p in tmp_path.glob("*.safetensors")) == [f"epoch-{i:04d}.safetensors" for i in range(5)]
    assert [r["name"] for r in swa.report_ if r["role"] == "member"] == ["epoch 3", "epoch 4"]
    assert far(SWAAverager(start=0.5).fit(swa.run_, small).state_dict_, swa.state_dict_) < 1e-6
    table = [(r["role"], r["epoch"]) for r in swa.history_]
    assert [e for role, e in table if role == "iterate"] == [1, 2, 3, 4]
    assert [e for role, e in table if role == "swa"] == [3, 4]
    assert [e for role, e in table if role == "ema"] == [1, 2, 3, 4]
    rates = {(r["role"], r["epoch"]): r["learning_rate"] for r in swa.history_}
    assert rates["iterate", 4] == pytest.approx(0.05)
    assert rates["sgd", 2] != rates["sgd", 4] == pytest.approx(0.0, abs=1e-9)
    values = {(r["role"], r["epoch"]): r["train_loss"] for r in swa.history_}
    assert values["sgd", 2] == values["iterate", 2] and values["sgd", 4] != values["iterate", 4]
    assert swa.result_.row("sgd")["train_loss"] == values["sgd", 4]
    # the plain run is the one that train() itself gives
    from estimators import train

    alone = train(model, small, epochs=4, random_state=0)
    land = Landscape(alone.model, small, batch_norm="recompute")
    assert land.loss() == pytest.approx(values["sgd", 4], abs=1e-6)
    assert [len(p.history) for p in seen] == sorted(len(p.history) for p in seen) and seen
    assert math.isfinite(swa.ema_gap_)


def test_train_maps_the_plane_and_measures_how_sharp_its_points_are(digits):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 10))
    small = digits.subset(64)
    swa = SWAAverager(start=0.5).train(model, small, epochs=6, plane_resolution=3, sharpness=True)
    roles = [row["role"] for row in swa.sharpness_]
    assert roles == ["iterate", "swa", "ema"]
    at = private_copy(model)
    at.load_state_dict(swa.states_["swa"])
    own = SharpnessEstimator(measures="lambda_max", batch_norm="frozen").fit(at, small)
    assert swa.sharpness_[1]["lambda_max"] == own.lambda_max_
    assert swa.plane_losses_.shape == (3, 3) and {m["label"] for m in swa.plane_markers_} == {"SWA", "EMA"}


def test_ema_of_steps_agrees_with_torch_and_a_cold_one_is_flagged(data, blocks_of):
    blocks_of(48)
    model = Net(0)
    twin = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))
    from estimators import train

    def step(network):
        twin.update_parameters(network)

    train(model, data, epochs=3, batch_size=16, weight_decay=0.0, lr=0.3, on_step=step, random_state=0)
    update_bn(list(data.inputs.split(48)), twin)
    cold = SWAAverager(method="ema", warmup=False, start=0.99, batch_size=48)
    # the same run: start=0.99 leaves the learning rate alone until the last step but one
    cold.train(model, data, epochs=3, batch_size=16, weight_decay=0.0, lr=0.3)
    assert cold.n_averaged_ == 18
    assert far(cold.state_dict_, twin.module.state_dict()) < 1e-2  # one step differs in learning rate
    far_away = Net(0)
    with torch.no_grad():
        far_away.head.bias.add_(torch.tensor([20.0, 0.0, 0.0, 0.0]))
    flagged = SWAAverager(method="ema", warmup=False).fit([far_away, Net(0), Net(0)], data)
    assert flagged.ema_gap_flagged_ and flagged.ema_gap_ > 1
    assert any("early weights" in note for note in flagged.notes_)


def test_two_fits_are_equal_bit_for_bit_and_the_cache_answers_alike(data, other, tmp_path):
    a = SWAAverager(memory=str(tmp_path)).fit(members(), data, held_out=other)
    b = SWAAverager(memory=str(tmp_path)).fit(members(), data, held_out=other)
    c = SWAAverager().fit(members(), data, held_out=other)
    assert a.report_ == b.report_ == c.report_
    assert far(a.state_dict_, b.state_dict_) == 0


# -- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stranger", "listed"),
    [
        (Net(1, norm=False), ("norm.weight", "norm.bias", "norm.running_mean", "norm.running_var")),
        # of more than five the first are shown, and how many there are
        (Net(1, width=5, norm=False), ("7 mismatches", "norm.weight", "conv.weight: (5, 1, 3, 3)", "(6, 1, 3, 3)")),
    ],
)
def test_differences_between_architectures_are_listed(data, stranger, listed):
    with pytest.raises(ValueError, match=r"checkpoints\[1\]") as caught:
        SWAAverager().fit([Net(0), stranger, Net(2)], data, model=Net(0))
    for part in listed:
        assert part in str(caught.value)


def test_one_checkpoint_is_refused(data):
    with pytest.raises(ValueError, match="at least 2 to average, got 1"):
        SWAAverager().fit([Net(0)], data)


def test_identical_members_are_pointed_out(data):
    got = SWAAverager().fit([Net(0), Net(0), Net(1)], data)
    assert any("same weights" in note for note in got.notes_)


def test_members_that_are_not_finite_are_named(data):
    bad = Net(1)
    with torch.no_grad():
        bad.conv.weight[0] = math.nan
    with pytest.raises(ValueError, match=r"#1 must have finite weights.*conv\.weight"):
        SWAAverager().fit([Net(0), bad], data)


def test_statistics_that_turn_non_finite_are_said_and_losses_kept_as_they_are(data):
    nets = members(2)
    with torch.no_grad():
        for net in nets:
            net.conv.weight.mul_(1e30)
    got = SWAAverager().fit(nets, data)
    assert any("not finite in norm.running_var" in note for note in got.notes_)
    own = Landscape(got.transform(nets[0]), data, batch_norm="recompute").loss()
    np.testing.assert_equal(got.result_.row("average")["train_loss"], own)  # NaN included


def test_paths_without_an_architecture_say_what_to_give(data, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, Net(0).state_dict())
    with pytest.raises(ValueError, match=r"model must be a torch\.nn\.Module when no checkpoint is one"):
        SWAAverager().fit([path, path], data)
    with pytest.raises(TypeError, match="checkpoints must be a TrainingRun or a list"):
        SWAAverager().fit(str(path), data)
    with pytest.raises(ValueError, match="first checkpoint"):
        SWAAverager().partial_fit(path)
    (tmp_path / "b.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="safetensors"):
        SWAAverager().fit([Net(0), tmp_path / "b.safetensors"], data)
    with pytest.raises(TypeError, match="module, a state dict or a path, got int"):
        SWAAverager().fit([Net(0), 3], data)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("method", "mean"),
        ("schedule", "cosine"),
        ("score", "f1"),
        ("start", 1.0),
        ("start", -0.1),
        ("every", 0),
        ("swa_lr", 0.0),
        ("decay", 1.0),
        ("anneal_epochs", -1),
        ("barrier_points", 2),
        ("batch_norm", "none"),
    ],
)
def test_settings_that_are_not_allowed(data, setting, value):
    with pytest.raises(ValueError, match=f"The '{setting}' parameter of SWAAverager must be"):
        SWAAverager(**{setting: value}).fit([Net(0), Net(1)], data)


def test_soups_neither_train_nor_stream_greedily(data):
    with pytest.raises(ValueError, match="method must be 'swa' or 'ema' for train"):
        SWAAverager(method="uniform_soup").train(Net(0), data)
    with pytest.raises(ValueError, match="for partial_fit, got 'greedy_soup'"):
        SWAAverager(method="greedy_soup").partial_fit(Net(0))


def test_transform_refuses_another_architecture_and_non_modules(data):
    fitted = SWAAverager().fit([Net(0), Net(1)], data)
    with pytest.raises(ValueError, match=r"The average does not fit[\s\S]*conv\.weight"):
        fitted.transform(Net(0, width=5))
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module"):
        fitted.transform("test_resnet")


def test_cancelling_stops_between_members(data):
    def stop(done, total, message):
        raise Cancelled

    with pytest.raises(Cancelled):
        SWAAverager().fit(members(), data, on_progress=stop)


# -- scikit-learn ---------------------------------------------------------------------------------------


def test_behaves_as_scikit_learn_expects(data, other, tmp_path):
    estimator = SWAAverager(method="ema", decay=0.5)
    assert clone(estimator).get_params() == estimator.get_params()
    assert estimator.set_params(decay=0.7).decay == 0.7
    with pytest.raises(NotFittedError):
        estimator.transform(Net(0))
    with pytest.raises(NotFittedError):
        estimator.save(tmp_path / "a.safetensors")
    estimator.set_output(transform="pandas")
    fitted = estimator.fit([Net(0), Net(1)], data, held_out=other)
    assert isinstance(fitted.transform(Net(0)), Net)
    again = pickle.loads(pickle.dumps(fitted))
    assert far(again.state_dict_, fitted.state_dict_) == 0
    assert again.report_ == fitted.report_
    assert not hasattr(clone(fitted), "state_dict_")
    assert "SWAAverager" in fitted._repr_html_()


def test_result_survives_a_file(data, other, tmp_path):
    got = SWAAverager(method="uniform_soup").fit(members(), data, held_out=other).result_
    back = Result.load(got.save(tmp_path / "average.npz"))
    assert isinstance(back, AverageResult)
    assert back.report == got.report and np.array_equal(back.barriers, got.barriers)
    with pytest.raises(ValueError, match="role must be one of"):
        back.row("nobody")


def test_the_barrier_of_a_soup_is_looked_for_between_the_points_of_its_grid():
    class Bump(nn.Module):
        def __init__(self, at):
            super().__init__()
            self.at = nn.Parameter(torch.tensor([at]))

        def forward(self, x):
            return torch.exp(-(((self.at - 0.3) / 0.3) ** 2)).expand(len(x), 1)

    data = (torch.randn(8, 1, 2, 2), torch.zeros(8, 1))
    got = SWAAverager(method="uniform_soup", loss="mse", barrier_points=3).fit([Bump(0.0), Bump(1.0)], data)
    t = np.linspace(0, 1, 1001)
    losses = np.exp(-2 * ((t - 0.3) / 0.3) ** 2)
    assert barrier(t[::500], losses[::500]) < 0.5 * barrier(t, losses)
    assert got.barriers_[0, 1] == pytest.approx(barrier(t, losses), rel=0.01)
