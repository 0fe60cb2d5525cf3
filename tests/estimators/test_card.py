"""What a model is made of agrees with the model built, and costs nothing of its size."""

from __future__ import annotations

import pytest

from estimators import load_model, model_card


@pytest.mark.parametrize(
    ("name", "norms", "skips"),
    [("resnet18", {"BatchNorm2d": 20}, 8), ("test_vit", {"LayerNorm": 13}, 12), ("vgg11", {}, 0)],
)
def test_parameters_norms_and_residual_sums(name, norms, skips):
    card = model_card(name, num_classes=10)
    built = load_model(name, num_classes=10)
    assert card.n_parameters == sum(p.numel() for p in built.parameters())
    assert [layer.name for layer in card.layers] == [where for where, _ in built.named_modules() if where]
    assert sum(layer.n_parameters for layer in card.layers if "." not in layer.name) <= card.n_parameters
    assert (card.norms, card.n_skips) == (norms, skips)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="must be"):
        model_card("no_such_network")
