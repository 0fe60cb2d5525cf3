"""Landscapes that are formulas of a few weights: quadratic, quartic valley, two basins, saddle, points to average."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from ..averaging import SWAAverager
from ..connectivity import ModeConnector
from ..curvature import CurvatureEstimator
from ..saddles import SaddleEscaper
from ..sharpness import SharpnessEstimator
from ..surface import SurfaceMapper
from ._landscape import Formula, Problem, Row, drawn, exactly, no_examples, output_is_loss, within

SPECTRUM = np.concatenate([np.linspace(-1.0, -0.25, 6), np.geomspace(0.1, 8.0, 34)])
RHO, SIGMA = 0.5, 0.1
VALLEY = (1.0, 1.0)  # curvature across, quartic coefficient along
BARRIER, PASS, BEND = 1.0, 0.1, 0.75
SADDLE, STEP, DROP = (-1.0, 2.0), 0.05, 1e-4
POWERS = (3.0, 1.0, 0.5)


class Quadratic(Formula):
    """f(θ) = gᵀθ + ½ θᵀAθ.

    Parameters
    ----------
    point : array-like of shape (P,)
    spectrum : array-like of shape (P,)
        Eigenvalues of A; its axes are drawn at random with `turned`.
    slope : float
        Length of g, which has the same share of every axis.
    turned : bool
    """

    matrix: Tensor
    slope: Tensor

    def __init__(self, point: object, spectrum: object, slope: float = 0.0, turned: bool = True) -> None:
        super().__init__(point)
        values = torch.as_tensor(spectrum, dtype=torch.float64)
        draws = torch.randn(len(values), len(values), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        axes = torch.linalg.qr(draws).Q if turned else torch.eye(len(values), dtype=torch.float64)
        self.register_buffer("matrix", axes @ torch.diag(values) @ axes.T)
        self.register_buffer("slope", slope / math.sqrt(len(values)) * axes.sum(1))

    def value(self, point: Tensor) -> Tensor:
        """Give f at a point."""
        return self.slope @ point + 0.5 * point @ self.matrix @ point


def make_quadratic() -> Problem:
    """Stand at 0, on a slope of length 1."""
    return Problem(Quadratic(np.zeros(len(SPECTRUM)), SPECTRUM, slope=1.0), no_examples(), output_is_loss)


def largest_rise(values: np.ndarray, slopes: np.ndarray, rho: float) -> float:
    """Largest value of g·c + ½ Σ λc² over ‖c‖ ≤ ρ, in the axes of A: the root of its secular equation.

    The maximiser is c = g/(ν − λ) with ν > λ_max such that ‖c‖ = ρ (Moré & Sorensen 1983); g has a share of the
    axis of λ_max here, so there is one.
    """
    top = values.max()
    root = brentq(
        lambda nu: np.linalg.norm(slopes / (nu - values)) - rho,
        top + 1e-12,
        top + 2 * np.linalg.norm(slopes) / rho,
        xtol=1e-14,
    )
    place = slopes / (root - values)
    return float(slopes @ place + 0.5 * values @ place**2)


def measure_quadratic(problem: Problem) -> Iterator[Row]:
    """Measure spectrum, trace and density by products alone, and sharpness in the ball and under noise."""
    model, data, loss = problem
    values, n = SPECTRUM, len(SPECTRUM)
    slopes = np.full(n, 1 / math.sqrt(n))
    at = CurvatureEstimator(
        n_eigenvalues=3, loss=loss, exact_below=0, precision="float64", compare_traces=False, n_probes=20
    ).fit(model, data)
    engine = "CurvatureEstimator"
    yield exactly("gradient norm", 1.0, at.gradient_norm_, engine)
    for name, expected in (("lambda_max", values.max()), ("lambda_min", values.min())):
        kind, error = at.result_.uncertainty_of(name) or ("", math.nan)
        measured = getattr(at.result_, name)
        yield within(name.replace("lambda", "λ"), expected, measured, error, kind, engine)
    yield drawn("trace", values.sum(), at.trace_, at.trace_stderr_, engine)
    yield drawn("saddle index", (values < 0).mean(), at.saddle_index_, at.saddle_index_stderr_, engine)
    grid, density = at.density_
    spread = np.trapezoid(np.abs(grid) * at.density_stderr_, grid)
    yield within("integral of the density", 1.0, np.trapezoid(density, grid), 1e-3, "its grid", engine)
    yield drawn("mean of the density", values.mean(), np.trapezoid(grid * density, grid), spread, engine)
    sharp = SharpnessEstimator(
        measures=("sharpness", "average", "lambda_max", "trace"), rho=RHO, sigma=SIGMA, n_draws=256, loss=loss,
        precision="float64",
    ).fit(model, data)  # fmt: skip
    engine = "SharpnessEstimator"
    worst, first = largest_rise(values, slopes, RHO), RHO * 1.0 + RHO**2 / 2 * values.mean()
    yield within("largest rise in the ball", worst, sharp.sharpness_, 1e-3 * worst, "0.1 % of a lower bound", engine)
    yield exactly("rise of the SAM step", first, sharp.one_step_, engine)
    average = SIGMA**2 / 2 * values.sum()
    yield drawn("mean rise under noise", average, sharp.average_sharpness_, sharp.average_sharpness_stderr_, engine)
    yield within("λ_max (sharpness)", values.max(), sharp.lambda_max_, sharp.lambda_max_residual_, "residual", engine)


class QuarticValley(Formula):
    """f(x, y) = ½ x² + ¼ y⁴: a minimum that is flat to second order along y."""

    def value(self, point: Tensor) -> Tensor:
        """Give f at a point."""
        return VALLEY[0] / 2 * point[0] ** 2 + VALLEY[1] / 4 * point[1] ** 4


def make_valley() -> Problem:
    """Stand at the minimum."""
    return Problem(QuarticValley((0.0, 0.0)), no_examples(), output_is_loss)


def measure_valley(problem: Problem) -> Iterator[Row]:
    """Measure what the second order can't see: rises in balls and under noise, the map, its interpolation."""
    model, data, loss = problem
    at = CurvatureEstimator(n_eigenvalues=1, loss=loss, compare_traces=False).fit(model, data)
    yield exactly("λ_max", 1.0, at.lambda_max_, "CurvatureEstimator")
    yield exactly("λ_min", 0.0, at.lambda_min_, "CurvatureEstimator")
    yield exactly("share of flat directions", 0.5, at.fractions_[1], "CurvatureEstimator")
    for rho in (0.5, 2.0):  # across the valley while ρ² < 2, along it beyond
        sharp = SharpnessEstimator(
            measures=("sharpness", "average"), rho=rho, sigma=0.7, n_draws=256, loss=loss, precision="float64"
        ).fit(model, data)
        worst = max(rho**2 / 2, rho**4 / 4)
        error = 1e-3 * worst
        yield within(
            f"largest rise, ρ = {rho:g}", worst, sharp.sharpness_, error, "0.1 % of a lower bound", "SharpnessEstimator"
        )
    noise = 0.7**2 / 2 + 3 * 0.7**4 / 4
    yield drawn(
        "mean rise under noise", noise, sharp.average_sharpness_, sharp.average_sharpness_stderr_, "SharpnessEstimator"
    )
    options = {"directions": "hessian", "span": 1.5, "loss": loss, "precision": "float64"}
    x, y = np.meshgrid(np.linspace(-1.5, 1.5, 21), np.linspace(-1.5, 1.5, 21), indexing="ij")
    formula = x**2 / 2 + y**4 / 4
    mapped = SurfaceMapper(resolution=21, **options).fit(model, data)
    yield exactly("map, largest difference", 0.0, np.abs(mapped.losses_ - formula).max(), "SurfaceMapper")
    away = model.at((1.0, 1.0)) if isinstance(model, Formula) else model  # log-losses need losses above 0
    options = {"directions": "random", "normalization": None, "span": 0.3, "loss": loss, "precision": "float64"}
    mapped = SurfaceMapper(resolution=41, mode="adaptive", tolerance=0.01, **options).fit(away, data)
    grid = np.stack(np.meshgrid(*mapped.axes_, indexing="ij"), -1) @ mapped.directions_ + mapped.origin_
    formula = np.log(grid[..., 0] ** 2 / 2 + grid[..., 1] ** 4 / 4)
    error = mapped.largest_error_ * np.ptp(formula)
    off = np.abs(np.log(mapped.losses_) - formula).max()
    yield within("adaptive map, largest log-difference", 0.0, off, error, "its own estimate", "SurfaceMapper")


