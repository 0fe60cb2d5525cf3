"""A map of minima: which of several networks are joined, how far apart and how alike they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import StrOptions
from torch import Tensor, nn

from ..cache import describe_module, fingerprint
from ..core.alignment.similarity import classical_scaling, connected_groups, features, linear_cka
from ..core.network.batchnorm import batch_norms
from ..core.network.fields import in_precision, spread_at_the_door
from ..landscape import Landscape
from ..pace import Work
from ..progress import OnProgress, ignore_progress, subprogress
from ._connector import ModeConnector
from ._endpoints import check_fixed_parts, state_of
from ._joining import JoiningEstimator
from ._result import MapResult

#: What the picture's distances stand for: name → (m, m) matrix of a result.
LAYOUTS: dict[str, Callable[[MapResult], np.ndarray]] = {
    "distance": lambda result: result.distances,
    "barrier": lambda result: np.maximum(result.barriers, 0.0),
    "cka": lambda result: np.sqrt(np.maximum(0.0, 1.0 - result.cka)),
}


@dataclass(kw_only=True, eq=False, repr=False)
class MinimaMapper(TransformerMixin, JoiningEstimator):
    """Measure every pair of several networks (barrier, distance, likeness), draw them, group the joined ones.

    Parameters
    ----------
    path, n_bends, align, n_points, epochs, lr, momentum, train_batch_size, n_restarts
        How each pair is joined, as in `ModeConnector`; by default the straight line with 11 points.
    compare : {"features", "outputs"} or None, default="features"
        What linear CKA (Kornblith et al. 2019) compares: what enters the classifier, or the class scores.
    layout : {"distance", "barrier", "cka"}, default="distance"
        What the distances of the picture stand for (classical scaling).
    tolerance : float, default=0.1
        Barrier, in the unit of the loss, up to which two networks count as joined.
    loss, batch_size, device, precision, batch_norm, memory, n_jobs, random_state, verbose
        As in `ModeConnector`. With ``memory`` each pair is kept by the content of both networks, so adding
        one network computes only its own pairs.

    Attributes
    ----------
    result_ : MapResult
        Each of its fields is also an attribute with a trailing underscore: ``barriers_``, ``distances_``,
        ``cka_``, ``layout_``, ``clusters_``, ...
    n_features_in_ : int
        Number of weights.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from estimators import MinimaMapper, load_data
    >>> data = load_data("digits", image_size=8, n_samples=64)
    >>> nets = {}
    >>> for seed in range(3):
    ...     _ = torch.manual_seed(seed)
    ...     nets[f"seed {seed}"] = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 10))
    >>> found = MinimaMapper(n_points=5).fit(nets, data)
    >>> found.barriers_.shape, found.layout_.shape
    ((3, 3), (3, 2))
    """

    result_: MapResult = field(init=False)

    n_points: int = 11
    compare: str | None = "features"
    layout: str = "distance"

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "compare": [StrOptions({"features", "outputs"}), None],
        "layout": [StrOptions(set(LAYOUTS))],
    }

    def fit(
        self,
        models: Sequence[Any] | Mapping[str, Any],
        data: Any,
        *,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[MapResult], None] | None = None,
    ) -> MinimaMapper:
        """Measure every pair.

        Parameters
        ----------
        models : sequence, or mapping from names
            At least two; the first is a module, the others modules, state dicts, files or vectors.
        data : Examples, (inputs, targets), Dataset or DataLoader
            The examples of the loss and of the comparison.
        on_progress, on_partial : callable, optional
            ``on_progress(done, total, message)``; ``on_partial(result)`` after each pair.

        Returns
        -------
        MinimaMapper

        Raises
        ------
        ValueError
            If there are fewer than two networks, or they differ in more than their weights.
        """
        if not isinstance(models, Mapping):
            models = {f"model {i}": m for i, m in enumerate(models)}
        named = dict(models)
        self._check(named)
        names, members = list(named), list(named.values())
        land = self._landscape(members[0], data, several_networks=True)
        self._models, self._data = members, land.data
        thetas = [land.point(m) for m in members]
        for member in members[1:]:
            check_fixed_parts(members[0], land, state_of(members[0], land, member))
        report, m = self._progress(on_progress, "map of minima"), len(names)
        own = land.evaluate(torch.stack(thetas), np.eye(m))
        square = np.where(np.eye(m, dtype=bool), 0.0, np.nan)
        result = MapResult(
            settings=land.settings | self._own_settings(),
            names=names,
            losses=own.losses,
            accuracies=own.accuracies,
            barriers=square.copy(),
            rises=square.copy(),
            distances=square.copy(),
            cka=self._likeness(land, thetas),
            t=np.linspace(0.0, 1.0, int(self.n_points)),
            profiles=np.full((m, m, int(self.n_points)), np.nan),
            layout_of=self.layout,
            tolerance=float(self.tolerance),
        )
        pairs = list(combinations(range(m), 2))
        for done, (i, j) in enumerate(pairs):
            step = subprogress(report, done / len(pairs), (done + 1) / len(pairs), f"{names[i]} – {names[j]}")
            values = self._pair(members[0], thetas[i], thetas[j], land, step)
            for a, b, profile in ((i, j, values["losses"]), (j, i, values["losses"][::-1])):
                result.barriers[a, b], result.rises[a, b] = values["barrier"], values["rise"]
                result.distances[a, b], result.profiles[a, b] = values["distance"], profile
            if on_partial is not None and done + 1 < len(pairs):
                so_far = {name: getattr(result, name).copy() for name in ("barriers", "rises", "distances", "profiles")}
                on_partial(replace(result, **so_far, clusters=connected_groups(result.barriers, self.tolerance)))
        coordinates, share = classical_scaling(LAYOUTS[self.layout](result))
        groups = connected_groups(result.barriers, self.tolerance)
        self.n_features_in_ = land.n_parameters
        self._publish(replace(result, layout=coordinates, layout_share=share, clusters=groups))
        report(1, 1, "done")
        return self

    def transform(self, models: Sequence[Any]) -> np.ndarray:
        """Measure the barriers of other networks to those of the map.

        Parameters
        ----------
        models : sequence of length n
            Networks of the same architecture.

        Returns
        -------
        ndarray of shape (n, m)
            In the unit of the loss.
        """
        first = self._models[0]
        land = self._landscape(first, self._data, several_networks=True)
        rows = [
            [self._pair(first, land.point(own), land.point(m), land)["barrier"] for own in self._models] for m in models
        ]
        return np.array(rows, dtype=float).reshape(len(rows), len(self._models))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of ``transform``."""
        return np.array([f"barrier to {name}" for name in self.names_], dtype=object)

    def cost(self, n_networks: int) -> Work:
        """Count what a map of so many networks takes, about; the matching of units and features come on top."""
        pairs = n_networks * (n_networks - 1) // 2
        return self._connector().cost().times(pairs) + Work(evaluations=2 * n_networks)

    # -- inside -----------------------------------------------------------------------------------------

    def _connector(self) -> ModeConnector:
        return self._as(ModeConnector, compare=False, verbose=0)

    def _check(self, named: dict[str, Any]) -> None:
        if len(named) < 2:
            raise ValueError(f"models must be at least two networks, got {len(named)}. Add one to compare with.")
        first = next(iter(named.values()))
        if not isinstance(first, nn.Module):
            raise TypeError(f"models[0] must be a torch.nn.Module, got {type(first).__name__}. Use load_model(name).")
        if self.layout == "cka" and self.compare is None:
            raise ValueError(
                "layout must be 'distance' or 'barrier' with compare=None, got 'cka'. 'cka' needs something to compare."
            )

    def _likeness(self, land: Landscape, thetas: list[Tensor]) -> np.ndarray:
        m = len(thetas)
        if self.compare is None:
            return np.full((m, m), np.nan)
        seen = [_represent(land, theta, self.compare) for theta in thetas]
        cka = np.eye(m)
        for i, j in combinations(range(m), 2):
            cka[i, j] = cka[j, i] = linear_cka(seen[i], seen[j])
        return cka

    def _pair(
        self, model: nn.Module, a: Tensor, b: Tensor, land: Landscape, report: OnProgress = ignore_progress
    ) -> dict[str, Any]:
        """Join two of the networks, or load what was found when they were joined before, in either order."""
        if torch.equal(a, b):
            same = np.full(int(self.n_points), land.loss(a))
            return {"barrier": 0.0, "rise": 0.0, "distance": 0.0, "losses": same}
        connector = self._connector()
        numbers = connector.get_params() | {"memory": None, "n_jobs": 1, "batch_norm": land.batch_norm}
        prints = [fingerprint(a), fingerprint(b)]
        turned = prints[0] > prints[1]
        # the first network lends all that no path moves: frozen weights, buffers, code
        elsewhere = {*land.names, *(_statistics(model) if land.batch_norm == "recompute" else ())}
        fixed = describe_module(model, elsewhere)
        key = ("pair", fixed, land.names, land.data.fingerprint, numbers, sorted(prints))
        found = self._cached(_join, key, connector, land, (b, a) if turned else (a, b), report)
        return {**found, "losses": found["losses"][::-1]} if turned else found


def _statistics(model: nn.Module) -> set[str]:
    """Names of the batch-norm buffers, which are estimated anew where points come from several networks."""
    kept = {id(buffer) for layer in batch_norms(model) for buffer in layer.buffers(recurse=False)}
    return {name for name, buffer in model.named_buffers(remove_duplicate=False) if id(buffer) in kept}


def _join(connector: ModeConnector, land: Landscape, ends: tuple[Tensor, Tensor], report: OnProgress) -> dict[str, Any]:
    result = connector.fit((land.model_at(ends[0]), ends[1]), land.data, on_progress=report).result_
    return {
        "barrier": result.barrier,
        "rise": result.rise_over_endpoints,
        "distance": result.distance,
        "losses": result.losses,
    }


def _represent(land: Landscape, theta: Tensor, what: str | None) -> Tensor:
    """Features or class scores of one network on the landscape's examples."""
    if what == "features":
        module = land.model_at(theta).eval()
        spread_at_the_door(module)
        inputs = in_precision(land.data.fields, next(module.parameters()).dtype)
        found = features(module, (x.clone() for x in inputs.split(land.batch_size)))
        if found is not None:
            return found
    return land.outputs(theta)
