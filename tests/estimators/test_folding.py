import timm
import torch
from torch import nn

from estimators.core.folding import FoldedConvolution, fold_batch_norm


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


def test_what_cannot_be_folded_is_left_and_said():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, x):
            return self.norm(self.conv(x)) if x.sum() > 0 else x

    module = Branching().eval()
    folded, note = fold_batch_norm(module, torch.ones(1, 1, 2, 2))
    assert folded is module and note.startswith("not folded: TraceError")
    shared = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 1)).eval()
    assert fold_batch_norm(shared, torch.ones(1, 1, 2, 2)) == (
        shared,
        "not folded: no convolution feeds only a batch norm",
    )
    plain = nn.Linear(2, 2)
    assert fold_batch_norm(plain, torch.ones(1, 2)) == (plain, "no batch norm")
