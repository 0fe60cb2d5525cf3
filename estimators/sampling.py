"""Errors over examples of what is measured on a landscape, each from a few more passes and no further search.

The theory is in :mod:`estimators.core.evidence.sampling`. A room calls one function for each of its numbers and keeps
`told` of them in its result, where ``uncertainty_of(name, "sampling")`` finds them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .core.evidence.sampling import (
    SamplingError,
    excess_of_eigenvalue,
    excess_of_norm,
    part_of_examples,
    sampling_error,
    share_error,
    variance_across,
)
from .core.spectrum.trace import rademacher
from .landscape import Landscape

_TURN = 1 / 50  # of a path: how far from its highest point its bend is measured


def told(**errors: SamplingError) -> dict[str, dict[str, Any]]:
    """Give errors by the names of the fields they speak of, as a result keeps them."""
    return {name: error._asdict() for name, error in errors.items()}


def taken_as_known(land: Landscape) -> str:
    """Name what the examples share under the landscape's batch-norm policy and their errors leave out."""
    return "batch-norm statistics" if land.has_batch_norm and land.batch_norm == "recompute" else ""


def why_not(land: Landscape, *, derivatives: bool = False) -> str:
    """Say why there are no errors over these examples; "" where there are.

    Under "recompute" the losses of single examples exist, given the statistics; their derivatives do not.
    """
    dependent = ("recompute", "batch") if derivatives else ("batch",)
    if land.has_batch_norm and land.batch_norm in dependent:
        return (
            f"There is no error over examples under batch_norm={land.batch_norm!r}: its statistics make the loss of an "
            "example depend on the others. Use batch_norm='frozen' for one."
        )
    return ""


def probes_of(land: Landscape, n: int, random_state: int) -> Tensor:
    """Draw n columns of random signs, (P, n), for traces and for the directions in which a maximum may turn."""
    return rademacher(land.n_parameters, n, torch.Generator().manual_seed(random_state + 3), land.theta)


def losses_of(land: Landscape, theta: Tensor | None = None) -> np.ndarray:
    """Losses of the single examples, (N,), in float64."""
    return _numbers(land.per_example_losses(theta))


def value_errors(
    land: Landscape, loss: float, accuracy: float, theta: Tensor | None = None
) -> dict[str, SamplingError]:
    """Errors of loss, a mean, and accuracy, a share (left out where targets are no classes), at θ."""
    given = taken_as_known(land)
    errors = {"loss": sampling_error(loss, losses_of(land, theta), given=given)}
    if np.isfinite(accuracy):
        errors["accuracy"] = share_error(_numbers(land.per_example_accuracies(theta)), given=given)
    return errors


def rise_error(land: Landscape, rise: float, theta: Tensor) -> SamplingError:
    """Error of L(θ) less the loss at the landscape's own point, by the examples' own rises."""
    return sampling_error(rise, losses_of(land, theta) - losses_of(land), given=taken_as_known(land))


def gradient_norm_error(land: Landscape, gradient: Tensor, probes: Tensor) -> SamplingError:
    """Error of ‖∇L‖, by the slopes of the examples along ∇L; the norm is too large by what they vary across it."""
    n, norm = land.n_examples, float(gradient.double().norm())
    if norm == 0:
        return sampling_error(0.0, np.full(n, np.nan), bias=float("nan"))
    slopes = _numbers(land.per_example_slopes(torch.cat([(gradient / norm)[:, None], probes], dim=1)))
    bias = excess_of_norm(norm, variance_across(slopes[:, 0], slopes[:, 1:]), n)
    return _not_negative(sampling_error(norm, slopes[:, 0], bias=bias))


