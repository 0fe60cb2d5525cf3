"""The steps of a curvature measurement: plain functions of a Landscape, cached and reported one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import sampling
from ..core.spectrum.lanczos import Eigenpairs, Matvec, lanczos_eigenpairs, wanted
from ..core.spectrum.quadrature import SpectralDensity, exact_density, spectral_density
from ..core.spectrum.trace import TraceEstimate, hutchpp, rademacher
from ..landscape import Landscape
from ._result import CurvatureResult

KINDS: dict[str, Callable[[Landscape], Matvec]] = {
    "hessian": lambda land: land.hvp,
    "ggn": lambda land: land.ggn_vp,
    "fisher": lambda land: lambda v: land.fisher_vp(v, kind="model"),
    "empirical_fisher": lambda land: lambda v: land.fisher_vp(v, kind="empirical"),
}
SEMIDEFINITE = ("ggn", "fisher", "empirical_fisher")
SAMPLING_PRODUCTS = 8  # that the errors over examples cost for each probe, about
LAYER_PRODUCTS = 60  # most products for one group's largest eigenvalue
BLOCK = 32  # columns of an explicit matrix made at once
_LAYER = ("group", "n_parameters", "trace", "trace_stderr", "lambda_max", "lambda_max_residual", "converged")

Step = Callable[[int, int], None]


def groups_of(land: Landscape) -> dict[str, list[slice]]:
    """Collect the parameters of each module: one group a layer, named by the module."""
    found: dict[str, list[slice]] = {}
    for name, where in land.slices.items():
        found.setdefault(name.rpartition(".")[0] or name, []).append(where)
    return found


def basis_bytes(land: Landscape, n_eigenvalues: int, ends: str, n_lanczos: int) -> int:
    """Bytes that the Lanczos vectors take at their most."""
    n = len(wanted(land.n_parameters, n_eigenvalues, ends))
    search = 1.5 * max(4 * n, 40) + 4 * n
    return int(max(search, n_lanczos + 2 * n) * land.n_parameters * land.theta.element_size())


def explicit_matrix(land: Landscape, kind: str, step: Step) -> np.ndarray:
    """Build the matrix (P, P) from products with the columns of the identity."""
    matvec, n = KINDS[kind](land), land.n_parameters
    out = np.empty((n, n))
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        columns = torch.zeros(n, stop - start, dtype=land.dtype, device=land.device)
        columns[range(start, stop), range(stop - start)] = 1
        out[:, start:stop] = matvec(columns).cpu().numpy()
        step(stop, n)
    return out


def exact(land: Landscape, kind: str, n_eigenvalues: int, ends: str, tol: float, step: Step) -> dict[str, Any]:
    """Give every field that an explicit float64 matrix decides."""
    raw = explicit_matrix(land, kind, step)
    if not np.isfinite(raw).all():
        raise ValueError(
            "The second derivatives must be finite at the model's weights, got NaN or infinite entries. "
            "Look for a square root, a division or a logarithm at 0 in the model."
        )
    size = np.abs(raw).max()
    matrix = (raw + raw.T) / 2
    values, vectors = np.linalg.eigh(matrix)
    pick = wanted(len(values), n_eigenvalues, ends)[::-1]
    scale = float(np.abs(values).max())
    residuals = np.linalg.norm(matrix @ vectors[:, pick] - values[pick] * vectors[:, pick], axis=0)
    threshold = tol * scale
    counts = np.array([(values <= -threshold).sum(), (np.abs(values) < threshold).sum(), (values >= threshold).sum()])
    if scale == 0:
        counts = np.array([0, len(values), 0])
    grid, density, sigma = exact_density(values)
    layers = []
    for name, slices in groups_of(land).items():
        index = np.concatenate([np.arange(s.start, s.stop) for s in slices])
        block = matrix[np.ix_(index, index)]
        top = float(np.linalg.eigvalsh(block)[-1])
        layers.append(dict(zip(_LAYER, (name, len(index), float(np.trace(block)), 0.0, top, 0.0, True), strict=True)))
    return {
        "method": "exact",
        "spectrum": values[::-1].copy(),
        "eigenvalues": values[pick],
        "vectors": np.ascontiguousarray(vectors[:, pick].T),
        "residuals": residuals,
        "converged": np.ones(len(pick), bool),
        "negligible": np.abs(values[pick]) <= threshold,
        "trace": float(values.sum()),
        "trace_stderr": 0.0,
        "fractions": counts / len(values),
        "fractions_stderr": np.zeros(3),
        "fractions_spread": np.zeros(3),
        "fractions_bracket": np.zeros(3),
        "zero_threshold": threshold,
        "density": (grid, density),
        "density_stderr": np.zeros(len(grid)),
        "density_sigma": sigma,
        "layers": layers,
        "n_products": len(values),
        "asymmetry": float(np.abs(raw - raw.T).max() / size) if size else 0.0,
    }


@dataclass(frozen=True)
class Search:
    """How the ends of the spectrum are searched; `CurvatureEstimator` says what each setting means."""

    n_eigenvalues: int = 5
    ends: str = "both"
    tol: float = 1e-3
    max_products: int = 1000
    random_state: int = 0


def eigenpairs(
    land: Landscape,
    kind: str,
    search: Search,
    step: Step,
    enough: Callable[[int], bool] | None = None,
    verify: bool = False,
) -> Eigenpairs:
    """Search the ends of the spectrum by Lanczos."""
    return lanczos_eigenpairs(
        KINDS[kind](land),
        land.n_parameters,
        search.n_eigenvalues,
        ends=search.ends,
        tol=search.tol,
        max_products=search.max_products,
        random_state=search.random_state,
        like=land.theta,
        verify=verify,
        on_step=step,
        enough=enough,
    )


def trace(land: Landscape, kind: str, n_probes: int, random_state: int, step: Step) -> TraceEstimate:
    """Estimate the trace by Hutch++."""
    matvec = KINDS[kind](land)
    size = land.n_parameters
    return hutchpp(matvec, size, n_probes=n_probes, random_state=random_state, like=land.theta, on_step=step)


def density(
    land: Landscape, kind: str, pairs: Eigenpairs, search: Search, n_probes: int, n_lanczos: int, step: Step
) -> SpectralDensity:
    """Estimate density and fractions, the known eigenpairs counted apart."""
    # A pair that has not converged is no eigenvector: the probes have to see its direction themselves.
    sure = pairs.settled
    known = pairs.vectors[torch.as_tensor(sure, device=pairs.vectors.device)] if sure.any() else None
    return spectral_density(
        KINDS[kind](land),
        land.n_parameters,
        n_probes=n_probes,
        n_steps=n_lanczos,
        threshold=search.tol * float(np.abs(pairs.values).max()),
        known_values=pairs.values[sure],
        known_vectors=known,
        random_state=search.random_state + 1,
        like=land.theta,
        on_step=step,
    )


def layer_traces(land: Landscape, kind: str, n_probes: int, random_state: int, step: Step) -> list[dict[str, Any]]:
    """Estimate the trace of every group's diagonal block from the same full products (Hutchinson)."""
    matvec, groups = KINDS[kind](land), groups_of(land)
    generator = torch.Generator().manual_seed(random_state + 2)
    signs = rademacher(land.n_parameters, n_probes, generator, land.theta)
    samples = np.empty((n_probes, len(groups)))
    for i in range(n_probes):
        v = signs[:, i]
        diagonal = v.double() * matvec(v).double()
        samples[i] = [sum(float(diagonal[s].sum()) for s in slices) for slices in groups.values()]
        step(i + 1, n_probes)
    means, errors = samples.mean(axis=0), samples.std(axis=0, ddof=1) / np.sqrt(n_probes)
    sizes = [sum(s.stop - s.start for s in slices) for slices in groups.values()]
    nan = float("nan")
    known = zip(groups, sizes, means.tolist(), errors.tolist(), strict=True)
    return [dict(zip(_LAYER, (*row, nan, nan, False), strict=True)) for row in known]


