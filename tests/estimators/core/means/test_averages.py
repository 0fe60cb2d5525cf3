"""Averages of weights against closed forms and against torch's own averaging."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

from estimators.core.means.averages import (
    ExponentialMean,
    RunningMean,
    accumulation_dtype,
    differences,
    greedy_soup,
    is_weight,
    warmed_decay,
)
from estimators.core.means.schedules import AFTER_THE_SWITCH, annealed, cyclic, half_cosine, swa_learning_rate


def small_net(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        net[1].running_var.uniform_(0.5, 2)
        net[1].running_mean.normal_()
        net[1].num_batches_tracked.fill_(seed)
    return net


def distance(a, b) -> float:
    return max(float((a[k].double() - b[k].double()).abs().max()) for k in a)


def test_running_mean_is_the_arithmetic_mean_in_float64():
    states = [
        {"w": torch.randn(7, 3, generator=torch.Generator().manual_seed(s), dtype=torch.float64)} for s in range(5)
    ]
    mean = RunningMean()
    for s in states:
        mean.update(s)
    expected = torch.stack([s["w"] for s in states]).mean(0)
    assert mean.n == 5
    assert torch.allclose(mean.state()["w"], expected, rtol=0, atol=1e-15)
    assert mean.state()["w"].dtype == torch.float64


def test_running_mean_agrees_with_torch_swa():
    nets = [small_net(s) for s in range(6)]
    theirs = AveragedModel(nets[0])
    ours = RunningMean(buffers={n for n, _ in nets[0].named_buffers()})
    for net in nets:
        theirs.update_parameters(net)
        ours.update(net.state_dict())
    assert distance(ours.state(), theirs.module.state_dict()) < 1e-6


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_exponential_mean_without_warmup_agrees_with_torch(decay):
    nets = [small_net(s) for s in range(8)]
    theirs = AveragedModel(nets[0], multi_avg_fn=get_ema_multi_avg_fn(decay))
    ours = ExponentialMean(decay=decay, warmup=False)
    for net in nets:
        theirs.update_parameters(net)
        ours.update(net.state_dict())
    assert distance(ours.state(), theirs.module.state_dict()) < 1e-6


def test_exponential_mean_closed_form_with_and_without_warmup():
    values = [3.0, -1.0, 4.0, 1.5]
    plain, warm = ExponentialMean(decay=0.8, warmup=False), ExponentialMean(decay=0.8, warmup=True)
    for v in values:
        for m in (plain, warm):
            m.update({"w": torch.tensor([v], dtype=torch.float64)})
    closed = 0.8**3 * 3 + 0.2 * (0.8**2 * -1 + 0.8 * 4 + 1.5)
    assert plain.state()["w"].item() == pytest.approx(closed, abs=1e-12)
    expected = values[0]
    for n, v in enumerate(values[1:], 1):
        d = (1 + n) / (10 + n)
        expected = d * expected + (1 - d) * v
    assert warm.state()["w"].item() == pytest.approx(expected, abs=1e-12)


def test_warmup_follows_a_moving_model_that_the_plain_average_has_not_left():
    plain, warm = ExponentialMean(decay=0.999, warmup=False), ExponentialMean(decay=0.999)
    for v in torch.linspace(0, 1, 50):
        plain.update({"w": v.reshape(1)})
        warm.update({"w": v.reshape(1)})
    assert plain.state()["w"].item() < 0.05
    assert warm.state()["w"].item() > 0.8
    assert warmed_decay(0.999, 10**6) == 0.999
    assert warmed_decay(0.999, 80) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "mean", [RunningMean(), ExponentialMean(decay=0.6, warmup=False), ExponentialMean(decay=0.6)], ids=str
)
def test_the_shares_of_the_members_make_up_the_mean(mean):
    values = torch.tensor([3.0, -1.0, 4.0, 1.5], dtype=torch.float64)
    for v in values:
        mean.update({"w": v.reshape(1)})
    shares = torch.tensor(mean.shares(), dtype=torch.float64)
    assert shares.sum().item() == pytest.approx(1)
    assert mean.state()["w"].item() == pytest.approx(float(shares @ values))


def test_buffers_and_integers_come_from_the_last_member():
    nets = [small_net(s) for s in range(3)]
    mean = RunningMean(buffers={n for n, _ in nets[0].named_buffers()})
    for net in nets:
        mean.update(net.state_dict())
    out, last = mean.state(), nets[-1].state_dict()
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(out[name], last[name])
        assert out[name].dtype == last[name].dtype
    assert out["1.num_batches_tracked"].item() == 2


def test_what_counts_as_a_weight():
    assert is_weight("a.weight", torch.zeros(1))
    assert not is_weight("bn.running_var", torch.zeros(1))
    assert not is_weight("table", torch.zeros(1), {"table"})
    assert is_weight("table", torch.zeros(1))
    assert not is_weight("index", torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_members_are_averaged_in_float32(dtype):
    # 2048 + 1 is 2048 in float16, so a sum kept in half precision would be stuck.
    members = [{"w": torch.tensor([2048.0], dtype=dtype)}] + [{"w": torch.tensor([1.0], dtype=dtype)}] * 999
    mean = RunningMean()
    for m in members:
        mean.update(m)
    assert mean.state()["w"].dtype == torch.float32
    assert mean.state()["w"].item() == pytest.approx((2048 + 999) / 1000, rel=1e-6)
    assert accumulation_dtype(dtype) == torch.float32


def test_tied_weights_are_averaged_once_and_stay_tied():
    class Tied(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.embed = nn.Linear(3, 3, bias=False)
            self.head = nn.Linear(3, 3, bias=False)
            self.head.weight = self.embed.weight
            with torch.no_grad():
                self.embed.weight.fill_(value)

    mean = RunningMean()
    for v in (1.0, 2.0, 6.0):
        mean.update(Tied(v).state_dict())
    out = mean.state()
    assert out["embed.weight"].data_ptr() == out["head.weight"].data_ptr()
    assert torch.equal(out["head.weight"], torch.full((3, 3), 3.0))


@pytest.mark.parametrize("cls", [RunningMean, lambda: ExponentialMean(decay=0.5, warmup=False)])
def test_members_that_are_not_tied_alike_keep_both_values(cls):
    shared = torch.tensor([1.0])
    mean = cls()
    mean.update({"a": shared, "b": shared})
    mean.update({"a": torch.tensor([3.0]), "b": torch.tensor([5.0])})
    out = mean.state()
    assert (out["a"].item(), out["b"].item()) == (2.0, 3.0)


def test_lazily_read_tensors_are_not_mistaken_for_tied_ones():
    class Lazy(dict):  # a fresh tensor at every read: freed memory is handed out again at the same address
        def __getitem__(self, name):
            return torch.full((64,), dict.__getitem__(self, name))

    mean = RunningMean()
    mean.update(Lazy({f"w{i}": float(i) for i in range(50)}))
    assert [mean.state()[f"w{i}"][0].item() for i in range(50)] == [float(i) for i in range(50)]


def test_the_members_are_never_changed_and_the_average_does_not_share_their_memory():
    a, b = {"w": torch.ones(3)}, {"w": torch.zeros(3)}
    mean = RunningMean()
    mean.update(a)
    mean.update(b)
    out = mean.state()
    out["w"].fill_(9)
    assert torch.equal(a["w"], torch.ones(3)) and torch.equal(b["w"], torch.zeros(3))
    assert torch.equal(mean.state()["w"], torch.full((3,), 0.5))


def test_every_difference_between_members_is_listed_and_nothing_is_taken_in():
    mean = RunningMean()
    mean.update({"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1)})
    with pytest.raises(ValueError, match="3 differences") as caught:
        mean.update({"a": torch.ones(2), "b": torch.ones(4), "d": torch.ones(1)})
    for part in ("b: shape (4,) instead of (3,)", "c: missing", "d: unexpected"):
        assert part in str(caught.value)
    assert mean.n == 1
    assert torch.equal(mean.state()["a"], torch.zeros(2))
    assert differences({"a": torch.zeros(1)}, {"a": torch.ones(1)}) == []


def test_an_empty_average_says_so():
    with pytest.raises(ValueError, match="at least one member"):
        RunningMean().state()


def test_greedy_soup_keeps_what_helps_and_gives_a_verdict_for_each():
    # Score: closeness to 1. Alone 1.2 is best; 0.7 brings the mean to 0.95; 9 would ruin it.
    members = [{"w": torch.tensor([v], dtype=torch.float64)} for v in (9.0, 1.2, 0.7)]
    state, verdicts = greedy_soup(members, lambda s: -abs(s["w"].item() - 1))
    assert [(v.member, v.kept) for v in verdicts] == [(1, True), (2, True), (0, False)]
    assert state["w"].item() == pytest.approx(0.95)
    assert verdicts[1].soup_score == pytest.approx(-0.05)
    assert verdicts[2].soup_score == pytest.approx(-abs((1.2 + 0.7 + 9) / 3 - 1))


def test_greedy_soup_never_scores_below_its_best_member_and_ignores_nan():
    g = torch.Generator().manual_seed(0)
    members = [{"w": torch.randn(4, generator=g, dtype=torch.float64)} for _ in range(8)]
    members.append({"w": torch.full((4,), math.nan, dtype=torch.float64)})

    def score(s):
        return -float((s["w"] - 0.3).square().sum())

    state, verdicts = greedy_soup(members, score)
    assert score(state) >= max(score(m) for m in members[:-1])
    assert verdicts[-1].member == 8 and not verdicts[-1].kept
    kept = [members[v.member]["w"] for v in verdicts if v.kept]
    assert torch.allclose(state["w"], torch.stack(kept).mean(0), atol=1e-14)


def test_greedy_soup_of_nothing_says_so():
    with pytest.raises(ValueError, match="members must hold at least one state"):
        greedy_soup([], lambda s: 0.0)


def test_a_copy_is_independent():
    mean = RunningMean()
    mean.update({"w": torch.ones(2)})
    other = copy.copy(mean.copy())
    other.update({"w": torch.full((2,), 3.0)})
    assert torch.equal(mean.state()["w"], torch.ones(2))
    assert torch.equal(other.state()["w"], torch.full((2,), 2.0))


@pytest.mark.parametrize(("shape", "name"), [("cosine", "cos"), ("linear", "linear")])
def test_annealing_agrees_with_torch_swalr(shape, name):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = SWALR(optimizer, swa_lr=0.05, anneal_epochs=5, anneal_strategy=name)
    for epoch in range(9):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(annealed(epoch, 0.3, 0.05, 5, shape), abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_annealing_over_no_time_jumps():
    assert annealed(0.0, 0.3, 0.05, 0) == 0.05


def test_cyclic_schedule_is_izmailovs_sawtooth():
    assert cyclic(0.0, 0.05, 0.01, 2) == pytest.approx(0.05)
    assert cyclic(1.0, 0.05, 0.01, 2) == pytest.approx(0.03)
    assert cyclic(2.0 - 1e-9, 0.05, 0.01, 2) == pytest.approx(0.01, abs=1e-8)
    assert cyclic(2.0, 0.05, 0.01, 2) == pytest.approx(0.05)


@pytest.mark.parametrize("schedule", list(AFTER_THE_SWITCH))
def test_swa_run_is_the_cosine_run_until_the_switch(schedule):
    kwargs = {"lr": 0.1, "swa_lr": 0.05, "epochs": 20, "start": 0.75, "schedule": schedule}
    for progress in (0.0, 0.3, 0.7499):
        assert swa_learning_rate(progress, **kwargs) == 0.1 * half_cosine(progress)
        assert swa_learning_rate(progress, **kwargs, base=lambda p: p) == 0.1 * progress
    at = swa_learning_rate(0.75, **kwargs)
    assert at == pytest.approx(0.1 * half_cosine(0.75) if schedule == "constant" else 0.05)
    after = [swa_learning_rate(p, **kwargs) for p in (0.81, 0.9, 0.99)]
    if schedule == "constant":
        assert after == pytest.approx([0.05] * 3)
    else:
        assert all(0.005 <= v <= 0.05 for v in after) and len(set(after)) > 1
