"""Surface: the loss on a line, plane or volume through the weights.

Long because one class answers every question about a map, each with its documentation; the grid, the planes, the marks
and the analysis beside this file do the work.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor, nn

from .. import sampling
from ..base import ParallelEstimator
from ..budget import Budget, Budgeted, TimeUp
from ..cache import MISSING, fingerprint, keep, recall
from ..checks import check_integer, positive, whole
from ..core.planes.directions import NORMALIZATIONS, largest_cosine
from ..core.spectrum.lanczos import usual_products
from ..landscape import PRECISIONS, Evaluation, Landscape
from ..pace import Work
from ..points import CHUNK, OnChunk, Where
from ..progress import Cancelled, OnProgress, ignore_progress, resumed
from ..workers import WorkerLost, count_workers
from . import _analysis as analysis
from . import _marks as marks
from ._grid import EXPECTED_ADAPTIVE, FIRST_BLOCK, LARGEST_LAST_FILL, Arrived, Grid
from ._inputs import groups_of, module_of, read_points, template_of
from ._planes import DIRECTIONS, EIGENVECTORS, MapPlane, Request, axes_of, grown_spans
from ._precision import (
    AUTO,
    EXACT,
    FOR_CHOICE,
    MIXED,
    NOT_ADAPTIVE,
    TOO_SHORT,
    PrecisionChoice,
    apart,
    choose_precision,
)
from ._result import SurfaceResult
from ._trust import SliceTrust, trust_of_slice

OnPartial = Callable[[SurfaceResult], None]
_N_PICTURES = 32  # of an exact map on the way
_LARGE = 16 * 2**20  # bytes from which a vector is handed out without a copy
_PICTURE_EVERY = 2.0  # seconds, where points are slow or come from many workers
_CHECKED_NODES = 9  # of a bfloat16 map, evaluated in float32 as well
_FOR_DIRECTIONS = 0.5  # most of a budget that finding eigenvectors may take
_FOR_MARKS = 0.1  # share of a budget that is kept for the models on the map
_LOWEST_RISE_FROM = 0.1  # a loss below this counts as this when "auto" looks for a rise


@dataclass(kw_only=True, eq=False, repr=False)
class SurfaceMapper(TransformerMixin, Budgeted, ParallelEstimator):
    """Map the loss on a line, plane or volume through the weights of a network.

    ``fit`` chooses the directions and evaluates the grid; ``transform`` gives the coordinates of models in
    the plane. The centre is the model itself: its value is ``Landscape.loss()`` to the last bit.

    Parameters
    ----------
    directions : {"random", "hessian", "trajectory", "models", "linear"}, default="random"
        Gaussian directions; unit eigenvectors of the Hessian; principal components of a sequence of
        checkpoints (through the last one); the plane through three models (line through two, volume through
        four); the straight line between two models (0 and 1 are the models; needs ``n_dims=1``).
    normalization : {"filter", "layer", "model", None}, default="filter"
        Scale of random directions, see :func:`estimators.core.planes.directions.random_directions`.
    span : float, (float, ...) or "auto", default=1.0
        Half-width of the map along each direction, in lengths of the direction. With "trajectory", "models"
        and "linear" it multiplies the window that frames the models. "auto" grows each half-width until the
        loss has risen to ``rise`` times its value at the centre (at least to ``rise`` · 0.1).
    rise : float, default=10
        For ``span="auto"``.
    resolution : int or (int, ...), default=41
        Points along each direction, at least 3. The centre is always one of them, so with an even number the
        grid passes one end of the span by a step.
    mode : {"exact", "adaptive"}, default="exact"
        Evaluate every point, or only where two interpolants would disagree
        (:mod:`estimators.core.planes.refinement`). Features narrower than about five steps of the grid that no
        evaluated point touches can be missed. A loss that jumps from point to point (rounded weights or activations)
        can't be interpolated: it is recognised, every point is evaluated, and ``notes_`` and ``settings`` say so.
    tolerance : float, default=0.01
        Of adaptive maps: largest error as a share of the range of the finite log-losses.
    n_dims : {1, 2, 3}, default=2
    n_seeds : int, default=1
        Random profiles drawn (``n_dims=1`` only), with seeds ``random_state``, ``random_state + 1``, ...
    eigenvectors : {"largest", "extremes"}, default="largest"
        Of Hessian directions: the largest eigenvalues, or the largest and the most negative one.
    parameters : str, sequence of str or None, default=None
        Regular expressions choosing the parameters that move; the others stay fixed.
    sampling : bool, default=False
        Also find how much loss and accuracy at the centre would change with other examples:
        ``result_.uncertainty_of("loss", "sampling")`` is a `SamplingError`. `probe` tells it of any other point.
    max_points : int, default=250_000
        Grids with more points are refused with their cost.
    time_budget : float or None, default=None
        Seconds that `fit` and `look_closer` may take: the map is then as fine as fits, the rest interpolated, and
        ``unfinished_`` says so. With a `memory` another fit goes on from there, and so does `finish`, without an end.
    precision : {"float32", "float64", "bfloat16", "auto"}, default="float32"
        See :class:`Landscape`. "auto" measures an adaptive map in bfloat16 where a few of its nodes, evaluated in both,
        show that it is faster here and off by at most three tenths of the tolerance, else in float32; a note says which
        and why. With a `memory` the choice is kept with the map. Directions and marks are found in float32. A bfloat16
        map is compared with float32 at a few of its nodes: the largest relative difference of the loss is in
        ``result_.settings["bfloat16_deviation"]``, and every error estimate holds it.
    loss, batch_size, device, batch_norm, points_per_pass
        See :class:`Landscape`. ``batch_norm="auto"`` estimates statistics again at each point where `fit` gets
        several networks (a plane, line or trajectory through them, marks), and takes those of the checkpoint around
        one.
    memory, n_jobs, random_state, verbose
        See :class:`LandscapeEstimator`.

    Attributes
    ----------
    result_ : SurfaceResult
        Everything below in one object that can be saved.
    axes_ : tuple of ndarray
        Coordinates along each direction.
    losses_, accuracies_, held_out_losses_, held_out_accuracies_ : ndarray of shape (R1, R2)
        First index along the first direction; (R1,) for a profile, (n_seeds, R1) for several, (R1, R2, R3)
        for a volume.
    evaluated_ : bool ndarray
        Where values are exact; elsewhere they are interpolated.
    error_estimate_ : ndarray
        Estimated |error| of the log-losses.
    directions_ : ndarray of shape (n_dims, P)
        For several seeds (n_seeds, P).
    origin_ : ndarray of shape (P,)
    explained_variance_ratio_, eigenvalues_ : ndarray
        Of trajectory and of Hessian directions.
    random_walk_variance_ratio_ : ndarray
        What the components of a random walk with as many steps would explain (Antognini & Sohl-Dickstein 2018);
        empty for other directions and for several trajectories.
    cosine_ : float
        Largest absolute cosine between two directions.
    markers_, trajectories_ : list of dict
        Models and checkpoints: coordinates, own loss (with their own batch-norm statistics, whatever the map's policy),
        distance from the plane, ``map_loss`` (the colour under them) and ``differs``: whether the own loss differs from
        it by more than 5 % of the range of the log-losses (or ``tolerance``, where that is more); a note says why.

    References
    ----------
    Li et al., "Visualizing the Loss Landscape of Neural Nets", NeurIPS 2018. Goodfellow et al.,
    "Qualitatively characterizing neural network optimization problems", ICLR 2015. Garipov et al., "Loss
    Surfaces, Mode Connectivity, and Fast Ensembling of DNNs", NeurIPS 2018.

    Examples
    --------
    >>> from estimators import SurfaceMapper, load_data, load_model
    >>> model, data = load_model("test_resnet", num_classes=10), load_data("digits", n_samples=16)
    >>> mapper = SurfaceMapper(resolution=5).fit(model, data)
    >>> mapper.losses_.shape
    (5, 5)
    >>> bool(mapper.losses_[2, 2] == mapper.loss_)
    True
    >>> mapper.transform([model]).shape
    (1, 2)
    """

    directions: str = "random"
    normalization: str | None = "filter"
    span: float | tuple | str = 1.0
    rise: float = 10.0
    resolution: int | tuple = 41
    mode: str = "exact"
    tolerance: float = 0.01
    n_dims: int = 2
    n_seeds: int = 1
    eigenvectors: str = "largest"
    parameters: str | tuple | None = None
    sampling: bool = False
    max_points: int = 250_000
    points_per_pass: int = 1
    result_: SurfaceResult = field(init=False)

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(1, "n_seeds", "max_points"),
        **positive("rise"),
        "directions": [StrOptions(set(DIRECTIONS))],
        "normalization": [StrOptions(set(NORMALIZATIONS)), None],
        "span": [Real, "array-like", StrOptions({"auto"})],
        "resolution": [Real, "array-like"],
        "mode": [StrOptions({"exact", "adaptive"})],
        "tolerance": [Interval(Real, 0, 1, closed="neither")],
        "precision": [StrOptions({AUTO, *PRECISIONS})],
        "n_dims": [Interval(Integral, 1, 3, closed="both")],
        "eigenvectors": [StrOptions(set(EIGENVECTORS))],
    }

    # -- fitting ----------------------------------------------------------------------------------------

    def fit(
        self,
        model: Any,
        data: Any,
        *,
        held_out: Any = None,
        marked: Any = None,
        architecture: nn.Module | None = None,
        on_progress: OnProgress | None = None,
        on_partial: OnPartial | None = None,
    ) -> SurfaceMapper:
        """Choose the directions and evaluate the grid.

        Parameters
        ----------
        model : module, state dict, file, or a sequence or mapping of these
            The map is centred on the first model; with "trajectory" on the last checkpoint of the first
            trajectory. A mapping gives labels; a mapping of sequences several trajectories on one plane.
        data : Examples, (inputs, targets), Dataset or DataLoader
        held_out : like `data`, optional
            Evaluated at the same points.
        marked : like `model`, optional
            Further models and trajectories to place on the map.
        architecture : nn.Module, optional
            What the architecture is, when `model` holds files only.
        on_progress : callable, optional
            ``on_progress(done, total, message)``; raising `Cancelled` stops between two chunks and leaves the
            partial map in `result_`.
        on_partial : callable, optional
            ``on_partial(result)`` after each round, the rest of the map interpolated.

        Returns
        -------
        self
        """
        sizes = self._check()
        budget = self._budget = Budget(self.time_budget)
        progress = self._progress(on_progress, "surface")
        groups = groups_of(model, self.directions)
        members = [m for g in groups for m in g.members]
        self._template = template_of(model, groups, architecture)
        if self.directions == "trajectory":
            middle = next((g for g in groups if g.is_trajectory), groups[0]).members[-1]
        else:
            middle = groups[0].members[0]
        land = self._landscape(
            module_of(middle, self._template), data, several_networks=len(members) > 1 or marked is not None
        )
        self._land, self._held_out = land, None if held_out is None else land.on(held_out)
        self._refuse_costly(sizes)
        points = read_points(land, members if self.directions in ("trajectory", "models", "linear") else [])
        brake = budget.brake(reserved=(1 - _FOR_DIRECTIONS) * (budget.seconds or 0.0))
        request = self._as(
            Request, land=land, points=points, one_path=len(groups) == 1, on_progress=progress, enough=brake
        )
        seeds = range(self.random_state, self.random_state + self.n_seeds)
        self._planes = [DIRECTIONS[self.directions](replace(request, random_state=seed)) for seed in seeds]
        if brake.used:
            budget.unfinished.append("Hessian eigenvectors")
        self._settings = self._described()
        plane = self._planes[0]
        alone = self.directions in ("random", "hessian") and len(members) == 1
        shown = [*groups[alone:], *([] if marked is None else groups_of(marked))]
        self._marks = [marks.place(group, land, plane.frame) for group in shown]
        self.directions_ = _readable(
            plane.directions if len(self._planes) == 1 else torch.cat([p.directions for p in self._planes])
        )
        self._cosine = max(largest_cosine(p.directions) for p in self._planes)
        self.origin_ = _readable(land.theta.detach())
        self._lay_out(axes_of(plane, sizes, self._spans(plane, progress)), (0.0,) * self.n_dims)
        self._fill(self.mode, progress, on_partial)
        self._measure_marks(progress)
        return self

    def finish(self, *, on_progress: OnProgress | None = None, on_partial: OnPartial | None = None) -> SurfaceMapper:
        """Evaluate exactly what was interpolated, or what a `fit` that was cancelled or ran out of time left."""
        progress = self._progress(on_progress, "surface")
        self._budget = Budget(None)
        self._fill("exact", progress, on_partial)
        if not all(mark.is_measured for mark in self._marks):
            self._measure_marks(progress)
        return self

    def look_closer(
        self,
        at: Sequence[float],
        factor: float = 4.0,
        *,
        on_progress: OnProgress | None = None,
        on_partial: OnPartial | None = None,
    ) -> SurfaceMapper:
        """Map the same plane again around another of its points, `factor` times closer.

        Parameters
        ----------
        at : sequence of n_dims floats
            Coordinates of the new centre; they are a node of the new grid.
        factor : float, default=4
            How many times narrower the new window is.

        Returns
        -------
        SurfaceMapper
            Another fitted mapper with the same directions; this one stays as it is.
        """
        centre = self._one_point(at)[0]
        if not factor > 0:
            raise ValueError(f"factor must be positive, got {factor!r}. Use 4.0.")
        closer = copy.copy(self)
        closer._budget = Budget(self.time_budget)
        axes = [c + a / factor for c, a in zip(centre, self._grid.axes, strict=True)]
        closer._lay_out(axes, tuple(float(c) for c in centre))
        closer._fill(self.mode, self._progress(on_progress, "surface"), on_partial)
        closer._compare_marks()
        return closer

    # -- using the plane --------------------------------------------------------------------------------

    def transform(self, models: Any) -> np.ndarray:
        """Coordinates (n_models, n_dims) of models in the plane: their nearest points by least squares."""
        return self._planes[0].frame.project(self._read(models)).numpy()

    def residuals(self, models: Any) -> np.ndarray:
        """Euclidean distances (n_models,) of models from the plane."""
        return self._planes[0].frame.residual(self._read(models)).numpy()

    def inverse_transform(self, coordinates: ArrayLike) -> list[dict[str, Tensor]]:
        """State dicts of the networks at coordinates (n, n_dims); buffers follow the batch-norm policy."""
        return [self._land.state_dict(point) for point in self._planes[0].points(self._coordinates(coordinates))]

    def evaluate(self, coordinates: ArrayLike, *, on_progress: OnProgress | None = None) -> np.ndarray:
        """Exact losses (n,) at coordinates (n, n_dims), on the grid or off it."""
        progress = self._progress(on_progress, "points")
        return self._at(self._land, self._planes[0], self._coordinates(coordinates), progress).losses

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the coordinates that `transform` gives."""
        return np.array([f"direction{k + 1}" for k in range(len(self.axes_))], dtype=object)

    def cost(self) -> Work:
        """Count what a fit takes, about; an adaptive map counts each profile and each slice of a volume."""
        sizes = self._check()
        every = int(np.prod(sizes[:2]))
        each = every if self.mode == "exact" else min(every, EXPECTED_ADAPTIVE)
        searched = usual_products(self.n_dims, "largest") if self.directions == "hessian" else 0
        return Work(evaluations=each * int(np.prod(sizes[2:])) * self.n_seeds, products=searched)

    # -- reading the map --------------------------------------------------------------------------------

    def convexity(self, resolution: int = 5, *, tol: float = 0.02, on_progress: OnProgress | None = None) -> dict:
        """Map |λ_min / λ_max| of the whole Hessian over the plane.

        Parameters
        ----------
        resolution : int, default=5
            Points along each axis, spread over the map; each costs up to 120 Hessian-vector products.
        tol : float, default=0.02
            Relative accuracy of the eigenvalues.

        Returns
        -------
        dict
            `axes` (two arrays), `ratio`, `lambda_min`, `lambda_max`, `residual`, each (resolution,
            resolution). The ratio is 0 where the loss is convex; NaN where it is not finite.

        References
        ----------
        Li et al. 2018, section 6.1.
        """
        if self.n_dims != 2:
            raise ValueError(f"n_dims must be 2 for a map of convexity, got {self.n_dims}. Fit a plane.")
        picked = [a[np.unique(np.linspace(0, len(a) - 1, resolution).round().astype(int))] for a in self._grid.axes]
        return analysis.eigenvalue_ratios(
            self._land,
            self._planes[0],
            picked,
            tol=tol,
            random_state=self._settings["random_state"],
            on_progress=self._progress(on_progress, "convexity"),
        )

    def basin_width(
        self,
        level: float | None = None,
        *,
        n_rays: int = 16,
        largest: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> dict[str, Any]:
        """How far the loss stays below a level along random rays from the centre.

        Parameters
        ----------
        level : float, optional
            Above the loss at the centre; default: the loss at the centre plus 1.
        n_rays : int, default=16
            Random rays on this estimator's normalization.
        largest : float, optional
            Farthest radius looked at, in the unit of the rays; rays that stay below the level have an
            infinite radius. By default 10 for rays on the scale of the weights, 10 ‖θ‖ otherwise.

        Returns
        -------
        dict
            `radii` (n_rays,), their `median`, and `level`.
        """
        centre, progress = self.result_.loss, self._progress(on_progress, "rays")
        level = centre + 1.0 if level is None else float(level)
        if not level > centre:
            raise ValueError(f"level must lie above the loss at the centre ({centre:.4g}), got {level!r}. Raise it.")
        found = analysis.basin_radii(
            self._land,
            lambda anchors, weights: self._evaluate(self._land, anchors, weights, progress).losses,
            level,
            n_rays=n_rays,
            normalization=self.normalization,
            largest=largest,
            random_state=self._settings["random_state"],
        )
        return {"radii": found, "median": float(np.median(found)), "level": level}

    def basins(self, *, min_persistence: float = 0.05, log: bool = True) -> list[dict[str, Any]]:
        """Basins of the map's sublevel sets, deepest first (extra ``topology``); see :func:`basins_of`."""
        return analysis.basins_of(self.result_, min_persistence=min_persistence, log=log)

    def trust(self, *, n_eigenvectors: int = 3, n_draws: int = 8, on_progress: OnProgress | None = None) -> SliceTrust:
        """Measure how much the map says about the landscape around its origin; see :class:`SliceTrust`.

        Parameters
        ----------
        n_eigenvectors : int, default=3
            Largest Hessian eigenvalues whose eigenvectors are looked for; 0 looks for none.
        n_draws : int, default=8
            Other random directions, of the first one's length, whose profiles are set beside it.
        """
        progress = self._progress(on_progress, "trust")
        return trust_of_slice(
            self.result_,
            self._land,
            self._planes[0].directions,
            n_eigenvectors=check_integer("n_eigenvectors", n_eigenvectors, "Use 3.", least=0),
            n_draws=check_integer("n_draws", n_draws, "Use 8."),
            normalization=self.normalization,
            random_state=self._settings["random_state"],
            losses=lambda anchors, weights: self._evaluate(self._land, anchors, weights).losses,
            on_progress=progress,
        )

    def probe(self, at: Sequence[float]) -> dict[str, Any]:
        """Measure one point of the plane exactly.

        Parameters
        ----------
        at : sequence of n_dims floats
            Coordinates.

        Returns
        -------
        dict
            `loss`, `accuracy`, `gradient_norm` (of the whole gradient), `slope` (its part in the plane), `rise` (the
            loss less that at the origin), and `sampling`: how much loss, accuracy and rise would change with other
            examples, each the attributes of a `SamplingError` (empty where batch statistics tie examples together).
        """
        return analysis.probe(self._land, self._planes[0], self._one_point(at))

    # -- steps ------------------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        given = super()._options()
        return given | {"precision": EXACT} if self.precision == AUTO else given

    def _check(self) -> tuple[int, ...]:
        """Check what the settings ask of each other; give the points along each direction."""
        if self.n_seeds > 1 and (self.n_dims > 1 or self.directions != "random"):
            raise ValueError(
                "n_seeds must be 1, or more with directions='random' and n_dims=1, got "
                f"{self.n_seeds!r}. Fit one map for each random_state instead."
            )
        if not isinstance(self.span, str) and min(self._per_axis("span", self.span)) <= 0:
            raise ValueError(f"span must be positive, got {self.span!r}. Use 1.0 or 'auto'.")
        sizes = self._per_axis("resolution", self.resolution)
        if any(int(n) != n or n < 3 for n in sizes):
            raise ValueError(f"resolution must be whole numbers from 3, got {self.resolution!r}. Use 21 or (31, 11).")
        return tuple(int(n) for n in sizes)

    def _per_axis(self, name: str, value: Any) -> list[float]:
        values: list[Any] = [value] * self.n_dims if isinstance(value, Real) else list(value)
        if len(values) != self.n_dims or not all(isinstance(v, Real) for v in values):
            raise ValueError(
                f"{name} must be one number or {self.n_dims} (one for each direction), got {value!r}. "
                f"Give {self.n_dims} or change n_dims."
            )
        return values

    def _refuse_costly(self, sizes: tuple[int, ...]) -> None:
        """Say what a grid costs before anything of its size is made."""
        total = int(np.prod([float(n) for n in sizes])) * self.n_seeds
        if total <= self.max_points:
            return
        started = time.perf_counter()
        self._land.loss()
        hours = total * (time.perf_counter() - started) / 3600
        raise ValueError(
            f"resolution must give at most max_points = {self.max_points:,} points, got {self.resolution!r}: "
            f"{total:,} points, about {hours:,.1f} hours here. Lower resolution, or raise max_points."
        )

    def _spans(self, plane: MapPlane, progress: OnProgress) -> list[float]:
        """Give a half-width (a factor of one, where models frame the map) for each direction."""
        if not isinstance(self.span, str):
            return self._per_axis("span", self.span)
        if not plane.is_free:
            return [1.0] * self.n_dims
        level = self.rise * max(self._land.loss(), _LOWEST_RISE_FROM)
        return grown_spans(plane, level, lambda where: self._at(self._land, plane, where, progress).losses)

    def _lay_out(self, axes: Sequence[np.ndarray], centre: tuple[float, ...]) -> None:
        """Make an empty grid over the axes."""
        names = ["losses", "accuracies"]
        if self._held_out is not None:
            names += ["held_out_losses", "held_out_accuracies"]
        self._grid = Grid(self._planes, axes, centre, names)
        self._sampling: dict[str, Any] = {}
        self._why_not = sampling.why_not(self._land) if self.sampling else ""
        if self.sampling and not self._why_not:
            self._sampling = analysis.errors_at(self._land, self._planes[0], np.array([centre]))
        self._deviation: float | None = None
        self._choice: PrecisionChoice | None = None
        self._filled_by = self._land, self._held_out

    def _settle_precision(self, mode: str, progress: OnProgress) -> None:
        """Choose the precision of the grid where that is left to the map, once: the cache keeps it for the next fit."""
        if self.precision != AUTO or self._choice is not None:
            return
        if mode != "adaptive":
            self._choice = NOT_ADAPTIVE
            return
        plane, coordinates = self._grid.coarse_nodes()
        anchors, weights = plane.anchors(), plane.coefficients(coordinates)
        mixed = cache(partial(self._in_precision, MIXED))
        reserved = 0.0 if self._budget.seconds is None else (1 - FOR_CHOICE) * self._budget.left
        brake = self._budget.brake(reserved=reserved)
        key = self._choice_key = fingerprint(self._land.fingerprint, list(anchors), weights, self.tolerance)
        found = recall(self._memory(), choose_precision, key)
        if found is MISSING:
            compared = self._land, mixed, anchors, weights, self.tolerance
            found = choose_precision(*compared, lambda done, total: progress(done, total, "precision"), brake)
            if found is not TOO_SHORT:  # what the clock has cut is no choice for another fit
                keep(self._memory(), choose_precision, key, found)
        self._choice = found
        if self._choice.precision == MIXED:
            self._filled_by = mixed(), None if self._held_out is None else mixed().on(self._held_out.data)
            self._grid.rounding = self._choice.difference

    def _in_precision(self, precision: str) -> Landscape:
        """Give the landscape in another precision."""
        land = self._land
        if land.precision == precision:
            return land
        return self._landscape(land.model_at(), land.data, precision=precision, batch_norm=land.batch_norm)

    def _fill(self, mode: str, progress: OnProgress, on_partial: OnPartial | None) -> None:
        """Fill the grid, hand on pictures, and publish the last one even when cancelled."""
        self._settle_precision(mode, progress)
        grid, (land, other) = self._grid, self._filled_by
        on_trial = mode == "adaptive" and land is not self._land  # bfloat16, chosen by a few of the nodes
        passes = 1 if other is None else 2
        whole_panels = mode == "exact" and count_workers(self.n_jobs) > 1  # workers would wait for each other's blocks
        drawn, cost = time.perf_counter(), 0.0
        n_stored, any_new = 0, False  # nodes that the cache had before the first that is new
        watch = self._budget.watch(reserved=_FOR_MARKS * (self._budget.seconds or 0.0) if self._marks else 0.0)

        def draw() -> None:
            nonlocal drawn, cost
            began = time.perf_counter()
            if on_partial is not None:
                grid.sketch()
                on_partial(self._freeze())
            drawn = time.perf_counter()
            cost = drawn - began

        def tell(done: int) -> None:
            said = resumed("points", n_stored if any_new else 0, grid.expected)
            progress(min(done, grid.expected), max(grid.expected, 1), said)

        def measure(plane: MapPlane, coordinates: np.ndarray, arrived: Arrived) -> None:
            before = grid.n_evaluated
            for k, (where, prefix) in enumerate(((land, ""), (other, "held_out_"))[:passes]):
                assert where is not None

                def take(which: Where, found: Evaluation, stored: bool, prefix: str = prefix) -> None:
                    nonlocal n_stored, any_new
                    arrived(which, {f"{prefix}losses": found.losses, f"{prefix}accuracies": found.accuracies})
                    any_new |= not stored
                    n_stored = n_stored if any_new else grid.n_evaluated

                def tick(done: int, out_of: int, message: str, k: int = k) -> None:
                    tell(before + (k * out_of + done) // passes)
                    if mode == "exact" and time.perf_counter() - drawn > max(_PICTURE_EVERY, 10 * cost):
                        draw()
                    watch()

                self._at(where, plane, coordinates, tick, take, FIRST_BLOCK if whole_panels else None)

        if mode == "exact":
            chunks = max(2, -(-grid.evaluated.size // (_N_PICTURES * CHUNK)))
            work = grid.fill_exactly(measure, None if whole_panels else chunks * CHUNK)
        else:
            aside = self._choice.share if on_trial and self._choice is not None else 0.0
            work = grid.fill_adaptively(measure, self.tolerance - aside)
        try:
            for _ in work:
                tell(grid.n_evaluated)
                draw()
                if on_trial and np.isfinite(grid.roughness):
                    break
        except (Cancelled, WorkerLost):
            grid.sketch()
            self._publish(self._freeze())
            raise
        except TimeUp:
            grid.sketch(LARGEST_LAST_FILL)
            self._budget.unfinished.append(f"map ({grid.n_evaluated:,} of {grid.evaluated.size:,} points)")
            self._publish(self._freeze())
            return
        if land.precision == MIXED:
            self._compare_with_float32()
            room = self.tolerance - grid.largest_error
            if on_trial and (np.isfinite(grid.roughness) or grid.share(grid.rounding) > room):
                self._fall_back()
                return self._fill(mode, progress, on_partial)
        self._publish(self._freeze())

    def _compare_with_float32(self) -> None:
        """Find how far the map is from float32, at nodes spread over the first panel."""
        plane, coordinates, losses = self._grid.spread_nodes(_CHECKED_NODES)
        found = self._at(self._in_precision(EXACT), plane, coordinates).losses
        self._deviation = float(np.max(np.abs(losses - found) / np.abs(found), initial=0.0))
        difference, _ = apart(np.stack([found, losses]), self._grid.is_linear)
        self._grid.rounding = max(self._grid.rounding, difference)

    def _fall_back(self) -> None:
        """Begin the grid again in float32, and keep that as the choice for it."""
        grid, choice = self._grid, self._choice
        assert choice is not None
        choice = choice.withdrawn(grid.rounding, grid.share(grid.rounding))
        keep(self._memory(), choose_precision, self._choice_key, choice)
        self._lay_out(grid.axes, grid.centre)
        self._choice = choice

    def _measure_marks(self, progress: OnProgress) -> None:
        """Measure the models on the map, each with its own buffers, and publish the map once more."""
        land, total, watch = self._land, len(self._marks), self._budget.watch()

        def build(module: nn.Module) -> Landscape:
            return self._landscape(module, land.data, batch_norm="frozen")

        self._n_measured = 0
        try:
            for k, mark in enumerate(self._marks):
                progress(k, total, "models on the map")
                self._marks[k] = marks.measure(mark, land, self._template, build, watch)
                self._n_measured = k + 1
        except TimeUp:
            self._budget.unfinished.append("models on the map")
        if self._marks:
            progress(total, total, "models on the map")
        self._compare_marks()

    def _compare_marks(self) -> None:
        """Set each mark beside the colour under it, and publish the map with them."""
        land, plane, losses = self._filled_by[0], self._planes[0], self._grid.first_losses()
        tolerance = max(self.tolerance, marks.SAME_COLOUR)

        def loss_at(where: np.ndarray) -> np.ndarray:
            return self._at(land, plane, where).losses

        known, rest = self._marks[: self._n_measured], self._marks[self._n_measured :]
        self._marks = [*(marks.compare(m, land, self._grid.axes, losses, tolerance, loss_at) for m in known), *rest]
        if self._marks:
            self._publish(self._freeze())

    def _freeze(self) -> SurfaceResult:
        """Give the map as it is."""
        grid, plane = self._grid, self._planes[0]
        settings = {**self._settings, "points": int(grid.evaluated.size)}
        notes = [*plane.notes, *filter(None, [self._why_not])]
        if self._choice is not None:
            settings |= {"precision": self._choice.precision, "precision_choice": self._choice.figures}
            notes.append(self._choice.why)
        if self._deviation is not None:
            settings["bfloat16_deviation"] = self._deviation
        if np.isfinite(grid.roughness):
            settings["fallback"] = "exact"
            notes.append(
                "The loss jumps from one point to the next, by "
                f"{grid.roughness:.2%} of the range of its logarithm: interpolation cannot reach the tolerance, and "
                "every point was evaluated instead of an adaptive choice."
            )
        if any(grid.centre):
            settings["centre"] = list(grid.centre)
        result = SurfaceResult(
            settings=settings,
            sampling=self._sampling,
            **self._budget.said(),
            **grid.as_fields(),
            chosen=settings["directions"],
            axis_titles=list(plane.titles),
            cosine=self._cosine,
            explained_variance_ratio=plane.explained_variance_ratio,
            random_walk_variance_ratio=plane.random_walk_variance_ratio,
            eigenvalues=plane.eigenvalues,
            markers=[m.entry() for m in self._marks if not m.group.is_trajectory],
            trajectories=[m.entry() for m in self._marks if m.group.is_trajectory],
            notes=[*notes, *(m.note for m in self._marks if m.note)],
        )
        return replace(result, notes=[*result.shortfall, *result.notes])

    def _described(self) -> dict[str, Any]:
        """Describe the map itself, for its provenance, as it was asked for."""
        other = self._held_out
        outside = {} if other is None else {"held_out": f"{other.data.name}, {other.data.split}"}
        return self._land.settings | self._own_settings() | outside

    def _at(
        self,
        land: Landscape,
        plane: MapPlane,
        coordinates: np.ndarray,
        on_progress: OnProgress = ignore_progress,
        on_chunk: OnChunk | None = None,
        first_chunk: int | None = None,
    ) -> Evaluation:
        weights = plane.coefficients(coordinates)
        return self._evaluate(land, plane.anchors(), weights, on_progress, on_chunk, first_chunk)

    def _read(self, models: Any) -> Tensor:
        return read_points(self._land, [m for g in groups_of(models) for m in g.members])

    def _one_point(self, at: Sequence[float]) -> np.ndarray:
        return self._coordinates(np.asarray(at, dtype=float).reshape(1, -1))

    def _coordinates(self, coordinates: ArrayLike) -> np.ndarray:
        table = np.asarray(coordinates, dtype=np.float64)
        table = table.reshape(-1, 1) if table.ndim == 1 and self.n_dims == 1 else np.atleast_2d(table)
        if table.ndim != 2 or table.shape[1] != self.n_dims:
            raise ValueError(
                f"coordinates must have shape (n, {self.n_dims}), got {np.shape(coordinates)}. "
                "Give one column for each direction."
            )
        return table


def _readable(vectors: Tensor) -> np.ndarray:
    """Give vectors as an array; large ones share their memory and can't be written."""
    array = vectors.cpu().numpy()
    if array.nbytes < _LARGE:
        return array.copy()
    array.flags.writeable = False
    return array
