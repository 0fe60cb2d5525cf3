"""Any loss is a landscape: loss, gradient and one product against plain autograd in float64, or a refusal's words."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from estimators import CurvatureEstimator, Landscape, ModeConnector, SurfaceMapper, train
from estimators.core.network.losses import LOSSES, average_outputs, named_loss
from tests.estimators.test_any_model import by_autograd, made, normal

N = 10


def integers(high, *shape, seed=0):
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def scores(*shape, seed=0):
    """A network whose outputs have this shape for each example."""
    return made(lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, math.prod(shape)), Shaped(shape)), seed)


class Shaped(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def forward(self, x):
        return x.reshape(len(x), *self.shape)


X = normal(N, 5)
CLASSES, LABELS = integers(3, N), (normal(N, 3, seed=4) > 0).double()
PICTURES, TOKENS = integers(6, N, 4, 3, seed=5), integers(7, N, 5, seed=6)  # more classes than columns; (N, T)
HOLES, GAPS = PICTURES.clone(), TOKENS.clone()
HOLES[:, 1:3, :2] = 255
HOLES[3, :, :] = 255
HOLES[3, 0, 0] = 2
GAPS[::2, 3:] = -100


def each(values, counts=None):
    """The mean over an example's positions, over those that count; then over the examples."""
    counts = torch.ones_like(values) if counts is None else counts.to(values)
    return ((values * counts).flatten(1).sum(1) / counts.flatten(1).sum(1)).mean()


def ce(z, y, **options):
    return F.cross_entropy(z, y, reduction="none", **options)


