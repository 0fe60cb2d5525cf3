"""Runs that were kept by a former version of the program."""

import json
import subprocess
import sys
from dataclasses import MISSING, fields
from typing import get_origin, get_type_hints

import numpy as np
import pytest

import estimators.experiments
from app import workspace
from app.workspace import runs
from app.workspace.curves import TrainingResult
from estimators import EscapeResult, SharpnessResult
from estimators.results import REGISTRY

# result classes by the modules they lived in before each question got a room of its own
FORMER = {
    "estimators.average_result": ("AverageResult",),
    "estimators.comparison": ("ComparisonResult",),
    "estimators.critical_points": ("CriticalPointsResult",),
    "estimators.curvature_result": ("CurvatureResult", "CurvatureHistoryResult", "MinimumProbabilityResult"),
    "estimators.escape_result": ("EscapeResult",),
    "estimators.experiments.batch_size": ("BatchSizeResult",),
    "estimators.experiments.cases_result": ("CasesResult",),
    "estimators.experiments.swa_comparison": ("SwaComparisonResult",),
    "estimators.experiments.width_result": ("WidthSweepResult",),
    "estimators.minima_map": ("MapResult",),
    "estimators.path_result": ("PathResult",),
    "estimators.sharpness_result": ("SharpnessResult",),
    "estimators.surface_result": ("SurfaceResult",),
}


def keep(result, former):
    """Keep a run as the former version did: its class by the module of then."""
    run_id = runs.save_run("surface", type(result).__name__, result, {}, seconds=1.0)
    path = runs.Run.get(run_id).folder / "run.json"
    workspace.write_json(path, workspace.read_json(path) | {"result": f"{former}:{type(result).__name__}"})
    return runs.Run.get(run_id)


def some(cls):
    """Make a result with nothing but what it must have."""
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    kinds = {name: get_origin(kind) or kind for name, kind in get_type_hints(cls).items()}
    return cls(**{name: np.zeros(1) if kinds[name] is np.ndarray else kinds[name]() for name in needed})


def test_every_class_of_the_former_version_opens_in_a_fresh_process():
    made = [(keep(some(REGISTRY[name]), module), name) for module, names in FORMER.items() for name in names]
    made.append((keep(TrainingResult({"loss": np.arange(2.0)}), "app.training_jobs"), "TrainingResult"))
    program = (
        "import sys\nfrom app.workspace import runs\n"
        "for run in sys.argv[1:]: print(type(runs.load_result(runs.Run.get(run))).__name__)"
    )
    ids = [run.id for run, _ in made]
    done = subprocess.run(
        [sys.executable, "-c", program, *ids], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == [name for _, name in made]


def test_the_numbers_of_an_old_run_are_all_there():
    kept = SharpnessResult(sharpness=0.25, noise_sigma=np.array([0.1, 0.2]), settings={"rho": 0.05})
    again = runs.load_result(keep(kept, "estimators.sharpness_result"))
    assert again.sharpness == 0.25 and again.settings == {"rho": 0.05}
    np.testing.assert_array_equal(again.noise_sigma, kept.noise_sigma)


def test_a_class_that_is_gone_is_a_sentence(monkeypatch):
    run = keep(EscapeResult(saddle={}), "estimators.escape_result")
    monkeypatch.delitem(REGISTRY, "EscapeResult")
    with pytest.raises(ValueError, match=r"result of 'EscapeResult' must be readable.*Compute it again"):
        runs.load_result(run)


def test_the_experiments_hand_out_their_results():
    assert {name for name in estimators.experiments.__all__ if name.endswith("Result")} >= {
        "BatchSizeResult",
        "CasesResult",
        "SwaComparisonResult",
        "WidthSweepResult",
    }


def test_a_training_kept_before_trainings_were_results_opens():
    run = keep(TrainingResult({"loss": np.arange(2.0)}), "app.training_jobs")
    notes = json.dumps({"checkpoint_id": "some", "name": "mine", "settings": {"epochs": 2}})
    with open(run.result_path, "wb") as file:
        np.savez_compressed(file, __notes__=np.array(notes), loss=np.array([2.0, 1.0]))
    again = runs.load_result(run)
    assert (again.checkpoint_id, again.name, again.settings) == ("some", "mine", {"epochs": 2})
    np.testing.assert_array_equal(again.history["loss"], [2.0, 1.0])
