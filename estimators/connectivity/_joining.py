"""What estimators that join networks by paths share: how a path is found and when its ends count as joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sklearn.utils._param_validation import StrOptions

from ..base import ParallelEstimator
from ..checks import not_negative, positive, share, whole
from ..core.paths.paths import PATHS


@dataclass(kw_only=True, eq=False, repr=False)
class JoiningEstimator(ParallelEstimator):
    """Base of `ModeConnector`, which says what each setting means, and of `MinimaMapper`."""

    path: str = "linear"
    n_bends: int = 1
    align: str | None = None
    n_points: int = 21
    epochs: int = 15
    lr: float = 0.1
    momentum: float = 0.9
    train_batch_size: int = 32
    tolerance: float = 0.1
    n_restarts: int = 3

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "path": [StrOptions(set(PATHS))],
        "align": [StrOptions({"weights"}), None],
        **whole(3, "n_points"),
        **whole(2, "train_batch_size"),
        **whole(1, "n_bends", "n_restarts"),
        **whole(0, "epochs"),
        **positive("lr"),
        **not_negative("tolerance"),
        **share("momentum"),
    }
