"""Trace of a symmetric operator known through its products, with a standard error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from .lanczos import Matvec


@dataclass(frozen=True)
class TraceEstimate:
    """A trace and how far it may be off.

    Attributes
    ----------
    value : float
        Estimate of tr A.
    stderr : float
        Standard error over the probes; 0 when the sketch spans the whole space and the value is exact.
    samples : ndarray of shape (n_probes,)
        One unbiased estimate of tr A a probe.
    n_products : int
        Products with A spent.
    """

    value: float
    stderr: float
    samples: np.ndarray
    n_products: int


def rademacher(size: int, n: int, generator: torch.Generator, like: torch.Tensor) -> torch.Tensor:
    """Draw ``n`` columns of random signs, shape (size, n), on the CPU: every device gets the same ones."""
    signs = torch.randint(0, 2, (size, n), generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(dtype=like.dtype, device=like.device)


def sketch_bytes(size: int, n_probes: int, itemsize: int) -> int:
    """Bytes that `hutchpp` takes at its most: random signs, their images, the basis, the probes."""
    return 4 * n_probes * size * itemsize


def hutchpp(
    matvec: Matvec,
    size: int,
    *,
    n_probes: int = 10,
    n_sketch: int | None = None,
    random_state: int = 0,
    like: torch.Tensor | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> TraceEstimate:
    """Estimate tr A by Hutch++: exactly on a random sketch of the range, by probes on what is left.

    The sketch catches the large eigenvalues, so the probes only see the small remainder and the error falls like
    1/n instead of 1/√n. The probes are independent of the sketch, so the estimate is unbiased and the spread of
    the probes is an honest standard error.

    Parameters
    ----------
    matvec : callable
        ``v -> A v``, for v of shape (P,).
    size : int
        P.
    n_probes : int, default=10
        Random sign vectors for the remainder, at least 2; one product each.
    n_sketch : int, default=None
        Columns of the sketch, two products each; None takes ``n_probes``, 0 gives Hutchinson's estimate (1989), the
        mean of vᵀAv over random sign vectors.
    random_state : int, default=0
        Seed.
    like : tensor, default=None
        Gives dtype and device; None means float64 on the CPU.
    on_step : callable, default=None
        ``on_step(done, total)`` after each product; raising ends the work.

    Returns
    -------
    TraceEstimate

    Raises
    ------
    ValueError
        If ``n_probes`` is below 2 (one probe has no spread) or ``n_sketch`` is negative.

    References
    ----------
    Meyer, Musco, Musco & Woodruff 2021, "Hutch++: Optimal stochastic trace estimation".
    """
    if n_probes < 2:
        raise ValueError(f"n_probes must be at least 2, got {n_probes!r}. A standard error needs two or more probes.")
    n_sketch = n_probes if n_sketch is None else n_sketch
    if n_sketch < 0:
        raise ValueError(f"n_sketch must be 0 or more, got {n_sketch!r}. 0 gives Hutchinson's estimate.")
    n_sketch = min(n_sketch, size)
    like = torch.empty(0, dtype=torch.float64) if like is None else like
    generator = torch.Generator().manual_seed(int(random_state))
    spans_all = n_sketch == size
    total = 2 * n_sketch + (0 if spans_all else n_probes)
    done = 0

    def product(v: torch.Tensor) -> torch.Tensor:
        nonlocal done
        w = matvec(v).detach()
        done += 1
        if on_step is not None:
            on_step(done, total)
        return w

    basis = torch.empty(size, 0, dtype=like.dtype, device=like.device)
    on_sketch = 0.0
    if n_sketch:
        signs = rademacher(size, n_sketch, generator, like)
        image = torch.stack([product(signs[:, i]) for i in range(n_sketch)], dim=1)
        basis = torch.linalg.qr(image)[0]
        on_sketch = sum(float(q.double() @ product(q).double()) for q in basis.T)
    if spans_all:
        # The sketch is a basis of the whole space: nothing is left to probe.
        return TraceEstimate(on_sketch, 0.0, np.full(n_probes, on_sketch), done)
    rest = np.empty(n_probes)
    probes = rademacher(size, n_probes, generator, like)
    for i in range(n_probes):
        v = probes[:, i]
        v = v - basis @ (basis.T @ v)
        rest[i] = float(v.double() @ product(v).double())
    samples = on_sketch + rest
    return TraceEstimate(float(samples.mean()), float(rest.std(ddof=1) / np.sqrt(n_probes)), samples, done)
