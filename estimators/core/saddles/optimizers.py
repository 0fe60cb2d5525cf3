"""Optimisers as pure functions on many trajectories at once, for races that start at the same points.

Each rule changes one thing against gradient descent, so that a difference has one cause: only "sgd" sees
minibatches, all others the full gradient. State and points carry the trajectories in the first dimension. The
formulas are those of `torch.optim` to the last rounding (tests compare them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Gradient = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """Numbers shared by all rules.

    Attributes
    ----------
    lr : float
        Step size η.
    adaptive_lr : float or None, default=None
        η of RMSprop and Adam; None takes `lr`.
    momentum : float, default=0.9
        μ of momentum and Nesterov.
    betas : tuple of float, default=(0.9, 0.999)
        Adam's averages; RMSprop uses 0.99 as torch does.
    eps : float, default=1e-8
        Added to the root of the second moment.
    large : float, default=10
        Factor on η of the large step.
    noise_radius : float, default=1e-2
        Radius of the ball that perturbed gradient descent draws from, in units of ‖θ‖.
    noise_threshold : float, default=1e-3
        It draws when the gradient norm is at most this,
    noise_wait : int, default=50
        and this many steps have passed since the last draw (Jin et al. 2017).
    rho : float, default=0.05
        SAM's radius, in units of ‖θ‖ (Foret et al. 2021).
    """

    lr: float
    adaptive_lr: float | None = None
    momentum: float = 0.9
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    large: float = 10.0
    noise_radius: float = 1e-2
    noise_threshold: float = 1e-3
    noise_wait: int = 50
    rho: float = 0.05

    @property
    def scaled_lr(self) -> float:
        """η of the rules that divide by a running scale of the gradient."""
        return self.lr if self.adaptive_lr is None else self.adaptive_lr


State = dict[str, Tensor]
# (points, gradient, state, settings, step counted from 1, draw of one unit-ball point a row) → new points
Step = Callable[[Tensor, Gradient, State, Settings, int, Callable[[], Tensor]], Tensor]


def gd(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """θ − η g."""
    return theta - s.lr * gradient(theta)


def large_step(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """θ − `large`·η g."""
    return theta - s.large * s.lr * gradient(theta)


def momentum(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """Heavy ball: b ← μ b + g, θ − η b (Polyak 1964)."""
    state["b"] = s.momentum * state["b"] + gradient(theta)
    return theta - s.lr * state["b"]


def nesterov(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """Take the gradient with the push ahead: b ← μ b + g, θ − η (g + μ b)."""
    g = gradient(theta)
    state["b"] = s.momentum * state["b"] + g
    return theta - s.lr * (g + s.momentum * state["b"])


def rmsprop(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """Divide by a running root mean square: v ← 0.99 v + 0.01 g², θ − η g / (√v + ε)."""
    g = gradient(theta)
    state["v"] = 0.99 * state["v"] + 0.01 * g * g
    return theta - s.scaled_lr * g / (state["v"].sqrt() + s.eps)


def adam(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """Adam with bias correction (Kingma & Ba 2015)."""
    g = gradient(theta)
    first, second = s.betas
    state["b"] = first * state["b"] + (1 - first) * g
    state["v"] = second * state["v"] + (1 - second) * g * g
    scale = (state["v"] / (1 - second**t)).sqrt() + s.eps
    return theta - s.scaled_lr * (state["b"] / (1 - first**t)) / scale


def perturbed_gd(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """Gradient descent that adds a draw from a ball where the gradient is small (Jin et al. 2017)."""
    g = gradient(theta)
    quiet = (g.norm(dim=1) <= s.noise_threshold) & (t - state["last"][:, 0] > s.noise_wait)
    draw = ball()
    state["last"] = torch.where(quiet[:, None], float(t), state["last"])
    kicked = theta + torch.where(quiet[:, None], s.noise_radius * draw, 0.0)
    if quiet.any():
        g = torch.where(quiet[:, None], gradient(kicked), g)
    return kicked - s.lr * g


def sam(theta: Tensor, gradient: Gradient, state: State, s: Settings, t: int, ball: Callable) -> Tensor:
    """Gradient descent on the gradient taken ρ uphill (Foret et al. 2021)."""
    g = gradient(theta)
    uphill = s.rho * g / (g.norm(dim=1, keepdim=True) + 1e-12)
    return theta - s.lr * gradient(theta + uphill)


def _gd_growth(s: Settings, curvature: float) -> np.ndarray:
    return np.array([[1 - s.lr * curvature]])


def _large_growth(s: Settings, curvature: float) -> np.ndarray:
    return np.array([[1 - s.large * s.lr * curvature]])


def _momentum_growth(s: Settings, curvature: float) -> np.ndarray:
    eta, mu, c = s.lr, s.momentum, curvature
    return np.array([[1 - eta * c, -eta * mu], [c, mu]])


def _nesterov_growth(s: Settings, curvature: float) -> np.ndarray:
    eta, mu, c = s.lr, s.momentum, curvature
    return np.array([[1 - eta * c - eta * mu * c, -eta * mu * mu], [c, mu]])


@dataclass(frozen=True)
class Rule:
    """An entry of the registry.

    Attributes
    ----------
    title : str
        What people call it.
    step : callable
        The update; its docstring is the formula.
    minibatch : bool
        Whether its gradients come from minibatches.
    state : tuple of str
        Names of the tensors of the points' shape it carries, 0 at the start.
    growth : callable or None
        `(settings, curvature)` → matrix of one step along an eigenvector of the Hessian, for the theory;
        None where the rule is not linear there.
    """

    title: str
    step: Step
    minibatch: bool = False
    state: tuple[str, ...] = ()
    growth: Callable[[Settings, float], np.ndarray] | None = None


OPTIMIZERS: dict[str, Rule] = {
    "gd": Rule("GD", gd, growth=_gd_growth),
    "sgd": Rule("SGD", gd, minibatch=True),
    "momentum": Rule("Momentum", momentum, state=("b",), growth=_momentum_growth),
    "nesterov": Rule("Nesterov", nesterov, state=("b",), growth=_nesterov_growth),
    "rmsprop": Rule("RMSprop", rmsprop, state=("v",)),
    "adam": Rule("Adam", adam, state=("b", "v")),
    "large_step": Rule("Large step", large_step, growth=_large_growth),
    "perturbed_gd": Rule("Injected noise", perturbed_gd, state=("last",)),
    "sam": Rule("SAM", sam),
}
