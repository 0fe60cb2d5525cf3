"""A training, an average, a path or a comparison that is stopped anywhere goes on to the same numbers, bit for bit."""

import threading

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from estimators import ArchitectureComparer, Landscape, ModeConnector, SWAAverager, load_data, resuming, train
from estimators.resuming import FILE
from estimators.training import _Step
from estimators.variants import Variant


class Killed(BaseException):
    """What a kill is to the program: nothing in it gets a chance to tidy up."""


def network(dropout=0.2, width=8):
    torch.manual_seed(0)
    drop = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(
        nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), *drop, nn.Linear(36 * width, 10)
    )


@pytest.fixture(scope="module")
def few():
    torch.manual_seed(0)
    return torch.randn(48, 3, 8, 8), torch.arange(48) % 10


def stopping(at):
    steps = 0

    def on_step(module):
        nonlocal steps
        steps += 1
        if steps == at:
            raise Killed

    return on_step


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("stops", [[1], [7], [11, 2, 3], [4, 4, 4]])
@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw", "lr": 0.01}, {"sam_rho": 0.05, "label_noise": 0.2}])
def test_a_training_goes_on_after_its_last_epoch(few, tmp_path, stops, options):
    asked = {"epochs": 4, "batch_size": 16, "held_out": few, **options}
    expected = train(network(), few, **asked)
    for at in stops:
        with pytest.raises(Killed):
            train(network(), few, checkpoint_dir=tmp_path, on_step=stopping(at), **asked)
        torch.manual_seed(at)  # the global generator does not matter
    found = train(network(), few, checkpoint_dir=tmp_path, **asked)
    assert equal(found.model, expected.model)
    assert all(np.array_equal(found.history[k], expected.history[k]) for k in expected.history)
    assert [p.name for p in found.checkpoints] == [p.name for p in expected.checkpoints]
    for mine, theirs in zip(found.checkpoints, expected.checkpoints, strict=True):
        a, b = load_file(mine), load_file(theirs)
        assert all(torch.equal(a[name], b[name]) for name in b)
    again = train(network(), few, checkpoint_dir=tmp_path, on_step=stopping(1), **asked)  # nothing is trained again
    assert equal(again.model, expected.model)


def test_no_epoch_is_trained_twice(few, tmp_path):
    seen = []
    with pytest.raises(Killed):
        train(network(), few, epochs=4, batch_size=16, checkpoint_dir=tmp_path, on_step=stopping(8))
    train(network(), few, epochs=4, batch_size=16, checkpoint_dir=tmp_path, on_epoch=lambda e, *_: seen.append(e))
    assert seen == [3, 4]