def eigenvalue_error(land: Landscape, values: np.ndarray, vectors: Tensor, probes: Tensor) -> SamplingError:
    """Error of the first of some Hessian eigenvalues, by the curvatures of the examples along its eigenvector.

    Parameters
    ----------
    land : Landscape
    values, vectors : ndarray of shape (m,), Tensor of shape (m, P)
        The eigenvalue and others that are known: the closer another one, the more the maximum turns towards it.
    probes : Tensor of shape (P, K)
        See `probes_of`.
    """
    others = torch.cat([vectors.T, probes.to(vectors)], dim=1)
    found = _numbers(land.per_example_curvatures(vectors[0], others))
    bias = excess_of_eigenvalue(np.asarray(values), found[:, : len(values)], found[:, len(values) :])
    return sampling_error(float(values[0]), found[:, 0], bias=bias)


def trace_error(
    land: Landscape, value: float, probes: Tensor, on_step: Callable[[], None] = lambda: None
) -> SamplingError:
    """Error of the Hessian's trace, by the examples' own traces; what the probes add to their spread is taken off.

    ``on_step`` is called before each probe and may raise to stop.
    """
    table = []
    for z in probes.T:
        on_step()
        table.append(_numbers(land.per_example_curvatures(z, z)))
    return sampling_error(value, part_of_examples(np.stack(table, axis=1)))


def largest_rise_error(
    land: Landscape, rise: float, epsilon: Tensor, probes: Tensor, *, scale: Tensor | None, euclidean: bool
) -> SamplingError:
    """Error of the largest rise found in a ball, by the rises of the examples at the place where it was found.

    Another sample would have led elsewhere: on the sphere ‖ε/T‖ = ρ the excess is tr Cov(T∇ℓᵢ)/(2Nμ) over the
    directions across ε, with the multiplier μ = ε·∇L(θ + ε)/ρ², where the loss curves less than μ; it is solved for
    the rise that the population has, as for a norm. No formula is known here for the maximum norm.

    Parameters
    ----------
    land : Landscape
    rise : float
        L(θ + ε) − L(θ).
    epsilon : Tensor of shape (P,)
    probes : Tensor of shape (P, K)
        See `probes_of`.
    scale : Tensor of shape (P,) or None
        T; None is 1.
    euclidean : bool
        Whether the ball is.
    """
    there, bias = land.theta + epsilon.to(land.theta), float("nan")
    rises = losses_of(land, there) - losses_of(land)
    own = epsilon if scale is None else torch.where(scale > 0, epsilon / scale, 0.0)
    radius = float(own.double().norm())
    if euclidean and radius > 0:
        scaled = probes if scale is None else probes * scale[:, None]
        slopes = _numbers(land.per_example_slopes(torch.cat([epsilon[:, None] / radius, scaled], dim=1), there))
        multiplier = float(slopes[:, 0].mean()) / radius
        if multiplier > 0:
            across = variance_across(slopes[:, 0], slopes[:, 1:])
            bias = excess_of_norm(rise, across * rise / multiplier, land.n_examples)
    return _not_negative(sampling_error(rise, rises, bias=bias))


def highest_point_error(
    land: Landscape, value: float, height: Callable[[float], np.ndarray], t: float
) -> SamplingError:
    """Error of the maximum of a path, by the heights of the examples where it is highest.

    Parameters
    ----------
    land : Landscape
    value : float
        The maximum.
    height : callable
        ``height(t) -> (N,)``: the examples' losses at t less what they are set against.
    t : float
        Where it is. At an end, where every sample's height is 0, nothing can be said.
    """
    n, step, given = land.n_examples, min(_TURN, t, 1 - t), taken_as_known(land)
    if step <= 0:
        return sampling_error(value, np.full(n, np.nan), bias=float("nan"), given=given)
    before, here, after = (height(at) for at in (t - step, t, t + step))
    bend = float(np.mean(2 * here - before - after)) / step**2
    slopes = (after - before) / (2 * step)
    bias = float(slopes.var()) / (2 * n * bend) if bend > 0 else float("nan")
    return _not_negative(sampling_error(value, here, bias=bias, given=given))


def _not_negative(error: SamplingError) -> SamplingError:
    """Cut the interval of a number that can't be negative in any sample; NaN stays."""
    low, high = np.maximum((error.low, error.high), 0.0).tolist()
    return error._replace(low=low, high=high)


def _numbers(values: Tensor) -> np.ndarray:
    return values.double().cpu().numpy()
