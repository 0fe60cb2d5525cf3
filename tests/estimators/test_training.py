import copy
import gc
import os
import pickle
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from estimators import Cancelled, Landscape, load_model, read_checkpoint, train
from estimators.training import SCHEDULES


def test_digits_are_learnt_and_checkpoints_are_the_epochs(trained_pair, digits_all, digits_test, tmp_path):
    for model in trained_pair:
        with torch.no_grad():
            assert (model(digits_test.inputs).argmax(1) == digits_test.targets).float().mean() >= 0.98
    model = load_model("test_resnet", num_classes=10)
    run = train(model, digits_all.subset(200), epochs=2, held_out=digits_test, checkpoint_dir=tmp_path)
    assert [p.name for p in run.checkpoints] == [f"epoch-000{i}.safetensors" for i in range(3)]
    last, _ = read_checkpoint(run.checkpoints[-1])
    assert all(torch.equal(v, last[k]) for k, v in run.model.state_dict().items())
    assert run.history["held_out_accuracy"].shape == (2,)


def test_equal_seeds_give_equal_weights_and_the_caller_is_left(digits):
    model = load_model("test_resnet", num_classes=10)
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    runs = [train(model, digits.subset(100), epochs=1, random_state=s).model.fc.weight for s in (0, 0, 1)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_one_full_batch_step_is_gradient_descent():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.arange(8) % 2
    run = train(model, (x, y), epochs=1, batch_size=8, lr=0.3, momentum=0.0, weight_decay=0.1, schedule="flat")
    expected = copy.deepcopy(model)
    F.cross_entropy(expected(x), y).backward()
    with torch.no_grad():
        for p in expected.parameters():
            p -= 0.3 * (p.grad + 0.1 * p)
    torch.testing.assert_close(run.model.weight, expected.weight)


def test_sam_descends_with_the_gradient_at_the_ascended_point():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 2), torch.randn(8, 3), torch.arange(8) % 2
    options = {"epochs": 1, "batch_size": 8, "lr": 0.3, "momentum": 0.0, "weight_decay": 0.0, "schedule": "flat"}
    run = train(model, (x, y), sam_rho=0.5, **options)
    probe = copy.deepcopy(model)
    F.cross_entropy(probe(x), y).backward()
    norm = torch.sqrt(sum(p.grad.square().sum() for p in probe.parameters()))
    ascended = copy.deepcopy(model)
    with torch.no_grad():
        for p, q in zip(ascended.parameters(), probe.parameters(), strict=True):
            p += 0.5 * q.grad / norm
    F.cross_entropy(ascended(x), y).backward()
    torch.testing.assert_close(run.model.weight, model.weight - 0.3 * ascended.weight.grad)


def test_sam_probes_do_not_touch_batch_norm_statistics(digits):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 10))
    options = {"epochs": 1, "batch_size": 64, "lr": 1e-9, "weight_decay": 0.0}
    plain = train(model, digits.subset(64), **options)
    sam = train(model, digits.subset(64), sam_rho=0.1, **options)
    torch.testing.assert_close(plain.model[1].running_mean, sam.model[1].running_mean)


def test_stopping_label_noise_and_divergence(digits):
    model = load_model("test_resnet", num_classes=10)
    stopped = train(model, digits, epochs=30, stop_at_loss=0.5)
    assert len(stopped.history["loss"]) < 30
    assert Landscape(stopped.model, digits).loss() <= 0.5  # in evaluation mode, not the epoch's running mean
    noisy = train(model, digits, epochs=6, label_noise=1.0)
    assert noisy.history["accuracy"][-1] < 0.6 < train(model, digits, epochs=6).history["accuracy"][-1]
    diverged = train(nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), digits, epochs=5, lr=1e30, momentum=0.0)
    assert not np.isfinite(diverged.history["loss"][-1])


