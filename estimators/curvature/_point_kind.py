"""Deciding what kind of point it is, and saying what a reader has to know."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ._result import CurvatureResult


def decided(result: CurvatureResult, ends: str) -> CurvatureResult:
    """Fill in the ends, the saddle index, the kind of point and the notes."""
    values = result.eigenvalues
    top = ends in ("both", "largest") or result.method == "exact"
    bottom = ends in ("both", "smallest") or result.method == "exact"
    bottom &= not (ends == "both" and len(values) == 1 < result.n_parameters)  # the one that fitted is the largest
    nan = float("nan")
    every = result.spectrum if len(result.spectrum) else values
    result = replace(
        result,
        lambda_max=float(every[0]) if top and len(values) else nan,
        lambda_max_residual=float(result.residuals[0]) if top and len(values) else nan,
        lambda_min=float(every[-1]) if bottom and len(values) else nan,
        lambda_min_residual=float(result.residuals[-1]) if bottom and len(values) else nan,
        saddle_index=float(result.fractions[0]),
        saddle_index_stderr=float(result.fractions_stderr[0]),
    )
    result = replace(result, point_kind=kind_of(result))
    return replace(result, notes=notes_on(result))


def kind_of(result: CurvatureResult) -> str:
    """Classify the point by its gradient norm and the signs at the two ends of the spectrum.

    A Rayleigh quotient below zero proves negative curvature even before it has converged, so a saddle is certain
    sooner than a minimum, which needs the smallest eigenvalue itself.
    """
    if result.gradient_norm > result.gradient_tol:
        return "not stationary"
    if result.matrix != "hessian" or np.isnan(result.gradient_norm):
        return "undecided"
    threshold = result.zero_threshold
    up, down = result.lambda_max >= threshold > 0, result.lambda_min <= -threshold < 0
    if up and down:
        return "saddle"
    if not (np.isfinite(result.lambda_max) and np.isfinite(result.lambda_min)):
        return "undecided"
    settled = result.converged | result.negligible
    if not (settled[0] and settled[-1]):
        return "undecided"
    if result.lambda_min >= threshold > 0:
        return "minimum"
    if result.lambda_max <= -threshold < 0:
        return "maximum"
    return "degenerate"


def notes_on(result: CurvatureResult) -> list[str]:
    """Say in sentences what the numbers alone do not."""
    notes = result.shortfall
    open_ = ~(result.converged | result.negligible)
    if open_.any():
        worst = np.max(result.residuals[open_] / np.maximum(np.abs(result.eigenvalues[open_]), 1e-300))
        notes.append(
            f"{int(open_.sum())} of {len(open_)} eigenvalues have not converged (largest relative residual "
            f"{worst:.2g}): raise max_products, or use precision='float64' if the residual no longer falls."
        )
    near = result.negligible & ~result.converged
    if near.any():
        notes.append(
            f"{int(near.sum())} of {len(near)} eigenvalues are not told apart from zero: "
            "|λ| plus residual is below tol times the largest magnitude."
        )
    if result.point_kind == "not stationary":
        drop = result.gradient_step_drop
        promise = f"; one step along it could lower the loss by about {drop:.3g}" if np.isfinite(drop) else ""
        notes.append(
            f"The gradient norm {result.gradient_norm:.3g} is above {result.gradient_tol:g}{promise}: this is not a "
            "stationary point, and negative eigenvalues here do not make it a saddle."
        )
    if result.matrix != "hessian":
        notes.append(
            f"The spectrum is that of {result.matrix}, which has no negative eigenvalues by construction: "
            "it cannot tell a minimum from a saddle."
        )
    if np.nanmax(result.fractions_bracket, initial=0.0) > 0.05:
        notes.append(
            "The fractions are loose: the quadrature cannot separate eigenvalues this close to zero. "
            "Raise n_lanczos to narrow them."
        )
    return notes
