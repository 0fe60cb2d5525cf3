"""What skips, normalisation, dropout, width and depth change."""

from ._claims import CLAIMS, COMPARABLE, Claim, judge_claims, plain, rank_measures, width_factor
from ._comparer import ArchitectureComparer
from ._measurement import MEASUREMENTS, QUICK, MeasureSettings, fit_and_gap, measure
from ._result import ComparisonResult, mean_and_spread, summarise
from ._run import RunOutcome, Task, build, describe_settings, run, run_all, with_label_noise

__all__ = [
    "CLAIMS",
    "COMPARABLE",
    "MEASUREMENTS",
    "QUICK",
    "ArchitectureComparer",
    "Claim",
    "ComparisonResult",
    "MeasureSettings",
    "RunOutcome",
    "Task",
    "build",
    "describe_settings",
    "fit_and_gap",
    "judge_claims",
    "mean_and_spread",
    "measure",
    "plain",
    "rank_measures",
    "run",
    "run_all",
    "summarise",
    "width_factor",
    "with_label_noise",
]
