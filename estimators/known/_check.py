"""Every known landscape by name, and the check that measures them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..checks import check_choice
from ..progress import OnProgress, ignore_progress
from ..results import Result, Uncertainty
from . import _formulas as formulas
from . import _linear as linear
from ._landscape import KnownLandscape

KNOWN_LANDSCAPES: dict[str, KnownLandscape] = {
    "linear_autoencoder": KnownLandscape(
        "Linear autoencoder",
        "½·mean‖x − a bᵀx‖² + (μ/2)(‖a‖² + ‖b‖²) on digits averaged to 2 × 2 pixels, μ = 0.01",
        "Critical points a = b = √(1 − μ/λᵢ)·uᵢ with loss ½(Σλ − λᵢ) + μ − μ²/(2λᵢ) and as many negative eigenvalues "
        "as there are λⱼ > λᵢ; the origin, ½Σλ, has all of them. Loss and index climb together.",
        "Baldi & Hornik 1989; Kunin et al. 2019",
        linear.make_autoencoder,
        linear.measure_autoencoder,
    ),
    "softmax_linear": KnownLandscape(
        "Softmax layer at zero weights",
        "cross-entropy of C = 4 classes, one linear layer without bias, N = d = 6 one-hot inputs",
        "Loss ln C; Hessian eigenvalue 1/(N·C), d(C − 1) times, and 0, d times; trace (C − 1)/C, which the "
        "Gauss-Newton matrix and both Fisher matrices share.",
        "Böhning 1992",
        linear.make_softmax,
        linear.measure_softmax,
    ),
    "quadratic": KnownLandscape(
        "Quadratic with a given spectrum",
        "gᵀθ + ½θᵀAθ with 40 eigenvalues from −1 to 8 and ‖g‖ = 1",
        "Largest rise in a ball: the trust-region problem, g·c + ½cᵀAc at (ν − A)c = g, ‖c‖ = ρ. Mean rise under noise "
        "½σ²·tr A. Spectrum, trace and density are given.",
        "Moré & Sorensen 1983",
        formulas.make_quadratic,
        formulas.measure_quadratic,
    ),
    "deep_linear": KnownLandscape(
        "Deep linear network",
        "½‖W₃W₂W₁ − M‖² with singular values 2, 1, ½ of M",
        "At the balanced minimum the eigenvalues are Σₖ sᵢ^(2(L−k)/L)·sⱼ^(2(k−1)/L), the largest L·s₁^(2−2/L), and two "
        "thirds are 0. Without mode k the loss is ½sₖ². At the origin the Hessian vanishes.",
        "Kawaguchi 2016; Mulayoff & Michaeli 2020",
        linear.make_deep,
        linear.measure_deep,
    ),
    "quartic_valley": KnownLandscape(
        "Quartic valley",
        "½x² + ¼y⁴",
        "Flat along y to second order. Largest rise in a ball max(½ρ², ¼ρ⁴): across the valley, along it from ρ = √2. "
        "Mean rise under noise ½σ² + ¾σ⁴.",
        "by calculus; Gaussian moments",
        formulas.make_valley,
        formulas.measure_valley,
    ),
    "two_basins": KnownLandscape(
        "Two basins and a curved pass",
        "(y/p − 1 + x²)² + b(1 − x²)² with p = ¾, b = 0.1",
        "Minima (±1, 0). The straight line climbs 1 + b at its middle; the parabola y = p(1 − x²), a Bézier curve with "
        "the bend (0, 2p), climbs b, over a saddle with eigenvalues −4b and 2/p².",
        "by calculus; Garipov et al. 2018 for the curve",
        formulas.make_two_basins,
        formulas.measure_two_basins,
    ),
    "saddle": KnownLandscape(
        "Saddle with known escape times",
        "½(−x² + 2y²), gradient descent with η = 0.05",
        "After t steps the point is at ((1 + η)ᵗx, (1 − 2η)ᵗy): it leaves after about ln(√(2δ)/|x|)/ln(1 + η) steps, "
        "and never from the saddle itself.",
        "Lee et al. 2016",
        formulas.make_saddle,
        formulas.measure_saddle,
    ),
    "average": KnownLandscape(
        "Average of points in a bowl",
        "½θᵀAθ with eigenvalues 3, 1, ½",
        "The mean of points with covariance C lies ½·tr(AC) below their mean loss; an exponential mean has the weights "
        "of its recursion; straight lines have no barrier; a cross of half-widths 2 and 1 has variance shares 4:1.",
        "Polyak & Juditsky 1992; Izmailov et al. 2018",
        formulas.make_average,
        formulas.measure_average,
    ),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class CheckResult(Result):
    """What the engine measured on landscapes whose answers are known.

    Attributes
    ----------
    rows : list of dict
        One a number: ``landscape`` (a key of `KNOWN_LANDSCAPES`), ``quantity``, ``engine``, ``expected``,
        ``measured``, ``difference``, ``error`` (what the engine states, or what rounding leaves), ``error_of`` (what
        kind of error that is), ``right`` (whether the difference is within it) and ``rung`` (index of the critical
        point, on the autoencoder's ladder; −1 elsewhere).
    seconds : float
        How long it took.

    Examples
    --------
    >>> from estimators import check_installation
    >>> result = check_installation(("softmax_linear",))
    >>> result.right, result.rows[0]["quantity"], round(result.rows[0]["expected"], 4)
    (True, 'loss', 1.3863)
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {"rows.error": Uncertainty("bracket", "rows.measured")}

    kind: ClassVar[str] = "check"

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def right(self) -> bool:
        """Whether there are rows and all of them are right."""
        return bool(self.rows) and all(row["right"] for row in self.rows)

    def table(self) -> list[dict[str, Any]]:
        """Give the rows, for a CSV."""
        return self.rows


def check_installation(
    names: str | Sequence[str] = "all",
    *,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[CheckResult], None] | None = None,
) -> CheckResult:
    """Measure landscapes whose answers are known, with the estimators as anyone calls them.

    Parameters
    ----------
    names : "all" or sequence of str, default="all"
        Keys of `KNOWN_LANDSCAPES`.
    on_progress, on_partial : callable, optional
        Progress, and the result so far after each landscape.

    Returns
    -------
    CheckResult
        In float64 and from fixed seeds; all of it takes some ten seconds.

    Raises
    ------
    ValueError
        For a name that is none of them.
    """
    chosen = list(KNOWN_LANDSCAPES) if isinstance(names, str) and names == "all" else names
    chosen = [chosen] if isinstance(chosen, str) else list(chosen)
    for name in chosen:
        check_choice("names", name, KNOWN_LANDSCAPES)
    started, rows, result = time.perf_counter(), [], CheckResult()
    for k, name in enumerate(chosen):
        known = KNOWN_LANDSCAPES[name]
        on_progress(k, len(chosen), known.title)
        rows += _measured(name, known)
        result = CheckResult(
            settings={"precision": "float64", "random_state": 0},
            rows=list(rows),
            seconds=time.perf_counter() - started,
        )
        if on_partial is not None:
            on_partial(result)
    on_progress(len(chosen), len(chosen), "done")
    return result


def _measured(name: str, known: KnownLandscape) -> list[dict[str, Any]]:
    """Measure one landscape; an engine that raises is a red row, not the end of the check."""
    rows = []
    try:
        for row in known.measure(known.make()):
            difference = row.measured - row.expected
            rows.append({"landscape": name, **row._asdict(), "difference": difference, "right": bool(row.right)})
    except (ArithmeticError, AssertionError, RuntimeError, TypeError, ValueError, IndexError, KeyError) as error:
        nan = float("nan")
        stopped = {"expected": nan, "measured": nan, "difference": nan, "error": nan, "right": False}
        words = {"quantity": f"stopped: {error}", "error_of": "", "engine": ""}
        rows.append({"landscape": name, **words, **stopped, "rung": -1})
    return rows
