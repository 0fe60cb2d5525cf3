"""SaddleEscaper: how optimisers leave a saddle of a real loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import TransformerMixin
from sklearn.utils._param_validation import Interval, StrOptions
from torch import nn

from ..base import LandscapeEstimator
from ..checks import check_choice, not_negative, positive, whole
from ..core.saddles.optimizers import OPTIMIZERS
from ..core.saddles.test_functions import SURFACES
from ..progress import OnProgress, ignore_progress, subprogress
from ._race import RaceSettings, SaddleRace, automatic_lr
from ._result import EscapeResult, measure_names, measure_table
from ._start import Saddle, analytic_saddle, embedded_saddle, landscape_objective, origin_saddle, strict_saddle

SADDLES = ("strict", "embedding", "origin", *SURFACES)
OnPartial = Callable[[EscapeResult], None]
SEARCH_SHARE = 0.1  # of the progress bar, for the search of a strict saddle


@dataclass(kw_only=True, eq=False, repr=False)
class SaddleEscaper(TransformerMixin, LandscapeEstimator):
    """Find a saddle, start optimisers on it and beside it, and measure when they leave.

    All optimisers start from the same points: at distance r from the saddle in directions drawn once. Only "sgd"
    sees minibatches; every other rule uses the full gradient, so that one mechanism acts at a time.

    Parameters
    ----------
    saddle : str, default="strict"
        "strict", searched for by eigenvector following (smooth networks; in float64, ‖∇L‖ ≤ 1e-9, up to 500
        parameters, by Lanczos modes and ‖∇L‖ ≤ 1e-4 beyond); "embedding", hidden units or a transformer block's MLP
        with in- and outgoing weights 0, in which only these weights move; "origin", all weights 0 and the last bias
        at its best value; or a surface with a formula: "strict_surface", "monkey_saddle", "degenerate_valley".
    optimizers : "all" or tuple of str, default="all"
        Keys of `core.optimizers.OPTIMIZERS` to run in `fit`.
    n_seeds : int, default=10
        Starts at each radius, each with its own direction, minibatches and noise.
    max_steps : int, default=2000
        Budget of each run.
    lr : float or "auto", default="auto"
        η. "auto" takes 20 / (`max_steps` · |λ₋|), at most 1/λ₊: gradient descent then grows by e²⁰ over the budget,
        enough to leave from r = 1e-6 and too little for rounding (about 1e-15) to grow into a departure.
    adaptive_lr : float, default=1e-3
        η of RMSprop and Adam, whose steps have about this length in every coordinate whatever the gradient's size;
        the η of the other rules multiplies gradients and would mean something else.
    radii : tuple of float, default=(0.0, 1e-6, 1e-3)
        Distances ‖θ − saddle‖ of the starts, absolute: in the units of θ, not multiples of ‖θ‖.
    threshold : float, default=1e-4
        How much lower than the saddle's the loss must be to have left, in loss units.
    l2 : float, default=1e-3
        The objective is L + l2/2 · ‖θ‖² (networks only); it makes critical points isolated. Reported.
    sgd_batch : int, default=32
        Examples in SGD's minibatches.
    index, n_starts, max_search, start_scale : int, int, int, float, default=1, 20, 150, 0.5
        Search of a strict saddle: its index, starts, steps a start, standard deviation of random starts.
    layer, unit : int, int or None, default=0, None
        Embedding: which pair of linear layers, and which hidden unit (None: all of them).
    parameters : str, tuple of str or None, default=None
        Regular expressions choosing the parameters that make up θ.
    loss, batch_size, device, precision, memory, random_state, verbose
        As everywhere; precision is "float64" by default, which a saddle needs. Batch norm is frozen.

    Attributes
    ----------
    saddle_ : dict
        gradient_norm, index, eigenvalues, loss, kind, found, ... (see `EscapeResult`). Where no saddle was found,
        `found` is False, the values are those of the closest point, and nothing was run.
    trajectories_, losses_, escape_steps_, alignment_, diverged_, theory_steps_, mechanisms_
        And every other field of `EscapeResult`, with an underscore.
    result_ : EscapeResult

    References
    ----------
    Jin et al. 2017 (perturbed gradient descent); Lee et al. 2016 (gradient descent leaves strict saddles almost
    surely); Fukumizu & Amari 2000 (embedding); Dauphin et al. 2014.

    Examples
    --------
    Gradient descent stays where the gradient vanishes; injected noise leaves, from all ten seeds.

    >>> import numpy as np
    >>> from estimators import SaddleEscaper
    >>> escaper = SaddleEscaper(saddle="strict_surface", optimizers=("gd", "perturbed_gd"), max_steps=200).fit()
    >>> left = np.isfinite(escaper.escape_steps_[:, 0]).mean(axis=1)
    >>> dict(zip(escaper.optimizers_, left.tolist()))
    {'gd': 0.0, 'perturbed_gd': 1.0}
    """

    result_: EscapeResult = field(init=False)

    saddle: str = "strict"
    optimizers: str | tuple[str, ...] = "all"
    n_seeds: int = 10
    max_steps: int = 2000
    lr: float | str = "auto"
    adaptive_lr: float = 1e-3
    radii: tuple[float, ...] = (0.0, 1e-6, 1e-3)
    threshold: float = 1e-4
    l2: float = 1e-3
    sgd_batch: int = 32
    index: int = 1
    n_starts: int = 20
    max_search: int = 150
    start_scale: float = 0.5
    layer: int = 0
    unit: int | None = None
    parameters: str | tuple[str, ...] | None = None
    precision: str = "float64"

    _parameter_constraints: ClassVar[dict[str, list]] = {
        **whole(1, "n_seeds", "max_steps", "sgd_batch", "index", "n_starts", "max_search"),
        **positive("adaptive_lr", "threshold", "start_scale"),
        **not_negative("l2"),
        "saddle": [StrOptions(set(SADDLES))],
        "optimizers": [str, tuple, list],
        "radii": [Real, "array-like"],
        "lr": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "layer": [Integral],
        "unit": [Integral, None],
        "precision": [StrOptions({"float32", "float64"})],
    }

    def fit(
        self,
        model: nn.Module | None = None,
        data: Any = None,
        *,
        on_progress: OnProgress | None = None,
        on_partial: OnPartial | None = None,
    ) -> SaddleEscaper:
        """Find the saddle and run the optimisers from it.

        Parameters
        ----------
        model : nn.Module or None
            The network; not needed for a surface with a formula. It is not changed.
        data : Examples or anything `load_data` takes, or None
            The examples the objective is a mean over.
        on_progress : callable, default=None
            `on_progress(done, total, message)`; may raise `Cancelled`.
        on_partial : callable, default=None
            Called with the `EscapeResult` so far: after the saddle is known, and after each optimiser.

        Returns
        -------
        SaddleEscaper

        Raises
        ------
        ValueError
            If an argument is not allowed, or the network has kinks and saddle="strict".
        """
        names = self._check()
        report = self._progress(on_progress, f"Leaving a saddle ({self.saddle})")
        self._land = None
        if self.saddle not in SURFACES:
            if model is None or data is None:
                raise ValueError(
                    f"model and data must be given for saddle={self.saddle!r}, got None. "
                    f"Pass a network and examples, or choose one of {sorted(SURFACES)}."
                )
            self._land = self._landscape(model, data, batch_norm="frozen")
        search = SEARCH_SHARE if self.saddle == "strict" else 0.0
        saddle = self._find(subprogress(report, 0.0, search, "searching for a saddle"))
        self._centre = saddle.centre.cpu().numpy()
        formula = {"model": "a surface with a formula", "data": "64 tilted copies"}
        settings = (formula if self._land is None else self._land.settings) | self._own_settings()
        result = EscapeResult(settings=settings, saddle=saddle.info)
        if saddle.info["found"]:
            race = self._race(saddle)
            result = race.empty(settings)
            if on_partial is not None:
                on_partial(result)
            for i, name in enumerate(names):
                begin, end = (search + (1 - search) * n / len(names) for n in (i, i + 1))
                result = self._run(race, result, name, subprogress(report, begin, end, OPTIMIZERS[name].title))
                if on_partial is not None and i + 1 < len(names):
                    on_partial(race.with_plane(result))
            result = race.with_plane(result)
        report(1000, 1000, "done")
        self._publish(result)
        return self

    def transform(self, optimizers: str | Iterable[str]) -> np.ndarray:
        """Give the table of optimisers; what `fit` did not run is run now, from the same starts.

        Parameters
        ----------
        optimizers : str or iterable of str
            Keys of `OPTIMIZERS`.

        Returns
        -------
        ndarray of shape (n, n_measures)
            For each radius: median and quartiles of the leaving step (inf: still there), share that left, alignment
            of the first moves with the negative mode, share that diverged, the linear theory's median step.
        """
        names = [optimizers] if isinstance(optimizers, str) else list(optimizers)
        for name in names:
            check_choice("optimizers", name, OPTIMIZERS)
        if not self.result_.saddle["found"]:
            raise ValueError(
                f"saddle must be found before optimisers can leave it, got the closest point with gradient norm "
                f"{self.result_.saddle['gradient_norm']:.2e}. Raise n_starts or max_search, or change index."
            )
        result = self.result_
        missing = [name for name in dict.fromkeys(names) if name not in result.optimizers]
        if missing:
            race = self._race(self._find(ignore_progress))
            for name in missing:
                result = self._run(race, result, name, ignore_progress)
        table = measure_table(result)
        return table[[result.optimizers.index(name) for name in names]]

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`."""
        return np.array(measure_names(np.asarray(self.radii, dtype=float)), dtype=object)

    def _find(self, report: OnProgress) -> Saddle:
        if self._land is None:
            return analytic_saddle(self.saddle, self.random_state)
        objective = landscape_objective(self._land, self.l2)
        if self.saddle == "embedding":
            return embedded_saddle(self._land, objective, layer=self.layer, unit=self.unit)
        if self.saddle == "origin":
            return origin_saddle(self._land, objective)
        return strict_saddle(
            self._land,
            objective,
            index=self.index,
            n_starts=self.n_starts,
            max_search=self.max_search,
            start_scale=self.start_scale,
            generator=self._generator(),
            on_step=lambda done, total: report(done, total, "searching for a saddle"),
        )

    def _race(self, saddle: Saddle) -> SaddleRace:
        lr = automatic_lr(saddle, self.max_steps) if self.lr == "auto" else float(self.lr)
        radii = tuple(float(r) for r in np.atleast_1d(self.radii))
        return SaddleRace(saddle, self._as(RaceSettings, lr=lr, radii=radii))

    def _run(self, race: SaddleRace, result: EscapeResult, name: str, report: OnProgress) -> EscapeResult:
        fingerprint, saddle = "" if self._land is None else self._land.fingerprint, race.saddle
        # which coordinates move, and where the others stand, is not to be seen in the centre
        where = (self.saddle, self.layer, self.unit, self.l2, saddle.centre, saddle.axes, saddle.curvature)
        key = (fingerprint, *where, race.settings.key(), name)
        ran = self._cached(race.run, key, name, lambda done, total: report(done, total, OPTIMIZERS[name].title))
        return race.add(result, name, ran)

    def _check(self) -> list[str]:
        radii = np.atleast_1d(np.asarray(self.radii, dtype=float))
        if radii.ndim != 1 or not len(radii) or not (np.isfinite(radii) & (radii >= 0)).all():
            raise ValueError(f"radii must be distances of at least 0, got {self.radii!r}. Use (0.0, 1e-6, 1e-3), say.")
        if isinstance(self.optimizers, str) and self.optimizers == "all":
            return list(OPTIMIZERS)
        names = [self.optimizers] if isinstance(self.optimizers, str) else list(self.optimizers)
        for name in names:
            check_choice("optimizers", name, (*OPTIMIZERS, "all"))
        return list(dict.fromkeys(names))
