"""Surfaces with formulas, whose stationary point at 0 shows one kind of saddle each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .objectives import Objective


@dataclass(frozen=True)
class Surface:
    """An analytic surface f(x, y) with a stationary point at the origin, where f = 0.

    Attributes
    ----------
    title, note : str
        What it is called, and what it shows.
    value : callable
        `(theta (2,))` → scalar tensor.
    axes : tuple of tuple of float
        Two unit directions to draw on: the way out, and across it.
    """

    title: str
    note: str
    value: Callable[[Tensor], Tensor]
    axes: tuple[tuple[float, float], tuple[float, float]]


def strict_saddle(theta: Tensor) -> Tensor:
    """½x² − ½y² + ¼y⁴: Hessian eigenvalues 1 and −1 at 0, minima at y = ±1 where f = −¼."""
    x, y = theta.unbind(-1)
    return 0.5 * x**2 - 0.5 * y**2 + 0.25 * y**4


def monkey_saddle(theta: Tensor) -> Tensor:
    """x³ − 3xy² + ¼(x² + y²)²: zero Hessian at 0, three valleys of third order that end at f = −6.75."""
    x, y = theta.unbind(-1)
    return x**3 - 3 * x * y**2 + 0.25 * (x**2 + y**2) ** 2


def degenerate_valley(theta: Tensor) -> Tensor:
    """½x² − ¼y⁴ + ⅙y⁶: eigenvalues 1 and 0 at 0; a way down of fourth order, to f = −1/12 at y = ±1."""
    x, y = theta.unbind(-1)
    return 0.5 * x**2 - 0.25 * y**4 + y**6 / 6


SURFACES: dict[str, Surface] = {
    "strict_surface": Surface(
        "Strict saddle (formula)",
        "One direction curves down: distance grows by the factor 1 + ηλ at each step.",
        strict_saddle,
        ((0.0, 1.0), (1.0, 0.0)),
    ),
    "monkey_saddle": Surface(
        "Monkey saddle (formula)",
        "The Hessian is zero; three valleys leave at third order, so leaving takes a time like 1/r.",
        monkey_saddle,
        ((-1.0, 0.0), (0.0, 1.0)),
    ),
    "degenerate_valley": Surface(
        "Degenerate valley (formula)",
        "No eigenvalue is negative; the way out opens at fourth order, so leaving takes a time like 1/r².",
        degenerate_valley,
        ((0.0, 1.0), (1.0, 0.0)),
    ),
}


def surface_objective(name: str, *, n_examples: int = 64, tilt: float = 0.1, random_state: int = 0) -> Objective:
    """Make an analytic surface the mean of N tilted copies, so that minibatches of it are noisy.

    Example n is f(θ) + aₙ·θ with Σ aₙ = 0: the full objective is f itself, a minibatch adds a random slope.

    Parameters
    ----------
    name : str
        A key of `SURFACES`.
    n_examples : int, default=64
        N, even: each tilt comes with its negative, so that they cancel to the last bit.
    tilt : float, default=0.1
        Standard deviation of a tilt in each coordinate, in loss units per unit of θ.
    random_state : int, default=0
        Seed of the tilts.

    Returns
    -------
    Objective
        Of size 2.
    """
    surface = SURFACES[name]
    half = np.random.default_rng(random_state).normal(scale=tilt, size=(n_examples // 2, 2))
    tilts = torch.as_tensor(np.stack([half, -half], axis=1).reshape(-1, 2))

    def function(theta: Tensor, slopes: Tensor) -> Tensor:
        # pairs cancel exactly when they are added first, and the full objective is then f to the last bit
        mean = slopes.view(-1, 2, 2).sum(1).mean(0) if len(slopes) == n_examples else slopes.mean(0)
        return surface.value(theta) + mean @ theta

    return Objective(function, (tilts,), 2)