class TwoBasins(Formula):
    """f(x, y) = h (y/p − 1 + x²)² + b (1 − x²)²: minima (±1, 0), joined by the valley y = p (1 − x²)."""

    def value(self, point: Tensor) -> Tensor:
        """Give f at a point."""
        x, y = point.unbind()
        return BARRIER * (y / BEND - 1 + x**2) ** 2 + PASS * (1 - x**2) ** 2


def make_two_basins() -> Problem:
    """Stand at the minimum (−1, 0); the other one is ``model.at((1, 0))``."""
    return Problem(TwoBasins((-1.0, 0.0)), no_examples(), output_is_loss)


def measure_two_basins(problem: Problem) -> Iterator[Row]:
    """Measure the straight line, the curve through the pass, and the pass itself."""
    model, data, loss = problem
    assert isinstance(model, Formula)
    pair = (model, model.at((1.0, 0.0)))
    options = {"loss": loss, "precision": "float64"}
    straight = ModeConnector(path="linear", n_points=12, **options).fit(pair, data)
    engine = "ModeConnector"
    error = straight.barrier_error_
    yield within("straight barrier", BARRIER + PASS, straight.barrier_, error, "its own estimate", engine)
    yield within("rise over the ends", BARRIER + PASS, straight.rise_over_endpoints_, error, "its own estimate", engine)
    width = straight.worst_t_high_ - straight.worst_t_low_
    yield within("place of the barrier", 0.5, straight.worst_t_, width, "its own bracket", engine)
    yield exactly("connected by the line", 0, straight.connected_, engine)
    curve = ModeConnector(path="bezier", epochs=600, lr=0.1, tolerance=2 * PASS, **options).fit(pair, data)
    arc = math.hypot(1, 2 * BEND) + math.asinh(2 * BEND) / (2 * BEND)
    trained = "training of the bend, 2 %"
    yield within("barrier of the curve", PASS, curve.barrier_, 0.02 * BARRIER, trained, engine)
    yield within("bend of the curve", 2 * BEND, curve.bends_[0, 1], 0.04 * BEND, trained, engine)
    yield within("length of the curve", arc, curve.path_length_, 0.02 * arc, trained, engine)
    yield exactly("connected by the curve", 1, curve.connected_, engine)
    top = CurvatureEstimator(n_eigenvalues=1, loss=loss, compare_traces=False).fit(model.at((0.0, BEND)), data)
    yield exactly("height of the pass", PASS, top.loss_, "CurvatureEstimator")
    yield exactly("λ_min at the pass", -4 * PASS, top.lambda_min_, "CurvatureEstimator")
    yield exactly("λ_max at the pass", 2 * BARRIER / BEND**2, top.lambda_max_, "CurvatureEstimator")
    yield exactly("saddle index at the pass", 0.5, top.saddle_index_, "CurvatureEstimator")


