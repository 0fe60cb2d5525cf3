"""The measures of sharpness, one function each, and the table `MEASURES` that names them.

A measure takes a landscape and `SharpnessSettings`, and returns fields of a `SharpnessResult`. A new one is one
function here and one entry in `MEASURES`; the app reads that table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from torch import Tensor

from ..checks import check_sketch_fits
from ..core.ball.ascent import adaptive_scale, ascend, m_sharpness, rise_profile
from ..core.ball.ascent_starts import EIGENVECTOR_GRADIENTS, shared_budget
from ..core.ball.average_case import average_rise, filter_scale, noise_profile
from ..core.ball.pac_bayes import SIGMA_GRID, doubt_prior, pac_bayes_bound
from ..core.spectrum.lanczos import lanczos_eigenpairs, usual_products
from ..core.spectrum.trace import hutchpp
from ..landscape import Landscape
from ..pace import GRADIENT_PASSES, PRODUCT_PASSES, Work

PROFILE_FACTORS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0)

Fields = dict[str, Any]
Spend = Callable[[float], None]  # is told of work done, in forward passes, and may raise `Cancelled`


def _unnoticed(passes: float) -> None:
    """Tell nobody."""


@dataclass(kw_only=True, eq=False, repr=False)
class SharpnessSettings:
    """How the measures are taken: `SharpnessEstimator`, which has these fields, says what each means."""

    rho: float = 0.05
    norm: str = "l2"
    adaptive: bool = False
    n_steps: int = 30
    n_restarts: int = 10
    sigma: float = 0.01
    noise: str = "plain"
    n_draws: int = 32
    m: int = 128
    profile_radii: tuple[float, ...] | None = None
    n_lanczos: int = 80
    tol: float = 1e-3
    n_probes: int = 10
    delta: float = 0.05
    n_posterior_draws: int = 64
    random_state: int = 0

    def only(self, names: tuple[str, ...]) -> SharpnessSettings:
        """Keep the named settings and take the others away: what is not in a measure's key can't change its value."""
        return replace(self, **{f.name: None for f in fields(self) if f.name not in names})  # type: ignore[arg-type]


def scale_of(land: Landscape, settings: SharpnessSettings) -> Tensor | None:
    """Elementwise scaling of the ball: |θ| when adaptive."""
    return adaptive_scale(land.theta) if settings.adaptive else None


def _ball(land: Landscape, settings: SharpnessSettings, spend: Spend) -> dict[str, Any]:
    """Keyword arguments every ascent takes."""
    return {
        "norm": settings.norm,
        "scale": scale_of(land, settings),
        "random_state": settings.random_state,
        "on_step": lambda: spend(GRADIENT_PASSES),
    }


def _counted(land: Landscape, spend: Spend) -> Callable[[Tensor], Tensor]:
    """Hessian-vector product, counted."""

    def product(v: Tensor) -> Tensor:
        spend(PRODUCT_PASSES * (1 if v.dim() == 1 else v.shape[1]))
        return land.hvp(v)

    return product


def profile_radii(settings: SharpnessSettings) -> list[float]:
    """Radii of the profile in increasing order: those asked for, and ρ itself."""
    asked = settings.profile_radii
    radii = [settings.rho * f for f in PROFILE_FACTORS] if asked is None else list(asked)
    return sorted({float(r) for r in radii} | {float(settings.rho)})


def profile_sigmas(settings: SharpnessSettings) -> list[float]:
    """Noise levels of the profile: σ times the same factors."""
    return [float(settings.sigma) * f for f in PROFILE_FACTORS]


def worst_case(land: Landscape, settings: SharpnessSettings, spend: Spend = _unnoticed) -> Fields:
    """Largest rise found inside the ball, the single SAM step, and the first-order rise ρ‖Tg‖ beside them."""
    loss, gradient = land.loss_and_gradient()
    found = ascend(
        land.loss_and_gradient,
        land.theta,
        settings.rho,
        n_steps=settings.n_steps,
        n_restarts=settings.n_restarts,
        origin=(loss, gradient),
        **_ball(land, settings, spend),
    )
    scale = scale_of(land, settings)
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
        "_found": found,
    }


def _profile_steps(settings: SharpnessSettings) -> int:
    """Gradients for each radius of a profile: it starts from its neighbour's answer, so a quarter of them do."""
    return max(5, settings.n_steps // 4)


def profile(
    land: Landscape,
    settings: SharpnessSettings,
    spend: Spend = _unnoticed,
    *,
    at_rho: Callable[[], Fields] | None = None,
) -> Fields:
    """Loss rise against the radius (worst case, one step) and against σ (average)."""
    found = at_rho() if at_rho is not None else worst_case(land, settings, spend)
    rises = rise_profile(
        land.loss_and_gradient,
        land.theta,
        profile_radii(settings),
        known=[found["_found"]],
        n_steps=_profile_steps(settings),
        **_ball(land, settings, spend),
    )
    noise = noise_profile(land.loss, land.theta, profile_sigmas(settings), **noise_of(land, settings, spend))
    inside = [a for a in rises if a.rho <= settings.rho * (1 + 1e-12)]
    return {
        "_at_rho": max(inside, key=lambda a: a.rise),
        "profile_radius": np.array([a.rho for a in rises]),
        "profile_rise": np.array([a.rise for a in rises]),
        "profile_one_step": np.array([a.one_step for a in rises]),
        "noise_sigma": np.array([a.sigma for a in noise]),
        "noise_average": np.array([a.mean for a in noise]),
        "noise_stderr": np.array([a.stderr for a in noise]),
        "noise_low": np.array([a.low for a in noise]),
        "noise_high": np.array([a.high for a in noise]),
    }


def batch_wise(land: Landscape, settings: SharpnessSettings, spend: Spend = _unnoticed) -> Fields:
    """m-sharpness: mean over disjoint batches of m examples of that batch's own largest rise."""
    size = min(int(settings.m), land.n_examples)
    # Fixed order and whole batches only: a short last one would have another m.
    starts = range(0, land.n_examples - size + 1, size)
    share = GRADIENT_PASSES * size / land.n_examples
    data = land.data

    def batch(start: int) -> Callable[[Tensor], tuple[float, Tensor]]:
        part = land.on(data.take(slice(start, start + size)))
        return part.loss_and_gradient

    arguments = {**_ball(land, settings, spend), "n_steps": settings.n_steps, "on_step": lambda: spend(share)}
    mean, stderr, rises = m_sharpness([batch(start) for start in starts], land.theta, settings.rho, **arguments)
    return {"m_sharpness": mean, "m_sharpness_stderr": stderr, "m_rises": rises}


def noise_of(land: Landscape, settings: SharpnessSettings, spend: Spend) -> dict[str, Any]:
    scale = filter_scale(land.theta, land.shapes, land.names) if settings.noise == "filter" else None
    return {
        "n_draws": settings.n_draws,
        "scale": scale,
        "random_state": settings.random_state,
        "on_step": lambda: spend(1),
    }


def average_case(land: Landscape, settings: SharpnessSettings, spend: Spend = _unnoticed) -> Fields:
    """Mean rise under Gaussian weight noise, with its standard error and 95 % interval."""
    found = average_rise(land.loss, land.theta, settings.sigma, **noise_of(land, settings, spend))
    return {
        "average_sharpness": found.mean,
        "average_sharpness_stderr": found.stderr,
        "average_sharpness_low": found.low,
        "average_sharpness_high": found.high,
        "average_rises": found.rises,
    }


def lambda_max(
    land: Landscape,
    settings: SharpnessSettings,
    spend: Spend = _unnoticed,
    *,
    enough: Callable[[int], bool] | None = None,
) -> Fields:
    """Largest eigenvalue of the Hessian with its residual; of T H T as well when the ball is scaled by T."""
    product = _counted(land, spend)

    def largest(product: Callable[[Tensor], Tensor]) -> Any:
        return lanczos_eigenpairs(
            product,
            land.n_parameters,
            1,
            ends="largest",
            tol=settings.tol,
            max_products=settings.n_lanczos,
            random_state=settings.random_state,
            like=land.theta,
            enough=enough,
        )

    plain = largest(product)
    converged = bool(plain.settled[0])
    answer: dict[str, Any] = {
        "lambda_max": float(plain.values[0]),
        "lambda_max_residual": float(plain.residuals[0]),
        "lambda_max_converged": converged,
        "n_products": int(plain.n_products),
        "_pairs": plain,
    }
    scale, scaled = scale_of(land, settings), answer["lambda_max"]
    if scale is not None:
        found = largest(lambda v: _rows(scale, v) * product(_rows(scale, v) * v))
        scaled = float(found.values[0])
        converged = bool(found.settled[0])
        answer["n_products"] += int(found.n_products)
    answer["lambda_max_scaled"], answer["lambda_max_scaled_converged"] = scaled, converged
    # Only for the Euclidean ball is the largest rise of the quadratic ρ²λ/2.
    answer["quadratic_rise"] = settings.rho**2 * max(scaled, 0.0) / 2 if settings.norm == "l2" else float("nan")
    return answer


def _rows(scale: Tensor, v: Tensor) -> Tensor:
    return scale if v.dim() == 1 else scale[:, None]


def trace(land: Landscape, settings: SharpnessSettings, spend: Spend = _unnoticed) -> Fields:
    """Trace of the Hessian by Hutch++ with its standard error, and σ²·tr(H)/2 for plain noise."""
    check_sketch_fits(land.theta, settings.n_probes)
    found = hutchpp(
        _counted(land, spend),
        land.n_parameters,
        n_probes=settings.n_probes,
        random_state=settings.random_state,
        like=land.theta,
    )
    half = settings.sigma**2 / 2 if settings.noise == "plain" else float("nan")
    return {"trace": found.value, "trace_stderr": found.stderr, "quadratic_average": half * found.value}


def pac_bayes(
    land: Landscape,
    settings: SharpnessSettings,
    spend: Spend = _unnoticed,
    *,
    prior: Tensor | None = None,
    prior_doubt: str = "",
) -> Fields:
    """McAllester-type bound on the error of the network under noise, with σ searched on a fixed grid.

    Where the prior knows the examples there is no bound: ``pac_bayes_bound`` is NaN, and the parts say why.
    """
    if not np.isfinite(land.accuracy()):
        return {}  # targets that are no classes have no 0-1 error to bound
    doubt = "" if prior is None else prior_doubt or doubt_prior(land.accuracy(prior), land.data.targets)
    found = pac_bayes_bound(
        lambda theta: 1.0 - land.accuracy(theta),
        land.theta,
        prior,
        land.n_examples,
        delta=settings.delta,
        n_draws=settings.n_posterior_draws,
        random_state=settings.random_state,
        on_step=lambda: spend(1),
    )
    parts = {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in asdict(found).items()}
    return {
        "pac_bayes_bound": float("nan") if doubt else found.bound,
        "sigma_tolerated": found.sigma_tolerated,
        "pac_bayes": {
            **parts,
            "prior": "zero" if prior is None else "initial weights",
            "prior_doubt": doubt,
            "uncharged": "batch-norm statistics" if land.has_batch_norm else "",
        },
    }


@dataclass(frozen=True)
class Measure:
    """One measure: how it is computed, which settings change its value, what it costs, what it adds.

    Attributes
    ----------
    compute : callable
        ``compute(land, settings, spend) -> dict`` of result fields.
    settings : tuple of str
        Settings that change the value; they and the landscape make up its cache key.
    cost : callable
        ``cost(settings) -> Work``, about.
    columns : tuple of str
        Result fields that become columns of the table.
    """

    compute: Callable[..., Fields]
    settings: tuple[str, ...]
    cost: Callable[[SharpnessSettings], Work]
    columns: tuple[str, ...]


_BALL = ("rho", "norm", "adaptive", "n_steps", "random_state")
_NOISE = ("sigma", "noise", "n_draws", "random_state")


def _ascent_cost(settings: SharpnessSettings) -> Work:
    starts = settings.n_restarts
    climbs = sum(count * (steps + 2) for count, steps in shared_budget(starts, settings.n_steps))
    return Work(gradients=climbs + (EIGENVECTOR_GRADIENTS if starts > 1 else 0))


def _profile_cost(settings: SharpnessSettings) -> Work:
    climbs = max(2 * len(profile_radii(settings)) - 3, 1)
    draws = len(PROFILE_FACTORS) * settings.n_draws
    return Work(evaluations=draws, gradients=climbs * (_profile_steps(settings) + 2))


MEASURES: dict[str, Measure] = {
    "sharpness": Measure(worst_case, (*_BALL, "n_restarts"), _ascent_cost, ("sharpness", "one_step")),
    "average": Measure(average_case, _NOISE, lambda s: Work(evaluations=s.n_draws), ("average_sharpness",)),
    "lambda_max": Measure(
        lambda_max,
        ("rho", "norm", "adaptive", "tol", "n_lanczos", "random_state"),
        lambda s: Work(products=min(s.n_lanczos, usual_products(1, "largest")) * (2 if s.adaptive else 1)),
        ("lambda_max", "quadratic_rise"),
    ),
    "trace": Measure(
        trace,
        ("n_probes", "sigma", "noise", "random_state"),
        lambda s: Work(products=3 * s.n_probes),
        ("trace",),
    ),
    "m_sharpness": Measure(batch_wise, (*_BALL, "m"), lambda s: Work(gradients=s.n_steps + 2), ("m_sharpness",)),
    "pac_bayes": Measure(
        pac_bayes,
        ("delta", "n_posterior_draws", "random_state"),
        lambda s: Work(evaluations=1 + 4 * len(SIGMA_GRID) + s.n_posterior_draws),
        ("pac_bayes_bound", "sigma_tolerated"),
    ),
    "profile": Measure(profile, (*_BALL, "n_restarts", *_NOISE, "profile_radii"), _profile_cost, ()),
}


def taken_for(names: list[str]) -> list[str]:
    """List the measures that are taken for some: a profile starts from the worst case."""
    return [name for name in MEASURES if name in names or (name == "sharpness" and "profile" in names)]


# the least of each count at which a measure still says something
_LEAST = {"n_restarts": 1, "n_steps": 3, "n_draws": 4, "n_probes": 2, "n_posterior_draws": 16, "n_lanczos": 6}


def fewest(settings: SharpnessSettings) -> SharpnessSettings:
    """Lower all counts as far as a measure still says something."""
    return replace(settings, **{name: min(getattr(settings, name), least) for name, least in _LEAST.items()})


def lowered(measure: Measure, settings: SharpnessSettings, pace: Work, seconds: float) -> SharpnessSettings | None:
    """Lower draws, probes, starts and steps until a measure takes so many seconds; None where the fewest take more."""
    for factor in np.linspace(1.0, 0.0, 101):
        counts = {name: getattr(settings, name) for name in _LEAST}
        counts = {name: max(min(count, _LEAST[name]), round(factor * count)) for name, count in counts.items()}
        fewer = replace(settings, **counts)
        if measure.cost(fewer).seconds(pace) <= seconds:
            return fewer
    return None
