"""ResNets for 32-px images, registered with timm under their names: a deep thin one and a small one."""

from __future__ import annotations

from typing import Any, cast

from timm.models import register_model
from timm.models.resnet import BasicBlock, ResNet
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
    if pretrained:
        raise ValueError("pretrained must be False for this architecture, got True. No weights are published.")
    for name in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"):
        kwargs.pop(name, None)
    arguments: dict[str, Any] = {
        "layers": (blocks,) * 4,
        "channels": (width, width, 2 * width, 2 * width),
        "stem_width": width // 2,
        "stem_type": "deep",
        **kwargs,
    }
    model: Any = ResNet(cast(Any, BasicBlock), **arguments)
    model.maxpool = nn.Identity()
    model.pretrained_cfg = {"architecture": "deep_thin_resnet", "input_size": (3, 32, 32)}
    model.default_cfg = model.pretrained_cfg
    return cast(ResNet, model)


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
    model = deep_thin_resnet(pretrained, **{"blocks": 1, "width": 8, **kwargs})
    cast(Any, model).pretrained_cfg["architecture"] = "thin_resnet"
    return model
