"""How optimisers leave a saddle, and where the critical points of a small network are."""

from ._escaper import SaddleEscaper
from ._finder import CriticalPointFinder, CriticalPointsResult
from ._mechanisms import MECHANISMS, judge_mechanisms
from ._result import EscapeResult
from ._small_net import pooled_digits, small_net

__all__ = [
    "MECHANISMS",
    "CriticalPointFinder",
    "CriticalPointsResult",
    "EscapeResult",
    "SaddleEscaper",
    "judge_mechanisms",
    "pooled_digits",
    "small_net",
]
