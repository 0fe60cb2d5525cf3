"""How much the numbers of a point would change with other examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from .. import sampling
from ..core.ball.average_case import average_rise
from ..core.evidence.sampling import SamplingError
from ..landscape import Landscape
from ..pace import PRODUCT_PASSES
from ._measures import Fields, SharpnessSettings, Spend, noise_of, scale_of

_SLOPE_PASSES = 5  # cost of the examples' slopes along a vector in forward passes


def over_examples(
    land: Landscape,
    settings: SharpnessSettings,
    loss: float,
    accuracy: float,
    answers: Mapping[str, Fields],
    spend: Spend,
) -> dict[str, dict[str, Any]]:
    """Find the errors over examples of the point's own numbers and of the measures taken, as a result keeps them.

    Parameters
    ----------
    land : Landscape
    settings : SharpnessSettings
    loss, accuracy : float
        At the point.
    answers : mapping
        What each measure gave, by its name.
    spend : callable
        Is told of work done, in forward passes.
    """
    n, errors = settings.n_probes, sampling.value_errors(land, loss, accuracy)
    probes = sampling.probes_of(land, n, settings.random_state)
    spend(_SLOPE_PASSES * n)
    errors["gradient_norm"] = sampling.gradient_norm_error(land, land.gradient(), probes)
    if "sharpness" in answers:
        spend(_SLOPE_PASSES * n)
        best = answers["profile"]["_at_rho"] if "profile" in answers else answers["sharpness"]["_found"]
        ball: dict[str, Any] = {"scale": scale_of(land, settings), "euclidean": settings.norm == "l2"}
        errors["sharpness"] = sampling.largest_rise_error(land, best.rise, best.epsilon, probes, **ball)
    if "average" in answers:
        errors["average_sharpness"] = _average_error(land, settings, spend)
    if "lambda_max" in answers:
        spend(PRODUCT_PASSES * n)
        pairs = answers["lambda_max"]["_pairs"]
        errors["lambda_max"] = sampling.eigenvalue_error(land, pairs.values, pairs.vectors, probes)
    if "trace" in answers:
        value = answers["trace"]["trace"]
        errors["trace"] = sampling.trace_error(land, value, probes, lambda: spend(3 * PRODUCT_PASSES))
    return sampling.told(**errors)


def _average_error(land: Landscape, settings: SharpnessSettings, spend: Spend) -> SamplingError:
    """Error of the mean rise under noise, from the examples' own rises in the same draws."""
    at_home = sampling.losses_of(land)
    rises = []

    def loss(theta: Tensor) -> float:
        rises.append(sampling.losses_of(land, theta) - at_home)
        return float(at_home.mean() + rises[-1].mean())

    base = float(at_home.mean())
    found = average_rise(loss, land.theta, settings.sigma, base=base, **noise_of(land, settings, spend))
    return sampling.sampling_error(found.mean, np.mean(rises, axis=0))


def cost_over_examples(settings: SharpnessSettings, chosen: list[str]) -> int:
    """Forward passes that the errors of the chosen measures cost, about."""
    probes = {"sharpness": _SLOPE_PASSES, "lambda_max": PRODUCT_PASSES, "trace": 3 * PRODUCT_PASSES}
    each = _SLOPE_PASSES + sum(passes for name, passes in probes.items() if name in chosen)
    return each * settings.n_probes + settings.n_draws * ("average" in chosen)
