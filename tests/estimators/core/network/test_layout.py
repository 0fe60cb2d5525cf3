"""The layout of images: channels-last, but not where oneDNN then writes outside its memory."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from estimators import Landscape, load_model
from estimators.core.network.layout import image_layout
from estimators.variants import with_width

TRAINING = """
import torch
from torch import nn
from estimators import Landscape, train

class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.shortcut, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 1, stride=2), nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.shortcut(torch.relu(self.stem(x))).mean((2, 3)))

torch.manual_seed(0)
data = torch.randn(64, 3, 32, 32), torch.arange(64) % 3
model = train(Narrow().to(memory_format=torch.channels_last), data, epochs=10, batch_size=32, lr=0.01).model
land = Landscape(model.to(memory_format=torch.channels_last), data)
for _ in range(20):
    land.gradient()
    land.hvp(torch.ones(land.n_parameters))
"""


def test_channels_last_is_chosen_where_it_is_safe():
    assert image_layout(load_model("test_resnet", num_classes=10)) == torch.channels_last
    assert image_layout(nn.Linear(2, 2)) == torch.channels_last
    assert image_layout(nn.Conv2d(4, 8, 1, stride=2)) == torch.contiguous_format
    for safe in (nn.Conv2d(8, 8, 1, stride=2), nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 3, stride=2)):
        assert image_layout(safe) == torch.channels_last


def test_a_narrow_strided_shortcut_trains_without_breaking_the_process():
    """In its own process: what breaks is the memory of the process, often only later."""
    done = subprocess.run([sys.executable, "-c", TRAINING], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_narrow_network_keeps_its_order_of_parameters(digits):
    model = with_width(load_model("thin_resnet", num_classes=10, random_state=0), 0.25)
    assert image_layout(model) == torch.contiguous_format
    land = Landscape(model, digits.subset(16, random_state=0))
    assert torch.equal(land.theta, nn.utils.parameters_to_vector(model.parameters()))
    assert land.loss() == pytest.approx(land.loss(land.theta.clone()), rel=0)
