"""The few numbers of a result by which it is found again and told from others."""

from __future__ import annotations

import math
from typing import Any

# In the order of a table; the words are the texts `number.NAME` of the page Runs.
NUMBERS = (
    "loss", "accuracy", "held_out_loss", "held_out_accuracy", "lambda_max", "trace", "saddle_index", "gradient_norm",
    "sharpness", "average_sharpness", "barrier", "rise_over_endpoints",
)  # fmt: skip
_FROM_AN_AVERAGE = {"loss": "train_loss", "accuracy": "train_accuracy"}


def numbers_of(result: Any) -> dict[str, float]:
    """Return those of :data:`NUMBERS` that a result has: of a training its last epoch, of an average the average."""
    history, report = getattr(result, "history", None), getattr(result, "report", None)
    if report:
        row = next((row for row in report if row.get("role") == "average"), {})
        found = {name: row.get(_FROM_AN_AVERAGE.get(name, name)) for name in NUMBERS}
    elif isinstance(history, dict):
        found = {name: history[name][-1] for name in NUMBERS if len(history.get(name, ()))}
    else:
        found = {name: getattr(result, name, None) for name in NUMBERS}
    return {name: float(value) for name, value in found.items() if _is_number(value)}


def _is_number(value: Any) -> bool:
    try:
        return value is not None and math.isfinite(float(value))
    except (TypeError, ValueError):  # a table or an array of that name
        return False