@pytest.mark.parametrize("change", ["lr", "model", "data", "damage", "gone"])
def test_another_training_starts_at_its_own_beginning(few, tmp_path, change):
    train(network(), few, epochs=2, batch_size=16, checkpoint_dir=tmp_path)
    x, y = few
    model, data, lr = network(), (x + 1, y) if change == "data" else few, 0.05 if change == "lr" else 0.1
    if change == "model":
        nn.init.zeros_(model[-1].bias)
    if change == "damage":
        raw = bytearray((tmp_path / FILE).read_bytes())
        raw[len(raw) // 2] ^= 1
        (tmp_path / FILE).write_bytes(raw)
    if change == "gone":
        (tmp_path / "epoch-0001.safetensors").unlink()
    seen = []
    found = train(
        model, data, epochs=2, batch_size=16, lr=lr, checkpoint_dir=tmp_path, on_epoch=lambda e, *_: seen.append(e)
    )
    assert seen == [1, 2] and equal(found.model, train(model, data, epochs=2, batch_size=16, lr=lr).model)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_trainings_in_threads_do_not_disturb_each_other(few, dropout):
    expected = [train(network(dropout), few, epochs=2, batch_size=16, random_state=s).model for s in range(3)]
    found = [None] * 3
    before = torch.get_rng_state()

    def work(seed):
        found[seed] = train(network_of[seed], few, epochs=2, batch_size=16, random_state=seed).model

    network_of = [network(dropout) for _ in range(3)]
    torch.set_rng_state(before)
    threads = [threading.Thread(target=work, args=(s,)) for s in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_full_disk_does_not_lose_the_network(few, tmp_path, monkeypatch):
    expected = train(network(), few, epochs=2, batch_size=16).model

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("estimators.training.save_checkpoint", full)
    monkeypatch.setattr(resuming, "whole", full)
    with pytest.warns(UserWarning, match="must have room"):
        run = train(network(), few, epochs=2, batch_size=16, checkpoint_dir=tmp_path)
    assert equal(run.model, expected) and run.checkpoints == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize("stops", [[2], [5], [8, 3], [14], [20], [26]])
def test_an_average_goes_on(few, tmp_path, monkeypatch, stops):
    """Steps 1 to 15 are the averaged run's, those after them the plain one's."""
    asked = {"epochs": 5, "batch_size": 16, "compare": True, "held_out": few}
    averager = SWAAverager(start=0.4)
    expected = averager.train(network(0.0), few, **asked)
    call = _Step.__call__
    for at in stops:
        steps = iter(range(at))

        def limited(self, *args, steps=steps):
            if next(steps, None) is None:
                raise Killed
            return call(self, *args)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(_Step, "__call__", limited)
            SWAAverager(start=0.4).train(network(0.0), few, checkpoint_dir=tmp_path, **asked)
    found = SWAAverager(start=0.4).train(network(0.0), few, checkpoint_dir=tmp_path, **asked)
    assert all(torch.equal(found.state_dict_[k], v) for k, v in expected.state_dict_.items())
    assert found.result_.report == expected.result_.report and found.result_.history == expected.result_.history


@pytest.mark.parametrize("at", [1, 3])
def test_a_path_goes_on(few, tmp_path, monkeypatch, at):
    monkeypatch.setattr("estimators.connectivity._path.WRITTEN_EVERY", 0.0)
    ends = [train(network(0.0, 4), few, epochs=1, batch_size=16, random_state=s).model for s in range(2)]
    settings = {"path": "bezier", "epochs": 4, "n_points": 5, "compare": False}
    expected = ModeConnector(**settings).fit(ends, few)
    counted = []
    gradient = Landscape.minibatch_loss_and_gradient

    def stop(done, total, message):
        if message.startswith(f"training the bends, epoch {at} "):
            raise Killed

    with pytest.raises(Killed):
        ModeConnector(**settings, memory=tmp_path).fit(ends, few, on_progress=stop)
    monkeypatch.setattr(
        Landscape, "minibatch_loss_and_gradient", lambda *a, **k: (counted.append(1), gradient(*a, **k))[1]
    )
    found = ModeConnector(**settings, memory=tmp_path).fit(ends, few)
    assert len(counted) == 2 * (4 - at)  # two steps an epoch
    np.testing.assert_array_equal(found.bends_, expected.bends_)
    np.testing.assert_array_equal(found.losses_, expected.losses_)
    np.testing.assert_array_equal(found.history_["loss"], expected.history_["loss"])


def test_a_comparison_goes_on_inside_a_training(tmp_path, monkeypatch):
    data = load_data("digits", image_size=32, n_samples=80)
    variants = [Variant("thin", "test_resnet", ("with_width=0.25",))]
    call, steps = _Step.__call__, []

    def compare(memory, limit=None):
        def counting(self, *args):
            if len(steps) == limit:
                raise Killed
            steps.append(1)
            return call(self, *args)

        steps.clear()
        monkeypatch.setattr(_Step, "__call__", counting)
        settings = {"n_seeds": 1, "epochs": 4, "maps": "none", "measures": ("average_case",)}
        (row,) = ArchitectureComparer(**settings, memory=memory).fit(variants, data).table_
        return {name: value for name, value in row.items() if not name.startswith("seconds")}

    expected, whole = compare(None), len(steps)
    with pytest.raises(Killed):
        compare(str(tmp_path), limit=whole - 1)
    assert compare(str(tmp_path)) == expected and len(steps) == whole // 4
    assert not list((tmp_path / "entries" / "unfinished").glob("*"))
