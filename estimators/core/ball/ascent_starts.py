"""Where an ascent starts, and how its starts share a budget.

One start finds one local maximum. Starts of different kinds (the gradient, both ends of the direction of largest
curvature, random points) find different ones, and most of them are told apart after a few gradients: all starts
climb a little, the better ones climb on, two climb to the end (successive halving, Jamieson & Talwalkar 2016).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..spectrum.lanczos import lanczos_eigenpairs

KINDS = ("gradient", "eigenvector +", "eigenvector −", "random", "given")
EIGENVECTOR_GRADIENTS = 8
# Two answers that agree to this share are the same answer.
AGREEMENT = 0.05


def shared_budget(n_starts: int, n_steps: int) -> list[tuple[int, int]]:
    """Say how many starts climb how far: rounds of (starts, steps), each from where the last one ended.

    Parameters
    ----------
    n_starts : int
        Starts.
    n_steps : int
        Steps of the last round.

    Returns
    -------
    list of (int, int)
        One round where there are at most two starts, otherwise three: all starts a fifth of the steps, a third of
        them twice as far, the best two the whole.
    """
    if n_starts <= 2:
        return [(n_starts, n_steps)]
    few = max(1, n_steps // 5)
    return [(n_starts, few), (max(2, -(-n_starts // 3)), 2 * few), (2, n_steps)]


def leading_direction(
    slope_at: Callable[[torch.Tensor], torch.Tensor],
    slope: torch.Tensor,
    rho: float,
    random_state: int,
    n_gradients: int = EIGENVECTOR_GRADIENTS,
) -> torch.Tensor:
    """Direction of largest curvature at the centre, from a short Lanczos run on differences of gradients.

    The differences are taken over a tenth of the radius: a start has to point the right way, not to be an
    eigenvector to many digits, and so nothing but gradients is asked of the function.

    Parameters
    ----------
    slope_at : callable
        ``slope_at(δ (P,)) -> gradient (P,)`` in the coordinates of the ball.
    slope : Tensor of shape (P,)
        The gradient at the centre.
    rho : float
        Radius of the ball.
    random_state : int
        Seed of the start vector.
    n_gradients : int, default=8
        Most gradients spent.

    Returns
    -------
    Tensor of shape (P,)
        Of length 1.
    """
    step = 0.1 * rho

    def product(v: torch.Tensor) -> torch.Tensor:
        columns = v[:, None] if v.dim() == 1 else v
        out = torch.stack([(slope_at(step * column) - slope) / step for column in columns.T], dim=1)
        return torch.nan_to_num(out).reshape(v.shape)

    found = lanczos_eigenpairs(
        product,
        slope.numel(),
        1,
        ends="largest",
        tol=0.05,
        max_products=n_gradients,
        random_state=random_state,
        like=slope,
    )
    return found.vectors[0]


def lone_winner(finalists: list[float]) -> bool:
    """Whether one start alone found the best rise, of those that climbed equally far."""
    ordered = sorted(finalists)
    return len(ordered) > 1 and ordered[-2] < (1 - AGREEMENT) * ordered[-1]
