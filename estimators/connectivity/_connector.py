"""Mode connectivity: how two trained networks are joined in weight space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, Options
from torch import Tensor

from .. import sampling
from ..core.paths.paths import barrier
from ..core.paths.peaks import MAX_ADDED, WIDEST, Peaks, find_highest, probes
from ..pace import Work
from ..progress import OnProgress, ignore_progress, shares
from ._endpoints import Matching, check_pair, prepare_ends
from ._joining import JoiningEstimator
from ._path import Path, average_predictions, notes_on_heights
from ._result import PathResult

_USUALLY_ADDED = MAX_ADDED // 4  # evaluations around the highest points
_SAMPLING = 8  # evaluations for the errors over examples
_ZERO_OR_MORE_POINTS = [Options(Integral, {0}), Interval(Integral, 2, 201, closed="both")]


@dataclass(kw_only=True, eq=False, repr=False)
class ModeConnector(TransformerMixin, JoiningEstimator):
    """Find a path between two networks and measure how high it climbs.

    ``fit`` learns the path, ``transform`` measures it anywhere. The ends never move: ``t = 0`` is A and
    ``t = 1`` is B (reordered, when ``align="weights"``), to the last bit.

    Parameters
    ----------
    path : {"linear", "bezier", "polychain"}, default="linear"
        The straight line, a Bézier curve or a chain of straight pieces. The bends of the last two are trained
        by stochastic gradient descent over t ~ U(0, 1) with batch statistics (Garipov et al. 2018).
    n_bends : int, default=1
        Control points of the curve or corners of the chain; a straight line has none.
    align : None or "weights", default=None
        Reorder the hidden units of B to match A's first (weight matching, Ainsworth et al. 2023). The groups
        of units are derived from the model's own graph, and B's outputs are checked to stay the same to 1e-4.
    n_points : int, default=21
        Positions evaluated, ends included. The maximum is then looked for between them: inside each step (at gaps of
        1/40 at most), at distances from both ends that halve down to 1/1024, and at up to 32 more where the path may be
        highest, so that a fit evaluates two to three times as many, and some 60 at least. A rise narrower than these
        gaps that touches none of the positions is missed, whatever `n_points`.
    epochs : int, default=15
        Passes over the examples to train the bends.
    lr : float, default=0.1
        First step size; it falls to 0 along a half cosine.
    momentum : float, default=0.9
        Heavy-ball momentum.
    train_batch_size : int, default=32
        Examples a step of that training.
    tolerance : float, default=0.1
        Rise over the worse end, in the unit of the loss, up to which the ends count as connected.
    n_restarts : int, default=3
        Starts of weight matching.
    compare : bool, default=True
        Also evaluate the straight lines the path replaces: between A and B as given, and after matching.
    sampling : bool, default=False
        Also find how much barrier and rise would change with other examples, from some eight passes more:
        ``result_.uncertainty_of("barrier", "sampling")`` is a `SamplingError`. Under "recompute" it takes the
        statistics as known.
    plane_resolution : int, default=0
        Points on a side of a map of the plane through A, B and the bends; 0 draws none.
    ensemble_points : int, default=0
        Evenly spaced positions whose predicted probabilities are averaged; 0 averages none.
    loss, batch_size, device, precision, memory, n_jobs, random_state, verbose
        As in every estimator.
    batch_norm : {"auto", "recompute", "batch", "frozen"}, default="auto"
        Under "recompute", which is what "auto" means for a path, statistics are estimated anew at every position, the
        ends included, from the same examples. "frozen" is refused for models with batch norm: a point between two
        networks has no statistics of its own.

    Attributes
    ----------
    result_ : PathResult
        Everything measured; each of its fields is also an attribute with a trailing underscore, such as
        ``t_``, ``losses_``, ``barrier_``, ``rise_over_endpoints_``, ``connected_``, ``worst_t_``,
        ``path_length_``, ``held_out_losses_``, ``notes_``. ``barrier_``, ``rise_over_endpoints_`` and ``worst_t_``
        are of the refined maximum, which may be higher by up to ``barrier_error_`` and ``rise_error_``.
    end_points_ : ndarray of shape (2, P)
        A and B, B after matching.
    bends_ : ndarray of shape (n_bends, P)
        The trained bends; empty for a straight line.
    history_ : dict of ndarray
        ``loss`` and ``learning_rate`` by epoch of training the bends.
    n_features_in_ : int
        P.

    References
    ----------
    Garipov et al. 2018, *Loss Surfaces, Mode Connectivity, and Fast Ensembling of DNNs*.
    Frankle et al. 2020, *Linear Mode Connectivity and the Lottery Ticket Hypothesis*.
    Entezari et al. 2022, *The Role of Permutation Invariance in Linear Mode Connectivity* (the barrier).
    Ainsworth et al. 2023, *Git Re-Basin*; Jordan et al. 2023, *REPAIR*.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from estimators import ModeConnector, load_data, train
    >>> data = load_data("digits", image_size=8, n_samples=128)
    >>> runs = []
    >>> for seed in (0, 1):
    ...     _ = torch.manual_seed(seed)
    ...     net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 10))
    ...     runs.append(train(net, data, epochs=10, random_state=seed).model)
    >>> connector = ModeConnector(path="bezier", n_points=11, epochs=10).fit(runs, data)
    >>> bool(connector.barrier_ < connector.straight_barrier_)
    True
    """

    result_: PathResult = field(init=False)

    compare: bool = True
    sampling: bool = False
    plane_resolution: int = 0
    ensemble_points: int = 0

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "compare": ["boolean"],
        "plane_resolution": _ZERO_OR_MORE_POINTS,
        "ensemble_points": _ZERO_OR_MORE_POINTS,
    }

    def fit(
        self,
        models: Sequence[Any],
        data: Any,
        *,
        held_out: Any = None,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[PathResult], None] | None = None,
    ) -> ModeConnector:
        """Find the path between two networks and measure it.

        Parameters
        ----------
        models : (A, B)
            A is a module. B is a module, a state dict, a checkpoint file or a vector of weights of the same
            architecture.
        data : Examples, (inputs, targets), Dataset or DataLoader
            The examples of the loss, of the training of the bends and of the batch-norm statistics.
        held_out : like `data`, optional
            Other examples to measure the path on; statistics still come from `data`.
        on_progress, on_partial : callable, optional
            ``on_progress(done, total, message)``; ``on_partial(result)`` gets the result so far.

        Returns
        -------
        ModeConnector

        Raises
        ------
        ValueError
            If an argument is not allowed, the networks differ in more than their weights (all differences are
            listed), are the same point, hold non-finite weights, or cannot be aligned.
        """
        report = self._progress(on_progress, f"{self.path} path")
        n_bends = 0 if self.path == "linear" else self.n_bends
        lines = self._straight_lines(n_bends)
        n = self.n_points * (1 if held_out is None else 2)
        # in units of one evaluated point: a training step costs about three times its share of one
        steps = shares(
            report,
            [
                0.0 if self.align is None else 0.2 * n,
                *(1.5 * self.n_points for _ in lines),
                3.0 * self.epochs * bool(n_bends),
                float(n + 1.5 * self.n_points),
                float(self.plane_resolution**2 + 2 * self.ensemble_points),
            ],
        )
        model, other = check_pair(models)
        land = self._landscape(model, data, several_networks=True)
        matching = Matching(int(self.n_restarts), int(self.random_state), self._memory()) if self.align else None
        ends = prepare_ends(model, other, land, matching, steps.pop(0))
        t = np.linspace(0.0, 1.0, self.n_points)
        self._land, self._other = land, land if held_out is None else land.on(held_out)
        found: dict[str, Any] = {
            "settings": self._settings(held_out is not None),
            "path": self.path,
            "n_bends": n_bends,
            "align": self.align or "",
            "t": t,
            "tolerance": float(self.tolerance),
            "notes": list(ends.notes),
            **ends.fields,
        }
        for name, end in (("straight", ends.b_given), ("aligned", ends.b)):
            if name in lines:
                line, on_grid, on_peak = Path("linear", torch.stack([ends.a, end])), *shares(steps.pop(0), [2.0, 1.0])
                values = self._evaluate(land, line.anchors, line.coefficients(t), on_grid)
                found[f"{name}_losses"], found[f"{name}_accuracies"] = values.losses, values.accuracies
                highest = self._highest(line, t, values.losses, on_peak, look_between=False)
                found[f"{name}_barrier"] = barrier(highest.t, highest.values)
                found[f"{name}_barrier_error"] = float(highest.errors[0])
                if on_partial is not None:
                    on_partial(PathResult(**found))
        on_training, on_path, on_rest = steps
        path = Path(self.path, torch.stack([ends.a, ends.b]))
        if n_bends:
            trainer = self._landscape(model, data, batch_norm="batch")
            training = {
                "n_bends": n_bends,
                "n_examples": trainer.n_examples,
                "epochs": self.epochs,
                "batch_size": self.train_batch_size,
                "lr": float(self.lr),
                "momentum": float(self.momentum),
                "random_state": int(self.random_state),
            }
            path, fields, notes = path.bent(trainer, training, self._memory(), on_training)
            found |= fields
            found["notes"] += notes
        self.end_points_ = path.anchors[[0, -1]].cpu().numpy()
        self.bends_ = path.anchors[1:-1].cpu().numpy()
        self.n_features_in_ = land.n_parameters
        self._measure(path, found, held_out is not None, on_path)
        if on_partial is not None:
            on_partial(PathResult(**found))
        if found["distance"] > 0:
            found |= path.in_plane(
                lambda plane, points: self._evaluate(land, plane, points, on_rest), t, self.plane_resolution
            )
        else:
            found["notes"].append("Matched, both ends are one point: the networks were permutations of each other.")
        if self.ensemble_points:
            positions = np.linspace(0.0, 1.0, self.ensemble_points)
            averaged = average_predictions(self._other, path.points(positions))
            found["ensemble_t"] = positions
            found["ensemble_loss"], found["ensemble_accuracy"] = averaged["loss"], averaged["accuracy"]
        self.history_ = {
            "loss": found.get("history_losses", np.empty(0)),
            "learning_rate": found.get("history_learning_rates", np.empty(0)),
        }
        self._publish(PathResult(**found))
        report(1, 1, "done")
        return self

    def transform(self, t: ArrayLike) -> np.ndarray:
        """Measure the path anywhere.

        Parameters
        ----------
        t : array-like of shape (n,)
            Positions in [0, 1].

        Returns
        -------
        ndarray of shape (n, 2)
            Loss and accuracy on the examples of ``fit``.
        """
        path = self._path()
        values = self._evaluate(self._land, path.anchors, path.coefficients(t), ignore_progress)
        return np.stack([values.losses, values.accuracies], axis=1)

    def fit_transform(self, X: Sequence[Any], y: Any = None, **fit_params: Any) -> np.ndarray:
        """Fit the path between the models ``X`` on the data ``y`` and measure it at its own positions."""
        return self.fit(X, y, **fit_params).transform(self.t_)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of ``transform``."""
        return np.array(["loss", "accuracy"], dtype=object)

    def weights_at(self, t: float) -> dict[str, Tensor]:
        """State dict of the network at one position; buffers follow the batch-norm policy.

        Parameters
        ----------
        t : float
            Position in [0, 1]; the weights of 0 and 1 are those of the ends to the last bit.
        """
        return self._land.state_dict(self._path().points(t)[0])

    def ensemble(self, t: ArrayLike = (0.0, 0.5, 1.0), data: Any = None) -> dict[str, Any]:
        """Average the predictions of several networks on the path (fast ensembling, Garipov et al. 2018).

        Parameters
        ----------
        t : array-like of shape (n,), default=(0, 0.5, 1)
            Positions in [0, 1].
        data : examples, optional
            Where to predict; by default the held-out examples of ``fit``, or its examples if there were none.

        Returns
        -------
        dict
            ``loss`` and ``accuracy`` of the average, ``member_losses`` and ``member_accuracies`` of shape
            (n,). Probabilities are averaged; for float targets, outputs.
        """
        land = self._other if data is None else self._land.on(data)
        return average_predictions(land, self._path().points(t))

    def plane_models(self) -> list[Any]:
        """Give A, B and the first bend (no bend when straight), for `SurfaceMapper` with ``directions="models"``.

        Returns
        -------
        list
            A as a module, the others as state dicts; the plane through them holds a path of one bend.
        """
        anchors = self._path().anchors
        others = [anchors[-1], *anchors[1:-1][:1]]
        return [self._land.model_at(anchors[0]), *(self._land.state_dict(point) for point in others)]

    def cost(self) -> Work:
        """Count what a fit takes, about; held-out examples and the matching of units come on top."""
        between = len(probes(np.linspace(0.0, 1.0, self.n_points), WIDEST))
        n_bends = 0 if self.path == "linear" else self.n_bends
        lines = 1 + len(self._straight_lines(n_bends))
        drawn = self.plane_resolution**2 + self.ensemble_points + _SAMPLING * self.sampling
        path = lines * (self.n_points + _USUALLY_ADDED) + between
        return Work(evaluations=path + drawn, epochs=self.epochs if n_bends else 0)

    # -- inside -----------------------------------------------------------------------------------------

    def _straight_lines(self, n_bends: int) -> list[str]:
        """Name the straight lines to evaluate beside the path."""
        if not self.compare:
            return []
        names = ["straight"] if n_bends or self.align else []
        return [*names, "aligned"] if n_bends and self.align else names

    def _measure(self, path: Path, found: dict[str, Any], held_out: bool, report: OnProgress) -> None:
        first, second, third = shares(report, [1.0, 1.0 * held_out, 1.5])
        coefficients = path.coefficients(found["t"])
        values = self._evaluate(self._land, path.anchors, coefficients, first)
        found["losses"], found["accuracies"] = values.losses, values.accuracies
        if held_out:
            outside = self._evaluate(self._other, path.anchors, coefficients, second)
            found["held_out_losses"], found["held_out_accuracies"] = outside.losses, outside.accuracies
        highest = self._highest(path, found["t"], values.losses, third)
        found |= path.summary(found["t"], highest, float(self.tolerance))
        found["notes"] += notes_on_heights(found, highest)
        if self.sampling:
            why_not = sampling.why_not(self._land)
            found["notes"] += filter(None, [why_not])
            found["sampling"] = {} if why_not else path.over_examples(self._land, found, highest)
        if self.path == "linear" and not self.align:
            found["straight_barrier"], found["straight_barrier_error"] = found["barrier"], found["barrier_error"]

    def _highest(
        self, path: Path, t: np.ndarray, losses: np.ndarray, report: OnProgress, look_between: bool = True
    ) -> Peaks:
        total, n_done = len(probes(t, WIDEST)) * look_between + MAX_ADDED, 0

        def ask(positions: np.ndarray) -> np.ndarray:
            nonlocal n_done
            start, n_done = n_done, n_done + len(positions)
            return self._evaluate(
                self._land,
                path.anchors,
                path.coefficients(positions),
                lambda done, _, message: report(min(start + done, total), total, message),
            ).losses

        return find_highest(ask, t, losses, look_between=look_between)

    def _path(self) -> Path:
        stacked = np.concatenate([self.end_points_[:1], self.bends_, self.end_points_[1:]])
        return Path(self.path, torch.from_numpy(stacked).to(self._land.theta))

    def _settings(self, held_out: bool) -> dict[str, Any]:
        outside = {"held_out": self._other.data.fingerprint[:12]} if held_out else {}
        return self._land.settings | self._own_settings() | outside
