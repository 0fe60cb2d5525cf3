"""A variant: an architecture, changes to it, and how it is trained; and the comparisons people start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from .changes import apply_changes, parse_change

TRAINING: dict[str, Any] = {
    "epochs": 8,
    "batch_size": 64,
    "lr": 0.1,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "sam_rho": 0.0,
    "label_noise": 0.0,
    "stop_at_loss": None,
}
"""Training settings a variant may change, with their defaults (those of `train`, plus label noise)."""


@dataclass(frozen=True)
class Variant:
    """One thing to train and measure in a comparison.

    Parameters
    ----------
    name : str
        What a table calls it.
    architecture : str, default="test_resnet"
        A timm name, or "deep_thin_resnet".
    changes : tuple of str, default=()
        Changes as `apply_changes` reads them, such as `("without_skips",)`.
    training : dict, default={}
        Settings of `TRAINING` that differ for this variant. `label_noise` is the share of training examples
        that get a wrong class.
    """

    name: str
    architecture: str = "test_resnet"
    changes: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise a ValueError that names the first thing that can't be right."""
        if isinstance(self.changes, str):
            raise TypeError(f"changes must be a sequence of names, got {self.changes!r}. Write a tuple.")
        for change in self.changes:
            parse_change(change)
        unknown = sorted(set(self.training) - set(TRAINING))
        if unknown:
            raise ValueError(
                f"training must hold settings among {tuple(TRAINING)}, got {', '.join(unknown)!r} "
                f"in {self.name!r}. Remove it."
            )
        noise = self.training.get("label_noise", 0.0)
        if not 0.0 <= noise < 1.0:
            raise ValueError(f"label_noise must be a share in [0, 1), got {noise!r}. Use 0.2 for one example in five.")

    def settings(self, **budget: Any) -> dict[str, Any]:
        """Give all training settings: the defaults, then `budget`, then this variant's own."""
        return {**TRAINING, **budget, **self.training}

    def build(self, num_classes: int, image_size: int, in_chans: int = 3, random_state: int = 0) -> nn.Module:
        """Build the network with weights drawn from `random_state`.

        Parameters
        ----------
        num_classes, image_size, in_chans : int
            Classes, pixels on a side, channels.
        random_state : int, default=0
            Seed of the weights. Variants that only take something away start from the same weights.

        Returns
        -------
        nn.Module
            In eval mode.
        """
        from ..models import load_model

        model = load_model(
            self.architecture,
            num_classes=num_classes,
            in_chans=in_chans,
            image_size=image_size,
            random_state=random_state,
        )
        return apply_changes(model, self.changes, random_state)

    def as_dict(self) -> dict[str, Any]:
        """Give the fields as JSON-able values."""
        return {**asdict(self), "changes": list(self.changes)}


def check_variants(variants: Sequence[Variant | Mapping[str, Any] | str]) -> tuple[Variant, ...]:
    """Turn what a person writes into variants with names of their own.

    Parameters
    ----------
    variants : sequence of Variant, dict or str
        A string is an architecture as timm builds it; a dict holds the fields of `Variant`.

    Returns
    -------
    tuple of Variant

    Raises
    ------
    ValueError
        For no variants, a name used twice, an unknown change or training setting.
    TypeError
        For another kind of value.
    """
    if isinstance(variants, str | Variant | Mapping):
        variants = [variants]
    checked = []
    for item in variants:
        if isinstance(item, str):
            item = Variant(item, architecture=item)
        elif isinstance(item, Mapping):
            item = Variant(**{**item, "changes": tuple(item.get("changes", ()))})
        elif not isinstance(item, Variant):
            raise TypeError(f"variants must be Variant, dict or str, got {item!r}. Write Variant('name', ...).")
        item.check()
        checked.append(item)
    if not checked:
        raise ValueError("variants must hold at least one variant, got none. Write [Variant('plain')].")
    names = [variant.name for variant in checked]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"variants must have names of their own, got {', '.join(twice)!r} twice. Rename one.")
    return tuple(checked)


def _of(architecture: str, *rows: tuple[str, tuple[str, ...], dict[str, Any]]) -> tuple[Variant, ...]:
    return tuple(Variant(name, architecture, changes, training) for name, changes, training in rows)


def presets(architecture: str = "test_resnet") -> dict[str, tuple[Variant, ...]]:
    """Give the comparisons people start from, by what is varied, for one architecture.

    Parameters
    ----------
    architecture : str, default="test_resnet"
        A timm name; a change that does not apply to it is refused when the comparison is fitted.

    Returns
    -------
    dict of str to tuple of Variant
        Keys: components, skips, norm, dropout, batch_size, optimizer, weight_decay, label_noise, width and
        depth.
    """
    a = architecture
    return {
        "components": _of(
            a,
            ("as built", (), {}),
            ("without skips", ("without_skips",), {}),
            ("without norm", ("without_norm",), {}),
            ("dropout 0.3", ("with_dropout=0.3",), {}),
        ),
        "skips": _of(a, ("with skips", (), {}), ("without skips", ("without_skips",), {})),
        "norm": _of(
            a,
            ("as built", (), {}),
            ("group norm", ("with_norm=group",), {}),
            ("layer norm", ("with_norm=layer",), {}),
            ("no norm", ("without_norm",), {}),
        ),
        "dropout": _of(a, *((f"dropout {p:g}", (f"with_dropout={p:g}",), {}) for p in (0.0, 0.3, 0.6))),
        "batch_size": _of(
            a,
            *((f"batch {n}", (), {"batch_size": n, "epochs": e}) for n, e in ((16, 8), (64, 16), (512, 80))),
        ),
        "optimizer": _of(
            a,
            ("SGD", (), {}),
            ("SGD with SAM", (), {"sam_rho": 0.05}),
            ("AdamW", (), {"optimizer": "adamw", "lr": 0.003}),
        ),
        "weight_decay": _of(a, *((f"decay {w:g}", (), {"weight_decay": w}) for w in (0.0, 5e-4, 5e-3))),
        "label_noise": _of(a, *((f"{n:.0%} wrong labels", (), {"label_noise": n}) for n in (0.0, 0.2, 0.4))),
        "width": _of(a, *((f"width × {f:g}", (f"with_width={f:g}",), {}) for f in (0.25, 0.5, 1, 2))),
        "depth": _of(a, *((f"{n} blocks a stage", (f"with_depth={n}",), {}) for n in (1, 2, 3))),
    }
