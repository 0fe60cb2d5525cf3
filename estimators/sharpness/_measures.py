"""The measures of sharpness, one function each, and the table `MEASURES` that names them.

A measure takes a `Probe` (a landscape with the estimator's settings) and returns fields of a
`SharpnessResult`. A new one is one function here and one entry in `MEASURES`; the app reads that table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_sketch_fits
from ..core.ball.ascent import Ascent, adaptive_scale, ascend, m_sharpness, rise_profile
from ..core.ball.ascent_starts import EIGENVECTOR_GRADIENTS, shared_budget
from ..core.ball.average_case import average_rise, filter_scale, noise_profile
from ..core.ball.pac_bayes import SIGMA_GRID, doubt_prior, pac_bayes_bound
from ..core.spectrum.lanczos import lanczos_eigenpairs
from ..core.spectrum.trace import hutchpp
from ..landscape import Landscape

PROFILE_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
GRADIENT_PASSES, PRODUCT_PASSES = (
    3,
    10,
)  # cost of a gradient and of a Hessian-vector product in forward passes


@dataclass
class Probe:
    """One landscape, the settings of the measures, and where progress goes.

    Attributes
    ----------
    land : Landscape
    options : mapping
        The estimator's parameters by name.
    prior : Tensor of shape (P,) or None
        Mean of the PAC-Bayes prior; None is 0.
    spend : callable
        ``spend(passes)`` reports work in forward passes and may raise `Cancelled`.
    other : callable
        ``other(name)`` gives the answer of another measure, from the cache where it is known.
    prior_doubt : str
        Why the weights of the prior are not free of the examples, where their history says so.
    """

    land: Landscape
    options: Mapping[str, Any]
    prior: Tensor | None
    spend: Callable[[int], None]
    other: Callable[[str], dict[str, Any]]
    prior_doubt: str = ""

    def scale(self) -> Tensor | None:
        """Elementwise scaling of the ball: |θ| when adaptive."""
        return adaptive_scale(self.land.theta) if self.options["adaptive"] else None

    def ascent_options(self) -> dict[str, Any]:
        """Keyword arguments every ascent of this probe takes."""
        return {
            "norm": self.options["norm"],
            "scale": self.scale(),
            "random_state": self.options["random_state"],
            "on_step": lambda: self.spend(GRADIENT_PASSES),
        }

    def product(self, v: Tensor) -> Tensor:
        """Hessian-vector product, counted."""
        self.spend(PRODUCT_PASSES * (1 if v.dim() == 1 else v.shape[1]))
        return self.land.hvp(v)


def profile_radii(options: Mapping[str, Any]) -> list[float]:
    """Radii of the profile in increasing order: those asked for, and ρ itself."""
    asked = options["profile_radii"]
    radii = [options["rho"] * f for f in PROFILE_FACTORS] if asked is None else list(asked)
    return sorted({float(r) for r in radii} | {float(options["rho"])})


def profile_sigmas(options: Mapping[str, Any]) -> list[float]:
    """Noise levels of the profile: σ times the same factors."""
    return [float(options["sigma"]) * f for f in PROFILE_FACTORS]


def worst_case(probe: Probe) -> dict[str, Any]:
    """Largest rise found inside the ball, the single SAM step, and the first-order rise ρ‖Tg‖ beside them."""
    land, options = probe.land, probe.options
    loss, gradient = land.loss_and_gradient()
    found = ascend(
        land.loss_and_gradient,
        land.theta,
        options["rho"],
        n_steps=options["n_steps"],
        n_restarts=options["n_restarts"],
        origin=(loss, gradient),
        **probe.ascent_options(),
    )
    scale = probe.scale()
    return {
        "scaled_gradient_norm": float((gradient if scale is None else gradient * scale).double().norm()),
        "sharpness": found.rise,
        "one_step": found.one_step,
        "restarts": np.array(found.restarts),
        "restart_kinds": list(found.kinds),
        "restart_spread": found.spread,
        "lone_start": found.lone,
        "constant": found.constant,
        "n_gradients": found.n_gradients,
        "n_nonfinite": found.n_nonfinite,
        "_epsilon": found.epsilon.cpu().numpy(),
    }


def _profile_steps(options: Mapping[str, Any]) -> int:
    """Gradients for each radius of a profile: it starts from its neighbour's answer, so a quarter of them do."""
    return max(5, options["n_steps"] // 4)


def profile(probe: Probe) -> dict[str, Any]:
    """Loss rise against the radius (worst case, one step) and against σ (average)."""
    land, options = probe.land, probe.options
    at_rho = probe.other("sharpness")
    known = Ascent(
        rho=float(options["rho"]),
        rise=at_rho["sharpness"],
        one_step=at_rho["one_step"],
        epsilon=torch.as_tensor(at_rho["_epsilon"]).to(land.theta),
        restarts=tuple(at_rho["restarts"]),
        n_gradients=0,
        n_nonfinite=0,
    )
    rises = rise_profile(
        land.loss_and_gradient,
        land.theta,
        profile_radii(options),
        known=[known],
        n_steps=_profile_steps(options),
        **probe.ascent_options(),
    )
    noise = noise_profile(land.loss, land.theta, profile_sigmas(options), **_noise_options(probe))
    return {
        "profile_radius": np.array([a.rho for a in rises]),
        "profile_rise": np.array([a.rise for a in rises]),
        "profile_one_step": np.array([a.one_step for a in rises]),
        "noise_sigma": np.array([a.sigma for a in noise]),
        "noise_average": np.array([a.mean for a in noise]),
        "noise_stderr": np.array([a.stderr for a in noise]),
        "noise_low": np.array([a.low for a in noise]),
        "noise_high": np.array([a.high for a in noise]),
    }


def batch_wise(probe: Probe) -> dict[str, Any]:
    """m-sharpness: mean over disjoint batches of m examples of that batch's own largest rise."""
    land, options = probe.land, probe.options
    size = min(int(options["m"]), land.n_examples)
    # Fixed order and whole batches only: a short last one would have another m.
    starts = range(0, land.n_examples - size + 1, size)
    share = GRADIENT_PASSES * size / land.n_examples
    owed = 0.0

    def step() -> None:
        nonlocal owed
        owed += share
        probe.spend(int(owed))
        owed -= int(owed)

    data = land.data

    def batch(start: int) -> Callable[[Tensor], tuple[float, Tensor]]:
        part = land.on((data.inputs[start : start + size], data.targets[start : start + size]))
        return part.loss_and_gradient

    arguments = {**probe.ascent_options(), "on_step": step}
    mean, stderr, rises = m_sharpness(
        [batch(start) for start in starts],
        land.theta,
        options["rho"],
        n_steps=options["n_steps"],
        **arguments,
    )
    return {"m_sharpness": mean, "m_sharpness_stderr": stderr, "m_rises": rises}


def _noise_options(probe: Probe) -> dict[str, Any]:
    land, options = probe.land, probe.options
    scale = filter_scale(land.theta, land.shapes, land.names) if options["noise"] == "filter" else None
    return {
        "n_draws": options["n_draws"],
        "scale": scale,
        "random_state": options["random_state"],
        "on_step": lambda: probe.spend(1),
    }


def average_case(probe: Probe) -> dict[str, Any]:
    """Mean rise under Gaussian weight noise, with its standard error and 95 % interval."""
    land = probe.land
    found = average_rise(land.loss, land.theta, probe.options["sigma"], **_noise_options(probe))
    return {
        "average_sharpness": found.mean,
        "average_sharpness_stderr": found.stderr,
        "average_sharpness_low": found.low,
        "average_sharpness_high": found.high,
        "average_rises": found.rises,
    }


def lambda_max(probe: Probe) -> dict[str, Any]:
    """Largest eigenvalue of the Hessian with its residual; of T H T as well when the ball is scaled by T."""
    land, options = probe.land, probe.options

    def largest(product: Callable[[Tensor], Tensor]) -> Any:
        return lanczos_eigenpairs(
            product,
            land.n_parameters,
            1,
            ends="largest",
            tol=options["tol"],
            max_products=options["n_lanczos"],
            random_state=options["random_state"],
            like=land.theta,
        )

    plain = largest(probe.product)
    answer: dict[str, Any] = {
        "lambda_max": float(plain.values[0]),
        "lambda_max_residual": float(plain.residuals[0]),
        "lambda_max_converged": bool(plain.converged[0] or plain.negligible[0]),
        "n_products": int(plain.n_products),
    }
    scale, scaled = probe.scale(), answer["lambda_max"]
    if scale is not None:
        found = largest(lambda v: _rows(scale, v) * probe.product(_rows(scale, v) * v))
        scaled = float(found.values[0])
        answer["n_products"] += int(found.n_products)
    answer["lambda_max_scaled"] = scaled
    # Only for the Euclidean ball is the largest rise of the quadratic ρ²λ/2.
    answer["quadratic_rise"] = options["rho"] ** 2 * max(scaled, 0.0) / 2 if options["norm"] == "l2" else float("nan")
    return answer


def _rows(scale: Tensor, v: Tensor) -> Tensor:
    return scale if v.dim() == 1 else scale[:, None]


def trace(probe: Probe) -> dict[str, Any]:
    """Trace of the Hessian by Hutch++ with its standard error, and σ²·tr(H)/2 for plain noise."""
    land, options = probe.land, probe.options
    check_sketch_fits(land.theta, options["n_probes"])
    found = hutchpp(
        probe.product,
        land.n_parameters,
        n_probes=options["n_probes"],
        random_state=options["random_state"],
        like=land.theta,
    )
    half = options["sigma"] ** 2 / 2 if options["noise"] == "plain" else float("nan")
    return {"trace": found.value, "trace_stderr": found.stderr, "quadratic_average": half * found.value}


def pac_bayes(probe: Probe) -> dict[str, Any]:
    """McAllester-type bound on the error of the network under noise, with σ searched on a fixed grid.

    Where the prior knows the examples there is no bound: ``pac_bayes_bound`` is NaN, and the parts say why.
    """
    land, options = probe.land, probe.options
    if not np.isfinite(land.accuracy()):
        return {}  # targets that are no classes have no 0-1 error to bound
    doubt = (
        "" if probe.prior is None else probe.prior_doubt or doubt_prior(land.accuracy(probe.prior), land.data.targets)
    )
    found = pac_bayes_bound(
        lambda theta: 1.0 - land.accuracy(theta),
        land.theta,
        probe.prior,
        land.n_examples,
        delta=options["delta"],
        n_draws=options["n_posterior_draws"],
        random_state=options["random_state"],
        on_step=lambda: probe.spend(1),
    )
    names = [
        "bound",
        "bound_kl",
        "vacuous",
        "sigma",
        "kl",
        "error",
        "error_upper",
        "delta",
        "n_examples",
        "n_draws",
        "distance",
    ]
    names += ["sigma_tolerated", "tolerated"]
    return {
        "pac_bayes_bound": float("nan") if doubt else found.bound,
        "sigma_tolerated": found.sigma_tolerated,
        "pac_bayes": {
            **{name: getattr(found, name) for name in names},
            "prior": "zero" if probe.prior is None else "initial weights",
            "prior_doubt": doubt,
            "uncharged": "batch-norm statistics" if land.has_batch_norm else "",
            "grid": found.grid.tolist(),
            "grid_errors": found.grid_errors.tolist(),
            "grid_bounds": found.grid_bounds.tolist(),
        },
    }


@dataclass(frozen=True)
class Measure:
    """One measure: how it is computed, which parameters change its value, what it costs, what it adds.

    Attributes
    ----------
    compute : callable
        ``compute(probe) -> dict`` of result fields.
    options : tuple of str
        Parameters that change the value; they and the landscape make up its cache key.
    cost : callable
        ``cost(options) -> `` forward passes over all examples, about.
    columns : tuple of str
        Result fields that become columns of the table.
    """

    compute: Callable[[Probe], dict[str, Any]]
    options: tuple[str, ...]
    cost: Callable[[Mapping[str, Any]], int]
    columns: tuple[str, ...]


_BALL = ("rho", "norm", "adaptive", "n_steps", "random_state")
_NOISE = ("sigma", "noise", "n_draws", "random_state")


def _ascent_cost(options: Mapping[str, Any]) -> int:
    starts = options["n_restarts"]
    climbs = sum(count * (steps + 2) for count, steps in shared_budget(starts, options["n_steps"]))
    return GRADIENT_PASSES * (climbs + (EIGENVECTOR_GRADIENTS if starts > 1 else 0))


def _profile_cost(options: Mapping[str, Any]) -> int:
    climbs = 2 * len(profile_radii(options)) - 3
    draws = len(PROFILE_FACTORS) * options["n_draws"]
    return GRADIENT_PASSES * max(climbs, 1) * (_profile_steps(options) + 2) + draws


MEASURES: dict[str, Measure] = {
    "sharpness": Measure(worst_case, (*_BALL, "n_restarts"), _ascent_cost, ("sharpness", "one_step")),
    "average": Measure(average_case, _NOISE, lambda o: o["n_draws"], ("average_sharpness",)),
    "lambda_max": Measure(
        lambda_max,
        ("rho", "norm", "adaptive", "tol", "n_lanczos", "random_state"),
        lambda o: PRODUCT_PASSES * min(o["n_lanczos"], 40) * (2 if o["adaptive"] else 1),
        ("lambda_max", "quadratic_rise"),
    ),
    "trace": Measure(
        trace,
        ("n_probes", "sigma", "noise", "random_state"),
        lambda o: PRODUCT_PASSES * 3 * o["n_probes"],
        ("trace",),
    ),
    "m_sharpness": Measure(batch_wise, (*_BALL, "m"), lambda o: GRADIENT_PASSES * (o["n_steps"] + 2), ("m_sharpness",)),
    "pac_bayes": Measure(
        pac_bayes,
        ("delta", "n_posterior_draws", "random_state"),
        lambda o: 1 + 4 * len(SIGMA_GRID) + o["n_posterior_draws"],
        ("pac_bayes_bound", "sigma_tolerated"),
    ),
    "profile": Measure(profile, (*_BALL, "n_restarts", *_NOISE, "profile_radii"), _profile_cost, ()),
}