def test_schedules_start_warm_and_end_where_they_say():
    assert SCHEDULES["cosine"](1.0) == pytest.approx(0) and SCHEDULES["cosine"](0.05) < SCHEDULES["cosine"](0.1)
    assert SCHEDULES["constant"](0.5) == SCHEDULES["flat"](0.0) == 1.0


def test_cancelling_leaves_the_checkpoints(digits, tmp_path):
    def stop(done, total, message):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(load_model("test_resnet", num_classes=10), digits.subset(64), checkpoint_dir=tmp_path, on_progress=stop)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"lr": -1.0}, {"optimizer": "lion"}, {"schedule": "step"}, {"batch_size": 0}, {"label_noise": 2.0}],
)
def test_bad_input_is_said(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name} must be"):
        train(nn.Linear(2, 2), (torch.randn(4, 2), torch.tensor([0, 1, 0, 1])), **options)


def normed(**options):
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, **options), nn.ReLU(), nn.Linear(4, 2))


def three_by(n):
    torch.manual_seed(0)
    return torch.randn(n, 3), torch.arange(n) % 2


@pytest.mark.parametrize("options", [{}, {"track_running_stats": False}])
def test_one_example_is_no_batch_for_batch_norm(options):
    with pytest.raises(ValueError, match="batch_size must be at least 2 for a network with batch norm, got 1: one"):
        train(normed(**options), three_by(6), batch_size=1)
    run = train(normed(**options), three_by(5), batch_size=2, epochs=2)  # the last batch of one is left out
    assert np.isfinite(run.history["loss"]).all() and (run.history["accuracy"] * 4 % 1 == 0).all()


def test_other_networks_train_on_single_examples():
    run = train(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)), three_by(5), batch_size=1, epochs=1)
    assert np.isfinite(run.history["loss"]).all() and (run.history["accuracy"] * 5 % 1 == 0).all()


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def left_in(folder):
    gc.collect()
    return list(folder.rglob("*.safetensors"))


def test_epochs_in_the_temporary_folder_go_with_the_last_path_to_them(temporary):
    run = train(nn.Linear(3, 2), three_by(4), epochs=2)
    assert len(left_in(temporary)) == 3
    paths, last = run.checkpoints, train(nn.Linear(3, 2), three_by(4), epochs=2).checkpoints[-1]
    del run
    assert len(left_in(temporary)) == 6
    one = copy.deepcopy(paths)[1]
    del paths
    assert read_checkpoint(one) and read_checkpoint(last) and read_checkpoint(last.parent / last.name)
    sibling = last.with_name("epoch-0000.safetensors")
    assert sibling.exists() and pickle.loads(pickle.dumps(last)) == last
    del one, last, sibling
    assert left_in(temporary) == [] and list(temporary.iterdir()) == []


def test_a_training_that_fails_leaves_nothing_and_a_given_folder_stays(temporary):
    def stop(done, total, message):
        raise Cancelled

    for _ in range(2):
        with pytest.raises(Cancelled):
            train(nn.Linear(3, 2), three_by(4), on_progress=stop)
    assert left_in(temporary) == []
    train(nn.Linear(3, 2), three_by(4), epochs=1, checkpoint_dir=temporary / "mine")
    assert len(left_in(temporary)) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_take_its_parents_epochs(temporary):
    run = train(nn.Linear(3, 2), three_by(4), epochs=1)
    child = os.fork()
    if child == 0:
        del run
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(left_in(temporary)) == 2 and run.checkpoints[0].exists()


def test_a_program_that_ends_leaves_no_epochs(tmp_path):
    program = """
import torch
from estimators import train
run = train(torch.nn.Linear(3, 2), (torch.randn(4, 3), torch.tensor([0, 1, 0, 1])), epochs=1)
assert all(p.exists() for p in run.checkpoints)
raise RuntimeError("an end like any other")
"""
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=False, timeout=300, capture_output=True)
    assert not list(tmp_path.glob("loss-atlas-*"))
