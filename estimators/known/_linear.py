"""Linear networks whose critical points and spectra are known: autoencoder, softmax layer, deep network."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..curvature import CurvatureEstimator
from ..data import Examples
from ..landscape import Landscape
from ..saddles import CriticalPointFinder, pooled_digits
from ._landscape import Problem, Row, drawn, exactly, farthest, half_square, within

MU = 0.01
CLASSES, FEATURES = 4, 6
SINGULAR_VALUES, DEPTH = (2.0, 1.0, 0.5), 3


class LinearAutoencoder(nn.Module):
    """x → a bᵀx with one hidden unit; its output is what ½‖·‖² makes the loss with its weight penalty.

    Parameters
    ----------
    n_features : int
        d; there are 2 d weights.
    mu : float
        Of the penalty (μ/2)(‖a‖² + ‖b‖²).
    """

    def __init__(self, n_features: int, mu: float) -> None:
        super().__init__()
        self.encoder = nn.Linear(n_features, 1, bias=False, dtype=torch.float64)
        self.decoder = nn.Linear(1, n_features, bias=False, dtype=torch.float64)
        self.mu = mu

    def forward(self, x: Tensor) -> Tensor:
        """Give x − a bᵀx, √μ·b and √μ·a, (N, 3 d)."""
        weights = torch.cat([self.encoder.weight.flatten(), self.decoder.weight.flatten()])
        return torch.cat([x - self.decoder(self.encoder(x)), (self.mu**0.5 * weights).expand(len(x), -1)], 1)

    def stand(self, a: Tensor) -> LinearAutoencoder:
        """Move to the point a = b."""
        with torch.no_grad():
            self.encoder.weight.copy_(a[None])
            self.decoder.weight.copy_(a[:, None])
        return self


def tiny_digits() -> Examples:
    """Average scikit-learn's 1,797 digits to 2 × 2 pixels and standardise each pixel: Σλ = 4."""
    x = pooled_digits(n_classes=10, n_samples=1797).inputs
    x = (x - x.mean(0)) / x.std(0, correction=0)
    return Examples(x, torch.zeros(len(x), dtype=torch.float64), name="digits averaged to 2 × 2 pixels")


def covariance(data: Examples) -> tuple[np.ndarray, Tensor]:
    """Eigenvalues of the covariance, largest first, and its unit eigenvectors as rows."""
    values, vectors = torch.linalg.eigh(data.inputs.T @ data.inputs / len(data))
    return values.flip(0).numpy(), vectors.flip(1).T


def make_autoencoder() -> Problem:
    """Stand at the best point: along the first eigenvector of the covariance."""
    data = tiny_digits()
    values, vectors = covariance(data)
    model = LinearAutoencoder(len(values), MU).stand(math.sqrt(1 - MU / values[0]) * vectors[0])
    return Problem(model, data, half_square)


def ladder(values: np.ndarray, mu: float = MU) -> list[float]:
    """Losses of the critical points of index 0, 1, ..., d; the last one is the origin."""
    half = values.sum() / 2
    return [*(half - v / 2 + mu - mu**2 / (2 * v) for v in values), half]


def autoencoder_spectrum(values: np.ndarray, rung: int, mu: float = MU) -> np.ndarray:
    """Hessian eigenvalues at a critical point, ascending; `rung` is its index.

    In the basis of the covariance the Hessian falls into 2 × 2 blocks of (b_j, a_j): with s² = 1 − μ/λᵢ it is
    [[s²λⱼ + μ, −λⱼ], [−λⱼ, λᵢ]], and for j = i both diagonal entries are λᵢ and the others λᵢ − 2μ.
    """
    if rung == len(values):
        return np.sort(np.concatenate([mu - values, mu + values]))
    own = values[rung]
    blocks = [
        [[own, own - 2 * mu], [own - 2 * mu, own]]
        if j == rung
        else [[(1 - mu / own) * other + mu, -other], [-other, own]]
        for j, other in enumerate(values)
    ]
    return np.sort(np.linalg.eigvalsh(np.array(blocks)).ravel())


def measure_autoencoder(problem: Problem) -> Iterator[Row]:
    """Measure loss, gradient and spectrum on each rung, and search for them from random starts."""
    model, data, loss = problem
    values, vectors = covariance(data)
    losses = ladder(values)
    for rung, expected in enumerate(losses):
        stretch = math.sqrt(1 - MU / values[rung]) * vectors[rung] if rung < len(values) else torch.zeros(4)
        assert isinstance(model, LinearAutoencoder)
        at = CurvatureEstimator(n_eigenvalues=1, loss=loss, compare_traces=False).fit(model.stand(stretch), data)
        spectrum = autoencoder_spectrum(values, rung)
        for quantity, exact, measured in (
            ("loss", expected, at.loss_),
            ("gradient norm", 0.0, at.gradient_norm_),
            ("negative eigenvalues", rung, len(spectrum) * at.saddle_index_),
            ("λ_min", spectrum[0], at.lambda_min_),
            ("trace", spectrum.sum(), at.trace_),
        ):
            yield exactly(quantity, exact, measured, "CurvatureEstimator", rung)
    indices = tuple(range(len(losses)))
    finder = CriticalPointFinder(indices=indices, n_starts=3, max_steps=100, l2=0.0, loss=loss).fit(model, data)
    for rung, expected in enumerate(losses):
        losses_found = finder.losses_[finder.found_ & (finder.index_ == rung)]
        measured = farthest(expected, losses_found)
        yield exactly("loss found from random starts", expected, measured, "CriticalPointFinder", rung)


