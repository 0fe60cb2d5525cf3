"""Numbers with their uncertainty, as many digits as it allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def plus_minus(value: float, error: float) -> str:
    """Return a number with its uncertainty, as many digits as that allows; empty where it is not known."""
    if not np.isfinite(value):
        return ""
    if not np.isfinite(error) or abs(error) < 1e-6 * abs(value):
        return f"{value:.4g}".replace("-", "−")
    if error == 0:
        return f"{value:.4g}"
    places = -math.floor(math.log10(error)) + (1 if f"{error:e}".startswith("1") else 0)
    if not -6 < places < 7:
        return f"{value:.3g} ± {error:.1g}".replace("-", "−")
    shown, spread = round(value, places), round(error, places)
    return f"{shown:,.{max(places, 0)}f} ± {spread:,.{max(places, 0)}f}".replace("-", "−")


def known(result: Any, name: str, write: Callable[[float, float], str] = plus_minus) -> str:
    """Return a field of a result with the uncertainty that the result states for it, or as a bound.

    While a search has not converged its residual does not say how near the truth is, only on which side that lies.
    """
    if sign := result.bound_on(name):
        return f"{sign} {getattr(result, name):.4g}".replace("-", "−")
    _, error = result.uncertainty_of(name) or ("", float("nan"))
    return write(float(getattr(result, name)), float(error))


def share(value: float, error: float) -> str:
    """Return a share with its standard error, in percent."""
    if not np.isfinite(value):
        return ""
    return f"{100 * value:.2f} ± {100 * error:.1g} %" if error > 0 else f"{100 * value:.2f} %"