def make_saddle() -> Problem:
    """Stand at the saddle ½(κ₋x² + κ₊y²)."""
    return Problem(Quadratic((0.0, 0.0), SADDLE, turned=False), no_examples(64), output_is_loss)


def measure_saddle(problem: Problem) -> Iterator[Row]:
    """Race gradient descent from three distances and compare each leaving step with (1 − ηκ)ᵗ."""
    model, data, loss = problem
    race = SaddleEscaper(
        saddle="origin", optimizers=("gd",), n_seeds=6, max_steps=400, lr=STEP, threshold=DROP, l2=0.0, loss=loss
    ).fit(model, data)
    engine = "SaddleEscaper"
    yield exactly("λ at the saddle", SADDLE[0], race.saddle_["eigenvalues"][0], engine)
    yield exactly("index of the saddle", 1, race.saddle_["index"], engine)
    yield exactly("growth a step", 1 - STEP * SADDLE[0], race.growth_per_step_, engine)
    yield exactly("share that leaves from r = 0", 0, np.isfinite(race.escape_steps_[0, 0]).mean(), engine)
    for j in (1, 2):
        starts = race.trajectories_[0, 0, j]  # (n_seeds, 2), whole: there are two weights
        expected = [leaving_step(start) for start in starts]
        measured, r = race.escape_steps_[0, j], race.radii_[j]
        off = np.abs(measured - expected).max()
        yield exactly(f"median leaving step, r = {r:g}", np.median(expected), np.median(measured), engine)
        yield exactly(f"steps off, worst of 6 starts, r = {r:g}", 0, off, engine)