def make_softmax() -> Problem:
    """Stand at zero weights, with one example for each feature."""
    model = nn.Linear(FEATURES, CLASSES, bias=False, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    data = Examples(torch.eye(FEATURES, dtype=torch.float64), torch.arange(FEATURES) % CLASSES, name="one-hot inputs")
    return Problem(model, data, "cross_entropy")


def measure_softmax(problem: Problem) -> Iterator[Row]:
    """Measure loss, gradient, spectrum and the four traces, explicitly and by products alone."""
    model, data, loss = problem
    d, c = FEATURES, CLASSES
    at = CurvatureEstimator(n_eigenvalues=1, loss=loss, n_probes=10).fit(model, data)
    level = 1 / (d * c)
    many = int((np.abs(at.spectrum_ - level) < 1e-9).sum())
    yield exactly("loss", math.log(c), at.loss_, "CurvatureEstimator")
    yield exactly("gradient norm", math.sqrt((1 - 1 / c) / d), at.gradient_norm_, "CurvatureEstimator")
    yield exactly("λ_max", level, at.lambda_max_, "CurvatureEstimator")
    yield exactly("multiplicity of λ_max", d * (c - 1), many, "CurvatureEstimator")
    yield exactly("share of zero eigenvalues", 1 / c, at.fractions_[1], "CurvatureEstimator")
    yield exactly("trace", (c - 1) / c, at.trace_, "CurvatureEstimator")
    for kind in ("ggn", "fisher", "empirical_fisher"):
        found = at.traces_[kind]
        yield drawn(f"trace ({kind})", (c - 1) / c, found["value"], found["stderr"], "CurvatureEstimator")
    products = CurvatureEstimator(
        n_eigenvalues=1, ends="largest", loss=loss, exact_below=0, precision="float64", compare_traces=False
    ).fit(model, data)
    error = products.lambda_max_residual_
    yield within("λ_max by products", level, products.lambda_max_, error, "residual", "CurvatureEstimator")
    yield drawn("trace by products", (c - 1) / c, products.trace_, products.trace_stderr_, "CurvatureEstimator")
    share = products.fractions_stderr_[1]
    yield drawn("share of zeros by products", 1 / c, products.fractions_[1], share, "CurvatureEstimator")


def make_deep() -> Problem:
    """Stand at the balanced minimum of a deep linear network: each layer a root of the target's singular values.

    Inputs are √d times the unit vectors, so that their covariance is the identity and L = ½‖W_L ⋯ W₁ − M‖².
    """
    d = len(SINGULAR_VALUES)
    layers = [nn.Linear(d, d, bias=False, dtype=torch.float64) for _ in range(DEPTH)]
    left, right = _rotations(d)
    root = torch.diag(torch.tensor(SINGULAR_VALUES, dtype=torch.float64) ** (1 / DEPTH))
    inner = torch.eye(d, dtype=torch.float64)
    with torch.no_grad():
        for k, layer in enumerate(layers):
            layer.weight.copy_((left if k == DEPTH - 1 else inner) @ root @ (right.T if k == 0 else inner))
    inputs = math.sqrt(d) * torch.eye(d, dtype=torch.float64)
    targets = inputs @ _target().T
    return Problem(nn.Sequential(*layers), Examples(inputs, targets, name="whitened inputs"), half_squared_error)


def half_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """½‖y − ŷ‖² of an example."""
    return 0.5 * (outputs - targets).square().sum(1)


def _rotations(d: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2, d, d, generator=generator, dtype=torch.float64)
    return torch.linalg.qr(draws[0]).Q, torch.linalg.qr(draws[1]).Q


def _target() -> Tensor:
    left, right = _rotations(len(SINGULAR_VALUES))
    return left @ torch.diag(torch.tensor(SINGULAR_VALUES, dtype=torch.float64)) @ right.T


def measure_deep(problem: Problem) -> Iterator[Row]:
    """Measure the minimum and the origin."""
    model, data, loss = problem
    s = np.array(SINGULAR_VALUES)
    power = [s ** (2 * (DEPTH - k) / DEPTH) for k in range(1, DEPTH + 1)]
    known = np.sum([np.outer(high, low) for high, low in zip(power, power[::-1], strict=True)], axis=0)
    at = CurvatureEstimator(n_eigenvalues=len(s) ** 2, ends="largest", loss=loss, compare_traces=False).fit(model, data)
    spectrum, estimator = np.sort(known.ravel())[::-1], "CurvatureEstimator"
    yield exactly("loss at the minimum", 0.0, at.loss_, estimator)
    yield exactly("gradient norm at the minimum", 0.0, at.gradient_norm_, estimator)
    yield exactly("λ_max at the minimum", DEPTH * s[0] ** (2 - 2 / DEPTH), at.lambda_max_, estimator)
    yield exactly("smallest eigenvalue above 0", spectrum[-1], at.eigenvalues_[-1], estimator)
    yield exactly("trace at the minimum", known.sum(), at.trace_, estimator)
    yield exactly("share of flat directions", 1 - 1 / DEPTH, at.fractions_[1], estimator)
    land = Landscape(model, data, loss=loss, precision="float64")
    for k in range(len(s)):  # the k-th mode taken out of the first layer
        modes, theta = torch.ones(len(s), dtype=torch.float64), land.theta.clone()
        modes[k] = 0
        first = land.theta[: len(s) ** 2].view(len(s), len(s))
        theta[: len(s) ** 2] = (modes[:, None] * first).flatten()
        yield exactly(f"loss without mode {k + 1}", s[k] ** 2 / 2, land.loss(theta), "Landscape")
    origin = torch.zeros_like(land.theta)
    yield exactly("loss at the origin", (s**2).sum() / 2, land.loss(origin), "Landscape")
    curved = land.hvp(torch.ones_like(origin), origin)
    yield exactly("‖H·1‖ at the origin", 0.0, float(curved.norm()), "Landscape")
