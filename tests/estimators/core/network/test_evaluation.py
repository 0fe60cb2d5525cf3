import pytest
import torch
from torch import nn
from torch.nn import functional as F

from estimators import Landscape
from estimators.core.network.evaluation import logits
from estimators.core.network.losses import correct, cross_entropy, mean_squared_error, per_example_losses


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mse_never_broadcasts():
    z, y = normal(6, 1), normal(6, seed=1)
    right = (z[:, 0] - y).square()
    for outputs, targets in ((z, y), (z[:, 0], y[:, None]), (z, y[:, None]), (z[:, 0], y)):
        torch.testing.assert_close(mean_squared_error(outputs, targets), right)
    for outputs, targets in ((normal(6, 3), y), (normal(6, 3), y[:, None]), (normal(6, 6), y), (z, normal(6, 4))):
        with pytest.raises(ValueError, match=r"equal shapes for 'mse', got outputs \(6, .* and targets \(6"):
            mean_squared_error(outputs, targets)


def test_regression_with_one_output_has_the_right_loss_and_gradient():
    model, x, y = nn.Linear(3, 1), normal(8, 3), normal(8, seed=1)
    land = Landscape(model, (x, y), loss="mse")
    right = (model(x)[:, 0] - y).square().mean()
    assert land.loss() == pytest.approx(right.item(), rel=1e-5)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(right, list(model.parameters()))])
    torch.testing.assert_close(land.gradient(), expected)


def test_labels_in_a_column_count_as_labels():
    model, x, y = nn.Linear(3, 4), normal(8, 3), torch.arange(8) % 4
    for loss in ("cross_entropy", "mse"):
        column, plain = (Landscape(model, (x, targets), loss=loss) for targets in (y[:, None], y))
        assert column.loss() == plain.loss() and column.accuracy() == plain.accuracy()


def test_the_axis_of_the_classes_goes_by_the_targets():
    z, y = normal(2, 3, 5), torch.randint(0, 5, (2, 3))
    torch.testing.assert_close(cross_entropy(z, y), F.cross_entropy(z.transpose(1, 2), y, reduction="none"))
    torch.testing.assert_close(cross_entropy(z.transpose(1, 2), y), cross_entropy(z, y))
    pictures, labels = normal(2, 4, 4, 4), torch.randint(0, 4, (2, 4, 4))
    torch.testing.assert_close(cross_entropy(pictures, labels), F.cross_entropy(pictures, labels, reduction="none"))
    torch.testing.assert_close(cross_entropy(pictures, labels[:, None]), cross_entropy(pictures, labels))
    segmented = F.one_hot(labels, 4).movedim(-1, 1)
    torch.testing.assert_close(mean_squared_error(pictures, labels), (pictures - segmented).square().flatten(1).mean(1))
    with pytest.raises(ValueError, match=r"axes 1 and 2 both fit, got outputs \(2, 5, 5\) and targets \(2, 5\)"):
        cross_entropy(normal(2, 5, 5), torch.randint(0, 5, (2, 5)))
    with pytest.raises(ValueError, match="without the axis of the classes"):
        cross_entropy(z, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="class probabilities"):
        cross_entropy(normal(4, 3), normal(4))


def test_products_of_a_loss_by_position_are_those_of_its_mean():
    """The closed form for one prediction per example was used for pictures, without the mean over positions."""
    model, x = nn.Conv2d(1, 3, 1).double(), normal(5, 1, 2, 2).double()
    land = Landscape(model, (x, torch.randint(0, 3, (5, 2, 2))), precision="float64")
    v = normal(land.n_parameters).double()
    torch.testing.assert_close(land.ggn_vp(v), land.hvp(v))  # the outputs are linear in θ


def test_soft_targets_have_their_own_curvature():
    model, x = nn.Linear(3, 4).double(), normal(6, 3).double()
    land = Landscape(model, (x, 2 * normal(6, 4, seed=1).double().softmax(1)), precision="float64")
    v = normal(land.n_parameters).double()
    torch.testing.assert_close(land.ggn_vp(v), land.hvp(v))


def test_an_output_that_does_not_say_its_prediction_is_refused():
    z, extra = normal(4, 3), normal(4, 7)
    assert logits({"anything": z, "loss": torch.tensor(1.0), "ids": torch.arange(4)}) is z
    assert logits({"aux": extra, "out": z}) is z and logits((z, extra)) is z
    assert logits((torch.tensor(0.3), z)) is z and logits([None, {"logits": z}][1:]) is z
    with pytest.raises(ValueError, match=r"keys \['features', 'scores'\], of which 2 may be"):
        logits({"features": extra, "scores": z})
    with pytest.raises(ValueError, match="of which 0 may be"):
        logits({"loss": torch.tensor(1.0)})
    with pytest.raises(ValueError, match="of which 2 may be"):
        logits((torch.tensor(0.3), z, extra))


def test_accuracy_only_where_it_means_something():
    z = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    one_hot = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert correct(z, one_hot).tolist() == [1.0, 0.0]
    assert correct(z, torch.tensor([[0], [1]])).tolist() == [True, False]
    assert correct(z, one_hot * 0.9 + 0.05).isnan().all()
    assert correct(z[:, :1], torch.tensor([0, 1])) is None and correct(z[:, 0], torch.tensor([0, 1])) is None
    model, x, y = nn.Linear(3, 3), normal(9, 3), torch.arange(9) % 3
    rows = F.one_hot(y, 3).float()
    for loss in ("mse", "cross_entropy"):
        assert Landscape(model, (x, rows), loss=loss).accuracy() == Landscape(model, (x, y)).accuracy()


def test_one_value_for_each_example():
    z, y = normal(4, 3), torch.arange(4) % 3
    with pytest.raises(ValueError, match="one value per example"):
        per_example_losses(F.cross_entropy, z, y)
    assert per_example_losses(F.cross_entropy, z[:1], y[:1]).shape == (1,)
