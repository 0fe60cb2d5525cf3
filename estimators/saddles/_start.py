"""Where a race of optimisers begins: the saddle, the objective around it, and what is known about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.network.evaluation import logits
from ..core.network.fields import in_precision, spread_at_the_door
from ..core.network.operations import PlainOperations
from ..core.network.probes import copy_input
from ..core.network.products import double_backward
from ..core.saddles.critical import CriticalPoint, find_critical_points, kinks, signature
from ..core.saddles.critical_krylov import follow_with_lanczos
from ..core.saddles.objectives import Objective, network_objective
from ..core.saddles.saddles import hidden_units, removed_outputs, settle
from ..core.saddles.test_functions import SURFACES, surface_objective
from ..core.spectrum.lanczos import lanczos_eigenpairs
from ..landscape import Landscape

OnStep = Callable[[int, int], None]
DENSE_LIMIT = 500  # parameters up to which Hessians are made whole
STATIONARY = 1e-9  # gradient norm of a point that may be called a saddle, exact search
STATIONARY_LARGE = 1e-4  # the same for networks whose Hessian is only known by products


@dataclass(frozen=True)
class Saddle:
    """A stationary point to leave.

    Attributes
    ----------
    objective : Objective
        Over the coordinates that move.
    centre : Tensor of shape (k,)
        The point, in those coordinates.
    axes : Tensor of shape (2, k)
        Unit vectors: the most negative mode (or the known way out), and the most positive one.
    curvature : float
        Eigenvalue of the first axis; NaN where no eigenvalue is negative.
    info : dict
        What is reported: kind, found, loss, gradient_norm, index, eigenvalues, ...
    """

    objective: Objective
    centre: Tensor
    axes: Tensor
    curvature: float
    info: dict[str, Any]


def landscape_objective(land: Landscape, l2: float = 0.0) -> Objective:
    """Turn a landscape into an objective that evaluates many points at once.

    Parameters
    ----------
    land : Landscape
        With frozen batch norm.
    l2 : float, default=0
        Adds `l2`/2 · ‖θ‖².

    Returns
    -------
    Objective
    """
    module = land.model_at().to(land.device, land.dtype).eval()
    if land.changes_input:
        copy_input(module)
    spread_at_the_door(module)
    inputs, targets = (in_precision(t.to(land.device), land.dtype) for t in (land.data.fields, land.data.targets))
    return network_objective(module, land.names, land.shapes, inputs, targets, land.loss_function, l2)


def check_smooth(objective: Objective, theta: Tensor) -> None:
    """Raise when the objective has kinks, which an exact search cannot handle.

    Raises
    ------
    ValueError
        Naming the operations and what to use instead.
    """
    found = kinks(lambda: objective(theta))
    if found:
        raise ValueError(
            f"model must be smooth for the exact search of critical points, got the operations {', '.join(found)}. "
            "Use activations such as Tanh, GELU, SiLU or Softplus and average pooling, or saddle='embedding' or "
            "'origin', which need no search."
        )


def analytic_saddle(name: str, random_state: int) -> Saddle:
    """Give a surface with a formula and its stationary point at 0."""
    objective = surface_objective(name, random_state=random_state)
    surface = SURFACES[name]
    centre = torch.zeros(2, dtype=torch.float64)
    eigenvalues = torch.linalg.eigvalsh(objective.hessians(centre[None])[0])
    axes = torch.tensor(surface.axes, dtype=torch.float64)
    info = {
        "kind": name,
        "found": True,
        "moving": "x and y",
        "n_moving": 2,
        "note": surface.note,
        **_spectrum(objective, centre, eigenvalues, complete=True),
    }
    return Saddle(objective, centre, axes, _negative(eigenvalues), info)


def strict_saddle(
    land: Landscape,
    objective: Objective,
    *,
    index: int,
    n_starts: int,
    max_search: int,
    start_scale: float,
    generator: torch.Generator,
    on_step: OnStep,
) -> Saddle:
    """Search for a saddle of the index asked; the one that curves down most, relative to λ_max, is taken."""
    check_smooth(objective, land.theta)
    if objective.size <= DENSE_LIMIT:
        draws = start_scale * torch.randn(n_starts, objective.size, generator=generator, dtype=torch.float64)
        starts = torch.cat([land.theta[None], draws.to(land.theta)])[:n_starts]
        points = find_critical_points(objective, starts, index, tol=STATIONARY, max_steps=max_search, on_step=on_step)
        complete, tol = True, STATIONARY
    else:
        points = [_large_search(land, objective, index, max_search, on_step)]
        complete, tol = False, STATIONARY_LARGE
    found = [p for p in points if p.found]
    best = _steepest(found) if found else min(points, key=lambda p: p.gradient_norm)
    info = {
        "kind": "strict",
        "found": bool(found),
        "moving": "all weights",
        "n_moving": objective.size,
        "n_starts": len(points),
        "n_found": len(found),
        "asked_index": index,
        "stationary_below": tol,
        **_spectrum(objective, best.theta, best.eigenvalues, complete),
        "l2": objective.l2,
        "note": (
            "The gradient vanishes and at least one eigenvalue is negative."
            if found
            else f"No saddle of index {index} was found. This is the closest point, and its gradient norm "
            f"{best.gradient_norm:.2e} or its spectrum says why it is not one."
        ),
    }
    return Saddle(objective, best.theta, best.modes, _negative(best.eigenvalues), info)


def embedded_saddle(land: Landscape, objective: Objective, *, layer: int, unit: int | None) -> Saddle:
    """Set the weights into and out of hidden units to 0 and let only these move, the rest held fixed."""
    template = land.model_at().to(land.device, land.dtype).eval()
    units = hidden_units(template, land.slices, layer, unit)
    coordinates = units.coordinates.to(land.device)
    theta = land.theta.clone()
    theta[coordinates] = 0.0
    theta[units.out_bias.to(land.device)] = 0.0
    inputs = objective.examples[0][:64]
    without = logits(removed_outputs(template, units, inputs))
    embedded = land.model_at(theta).to(land.device, land.dtype).eval()
    with torch.no_grad():
        here, original = logits(embedded(inputs)), logits(template(inputs))
    _, whole = objective.values_and_gradients(theta[None])
    rest = whole[0].clone()
    rest[coordinates] = 0.0
    info = {
        "kind": "embedding",
        "units": units.name,
        "unit": unit,
        "moving": "the embedded weights, all others fixed",
        "outputs_against_removed": float((here - without).abs().max()),
        "outputs_against_original": float((here - original).abs().max()),
        "rest_gradient_norm": float(rest.norm()),
        "note": "The weights into and out of these units are 0, so every example's gradient for them is 0: "
        "minibatch noise has nothing to act on.",
    }
    return _known(objective.restrict(theta, coordinates), theta[coordinates], info)


def origin_saddle(land: Landscape, objective: Objective) -> Saddle:
    """Set all weights to 0 and the coordinates that still have a gradient (the last bias) to their best value."""
    theta, live = settle(objective, torch.zeros_like(land.theta))
    info = {
        "kind": "origin",
        "moving": "all weights",
        "settled": len(live),
        "note": "All weights are 0 but the last bias, which is set to its best value.",
    }
    return _known(objective, theta, info)


def _known(objective: Objective, centre: Tensor, info: dict[str, Any]) -> Saddle:
    """Measure a point that is known by construction."""
    if objective.size <= DENSE_LIMIT:
        eigenvalues, vectors = torch.linalg.eigh(objective.hessians(centre[None])[0])
        axes, complete = torch.stack([vectors[:, 0], vectors[:, -1]]), True
    else:
        pairs = lanczos_eigenpairs(
            lambda v: hessian_products(objective, centre, v), objective.size, 3, tol=1e-3, like=centre
        )
        eigenvalues = torch.as_tensor(pairs.values[::-1].copy())
        axes, complete = torch.stack([pairs.vectors[-1], pairs.vectors[0]]), False
    spectrum = _spectrum(objective, centre, eigenvalues, complete)
    stationary = STATIONARY if centre.dtype == torch.float64 else STATIONARY_LARGE
    found = spectrum["gradient_norm"] <= stationary
    note = (
        info["note"]
        if found
        else (f"{info['note']} The gradient norm {spectrum['gradient_norm']:.2e} is not small: not a stationary point.")
    )
    full = {**info, **spectrum, "found": found, "n_moving": objective.size, "note": note, "l2": objective.l2}
    return Saddle(objective, centre, axes, _negative(eigenvalues), full)


def hessian_products(objective: Objective, theta: Tensor, v: Tensor) -> Tensor:
    """H v for v of shape (P,) or (P, k), by differentiating the gradient once more."""
    point = theta.detach().requires_grad_()
    with double_backward(), PlainOperations(), torch.enable_grad():
        (gradient,) = torch.autograd.grad(objective(point), point, create_graph=True)
        columns = v[:, None] if v.dim() == 1 else v
        products = [torch.autograd.grad(gradient, point, c, retain_graph=True)[0] for c in columns.unbind(1)]
    stacked = torch.stack(products, 1).detach()
    return stacked[:, 0] if v.dim() == 1 else stacked


def _large_search(land: Landscape, objective: Objective, index: int, max_search: int, on_step: OnStep) -> CriticalPoint:
    def value_and_gradient(theta: Tensor) -> tuple[float, Tensor]:
        values, gradients = objective.values_and_gradients(theta[None])
        return float(values[0]), gradients[0]

    return follow_with_lanczos(
        value_and_gradient,
        lambda v, theta: hessian_products(objective, theta, v),
        land.theta,
        index,
        tol=STATIONARY_LARGE,
        max_steps=max_search,
        on_step=on_step,
    )


def _steepest(points: list[CriticalPoint]) -> CriticalPoint:
    return min(points, key=lambda p: float(p.eigenvalues[0] / p.eigenvalues.abs().max()))


def _negative(eigenvalues: Tensor) -> float:
    lowest = float(eigenvalues[0])
    return lowest if lowest < -1e-8 * float(eigenvalues.abs().max()) else float("nan")


def _spectrum(objective: Objective, centre: Tensor, eigenvalues: Tensor, complete: bool) -> dict[str, Any]:
    values, gradients = objective.values_and_gradients(centre[None])
    index, n_zero = signature(eigenvalues)
    return {
        "loss": float(values[0]),
        "gradient_norm": float(gradients[0].norm()),
        "index": index,
        "n_zero": n_zero,
        "complete_spectrum": complete,
        "eigenvalues": eigenvalues.cpu().numpy(),
    }