def layer_eigenvalue(
    land: Landscape, kind: str, group: str, tol: float, random_state: int, step: Step
) -> tuple[float, float, bool, int]:
    """Find λ_max of one group's diagonal block: value, residual, converged, products."""
    matvec = KINDS[kind](land)
    slices = groups_of(land)[group]
    index = torch.cat([torch.arange(s.start, s.stop, device=land.device) for s in slices])

    def block(v: Tensor) -> Tensor:
        shape = (land.n_parameters, *v.shape[1:])
        full = torch.zeros(shape, dtype=land.dtype, device=land.device)
        full[index] = v
        return matvec(full)[index]

    found = lanczos_eigenpairs(
        block,
        len(index),
        1,
        ends="largest",
        tol=tol,
        basis_size=30,
        max_products=LAYER_PRODUCTS,
        random_state=random_state,
        like=land.theta,
        on_step=step,
    )
    return float(found.values[0]), float(found.residuals[0]), bool(found.converged[0]), found.n_products


def over_examples(
    land: Landscape,
    kind: str,
    result: CurvatureResult,
    gradient: Tensor,
    vectors: Tensor,
    search: Search,
    n_probes: int,
    step: Step,
) -> dict[str, dict[str, Any]]:
    """Find how much what is known of the point would change with other examples; of the spectrum, the Hessian's."""
    probes, done, total = sampling.probes_of(land, n_probes, search.random_state), 0, SAMPLING_PRODUCTS * n_probes

    def spend(products: int) -> None:
        nonlocal done
        step(done := done + products, total)

    errors = sampling.value_errors(land, result.loss, result.accuracy)
    errors["gradient_norm"] = sampling.gradient_norm_error(land, gradient, probes)
    if kind == "hessian":
        values = result.eigenvalues
        if search.ends != "smallest":
            spend(n_probes)
            errors["lambda_max"] = sampling.eigenvalue_error(land, values, vectors, probes)
        if search.ends != "largest":
            spend(n_probes)
            errors["lambda_min"] = sampling.eigenvalue_error(land, values[::-1], vectors.flip(0), probes)
        errors["trace"] = sampling.trace_error(land, result.trace, probes, lambda: spend(SAMPLING_PRODUCTS - 2))
    return sampling.told(**errors)