def leaving_step(start: np.ndarray) -> int:
    """First step of gradient descent with ½ Σ κ (1 − ηκ)²ᵗ x² ≤ −δ."""
    curvature, steps = np.array(SADDLE), np.arange(2000)[:, None]
    heights = (curvature / 2 * ((1 - STEP * curvature) ** steps * start) ** 2).sum(1)
    return int(np.argmax(heights <= -DROP))


def make_average() -> Problem:
    """Stand at the minimum of a bowl."""
    return Problem(Quadratic((0.0, 0.0, 0.0), POWERS), no_examples(), output_is_loss)


def measure_average(problem: Problem) -> Iterator[Row]:
    """Average points around a minimum, and look at the trajectory that visits them."""
    model, data, loss = problem
    assert isinstance(model, Quadratic)
    generator = np.random.default_rng(0)
    places = generator.normal(size=(5, 3))
    members = [model.at(place) for place in places]
    matrix, options = model.matrix.numpy(), {"loss": loss, "precision": "float64"}
    weights = {"swa": np.full(5, 0.2), "ema": 0.6 ** np.arange(4, -1, -1) * np.array([1.0, 0.4, 0.4, 0.4, 0.4])}
    for method, shares in weights.items():
        averager = SWAAverager(method=method, decay=0.6, warmup=False, **options).fit(members, data)
        mean = shares @ places
        measured = averager.state_dict_["point"].numpy()
        yield exactly(f"{method}: distance from the mean", 0.0, float(np.linalg.norm(measured - mean)), "SWAAverager")
        row = averager.result_.row("average")
        yield exactly(
            f"{method}: loss of the average", float(mean @ matrix @ mean) / 2, row["train_loss"], "SWAAverager"
        )
    soup = SWAAverager(method="uniform_soup", **options).fit(members, data)
    own = np.mean([row["train_loss"] for row in soup.report_ if row["role"] == "member"])
    gain = own - soup.result_.row("average")["train_loss"]
    spread = np.cov(places.T, bias=True)
    expected = float(np.trace(matrix @ spread)) / 2
    yield exactly("what averaging gains, ½ tr(A·Cov)", expected, float(gain), "SWAAverager")
    yield exactly("highest barrier in the bowl", 0.0, soup.barriers_.max(), "SWAAverager")
    axes = np.eye(3)
    path = [model.at(p) for p in (2 * axes[0], axes[1], -2 * axes[0], -axes[1], 0 * axes[0])]
    mapped = SurfaceMapper(directions="trajectory", resolution=5, **options).fit(path, data)
    for k, share in enumerate((0.8, 0.2)):
        measured = mapped.explained_variance_ratio_[k]
        yield exactly(f"variance along component {k + 1}", share, measured, "SurfaceMapper")
