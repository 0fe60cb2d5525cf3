"""Ready experiments: each trains what it needs, measures it over seeds, and judges claims by the numbers.

`CLAIMS` holds the lecture's claims with the design that tests each, `STUDIES` the experiments behind them, and
`read_records` what they gave here.
"""

from .arms import Arm, ArmsResult, Subject, compare_arms
from .batch_size import QUANTITIES, BatchSizeResult, batch_size_experiment
from .claims import CLAIMS, SECTIONS, Claim, Measurement, Record, common_verdict, read_records, write_records
from .connectivity_cases import CasesResult, ConnectivityCases
from .negative_curvature import NegativeCurvatureResult
from .rate_batch import RateBatchResult, rate_batch_experiment
from .saddle_escape import SaddlesResult
from .sam_swa import SamSwaResult
from .shifted_data import ShiftedDataResult
from .studies import STUDIES, Study
from .swa_comparison import SwaComparisonResult, noisy_digits, swa_experiment
from .width_sweep import WidthSweep, WidthSweepResult

__all__ = [
    "CLAIMS",
    "QUANTITIES",
    "SECTIONS",
    "STUDIES",
    "Arm",
    "ArmsResult",
    "BatchSizeResult",
    "CasesResult",
    "Claim",
    "ConnectivityCases",
    "Measurement",
    "NegativeCurvatureResult",
    "RateBatchResult",
    "Record",
    "SaddlesResult",
    "SamSwaResult",
    "ShiftedDataResult",
    "Study",
    "Subject",
    "SwaComparisonResult",
    "WidthSweep",
    "WidthSweepResult",
    "batch_size_experiment",
    "common_verdict",
    "compare_arms",
    "noisy_digits",
    "rate_batch_experiment",
    "read_records",
    "swa_experiment",
    "write_records",
]
