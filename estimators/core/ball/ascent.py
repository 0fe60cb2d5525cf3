"""How far the loss can rise inside a ball around a point: sharpness by projected ascent.

``max over ‖ε‖ ≤ ρ of L(θ + ε) − L(θ)`` (Keskar et al. 2017; Foret et al. 2021). The maximum of a network's
loss cannot be found with certainty, so every value here is the largest rise that was *measured* at a point
inside the ball: a lower bound on the sharpness.

The ascent keeps the points it has visited. For the Euclidean norm it solves, exactly, the quadratic that
interpolates the visited gradients inside their span, and takes a projected step out of that span. On a
quadratic this builds a Krylov space with one gradient a step, so it converges like Lanczos and does not
stop at local maxima; on a network the measured losses decide which point is kept and how long steps are.
For the maximum norm it is spectral projected gradient (Birgin, Martínez & Raydan 2000), whose unlimited
step is the sign step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from .ascent_starts import leading_direction, lone_winner, shared_budget
from .trust_region import VisitedPoints

LossAndGradient = Callable[[torch.Tensor], "tuple[float, torch.Tensor]"]
NORMS = ("l2", "linf")


@dataclass(frozen=True)
class Ascent:
    """The best point one ascent measured.

    Attributes
    ----------
    rho : float
        Radius of the ball, in the ascent's coordinates (relative to |θ| for the adaptive ball).
    rise : float
        Largest measured L(θ + ε) − L(θ), in nats for cross-entropy; ≥ 0, and a lower bound on the maximum.
    one_step : float
        Rise at the single SAM step, ε = ρ·T²g/‖Tg‖ (or ρ·T·sign(g) for the maximum norm).
    epsilon : Tensor of shape (P,)
        The perturbation that reaches ``rise``.
    restarts : tuple of float
        Best rise of each start, as far as it climbed.
    kinds : tuple of str
        Kind of each start, one of `ascent_starts.KINDS`.
    spread : float
        How far the rises of the last two starts, which climbed equally far, lie apart, as a share of the larger; NaN
        for a single start.
    lone : bool
        Whether one start alone found the rise: another search may then find a larger one.
    constant : bool
        Whether the loss had the same value at every visited point and no gradient: it does not depend on what
        moves, or is lost in rounding.
    n_gradients : int
        Gradients evaluated.
    n_nonfinite : int
        Visited points whose loss was not finite (they are never the answer).
    """

    rho: float
    rise: float
    one_step: float
    epsilon: torch.Tensor = field(repr=False)
    restarts: tuple[float, ...]
    n_gradients: int
    n_nonfinite: int
    kinds: tuple[str, ...] = ("gradient",)
    spread: float = float("nan")
    lone: bool = False
    constant: bool = False


def adaptive_scale(theta: torch.Tensor) -> torch.Tensor:
    """Elementwise |θ|, the scaling that makes sharpness invariant to rescaled layers (Kwon et al. 2021).

    The ball is ‖ε / |θ|‖ ≤ ρ. No constant is added to |θ| (SAM training adds one for stability): weights
    that are exactly zero stay where they are, and the measure is invariant without a remainder.
    """
    return theta.detach().abs()


class _Ball:
    """The feasible set in the ascent's own coordinates δ, with ε = scale · δ."""

    def __init__(self, norm: str, rho: float):
        self.norm, self.rho = norm, rho

    def project(self, delta: torch.Tensor) -> torch.Tensor:
        if self.norm == "linf":
            return delta.clamp(-self.rho, self.rho)
        length = float(delta.norm())
        return delta * (self.rho / length) if length > self.rho else delta

    def furthest(self, slope: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
        """Return the point of the ball with the largest inner product with ``slope``."""
        if self.norm == "linf":
            return torch.where(slope == 0, here, self.rho * slope.sign())
        length = float(slope.norm())
        return slope * (self.rho / length) if length > 0 else here

    def random(self, like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        draw = torch.randn(like.numel(), generator=generator, dtype=torch.float64).to(like)
        return self.furthest(draw, draw)


class _Search:
    """One function, one ball: counts what is evaluated and remembers the best measured point."""

    def __init__(self, function: LossAndGradient, theta: torch.Tensor, scale: torch.Tensor | None, base: float):
        self.function, self.theta, self.scale, self.base = function, theta, scale, base
        self.n_gradients = self.n_nonfinite = 0
        self.varies = False

    def measure(self, delta: torch.Tensor) -> tuple[float, torch.Tensor]:
        self.n_gradients += 1
        step = delta if self.scale is None else self.scale * delta
        loss, gradient = self.function(self.theta + step)
        rise = float(loss) - self.base
        self.varies |= rise != 0.0
        if not np.isfinite(rise) or not bool(torch.isfinite(gradient).all()):
            self.n_nonfinite += 1
            return -np.inf, gradient
        return rise, gradient if self.scale is None else self.scale * gradient

    def climb(
        self,
        ball: _Ball,
        slope: torch.Tensor,
        first: torch.Tensor,
        nudge: torch.Tensor,
        n_steps: int,
        on_step: Callable[[], None] | None,
    ) -> tuple[float, torch.Tensor, float]:
        """Climb from ``first``; return the best rise, its place, and the rise at ``first``."""
        history = VisitedPoints(slope, n_steps + 2)
        rise, gradient = self.measure(first)
        first_rise = rise
        # The centre is in the ball and its rise is 0, so a search never reports less than that.
        best, best_rise, best_gradient = torch.zeros_like(slope), 0.0, slope
        previous: tuple[torch.Tensor, torch.Tensor] = (best, slope)
        point, damping, still = first, 1.0, 0
        for step in range(n_steps):
            if on_step is not None:
                on_step()
            if np.isfinite(rise):
                history.add(point, gradient, best)
            gained = rise > best_rise
            still = 0 if gained and rise - best_rise > 1e-4 * rise else still + 1
            damping = min(1.0, 2.0 * damping) if gained else 0.5 * damping
            if gained:
                previous = (best, best_gradient)
                best, best_rise, best_gradient = point, rise, gradient
            model = history.solve(ball.rho) if ball.norm == "l2" and history.points else None
            if model is None:
                if still >= 5 and step > still:
                    break
            elif step > 2 and model.rise - best_rise <= 1e-4 * best_rise and model.leftover(ball.rho) <= 1e-3:
                break
            if model is not None and (gained or model.trusted or step % 2 == 0):
                reach = damping / model.size if model.size > 0 else 0.0
                if model.leftover(ball.rho) <= 1e-3:
                    reach = 0.0  # nothing left to learn outside the span: measure the model's answer
                elif model.trusted:
                    # Any step out of the span teaches a quadratic model the same; a long one does it
                    # without cancellation.
                    reach = max(reach, 0.4 * ball.rho / float(model.residual.norm()))
                point = ball.project(model.place + model.residual * reach)
                if model.multiplier != 0:
                    point = ball.furthest(point, point)
            else:
                target = self._projected(ball, best, best_gradient, previous)
                point = best + damping * (target - best)
            if step == 0:
                # Without this an ascent that starts orthogonal to the steepest direction never finds it.
                point = ball.project(point + nudge)
            rise, gradient = self.measure(point)
        if np.isfinite(rise):
            history.add(point, gradient, best)
        if rise > best_rise:
            best, best_rise = point, rise
        model = history.solve(ball.rho) if ball.norm == "l2" and history.points else None
        if model is not None:
            final = ball.project(model.place)
            rise, _ = self.measure(final)
            if rise > best_rise:
                best, best_rise = final, rise
        return best_rise, best, first_rise

    @staticmethod
    def _projected(
        ball: _Ball, best: torch.Tensor, slope: torch.Tensor, previous: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        moved, turned = best - previous[0], slope - previous[1]
        curvature = float(moved @ turned)
        if curvature >= 0:
            return ball.furthest(slope, best)
        return ball.project(best + slope * (float(moved @ moved) / -curvature))


def ascend(
    function: LossAndGradient,
    theta: torch.Tensor,
    rho: float,
    *,
    norm: str = "l2",
    scale: torch.Tensor | None = None,
    n_steps: int = 40,
    n_restarts: int = 1,
    starts: Sequence[torch.Tensor] = (),
    origin: tuple[float, torch.Tensor] | None = None,
    random_state: int = 0,
    on_step: Callable[[], None] | None = None,
) -> Ascent:
    """Find a large rise of the loss inside a ball around θ.

    Parameters
    ----------
    function : callable
        ``function(point (P,)) -> (loss, gradient (P,))``.
    theta : Tensor of shape (P,)
        Centre of the ball.
    rho : float
        Radius of the whole vector (not per element), > 0.
    norm : {"l2", "linf"}, default="l2"
        Norm of the ball.
    scale : Tensor of shape (P,), optional
        Elementwise scaling T: the ball is ‖T⁻¹ε‖ ≤ ρ. `adaptive_scale` gives ASAM's.
    n_steps : int, default=40
        Gradients of a start's last climb, after its first; it stops early when nothing changes any more.
    n_restarts : int, default=1
        Starts: the SAM step, both ends of the direction of largest curvature, then random points of the ball's
        surface. From three on they share a budget, see `shared_budget`.
    starts : sequence of Tensor of shape (P,), optional
        More starting perturbations ε (pulled into the ball), e.g. the answer for a smaller radius.
    origin : (float, Tensor), optional
        Loss and gradient at θ when they are known already.
    random_state : int, default=0
        Seed of the random starts.
    on_step : callable, optional
        Called before each gradient; may raise to stop.

    Returns
    -------
    Ascent
        The largest measured rise: a lower bound on the maximum.

    Raises
    ------
    ValueError
        If an option is out of range or the loss at θ is not finite.

    References
    ----------
    Foret et al. (2021), Sharpness-aware minimization. Kwon et al. (2021), ASAM.
    Keskar et al. (2017), On large-batch training for deep learning.
    """
    if not rho > 0 or not np.isfinite(rho):
        raise ValueError(f"rho must be a finite radius > 0, got {rho!r}. Use for example 0.05.")
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}. Choose one of them.")
    for name, count in (("n_steps", n_steps), ("n_restarts", n_restarts)):
        if count < 1:
            raise ValueError(f"{name} must be a whole number ≥ 1, got {count!r}. Use 1 or more.")
    loss, gradient = function(theta) if origin is None else origin
    if not np.isfinite(float(loss)):
        raise ValueError(
            f"the loss at θ must be finite, got {float(loss)!r}. Check the weights, the input normalisation "
            "and the precision before measuring sharpness."
        )
    slope = gradient if scale is None else scale * gradient
    if not bool(torch.isfinite(slope).all()):
        raise ValueError(
            "the gradient at θ must be finite, got NaN or infinite entries. Use precision='float64' or another loss."
        )
    ball, search = _Ball(norm, float(rho)), _Search(function, theta, scale, float(loss))
    generator = torch.Generator().manual_seed(int(random_state))
    nothing = torch.zeros_like(slope)

    def nudged() -> torch.Tensor:
        # A box step moves every coordinate already, unless the gradient vanishes; only the Euclidean
        # ascent lives in a small span.
        return 0.3 * ball.random(slope, generator) if norm == "l2" or not bool(slope.any()) else nothing

    kinds, places = ["gradient"], [ball.furthest(slope, nothing)]
    if n_restarts > 1:
        lead = leading_direction(lambda delta: search.measure(delta)[1], slope, ball.rho, int(random_state))
        ends = [("eigenvector +", lead), ("eigenvector −", -lead)][: n_restarts - 1]
        kinds += [kind for kind, _ in ends]
        places += [ball.furthest(way, nothing) for _, way in ends]
    for _ in range(n_restarts - len(places)):
        kinds.append("random")
        places.append(ball.random(slope, generator))
    for epsilon in starts:
        # Where T is zero ε is zero as well, and any δ describes it.
        first = epsilon if scale is None else torch.where(scale == 0, nothing, epsilon / scale)
        kinds.append("given")
        places.append(ball.project(torch.nan_to_num(first)))
    found, one_step, still = [0.0] * len(places), float("nan"), list(range(len(places)))
    for turn, (count, steps) in enumerate(shared_budget(len(places), n_steps)):
        still = sorted(still, key=lambda i: -found[i])[:count]
        for i in still:
            nudge = nudged() if turn == 0 else nothing
            rise, place, first_rise = search.climb(ball, slope, places[i], nudge, steps, on_step)
            if turn == 0 and i == 0:
                one_step = first_rise
            if rise >= found[i]:
                found[i], places[i] = rise, place
    best = places[int(np.argmax(found))]
    finalists = sorted(found[i] for i in still)
    return Ascent(
        rho=float(rho),
        rise=float(max(found)),
        one_step=float(one_step) if np.isfinite(one_step) else float("nan"),
        epsilon=best if scale is None else scale * best,
        restarts=tuple(found),
        n_gradients=search.n_gradients,
        n_nonfinite=search.n_nonfinite,
        kinds=tuple(kinds),
        spread=1 - finalists[-2] / finalists[-1] if len(finalists) > 1 and finalists[-1] > 0 else float("nan"),
        lone=lone_winner(finalists),
        constant=not search.varies and not bool(slope.any()),
    )


def rise_profile(
    function: LossAndGradient,
    theta: torch.Tensor,
    radii: Iterable[float],
    *,
    known: Iterable[Ascent] = (),
    **options: object,
) -> list[Ascent]:
    """Largest rise found at each radius, never falling with the radius.

    Each radius starts from the SAM step and from the answers for the smaller radius, stretched to the new
    radius and as they are: the balls are nested, so the best of a smaller one counts for a larger one.

    Parameters
    ----------
    function, theta
        As in `ascend`.
    radii : iterable of float
        Radii, > 0; measured in increasing order.
    known : iterable of Ascent, optional
        Answers for some of the radii; they are used instead of a new ascent.
    **options
        Passed to `ascend`.

    Returns
    -------
    list of Ascent
        One a radius, in increasing order of radius.
    """
    found: list[Ascent] = []
    answers = {answer.rho: answer for answer in known}
    options.setdefault("origin", function(theta))
    for rho in sorted(float(radius) for radius in radii):
        starts = [found[-1].epsilon * (rho / found[-1].rho)] if found and found[-1].rise > 0 else []
        answer = answers.get(rho)
        if answer is None:
            answer = ascend(function, theta, rho, starts=starts, **options)  # type: ignore[arg-type]
        if found and found[-1].rise > answer.rise:
            answer = replace(answer, rise=found[-1].rise, epsilon=found[-1].epsilon)
        found.append(answer)
    return found


def m_sharpness(
    functions: Sequence[LossAndGradient], theta: torch.Tensor, rho: float, **options: object
) -> tuple[float, float, np.ndarray]:
    """Mean over disjoint batches of the largest rise of *that batch's* loss (Foret et al. 2021).

    Parameters
    ----------
    functions : sequence of callable
        One loss-and-gradient function for each batch of m examples.
    theta, rho, **options
        As in `ascend`.

    Returns
    -------
    mean, stderr : float
        Mean rise and its standard error over batches (NaN for a single batch).
    rises : ndarray of shape (n_batches,)
        Rise of each batch.
    """
    rises = np.array([ascend(function, theta, rho, **options).rise for function in functions])  # type: ignore[arg-type]
    stderr = float(rises.std(ddof=1) / np.sqrt(len(rises))) if len(rises) > 1 else float("nan")
    return float(rises.mean()), stderr, rises
