"""The stops of the tour: what each computes of the two small networks, and what it shows of it.

Work runs in the worker thread and asks for the engine there; answers are cached, so that a second tour is quick.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.catalog import DataSpec, PointSpec
from app.charts import connectivity, relief, surface
from app.pages.architectures import charts as architectures
from app.pages.averaging import charts as averaging
from app.pages.curvature import critical_charts as critical
from app.pages.saddles import charts as saddles
from app.pages.sharpness import charts as sharpness
from app.pages.workbench import charts as training
from app.texts import said
from app.work import training as trainings
from app.work.jobs import Handle
from app.workspace import library

NAMES = ("tour-a", "tour-b")
LEARNT = DataSpec(n_samples=720)  # by the two networks
DATA = DataSpec(n_samples=256)  # by what is trained for one stop
MEASURED = DataSpec(n_samples=128)
TRAINING = {"epochs": 8, "batch_size": 64, "lr": 0.1}
RIVALS = ("gd", "momentum")  # of the race, whose steps are told once both have run
HEIGHT = 380

# Charts, and the numbers that the stop's sentence about them is filled with.
Shown = tuple[Sequence[Any], dict[str, Any]]


@dataclass(frozen=True)
class Stop:
    """One stop.

    Attributes
    ----------
    page : str
        Where its question is asked of any network.
    work : callable
        ``work(handle) -> result``, in the worker thread.
    look : callable
        ``look(result) -> charts, numbers``; also of what there is before it is finished.
    """

    page: str
    work: Callable[[Handle], Any]
    look: Callable[[Any], Shown]

    def show(self, result: Any) -> Shown:
        """Return what is there to see: the curves while the networks are still being trained, then the stop's own."""
        if hasattr(result, "checkpoint_id"):
            return [training.curves(result.history, "loss", log=True, height=HEIGHT)], {}
        return self.look(result)


def pair() -> list[PointSpec]:
    """Return those of the two networks that are in the library."""
    found = {entry.name: entry for entry in library.list_checkpoints()}
    return [PointSpec.from_checkpoint(found[name]) for name in NAMES if name in found]


def trained(handle: Handle) -> list[PointSpec]:
    """Return the two networks, after training those that are not in the library."""
    there = {point.label for point in pair()}
    for seed, name in enumerate(NAMES):
        if name not in there:
            part = handle.part(0.5 * seed, 0.5 * (seed + 1))
            trainings.train(part, name, PointSpec(seed=seed), LEARNT, {**TRAINING, "random_state": seed})
    return pair()


def _start(handle: Handle) -> Any:
    from estimators import SurfaceMapper

    point = trained(handle.part(0.0, 0.7))[0]
    mapper = SurfaceMapper(mode="adaptive", resolution=31, memory="default")
    return mapper.fit(point.load(), MEASURED.load(), **handle.part(0.7, 1.0).reports).result_


def _show_start(result: Any) -> Shown:
    losses = np.asarray(result.losses, float)
    numbers = {"low": f"{result.loss:.3g}", "high": f"{np.nanmax(losses):.3g}", "points": result.n_evaluated}
    return [relief.relief(result, height=HEIGHT)], numbers


def _stationary(handle: Handle) -> Any:
    from estimators import CriticalPointFinder, pooled_digits, small_net

    finder = CriticalPointFinder(indices=(0, 1, 2, 3), n_starts=5, l2=1e-2, memory="default")
    return finder.fit(small_net(hidden=3), pooled_digits(n_samples=100), **handle.reports).result_


def _show_stationary(result: Any) -> Shown:
    if not result.found.any():
        return [], {}
    minima = int((result.found & (result.index == 0)).sum())
    numbers = {"minima": minima, "saddles": int(result.found.sum()) - minima, "rho": f"{result.spearman['value']:.2f}"}
    return [critical.index_against_loss(result, height=HEIGHT)], numbers


def _escape(handle: Handle) -> Any:
    from estimators import SaddleEscaper

    rules = ("gd", "sgd", "momentum", "perturbed_gd", "adam")
    escaper = SaddleEscaper(saddle="strict_surface", optimizers=rules, n_seeds=5, max_steps=500, memory="default")
    return escaper.fit(None, None, **handle.reports).result_


def _show_escape(result: Any) -> Shown:
    steps = {name: float(np.median(result.escape_steps[i, 1])) for i, name in enumerate(result.optimizers)}
    told = {name: f"{steps[name]:.0f}" if np.isfinite(steps[name]) else "∞" for name in RIVALS if name in steps}
    drawn = [saddles.paths(result, 1, height=HEIGHT)] if result.plane else []  # a race that has just begun has none
    return drawn, told if len(told) == len(RIVALS) else {}


