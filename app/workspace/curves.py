"""What a training leaves among the runs: its curves, as a result like every other."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from estimators import Result


@dataclass(frozen=True)
class TrainingResult(Result):
    """Curves of a training, and the checkpoint it left in the library (None while it runs)."""

    history: dict[str, np.ndarray]
    checkpoint_id: str | None = None
    name: str = ""

    @classmethod
    def _former(cls, arrays: dict[str, np.ndarray]) -> dict[str, Any] | None:
        """Read a training kept before trainings were results: its settings lay beside the arrays."""
        if "__notes__" not in arrays:
            return None
        notes = json.loads(str(arrays["__notes__"]))
        return {"history": {name: values for name, values in arrays.items() if name != "__notes__"}, **notes}