# name: (loss, outputs of an example, targets, the same by torch alone, whether an accuracy means something)
ROWS = {
    "class indices": ("cross_entropy", (3,), CLASSES, lambda z: F.cross_entropy(z, CLASSES), True),
    "label smoothing": (
        "cross_entropy(label_smoothing=0.1)", (3,), CLASSES,
        lambda z: F.cross_entropy(z, CLASSES, label_smoothing=0.1), True,
    ),
    "one-hot": ("cross_entropy", (3,), F.one_hot(CLASSES, 3).double(), lambda z: F.cross_entropy(z, CLASSES), True),
    "one-hot integers": ("cross_entropy", (3,), F.one_hot(CLASSES, 3), lambda z: F.cross_entropy(z, CLASSES), True),
    "soft": (
        "cross_entropy", (3,), normal(N, 3).softmax(1),
        lambda z: -(normal(N, 3).softmax(1) * z.log_softmax(1)).sum(1).mean(), False,
    ),
    "soft and smoothed": (
        "cross_entropy(label_smoothing=0.2)", (3,), normal(N, 3).softmax(1),
        lambda z: -((0.8 * normal(N, 3).softmax(1) + 0.2 / 3) * z.log_softmax(1)).sum(1).mean(), False,
    ),
    "mse of numbers": ("mse", (2,), normal(N, 2), lambda z: F.mse_loss(z, normal(N, 2)), False),
    "mse of one number": ("mse", (1,), normal(N), lambda z: F.mse_loss(z[:, 0], normal(N)), False),
    "mse of whole numbers": ("mse", (1,), 20 + CLASSES, lambda z: F.mse_loss(z[:, 0], 20.0 + CLASSES), False),
    "mse of classes": ("mse", (3,), CLASSES, lambda z: F.mse_loss(z, F.one_hot(CLASSES, 3).double()), True),
    "mse of pictures": ("mse", (2, 4, 3), normal(N, 2, 4, 3), lambda z: F.mse_loss(z, normal(N, 2, 4, 3)), False),
    "huber": ("huber", (2,), 3 * normal(N, 2), lambda z: F.huber_loss(z, 3 * normal(N, 2)), False),
    "huber with delta": (
        "huber(delta=0.3)", (), normal(N), lambda z: F.huber_loss(z, normal(N), delta=0.3), False
    ),
    "bce of one label": (
        "bce", (1,), CLASSES.clamp(max=1),
        lambda z: F.binary_cross_entropy_with_logits(z[:, 0], CLASSES.clamp(max=1).double()), True,
    ),
    "bce of several labels": ("bce", (3,), LABELS, lambda z: F.binary_cross_entropy_with_logits(z, LABELS), False),
    "bce of integers": ("bce", (3,), LABELS.long(), lambda z: F.binary_cross_entropy_with_logits(z, LABELS), False),
    "bce of classes": (
        "bce", (3,), CLASSES, lambda z: F.binary_cross_entropy_with_logits(z, F.one_hot(CLASSES, 3).double()), True
    ),
    "bce of a mask": (
        "bce", (1, 4, 3), PICTURES.clamp(max=1),
        lambda z: F.binary_cross_entropy_with_logits(z[:, 0], PICTURES.clamp(max=1).double()), True,
    ),
    "segmentation": ("cross_entropy", (6, 4, 3), PICTURES, lambda z: F.cross_entropy(z, PICTURES), True),
    "segmentation in a column": (
        "cross_entropy", (6, 4, 3), PICTURES[:, None], lambda z: F.cross_entropy(z, PICTURES), True
    ),
    "segmentation with ignored pixels": (
        "cross_entropy(ignore_index=255)", (6, 4, 3), HOLES,
        lambda z: each(ce(z, HOLES, ignore_index=255), HOLES != 255), True,
    ),
    "tokens": ("cross_entropy", (5, 7), TOKENS, lambda z: F.cross_entropy(z.mT, TOKENS), True),
    "tokens with gaps": ("cross_entropy", (5, 7), GAPS, lambda z: each(ce(z.mT, GAPS), GAPS != -100), True),
    "smoothed tokens with gaps": (
        "cross_entropy(label_smoothing=0.1)", (5, 7), GAPS,
        lambda z: each(ce(z.mT, GAPS, label_smoothing=0.1), GAPS != -100), True,
    ),
    "a function": (
        lambda z, y: F.multi_margin_loss(z.tanh(), y, p=2, reduction="none").exp(), (3,), CLASSES,
        lambda z: F.multi_margin_loss(z.tanh(), CLASSES, p=2, reduction="none").exp().mean(), True,
    ),
    "a module": (
        nn.CrossEntropyLoss(label_smoothing=0.1, reduction="none"), (3,), CLASSES,
        lambda z: F.cross_entropy(z, CLASSES, label_smoothing=0.1), True,
    ),
    "a loss by position": (
        lambda z, y: F.smooth_l1_loss(z, y, reduction="none"), (4, 3), normal(N, 4, 3),
        lambda z: F.smooth_l1_loss(z, normal(N, 4, 3)), False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("row", [row for row in ROWS if row != "a function"])
def test_loss_gradient_and_product(row):
    loss, shape, targets, plain, has_accuracy = ROWS[row]
    model = scores(*shape)
    land = Landscape(model, (X, targets), loss=loss, batch_size=4, precision="float64")
    value, gradient, product = by_autograd(model, X, plain)
    assert land.loss() == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(land.gradient(), gradient, rtol=1e-9, atol=1e-12)
    v = normal(land.n_parameters, seed=9)
    torch.testing.assert_close(land.hvp(v), product, rtol=1e-8, atol=1e-11)
    assert (
        np.isfinite(land.accuracy()) == has_accuracy and land.n_classes == (shape or (1,))[-1 if len(shape) == 2 else 0]
    )
    linear = made(lambda: nn.Sequential(nn.Linear(5, math.prod(shape)), Shaped(shape)))
    straight = Landscape(linear, (X, targets), loss=loss, precision="float64")
    v = normal(straight.n_parameters, seed=9)
    torch.testing.assert_close(straight.ggn_vp(v), straight.hvp(v), rtol=1e-9, atol=1e-12)


def test_a_loss_without_a_second_derivative_is_named_and_mapped():
    loss, shape, targets, plain, _ = ROWS["a function"]
    model = scores(*shape)
    land = Landscape(model, (X, targets), loss=loss, precision="float64")
    value = plain(model(X))
    parts = torch.autograd.grad(value, list(model.parameters()))
    assert land.loss() == pytest.approx(value.item(), rel=1e-12)
    torch.testing.assert_close(land.gradient(), torch.cat([g.reshape(-1) for g in parts]))
    with pytest.raises(
        ValueError, match=r"must have a second derivative.*multi_margin_loss_backward is not implemented"
    ):
        land.hvp(land.theta)
    mapped = SurfaceMapper(resolution=3, loss=loss).fit(model, (X, targets))
    assert mapped.losses_[1, 1] == Landscape(model, (X, targets), loss=loss).loss()


def test_accuracies_are_shares_of_what_counts():
    def accuracy(row):
        loss, shape, targets, *_ = ROWS[row]
        model = scores(*shape)
        return (
            Landscape(model, (X, targets), loss=loss, batch_size=4, precision="float64").accuracy(),
            model(X),
            targets,
        )

    found, z, y = accuracy("segmentation")
    assert found == pytest.approx((z.argmax(1) == y).double().mean().item())
    found, z, y = accuracy("segmentation with ignored pixels")
    assert found == pytest.approx(each((z.argmax(1) == y).double(), y != 255).item())
    found, z, y = accuracy("tokens with gaps")
    assert found == pytest.approx(each((z.argmax(2) == y).double(), y != -100).item())
    found, z, y = accuracy("bce of one label")
    assert found == pytest.approx(((z[:, 0] > 0) == (y > 0)).double().mean().item())
    found, z, y = accuracy("bce of a mask")
    assert found == pytest.approx(((z[:, 0] > 0) == (y > 0)).double().mean().item())
    assert np.isnan(Landscape(scores(1), (X, LABELS[:, 0] * 0.5), loss="bce").accuracy())


WRONG = {
    "another name": ({"loss": "hinge"}, (3,), CLASSES, r"loss must be one of \['bce', 'cross_entropy', 'huber', 'm"),
    "a call in it": ({"loss": "mse(print(1))"}, (3,), CLASSES, "loss must be one of"),
    "another setting": ({"loss": "mse(delta=1)"}, (3,), CLASSES, "settings it takes, .* got 'delta'"),
    "smoothing above 1": (
        {"loss": "cross_entropy(label_smoothing=1.5)"}, (3,), CLASSES, "label_smoothing of a loss must be a number"
    ),
    "a negative delta": ({"loss": "huber(delta=-1)"}, (3,), CLASSES, "delta of a loss must be a positive number"),
    "broadcast by mse": ({"loss": "mse"}, (3,), normal(N), "equal shapes for 'mse', got outputs .* and targets"),
    "broadcast by huber": ({"loss": "huber"}, (3,), normal(N, 1), "equal shapes for 'huber'"),
    "broadcast by bce": ({"loss": "bce"}, (3,), normal(N).sigmoid(), "equal shapes for 'bce'"),
    "broadcast by one's own": (
        {"loss": lambda z, y: (z - y).square()}, (1,), normal(N), "a value that does not depend on the others"
    ),
    "a mean": ({"loss": nn.CrossEntropyLoss()}, (3,), CLASSES, "one value per example.*Use reduction='none'"),
    "labels beyond 1": ({"loss": "bce"}, (3,), 2 * LABELS, r"targets must lie in \[0, 1\] for 'bce', got .* to 2\.0"),
    "a class too many": ({}, (3,), CLASSES + 1, "targets must be classes 0 to 2 .* got values from 1 to 3"),
    "an unnamed mark": ({}, (6, 4, 3), HOLES, r"say loss='cross_entropy\(ignore_index=255\)'"),
    "nothing that counts": (
        {}, (5, 7), torch.full((N, 5), -100), r"a target that counts, got -100 \(ignore_index\) alone in example 0"
    ),
    "two readings": ({}, (5, 5), integers(5, N, 5), "axes 1 and 2 both fit"),
    "no axis of classes": ({}, (6, 4, 3), CLASSES, "without the axis of the classes"),
}  # fmt: skip


@pytest.mark.parametrize("row", WRONG)
def test_what_can_not_be_a_loss_is_refused(row):
    options, shape, targets, words = WRONG[row]
    with pytest.raises(ValueError, match=words):
        Landscape(scores(*shape), (X, targets), **options)


def test_named_losses_with_settings_are_one_thing():
    same = [Landscape(scores(3), (X, CLASSES), loss="cross_entropy(label_smoothing=0.1)").fingerprint for _ in range(2)]
    other = Landscape(scores(3), (X, CLASSES), loss="cross_entropy(label_smoothing=0.2)")
    assert same[0] == same[1] != other.fingerprint
    assert other.settings["loss"] == "cross_entropy(label_smoothing=0.2)"
    assert all(named_loss(name) is function for name, function in LOSSES.items())
    assert isinstance(named_loss("huber(delta=2)"), partial)
    run = train(scores(3).float(), (X.float(), CLASSES), loss="cross_entropy(label_smoothing=0.1)", epochs=1)
    assert np.isfinite(run.history["loss"]).all()


@pytest.mark.parametrize("row", ["huber", "bce of several labels", "tokens with gaps", "label smoothing"])
def test_estimators_take_every_named_loss(row):
    loss, shape, targets, *_ = ROWS[row]
    data, models = (X.float(), targets), [scores(*shape, seed=seed).float() for seed in (0, 1)]
    fitted = CurvatureEstimator(loss=loss, n_eigenvalues=1, n_lanczos=0, n_probes=4).fit(models[0], data)
    assert ("fisher" in fitted.result_.traces) == (loss == "bce")
    ModeConnector(loss=loss, n_points=3).fit(models, data)


def test_predictions_are_averaged_in_the_way_of_the_loss():
    z = normal(2, N, 3)
    torch.testing.assert_close(average_outputs(LOSSES["bce"], z, LABELS).sigmoid(), z.sigmoid().mean(0))
    torch.testing.assert_close(average_outputs(LOSSES["huber"], z, CLASSES), z.mean(0))
    for y in (CLASSES, F.one_hot(CLASSES, 3)):
        torch.testing.assert_close(average_outputs(LOSSES["cross_entropy"], z, y).exp(), z.softmax(2).mean(0))