def _sharpness(handle: Handle) -> Any:
    from estimators import SharpnessEstimator

    # The curve of the worst rise is shown, that of the mean rise is not: few draws.
    few = {"n_steps": 8, "n_restarts": 2, "n_draws": 4}
    estimator = SharpnessEstimator(measures=("sharpness", "profile"), **few, memory="default")
    point = trained(handle.part(0.0, 0.5))[0]
    return estimator.fit(point.load(), MEASURED.load(), **handle.part(0.5, 1.0).reports).result_


def _show_sharpness(result: Any) -> Shown:
    numbers = {"rise": f"{result.sharpness:.3g}", "rho": f"{result.settings['rho']:g}", "loss": f"{result.loss:.3g}"}
    return [sharpness.rise_profile([(NAMES[0], result)], height=HEIGHT)], numbers


def _connectivity(handle: Handle) -> Any:
    from estimators import ModeConnector

    connector = ModeConnector(path="bezier", epochs=6, n_points=11, memory="default")
    a, b = trained(handle.part(0.0, 0.5))
    return connector.fit((a.load(), b.load()), DATA.load(), **handle.part(0.5, 1.0).reports).result_


def _show_connectivity(result: Any) -> Shown:
    numbers = {"straight": f"{result.straight_barrier:.3g}", "curve": f"{result.barrier:.3g}"}
    return [connectivity.profile(result)], numbers


def _surface(handle: Handle) -> Any:
    from estimators import SurfaceMapper

    point = trained(handle.part(0.0, 0.5))[0]
    mapper = SurfaceMapper(directions="trajectory", mode="adaptive", resolution=31, memory="default")
    paths = {NAMES[0]: [str(path) for path in point.trajectory]}
    reports = handle.part(0.5, 1.0).reports
    return mapper.fit(paths, MEASURED.load(), architecture=point.load(), **reports).result_


def _show_surface(result: Any) -> Shown:
    share = float(np.sum(result.explained_variance_ratio))
    numbers = {"points": result.n_evaluated, "all": np.asarray(result.losses).size, "share": f"{share:.0%}"}
    return [surface.heat_map(result, height=HEIGHT)], numbers


def _averaging(handle: Handle) -> Any:
    from estimators import SWAAverager

    data, held_out = DataSpec(n_samples=384).load(), DATA.held_out(None).load()
    averager = SWAAverager(memory="default")
    return averager.train(
        PointSpec(seed=2).load(), data, held_out=held_out, epochs=10, compare=True, **handle.reports
    ).result_


def _show_averaging(result: Any) -> Shown:
    rows = {row["role"]: row["held_out_loss"] for row in result.report}
    plain, average = (f"{rows[role]:.3g}" if role in rows else "…" for role in ("sgd", "average"))
    return [averaging.history(result, log=True)], {"plain": plain, "average": average}


def _architectures(handle: Handle) -> Any:
    from estimators import ArchitectureComparer
    from estimators.variants import presets

    comparer = ArchitectureComparer(n_seeds=1, epochs=6, resolution=13, measures=(), memory="default")
    held_out = DATA.held_out(None).load()
    return comparer.fit(presets("test_resnet")["skips"], DATA.load(), held_out=held_out, **handle.reports).result_


def _show_architectures(result: Any) -> Shown:
    losses = {said(line["variant"]): line["train_loss"] for line in result.summary}
    listed = ", ".join(f"{name} **{value:.3g}**" for name, value in losses.items() if value is not None)
    drawn = architectures.maps(result)
    shared = {"domain": architectures.domain_of(result), "height": HEIGHT} if drawn else {}
    return [surface.heat_map(one, title=said(name), **shared) for name, one in drawn], {"losses": listed or "…"}


# In the order of the lecture's sections, after the start.
STOPS = {
    "start": Stop("workbench", _start, _show_start),
    "stationary": Stop("stationary", _stationary, _show_stationary),
    "escape": Stop("escape", _escape, _show_escape),
    "sharpness": Stop("sharpness", _sharpness, _show_sharpness),
    "connectivity": Stop("connectivity", _connectivity, _show_connectivity),
    "surface": Stop("surface", _surface, _show_surface),
    "averaging": Stop("averaging", _averaging, _show_averaging),
    "architectures": Stop("architectures", _architectures, _show_architectures),
}
