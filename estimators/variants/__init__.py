"""Architecture variants: each change takes a timm network and returns a changed copy.

`CHANGES` maps a change's name to its function, `Variant` puts an architecture, changes and training settings
together, `presets` gives the comparisons people start from. Importing this package registers
`deep_thin_resnet`, `thin_resnet` and `thin_vgg` with timm.
"""

from .changes import CHANGES, apply_changes, parse_change
from .deep_thin import deep_thin_resnet, thin_resnet, thin_vgg
from .dropout import with_dropout
from .norms import NORM_KINDS, norm_layers, with_norm, without_norm
from .scale import with_depth, with_width
from .skips import residual_sums, without_skips
from .spec import TRAINING, Variant, check_variants, presets

__all__ = [
    "CHANGES",
    "NORM_KINDS",
    "TRAINING",
    "Variant",
    "apply_changes",
    "check_variants",
    "deep_thin_resnet",
    "norm_layers",
    "parse_change",
    "presets",
    "residual_sums",
    "thin_resnet",
    "thin_vgg",
    "with_depth",
    "with_dropout",
    "with_norm",
    "with_width",
    "without_norm",
    "without_skips",
]
