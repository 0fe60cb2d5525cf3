"""Whether this installation is right where the answer is known: closed forms beside measurements."""

from ._check import KNOWN_LANDSCAPES, CheckResult, check_installation
from ._landscape import KnownLandscape, Problem

__all__ = [
    "KNOWN_LANDSCAPES",
    "CheckResult",
    "KnownLandscape",
    "Problem",
    "check_installation",
]
