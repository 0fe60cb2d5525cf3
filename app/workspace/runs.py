"""Finished work on disk: one folder a run, with what made it and what came out.

``run.json`` says how (page, estimator, parameters, script, seeds, versions, device, time); ``result.npz``
holds the numbers, written by the result's own ``save``. Both appear together or not at all.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from app.workspace import Entry

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


def save_run(page: str, title: str, result: Any, config: dict[str, Any], *, seconds: float) -> str:
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
    """
    info = {
        "page": page,
        "title": title,
        "seconds": round(seconds, 3),
        "result": f"{type(result).__module__}:{type(result).__qualname__}",
        "settings": getattr(result, "settings", {}),
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
    import estimators.experiments
    from app.workspace import curves  # noqa: F401

    try:
        return estimators.Result.load(run.result_path)
    except ValueError as error:
        raise ValueError(f"result of {run.title!r} must be readable, got {error} Compute it again.") from error
