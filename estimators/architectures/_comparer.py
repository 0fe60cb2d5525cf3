"""Architectures side by side: the same data and budget, several seeds, and what differs in the landscape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils._param_validation import Interval, StrOptions

from .. import cache
from ..base import ParallelEstimator
from ..checks import positive, whole
from ..data import Examples, load_data
from ..progress import OnProgress
from ..variants import Variant, check_variants
from ._claims import judge_claims, rank_measures
from ._measurement import MEASUREMENTS, QUICK, MeasureSettings, measure
from ._result import MEASURED, ComparisonResult, summarise
from ._run import RunOutcome, Task, build, describe_settings, run_all

MAPS = ("first", "all", "none")


@dataclass(kw_only=True, eq=False, repr=False)
class ArchitectureComparer(TransformerMixin, ParallelEstimator):
    """Train variants from several seeds on the same data and budget, and measure each one's landscape.

    Parameters
    ----------
    n_seeds : int, default=3
        Runs of each variant; seed s draws the initial weights, the order of the examples and wrong labels.
        With one seed the spread over seeds is unknown, and said to be.
    epochs : int, default=8
        Training budget, unless a variant sets its own.
    stop_at_loss : float or None, default=None
        End a training once its training loss is this low, to compare at equal training loss; `epochs` is then
        the most it may take.
    held_out_share : float, default=0.25
        Share of the examples held out (stratified by class) when `fit` gets no held-out examples.
    maps : {"first", "all", "none"}, default="first"
        Map the surface for the first seed of each variant, for all seeds (then the convexity of the map has a
        spread), or not at all.
    resolution : int, default=21
        Nodes on a side of a map.
    span : float, default=1.0
        Half-width of a map in filter-normalised steps.
    rho, sigma : float, default=0.05, 0.1
        Radius of worst-case sharpness (whole vector), and noise of average-case sharpness (per element,
        relative to the filter's root mean square).
    gap : {"gap", "accuracy_gap"}, default="gap"
        What the sharpness measures have to rank: held-out less training loss, or training less held-out
        accuracy.
    measures : tuple of str, default=("largest_eigenvalue", "trace", "worst_case", "average_case", "basin")
        What to measure beside losses and accuracies; leave some out to save time.
    loss, batch_size, device, precision, batch_norm, memory, n_jobs, random_state, verbose
        As everywhere; `batch_size` is that of the measurements. With `n_jobs` above 1, runs go to processes.

    Attributes
    ----------
    table_, summary_, names_, surfaces_, axes_, correlations_, claims_
        See `ComparisonResult`.
    result_ : ComparisonResult

    Notes
    -----
    Label noise changes what a variant is trained on; its training loss, accuracy and landscape are those on
    the labels it saw, held-out numbers always those on true labels.

    References
    ----------
    Li et al. (2018), "Visualizing the Loss Landscape of Neural Nets"; Jiang et al. (2020), "Fantastic
    Generalization Measures and Where to Find Them".

    Examples
    --------
    >>> from estimators import ArchitectureComparer, load_data
    >>> from estimators.variants import presets
    >>> comparer = ArchitectureComparer(n_seeds=1, epochs=1, maps="none", measures=("average_case",))
    >>> comparer = comparer.fit(presets("test_resnet")["skips"], load_data("digits", n_samples=80))
    >>> [(row["variant"], row["status"]) for row in comparer.table_]
    [('with skips', 'ok'), ('without skips', 'ok')]
    >>> [claim["key"] for claim in comparer.claims_]
    ['flat_generalises', 'skips_trainable']
    """

    n_seeds: int = 3
    epochs: int = 8
    stop_at_loss: float | None = None
    held_out_share: float = 0.25
    maps: str = "first"
    resolution: int = 21
    span: float = 1.0
    rho: float = 0.05
    sigma: float = 0.1
    gap: str = "gap"
    measures: tuple[str, ...] = tuple(MEASUREMENTS)

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(3, "resolution"),
        **whole(1, "n_seeds", "epochs"),
        **positive("span", "rho", "sigma"),
        "stop_at_loss": [Interval(Real, 0, None, closed="neither"), None],
        "held_out_share": [Interval(Real, 0, 1, closed="neither")],
        "maps": [StrOptions(set(MAPS))],
        "gap": [StrOptions({"gap", "accuracy_gap"})],
        "measures": [tuple, list],
    }

    def fit(
        self,
        variants: Sequence[Variant | dict[str, Any] | str],
        data: Any,
        *,
        held_out: Any = None,
        on_progress: OnProgress | None = None,
        on_partial: Callable[[ComparisonResult], None] | None = None,
    ) -> ArchitectureComparer:
        """Train and measure every variant from every seed.

        Parameters
        ----------
        variants : sequence of Variant, dict or str
            What to compare; a string is an architecture as timm builds it. `presets` has the usual ones.
        data : Examples, (inputs, targets), Dataset or DataLoader
            Training examples, also those of the landscape.
        held_out : same, optional
            Examples for the held-out numbers; without them a share of `data` is held out.
        on_progress : callable, optional
            `(done, total, message)`; one that raises `Cancelled` stops the work, finished runs stay cached.
        on_partial : callable, optional
            Called with a `ComparisonResult` after each run.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            For a parameter or a variant that can't be right; a change that does not apply to an architecture
            is found before anything is trained.
        """
        self._check()
        checked = check_variants(variants)
        self._data, self._held_out = self._split(load_data(data), held_out)
        tasks = self._tasks(checked)
        report = self._progress(on_progress, "comparing")
        outcomes: list[RunOutcome] = []
        for outcome in run_all(tasks, self.n_jobs, report):
            outcomes.append(outcome)
            if on_partial is not None and len(outcomes) < len(tasks):
                on_partial(self._result(checked, outcomes))
        self._publish(self._result(checked, outcomes))
        return self

    def transform(self, models: Any) -> np.ndarray:
        """Measure networks that are trained already, on the examples of `fit`.

        Parameters
        ----------
        models : sequence of nn.Module

        Returns
        -------
        ndarray of shape (n_models, n_measures)
            Columns as in `get_feature_names_out`.
        """
        rows = []
        for model in models:
            land = self._landscape(model, self._data)
            numbers = measure(land, self._held_out, self._measures())
            rows.append([numbers.get(name, np.nan) for name in self.get_feature_names_out()])
        return np.array(rows, dtype=float).reshape(len(rows), len(self.get_feature_names_out()))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Name the columns of `transform`: the table's quantities, except the map's convexity."""
        return np.array([name for name in MEASURED if name != "convex_share"], dtype=object)

    def _check(self) -> None:
        unknown = [name for name in self.measures if name not in MEASUREMENTS]
        if unknown:
            raise ValueError(
                f"measures must be names among {tuple(MEASUREMENTS)}, got {self.measures!r}. Remove the others."
            )

    def _split(self, data: Examples, held_out: Any) -> tuple[Examples, Examples]:
        if held_out is not None:
            return data, load_data(held_out)
        labels = data.targets.numpy()
        try:
            kept, out = train_test_split(
                np.arange(len(data)),
                test_size=self.held_out_share,
                stratify=labels,
                random_state=self.random_state,
            )
        except ValueError as error:
            raise ValueError(
                f"data must have enough examples of each class to hold out {self.held_out_share:.0%}, "
                f"got {len(data)} ({error}). Give held_out examples, or more data."
            ) from error
        return tuple(  # type: ignore[return-value]
            replace(data.take(i), split=split)
            for i, split in (
                (np.sort(kept), f"{data.split}, kept"),
                (np.sort(out), f"{data.split}, held out"),
            )
        )

    def _measures(self) -> MeasureSettings:
        sharpness = replace(QUICK, rho=self.rho, sigma=self.sigma, random_state=self.random_state)
        return MeasureSettings(tuple(self.measures), sharpness)

    def _tasks(self, variants: Sequence[Variant]) -> list[Task]:
        """List the runs, all variants of a seed before the next seed, so that every variant shows early."""
        surface = {"resolution": self.resolution, "span": self.span}
        tasks = []
        for number in range(self.n_seeds):
            for variant in variants:
                wanted = self.maps == "all" or (self.maps == "first" and number == 0)
                tasks.append(
                    Task(
                        variant=variant,
                        seed=self.random_state + number,
                        training=variant.settings(epochs=self.epochs, stop_at_loss=self.stop_at_loss),
                        data=self._data,
                        held_out=self._held_out,
                        options=self._options(),
                        measures=self._measures(),
                        map=surface if wanted else None,
                        memory=cache.check_memory(self.memory),
                    )
                )
        for task in tasks[: len(variants)]:
            build(task)  # a change that does not apply is said now, not after the others have trained
        return tasks

    def _result(self, variants: Sequence[Variant], outcomes: Sequence[RunOutcome]) -> ComparisonResult:
        rows = [outcome.row for outcome in outcomes]
        names = [variant.name for variant in variants]
        line = np.linspace(-self.span, self.span, self.resolution)
        axes = next((o.axes for o in outcomes if o.axes is not None), np.stack([line, line]))
        surfaces = np.full((len(names), self.resolution, self.resolution), np.nan)
        for outcome in outcomes:
            if outcome.surface is not None and outcome.row["seed"] == self.random_state:
                surfaces[names.index(outcome.row["variant"])] = outcome.surface
        return ComparisonResult(
            table=rows,
            summary=summarise(rows, names),
            names=names,
            surfaces=surfaces,
            axes=axes,
            correlations=rank_measures(rows, self.gap, self.random_state),
            claims=judge_claims(rows, self.gap),
            settings=describe_settings(self.get_params(), self._data, n_held_out=len(self._held_out)),
        )
