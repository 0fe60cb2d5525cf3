"""Surface: the loss on a line, plane or volume through the weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from ..core.planes.directions import largest_cosine
from ..progress import OnProgress
from ._analysis import SurfaceAnalysis
from ._inputs import groups_of, module_of, read_points, template_of
from ._planes import DIRECTIONS
from ._work import OnPartial


@dataclass(kw_only=True, eq=False, repr=False)
class SurfaceMapper(TransformerMixin, SurfaceAnalysis):
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
        Scale of random directions, see :func:`estimators.core.directions.random_directions`.
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
        (:mod:`estimators.core.refinement`). Features narrower than about five steps of the grid that no evaluated
        point touches can be missed. A loss that jumps from point to point (rounded weights or activations) can't be
        interpolated: it is recognised, every point is evaluated, and ``notes_`` and ``settings`` say so.
    tolerance : float, default=0.01
        Of adaptive maps: largest error as a share of the range of the finite log-losses.
    n_dims : {1, 2, 3}, default=2
    n_seeds : int, default=1
        Random profiles drawn (``n_dims=1`` only), with seeds ``random_state``, ``random_state + 1``, ...
    eigenvectors : {"largest", "extremes"}, default="largest"
        Of Hessian directions: the largest eigenvalues, or the largest and the most negative one.
    parameters : str, sequence of str or None, default=None
        Regular expressions choosing the parameters that move; the others stay fixed.
    max_points : int, default=250_000
        Grids with more points are refused with their cost.
    loss, batch_size, device, precision, batch_norm, points_per_pass
        See :class:`Landscape`. ``batch_norm="auto"`` estimates statistics again at each point where `fit` gets
        several networks (a plane, line or trajectory through them, marks), and takes those of the checkpoint around
        one. A bfloat16 map is compared with float32 at a few of its nodes; the largest relative difference of the loss
        is in ``result_.settings["bfloat16_deviation"]``.
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
    >>> mapper = SurfaceMapper(resolution=21, mode="adaptive").fit(model, data)  # doctest: +SKIP
    >>> mapper.losses_.shape  # doctest: +SKIP
    (21, 21)
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
    max_points: int = 250_000
    precision: str = "float32"
    batch_norm: str = "auto"
    points_per_pass: int = 1
    n_jobs: int = 1

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
        progress = self._progress(on_progress, "surface")
        groups = groups_of(model, self.directions)
        template = template_of(model, groups, architecture)
        self._template = template
        if self.directions == "trajectory":
            paths = [g for g in groups if g.is_trajectory] or groups
            centre = module_of(paths[0].members[-1], template)
        else:
            centre = module_of(groups[0].members[0], template)
        members = [m for g in groups for m in g.members]
        several = len(members) > 1 or marked is not None
        self._land = self._landscape(centre, data, parameters=self.parameters, several_networks=several)
        self._held_out = None if held_out is None else self._land.on(held_out)
        self._refuse_costly(sizes)
        points = read_points(self._land, members if self.directions in ("trajectory", "models", "linear") else [])
        self._planes = [
            DIRECTIONS[self.directions](self._request(points, len(groups) == 1, seed, progress))
            for seed in range(self.n_seeds)
        ]
        self._groups = [*groups, *([] if marked is None else groups_of(marked))]
        if self.directions in ("random", "hessian") and len(members) == 1:
            self._groups = self._groups[1:]
        self._axis_values = self._axes(sizes, progress)
        self._centre = (0.0,) * self.n_dims
        self._place()
        self._lay_out()
        directions = torch.cat([p.directions for p in self._planes])
        self.directions_ = directions.cpu().numpy()
        self.origin_ = self._land.theta.detach().cpu().numpy().copy()
        self.n_features_out_ = self.n_dims
        self._cosine = max(largest_cosine(p.directions) for p in self._planes)
        self._fill(progress, on_partial)
        self._measure_models(progress)
        return self

    def finish(self, *, on_progress: OnProgress | None = None, on_partial: OnPartial | None = None) -> SurfaceMapper:
        """Evaluate exactly what was interpolated, or what a cancelled `fit` left."""
        check_is_fitted(self, "result_")
        progress = self._progress(on_progress, "surface")
        self._run(self._evaluate_all(), progress, on_partial)
        if any(np.isnan(value) for columns in self._columns for value in columns["loss"]):
            self._measure_models(progress)
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
        check_is_fitted(self, "result_")
        centre = self._coordinates(np.asarray(at, dtype=float)[None] if self.n_dims > 1 else at)[0]
        if not factor > 0:
            raise ValueError(f"factor must be positive, got {factor!r}. Use 4.0.")
        closer = copy.copy(self)
        closer._axis_values = [c + a / factor for c, a in zip(centre, self._axis_values, strict=True)]
        closer._centre = tuple(float(c) for c in centre)
        closer._lay_out()
        closer._fill(self._progress(on_progress, "surface"), on_partial)
        if closer._groups:
            closer._compare_marks()
            closer._publish(closer._freeze())
        return closer

    # -- using the plane --------------------------------------------------------------------------------

    def transform(self, models: Any) -> np.ndarray:
        """Coordinates (n_models, n_dims) of models in the plane: their nearest points by least squares."""
        check_is_fitted(self, "result_")
        return self._planes[0].frame.project(self._read(models)).numpy()

    def residuals(self, models: Any) -> np.ndarray:
        """Euclidean distances (n_models,) of models from the plane."""
        check_is_fitted(self, "result_")
        return self._planes[0].frame.residual(self._read(models)).numpy()

    def inverse_transform(self, coordinates: ArrayLike) -> list[dict[str, Tensor]]:
        """State dicts of the networks at coordinates (n, n_dims); buffers follow the batch-norm policy."""
        check_is_fitted(self, "result_")
        plane = self._planes[0]
        weights = torch.as_tensor(plane.coefficients(self._coordinates(coordinates)))
        points = weights.to(self._land.theta) @ plane.anchors()
        return [self._land.state_dict(point) for point in points]

    def evaluate(self, coordinates: ArrayLike, *, on_progress: OnProgress | None = None) -> np.ndarray:
        """Exact losses (n,) at coordinates (n, n_dims), on the grid or off it."""
        check_is_fitted(self, "result_")
        plane = self._planes[0]
        weights = plane.coefficients(self._coordinates(coordinates))
        progress = self._progress(on_progress, "points")
        return np.asarray(self._evaluate(self._land, plane.anchors(), weights, progress).losses)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the coordinates that `transform` gives."""
        check_is_fitted(self, "result_")
        return np.array([f"direction{k + 1}" for k in range(self.n_dims)], dtype=object)

    def _read(self, models: Any) -> Tensor:
        groups = groups_of(models)
        return read_points(self._land, [m for g in groups for m in g.members])

    def _coordinates(self, coordinates: ArrayLike) -> np.ndarray:
        table = np.asarray(coordinates, dtype=np.float64)
        table = table.reshape(-1, 1) if table.ndim == 1 and self.n_dims == 1 else np.atleast_2d(table)
        if table.ndim != 2 or table.shape[1] != self.n_dims:
            raise ValueError(
                f"coordinates must have shape (n, {self.n_dims}), got {np.shape(coordinates)}. "
                "Give one column for each direction."
            )
        return table
