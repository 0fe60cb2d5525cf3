import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from estimators.core.network.folding import FoldedConvolution, fold_batch_norm


def with_random_statistics(model):
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.3)
            m.running_var.uniform_(0.5, 2)
            m.weight.data.normal_(1, 0.2)
            m.bias.data.normal_(0, 0.2)
    return model.eval()


def test_every_batch_norm_of_timm_nets_folds_and_outputs_stay():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for name in ("test_resnet", "resnet18", "test_efficientnet", "test_byobnet"):
        model = with_random_statistics(timm.create_model(name, num_classes=5).double())
        folded, note = fold_batch_norm(model, x, 1e-9)
        n_norms = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
        assert sum(isinstance(m, FoldedConvolution) for m in folded.modules()) == n_norms, note
        torch.testing.assert_close(folded(x), model(x), rtol=1e-9, atol=1e-9)


def test_derivatives_through_the_fold_are_exact():
    torch.manual_seed(1)
    model = with_random_statistics(
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    )
    x = torch.randn(4, 2, 4, 4, dtype=torch.float64)
    folded, _ = fold_batch_norm(model, x, 1e-9)
    params = list(model.parameters())
    vectors = [torch.randn_like(p) for p in params]
    found = []
    for net in (model, folded):
        gradients = torch.autograd.grad(net(x).square().sum(), params, create_graph=True)
        found.append((gradients, torch.autograd.grad(gradients, params, vectors)))
    for ours, theirs in zip(found[0][0] + found[0][1], found[1][0] + found[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


class Branching(nn.Module):
    """torch.fx can't trace it."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

    def forward(self, x):
        return self.norm(self.conv(x)) if x.sum() > 0 else x


def n_folded(network):
    return sum(isinstance(m, FoldedConvolution) for m in network.modules())


def test_what_cannot_be_traced_is_folded():
    module, x = with_random_statistics(Branching()), torch.ones(1, 1, 2, 2)
    folded, note = fold_batch_norm(module, x)
    assert n_folded(folded) == 1, note
    assert n_folded(module) == 0 and isinstance(module.conv, nn.Conv2d)
    for inputs in (x, -x):
        torch.testing.assert_close(folded(inputs), module(inputs))


def test_what_cannot_be_folded_is_left_and_said():
    shared = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)).eval()
    assert fold_batch_norm(shared, torch.ones(1, 1, 2, 2)) == (
        shared,
        "not folded: no convolution feeds only a batch norm",
    )
    plain = nn.Linear(2, 2)
    assert fold_batch_norm(plain, torch.ones(1, 2)) == (plain, "no batch norm")


class TwoReaders(nn.Module):
    """Three pairs; the second convolution has another reader, which counts for nothing while the gate is at zero."""

    def __init__(self, gate):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(nn.BatchNorm2d(2) for _ in range(3))
        self.gate = nn.Parameter(torch.tensor([gate]))

    def forward(self, x):
        x = self.norms[0](self.convs[0](x)).relu()
        raw = self.convs[1](x)
        x = self.norms[1](raw).relu() + self.gate * raw
        return self.norms[2](self.convs[2](x)).flatten(1)


@pytest.mark.parametrize("gate", [1.0, 0.0])
def test_a_convolution_with_another_reader_is_left(gate):
    module, x = with_random_statistics(TwoReaders(gate)), torch.randn(3, 2, 4, 4)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    folded, note = fold_batch_norm(module, x)
    assert n_folded(folded) == 2, note
    assert "1 left as they are" in note
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        module.gate += 0.7  # the two share their parameters
        torch.testing.assert_close(folded(x), module(x), rtol=1e-4, atol=1e-5)


def test_hooks_keep_firing():
    seen = []
    module = with_random_statistics(
        nn.Sequential(
            nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Flatten()
        )
    )
    for layer in (module[0], module[1], module[3]):
        layer.register_forward_hook(lambda layer, args, output: seen.append(type(layer).__name__))
    x = torch.randn(2, 1, 4, 4)
    folded, _ = fold_batch_norm(module, x)
    assert n_folded(folded) == 1  # somebody waits for the other convolution's own output
    seen.clear()
    folded(x)
    assert seen == ["Sequential", "Conv2d", "Flatten"]


def test_code_that_reads_the_convolution_still_finds_it():
    class Reading(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            return self.norm(self.conv(x.to(self.conv.weight.dtype))).flatten(1) * self.conv.out_channels

    module, x = with_random_statistics(Reading()), torch.randn(2, 1, 3, 3)
    folded, note = fold_batch_norm(module, x)
    assert n_folded(folded) == 1, note
    torch.testing.assert_close(folded(x), module(x))


MANY = """
import sys, threading
import torch
from torch import nn
from estimators import Landscape, load_model

sys.setswitchinterval(1e-5)
images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
model = load_model("test_resnet", num_classes=4)
values = []

def build():
    for _ in range(12):
        values.append(Landscape(model, (images, labels)).loss())

threads = [threading.Thread(target=build) for _ in range(2)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(values) == 24 and len(set(values)) == 1, values
nn.Linear(2, 2)(torch.ones(1, 2))
assert nn.Module.__call__.__name__ in ("_wrapped_call_impl", "_call_impl"), nn.Module.__call__
"""


def test_two_threads_that_build_landscapes_at_once_leave_the_process_sound():
    """In its own process: torch.fx, which patches nn.Module, could leave it broken for good."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
