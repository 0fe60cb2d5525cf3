"""Ready experiments: each trains what it needs, measures it over seeds, and judges claims by the numbers."""

from .batch_size import QUANTITIES, BatchSizeResult, batch_size_experiment
from .connectivity_cases import CasesResult, ConnectivityCases
from .rate_batch import RateBatchResult, rate_batch_experiment
from .swa_comparison import SwaComparisonResult, noisy_digits, swa_experiment
from .width_sweep import WidthSweep, WidthSweepResult

__all__ = [
    "QUANTITIES",
    "BatchSizeResult",
    "CasesResult",
    "ConnectivityCases",
    "RateBatchResult",
    "SwaComparisonResult",
    "WidthSweep",
    "WidthSweepResult",
    "batch_size_experiment",
    "noisy_digits",
    "rate_batch_experiment",
    "swa_experiment",
]
