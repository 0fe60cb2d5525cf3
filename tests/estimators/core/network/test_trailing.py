"""Passes made cheaper: a frozen backbone run once, several points at once, a recorded pass replayed."""

import numpy as np
import pytest
import torch
from torch import nn

from estimators import Landscape, SurfaceMapper, load_model
from estimators import landscape as landscape_module
from estimators.core.network.cuda_graph import recorded
from estimators.core.network.trailing import moving_tail


@pytest.fixture(scope="module")
def few(digits):
    return digits.subset(24, random_state=0)


def head_only(name):
    model = load_model(name, num_classes=10, image_size=32, random_state=0)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in model.get_classifier().parameters():
        parameter.requires_grad_(True)
    return model


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext"])
def test_a_frozen_backbone_is_run_once_and_changes_nothing(name, few):
    model = head_only(name)
    land = Landscape(model, few, precision="float64", batch_size=10)
    assert land.settings["backbone"] == "run once"
    land.hvp(land.theta)  # the first derivatives are checked, on a few examples and the whole network
    land.gradient()
    calls = []
    handle = land._network.module.register_forward_hook(lambda *_: calls.append(1))
    whole = Landscape(load_model(name, num_classes=10, image_size=32, random_state=0), few, precision="float64")
    assert "backbone" not in whole.settings
    whole = Landscape(model, few, precision="float64", batch_size=10)
    whole._network.tail, whole._network.forward_module = None, whole._network.module
    whole._inputs, _ = whole._place(whole.data)
    step = torch.randn(land.n_parameters, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for theta in (land.theta, land.theta + 0.1 * step):
        assert land.loss(theta) == pytest.approx(whole.loss(theta), rel=1e-10)
        torch.testing.assert_close(land.gradient(theta), whole.gradient(theta), rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(land.hvp(step, theta), whole.hvp(step, theta), rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(land.outputs(theta), whole.outputs(theta), rtol=1e-10, atol=1e-12)
    assert not calls
    handle.remove()
    other = few.subset(12, random_state=1)
    assert land.on(other).loss() == pytest.approx(Landscape(model, other, precision="float64").loss(), rel=1e-10)


def test_the_whole_network_runs_where_something_follows_theta(few):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
            self.head = nn.Linear(10, 10)

        def forward(self, x):
            return self.head(self.head(self.body(x)))

    model = Twice()
    for loss in (Landscape(model, few, parameters="head"), Landscape(model, few, parameters="body")):
        assert "backbone" not in loss.settings
    batch_norm = load_model("test_resnet", num_classes=10, image_size=32)
    assert "backbone" not in Landscape(batch_norm, few, parameters="fc", batch_norm="batch").settings


@pytest.mark.parametrize("tied", ["same object", "same memory", "in the forward pass"])
def test_the_whole_network_runs_where_the_backbone_uses_theta_too(tied):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            if tied == "same object":
                self.body.weight = self.head.weight
            if tied == "same memory":
                self.body.weight.data = self.head.weight.data

        def forward(self, x):
            weight = self.head.weight if tied == "in the forward pass" else self.body.weight
            return self.head(torch.tanh(nn.functional.linear(x, weight)))

    torch.manual_seed(0)
    model, x = Shared().eval(), torch.randn(9, 6)
    assert moving_tail(model, [model.head.weight], x) is None
    if tied != "same memory":  # which a copy of the model would undo
        assert "backbone" not in Landscape(model, (x, torch.arange(9) % 3), parameters="head").settings
    model.body.weight = nn.Parameter(torch.randn(6, 6))
    if tied != "in the forward pass":
        assert moving_tail(model, [model.head.weight], x) is model.head


def test_points_in_one_pass_agree_with_single_passes(few):
    for name in ("test_resnet", "test_vit"):
        model = load_model(name, num_classes=10, image_size=32, random_state=0)
        maps = [SurfaceMapper(resolution=(5, 3), points_per_pass=k, batch_size=10).fit(model, few) for k in (1, 4)]
        np.testing.assert_allclose(maps[1].losses_, maps[0].losses_, rtol=1e-5)
        np.testing.assert_allclose(maps[1].accuracies_, maps[0].accuracies_, atol=1 / 24 + 1e-9)
        assert maps[1].losses_[2, 1] == maps[0].losses_[2, 1]  # the centre, to the last bit
        assert maps[1]._land.fingerprint != maps[0]._land.fingerprint


def test_points_in_one_pass_with_tied_weights_and_other_inputs():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.second.weight = self.first.weight

        def forward(self, x):
            return {"logits": self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))}

    torch.manual_seed(0)
    model = Tied()
    data = (torch.randn(9, 6), torch.arange(9) % 3)
    here = Landscape(model, data).theta
    thetas = here + 0.3 * torch.randn(5, len(here))
    expected = Landscape(model, data, precision="float64").losses(thetas)
    found = Landscape(model, data, precision="float64", points_per_pass=2).evaluate(thetas, np.eye(5) + 1e-12)
    np.testing.assert_allclose(found.losses, expected, rtol=1e-9)


def test_points_in_one_pass_refuse_what_they_cannot_do(few):
    model = load_model("test_resnet", num_classes=10, image_size=32)
    with pytest.raises(ValueError, match=r"points_per_pass must be 1 with batch norm under batch_norm='recompute'"):
        Landscape(model, few, batch_norm="recompute", points_per_pass=4)
    with pytest.raises(ValueError, match="points_per_pass must be an integer of at least 1"):
        Landscape(model, few, points_per_pass=0)


def test_a_recorded_pass_reads_the_new_point(few, monkeypatch):
    """A CUDA graph replays into one output buffer: the stand-in does the same, so an answer kept would show."""

    def stand_in(compute, device):
        output = compute()
        recordings.append(device)

        def replay():
            output.copy_(compute())
            return output.clone()

        return replay

    recordings = []
    model = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    held_out = few.subset(10, random_state=1)
    expected = SurfaceMapper(resolution=9).fit(model, few, held_out=held_out)
    monkeypatch.setattr(landscape_module, "recorded", stand_in)
    found = SurfaceMapper(resolution=9).fit(model, few, held_out=held_out)
    np.testing.assert_array_equal(found.losses_, expected.losses_)
    np.testing.assert_array_equal(found.held_out_losses_, expected.held_out_losses_)
    assert len(recordings) == 2, "once for each set of examples, not once a chunk"
    recordings.clear()
    land = Landscape(model, few, batch_norm="recompute")
    land.evaluate(land.theta[None], np.ones((20, 1)))
    assert not recordings, "statistics that are estimated at every point are not recorded"


def test_nothing_is_recorded_without_cuda():
    def compute():
        return torch.zeros(2)

    assert recorded(compute, torch.device("cpu")) is compute


def test_bfloat16_says_how_far_it_is_from_float32(few):
    model = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    deviation = Landscape(model, few, precision="bfloat16").settings["bfloat16_deviation"]
    exact, mixed = (Landscape(model, few, precision=p).loss() for p in ("float32", "bfloat16"))
    assert deviation == pytest.approx(abs(mixed / exact - 1), rel=1e-6)
    maps = [SurfaceMapper(resolution=3, precision=p).fit(model, few) for p in ("float32", "bfloat16")]
    largest = np.max(np.abs(maps[1].losses_ - maps[0].losses_) / maps[0].losses_)
    assert maps[1].result_.settings["bfloat16_deviation"] == pytest.approx(largest, rel=1e-6)
    assert 0 < largest < 0.1
    assert "bfloat16_deviation" not in maps[0].result_.settings


def test_a_map_of_the_head_alone_is_faster(digits):
    """Not timed: the convolutions run once for all points, which is counted."""
    model = head_only("test_resnet")
    calls = []
    original = nn.Conv2d._conv_forward

    def counted(self, *args):
        calls.append(1)
        return original(self, *args)

    nn.Conv2d._conv_forward = counted
    try:
        counts = []
        for resolution in (3, 9):
            calls.clear()
            mapper = SurfaceMapper(resolution=resolution).fit(model, digits.subset(24, random_state=0))
            assert mapper.n_evaluated_ == resolution**2
            counts.append(len(calls))
    finally:
        nn.Conv2d._conv_forward = original
    assert counts[0] == counts[1] > 0
