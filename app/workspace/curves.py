"""What a training leaves among the runs: its curves, as a result like every other."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np

from estimators import Result


@dataclass(frozen=True)
class TrainingResult(Result):
    """Curves of a training, and the checkpoint it left in the library (None while it runs)."""

    history: dict[str, np.ndarray]
    checkpoint_id: str | None = None
    name: str = ""

    @staticmethod
    def load(path: str | os.PathLike) -> Result:
        """Read what `save` wrote, now or before trainings were results (their settings lay beside the arrays)."""
        with np.load(path, allow_pickle=False) as stored:
            if "__notes__" not in stored.files:
                return Result.load(path)
            notes = json.loads(str(stored["__notes__"]))
            return TrainingResult({name: stored[name] for name in stored.files if name != "__notes__"}, **notes)
