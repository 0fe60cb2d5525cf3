"""Networks for 32-px images, registered with timm by name: a deep thin ResNet, a small one, and a small VGG."""

from __future__ import annotations

from typing import Any, cast

from timm.layers import ClassifierHead
from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vgg import VGG
from torch import nn


@register_model
def deep_thin_resnet(pretrained: bool = False, blocks: int = 7, width: int = 16, **kwargs: Any) -> ResNet:
    """Build a ResNet for 32-px images, much deeper than wide, where skip connections matter most.

    Four stages of basic blocks with (w, w, 2w, 2w) channels behind a 3×3 stem that keeps 16×16 positions. It
    is registered with timm, so its name works wherever a timm name does.

    Parameters
    ----------
    pretrained : bool, default=False
        There are no pretrained weights; True is refused.
    blocks : int, default=7
        Basic blocks in each stage: 8 · blocks convolutions follow the stem.
    width : int, default=16
        Channels of the first stage; even.
    **kwargs
        Arguments of `timm.models.resnet.ResNet`, such as `num_classes`, `layers` and `channels`.

    Returns
    -------
    ResNet
        With freshly initialised weights.
    """
    _without_weights(pretrained, kwargs)
    arguments: dict[str, Any] = {
        "layers": (blocks,) * 4,
        "channels": (width, width, 2 * width, 2 * width),
        "stem_width": width // 2,
        "stem_type": "deep",
        **kwargs,
    }
    model: Any = ResNet(cast(Any, BasicBlock), **arguments)
    model.maxpool = nn.Identity()
    return cast(ResNet, _named(model, "deep_thin_resnet"))


@register_model
def thin_resnet(pretrained: bool = False, **kwargs: Any) -> ResNet:
    """Build the deep thin ResNet's small sibling: one block a stage, 8 channels, about 12,000 parameters.

    Few enough that a width sweep goes from fewer parameters than training examples to many more.

    Parameters
    ----------
    pretrained : bool, default=False
        There are no pretrained weights; True is refused.
    **kwargs
        As for `deep_thin_resnet`.

    Returns
    -------
    ResNet
        With freshly initialised weights.
    """
    return cast(ResNet, _named(deep_thin_resnet(pretrained, **{"blocks": 1, "width": 8, **kwargs}), "thin_resnet"))


@register_model
def thin_vgg(pretrained: bool = False, width: int = 16, **kwargs: Any) -> VGG:
    """Build a VGG for 32-px images with about as many weights as `deep_thin_resnet` of one block a stage.

    Eight 3×3 convolutions of (w, w, 2w, 2w) channels, two before each max pool, with batch norm and, as is usual at
    this size, without the hidden layers of 4,096 units behind them.

    Parameters
    ----------
    pretrained : bool, default=False
        There are no pretrained weights; True is refused.
    width : int, default=16
        Channels of the first stage.
    **kwargs
        Arguments of `timm.models.vgg.VGG`, such as `num_classes`.

    Returns
    -------
    VGG
        With freshly initialised weights.
    """
    _without_weights(pretrained, kwargs)
    stages = (width, width, 2 * width, 2 * width)
    layers = [layer for channels in stages for layer in (channels, channels, "M")]
    # as timm builds it, but for hidden layers of one unit, which are taken out
    model: Any = VGG(**{"cfg": layers, "norm_layer": nn.BatchNorm2d, "mlp_ratio": 1 / 4096, **kwargs})
    model.pre_logits = nn.Identity()
    model.head = ClassifierHead(model.num_features, model.num_classes, drop_rate=model.drop_rate)
    model.head_hidden_size = model.num_features
    return cast(VGG, _named(model, "thin_vgg"))


def _without_weights(pretrained: bool, arguments: dict[str, Any]) -> None:
    """Refuse published weights, and leave out what timm passes for the sake of them."""
    if pretrained:
        raise ValueError("pretrained must be False for this architecture, got True. No weights are published.")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        arguments.pop(name, None)


def _named(model: Any, architecture: str) -> Any:
    model.pretrained_cfg = {"architecture": architecture, "input_size": (3, 32, 32)}
    model.default_cfg = model.pretrained_cfg
    return model
