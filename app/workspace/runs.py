"""Finished work on disk: one folder a run, with what made it and what came out.

``run.json`` says how (page, estimator, parameters, script, seeds, versions, device, time); ``result.npz``
holds the numbers, written by the result's own ``save``. Both appear together or not at all.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.workspace import Entry
from app.workspace.numbers import numbers_of

_PACKAGES = ("loss-atlas", "torch", "timm", "numpy", "scikit-learn", "streamlit", "altair")


class Run(Entry):
    """One saved run. ``info`` is its ``run.json``."""

    kind, file, title_field, advice = "runs", "run.json", "title", "Delete it and compute it again."

    @property
    def page(self) -> str:
        """The page, or view of it, that made it."""
        return str(self.info.get("page", ""))

    @property
    def seconds(self) -> float:
        """Time the work took."""
        return float(self.info.get("seconds", 0.0))

    @property
    def pinned(self) -> bool:
        """Whether a person wants it at the top of the list."""
        return bool(self.info.get("pinned"))

    @property
    def tags(self) -> tuple[str, ...]:
        """Words that a person has given it."""
        return tuple(map(str, self.info.get("tags", ())))

    @property
    def numbers(self) -> dict[str, float]:
        """What it is found by, see :mod:`app.workspace.numbers`."""
        return dict(self.info.get("numbers", {}))

    @property
    def script(self) -> str:
        """The Python program that makes it again; empty where there is none."""
        return str(self.info.get("config", {}).get("script", ""))

    @property
    def result_path(self) -> Path:
        """The saved numbers."""
        return self.folder / "result.npz"


def versions() -> dict[str, str]:
    """Return the versions that can change a number."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def save_run(page: str, title: str, result: Any, config: dict[str, Any], *, seconds: float, job: str = "") -> str:
    """Save a finished job and return the run's id.

    Parameters
    ----------
    page, title : str
    result : object with ``save(path)``
        Any estimator result. Its class is noted, so that :func:`load_result` finds it again.
    config : dict
        From :func:`app.export.config`.
    seconds : float
        Time the work took.
    job : str
        Id of the job, by which the next start of the app knows that it has ended.
    """
    info = {
        "page": page,
        "title": title,
        "job": job,
        "seconds": round(seconds, 3),
        "result": f"{type(result).__module__}:{type(result).__qualname__}",
        "settings": getattr(result, "settings", {}),
        "numbers": numbers_of(result),
        "config": config,
        "versions": versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
    }
    with Run.new(info) as (path, made):
        result.save(path / "result.npz")
    return made.id


def list_runs() -> list[Run]:
    """Return the saved runs, pinned ones first, then newest first."""
    return sorted(Run.every(), key=lambda run: not run.pinned)


def matching(found: Sequence[Run], words: str) -> list[Run]:
    """Return the runs whose title, page and tags hold all of some words, in any order."""
    wanted = words.lower().split()
    return [run for run in found if all(w in f"{run.title} {run.page} {' '.join(run.tags)}".lower() for w in wanted)]


def settings_of(run: Run) -> dict[str, Any]:
    """Return everything that was chosen for a run by its dotted name, such as ``params.resolution``."""
    config = run.info.get("config", {})
    chosen = {
        "page": run.page,
        **{k: v for k, v in config.items() if k != "script"},
        "machine": run.info.get("machine"),
    }
    return {**_flat(chosen), **_flat(run.info.get("settings") or {})}


def _flat(values: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {name: values}
    parts = (_flat(value, f"{name}.{key}" if name else str(key)) for key, value in values.items())
    return {key: value for part in parts for key, value in part.items()}


def differences(compared: Sequence[Run]) -> dict[str, list[Any]]:
    """Return the settings in which runs differ, each with its value in every run (None where it has none).

    Runs of several pages have few settings in common: what only one of them has is left out.
    """
    every = [settings_of(run) for run in compared]
    names = dict.fromkeys(name for settings in every for name in settings)
    table = {name: [settings.get(name) for settings in every] for name in names}
    least = 1 if len({run.page for run in compared}) == 1 else 2
    shared = {n: values for n, values in table.items() if sum(value is not None for value in values) >= least}
    return {name: values for name, values in shared.items() if any(value != values[0] for value in values)}


def load_result(run: Run) -> Any:
    """Read a run's result.

    It goes by the name of its class, wherever the class lived when the run was kept.

    Raises
    ------
    ValueError
        When the file is damaged or was written by a class that is gone.
    """
    module, _, name = str(run.info.get("result", "")).partition(":")
    if module.split(".")[0] not in ("estimators", "app") or not name.isidentifier():
        raise ValueError(f"result must name a class of this program, got {module}:{name}. Compute the run again.")
    import estimators  # whole, before a part of it: the worker may be importing it meanwhile
    import estimators.experiments
    from app.workspace import curves  # noqa: F401

    try:
        return estimators.Result.load(run.result_path)
    except ValueError as error:
        raise ValueError(f"result of {run.title!r} must be readable, got {error} Compute it again.") from error
