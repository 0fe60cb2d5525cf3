"""The ends of the spectrum in the time there is: searched on all examples, or on those that weigh most first.

An example that a network is sure of has hardly any derivatives, and most examples of a trained network are so: the
Hessian of an eighth of them, those of the largest derivatives in the outputs, is nearly that of all. Its eigenvectors
cost little; their Rayleigh quotients on all examples are bounds on the ends whatever the part was, and the products
behind them correct the part's Hessian, whose eigenvectors are looked at again (:mod:`core.spectrum.subspace`), as often
as there is time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..budget import Budget, clock
from ..core.spectrum.lanczos import Eigenpairs, Matvec, lanczos_eigenpairs, tells_ends, usual_products
from ..core.spectrum.lanczos import wanted as wanted_at
from ..core.spectrum.subspace import Subspace
from ..landscape import Landscape
from ._steps import KINDS, Search, Step, eigenpairs

_FEW = 0.5  # of the products that a search usually takes: where fewer fit, a part of the examples comes first
_PART = 0.5  # of the time, for the search on a part of the examples
_KEPT = 2 / 3  # of a product's time is taken where its graph is kept: six convolutions of nine
_VARIES = 1.05  # times what the last product took is what one may take
_FEWEST = 32  # examples of a part, which is at most half of all
_LOOSE = 1e-2  # tolerance on a part: what is left to do on all examples is more
_AGAIN = 10  # products on the part for another look at its corrected matrix
_FEWEST_AGAIN = 5  # of them that a look is worth beginning for
_VANISHING = ("cross_entropy", "bce")  # losses whose derivatives go to 0 with them


@dataclass(frozen=True)
class Ends:
    """What was found of the ends.

    Attributes
    ----------
    pairs : Eigenpairs or None
        None where too little fits for a Rayleigh quotient to say something of an end.
    seconds : float
        Of a product on all examples.
    whole : bool
        Whether another search would find the same: it was not cut, and took all examples from its start.
    short : str
        What the time did not suffice for, in words; empty where it did.
    """

    pairs: Eigenpairs | None
    seconds: float
    whole: bool = False
    short: str = ""


def ends_in_time(
    land: Landscape, kind: str, search: Search, *, budget: Budget, reserved: float, seconds: float, step: Step
) -> Ends:
    """Search the ends of the spectrum.

    Parameters
    ----------
    land, kind, search
        As in `eigenpairs`.
    budget : Budget
    reserved : float
        Seconds at its end that are for other work.
    seconds : float
        That a product on all examples takes, as far as is known.
    step : callable
        ``step(done, total)`` after each product; may raise `Cancelled`.
    """
    left = budget.left - reserved
    n_wanted = len(wanted_at(land.n_parameters, search.n_eigenvalues, search.ends))
    usual = usual_products(n_wanted, search.ends)
    if _FEW * usual * seconds > left and _can_be_parted(land):
        return _PartFirst(land, kind, search, budget, reserved, seconds, step).find(n_wanted, usual)
    fitting = usual if left == np.inf else int(max(left, 0.0) / seconds)
    if not tells_ends(fitting, n_wanted):
        return Ends(None, seconds, short=_too_few(fitting))
    brake, began = budget.brake(reserved=reserved), budget.used
    found = eigenpairs(land, kind, search, step, brake)
    taken = (budget.used - began) / found.n_products
    if not brake.used or found.settled.all():
        return Ends(found, taken, whole=not brake.used)
    if not tells_ends(found.n_products, n_wanted):
        return Ends(None, taken, short=_too_few(found.n_products))
    return Ends(found, taken, short=f"ends of the spectrum (ended after {found.n_products} products)")


def _too_few(products: int) -> str:
    return f"ends of the spectrum ({products} products fit, too few to tell an end)"


def _can_be_parted(land: Landscape) -> bool:
    # other statistics than frozen ones take all examples whatever comes
    return land.is_fixed_function and land.n_examples >= 2 * _FEWEST


def weighty(land: Landscape, n: int) -> tuple[Landscape, float]:
    """Give the same network on the n examples that weigh most in its Hessian, and the share of all that they are to be.

    Those of the largest derivatives in the outputs, the others counting as none, where a small loss has small
    derivatives; else evenly spread ones, which stand for all.
    """
    if str(land.settings["loss"]).startswith(_VANISHING):
        heaviest = land.per_example_weights().argsort(descending=True, stable=True)[:n].cpu()
        return land.on(land.data.take(heaviest.sort().values)), n / land.n_examples
    return land.on(land.data.take(slice(0, None, max(land.n_examples // n, 1)))), 1.0


class _Timed:
    """A product that knows how long the last one took."""

    def __init__(self, product: Matvec, seconds: float, step: Callable[[], None]) -> None:
        self.product, self.seconds, self.count, self.step = product, seconds, 0, step

    def __call__(self, v: Tensor) -> Tensor:
        began = clock()
        out, columns = self.product(v), v.shape[1] if v.dim() == 2 else 1
        self.seconds, self.count = (clock() - began) / columns, self.count + columns
        self.step()
        return out


class _PartFirst:
    """A search on a part of the examples, carried over to all of them."""

    def __init__(
        self,
        land: Landscape,
        kind: str,
        search: Search,
        budget: Budget,
        reserved: float,
        seconds: float,
        step: Step,
    ) -> None:
        self.land, self.kind, self.search = land, kind, search
        self.budget, self.reserved, self.step = budget, reserved, step
        self.all = _Timed(KINDS[kind](land), seconds, self._tick)

    def find(self, n_wanted: int, usual: int) -> Ends:
        """Search, and say what came of it; `usual` products would suffice."""
        on_all = n_wanted * self.all.seconds
        if on_all > (1 - _PART / 2) * self.left:
            on_all = self.all.seconds  # one vector carried over is better than none
        on_part = min(_PART * self.left, self.left - on_all)
        n = int(self.land.n_examples * on_part / (usual * _KEPT * self.all.seconds))
        n = max(_FEWEST, min(n, self.land.n_examples // 2))
        few, share = weighty(self.land, n)
        per_product = _KEPT * self.all.seconds * few.n_examples / self.land.n_examples
        if int(on_part / per_product) <= n_wanted:
            return Ends(None, self.all.seconds, short=_too_few(0))
        product = KINDS[self.kind](few)
        self.part = _Timed(lambda v: share * product(v), per_product, self._tick)
        brake = self.budget.brake(reserved=self.budget.left - on_part)
        begun = self._search(self.part, usual, brake, None)
        space = Subspace(self.all, self.part, self.land.theta)
        self._carry_over(space, begun.vectors[_outermost(len(begun.values), self.search.ends)])
        if not space.n:
            return Ends(None, self.all.seconds, short=_too_few(0))
        pairs = self._look_again(space)
        words = f"ended after {space.n} products, begun on {few.n_examples} examples"
        short = "" if pairs.settled.all() and len(pairs.values) == n_wanted else f"ends of the spectrum ({words})"
        return Ends(pairs, self.all.seconds, short=short)

    @property
    def left(self) -> float:
        """Seconds for the search."""
        return self.budget.left - self.reserved

    def _tick(self) -> None:
        self.step(self.all.count, self.search.max_products)

    def _search(self, product: Matvec, steps: int, brake: Callable[[int], bool], start: Tensor | None) -> Eigenpairs:
        return lanczos_eigenpairs(
            product,
            self.land.n_parameters,
            self.search.n_eigenvalues,
            ends=self.search.ends,
            tol=max(self.search.tol, _LOOSE),
            max_products=self.search.max_products,
            random_state=self.search.random_state,
            like=self.land.theta,
            start=start,
            enough=_after(steps, brake),
        )

    def _look_again(self, space: Subspace) -> Eigenpairs:
        """Correct the part's matrix and look at it again, as often as there is time; give the pairs of all examples."""
        search = self.search
        while True:
            pairs = space.pairs(search.n_eigenvalues, search.ends, search.tol)
            carried = _VARIES * (self.all.seconds + self.part.seconds)
            one_more = carried + (_FEWEST_AGAIN + 1) * self.part.seconds
            if pairs.settled.all() or space.n >= search.max_products or self.left < one_more:
                return pairs
            brake = self.budget.brake(reserved=self.reserved + carried + self.part.seconds)
            looked = self._search(space.corrected, _AGAIN, brake, _together(pairs, search.tol))
            same = len(looked.values) == len(pairs.values)
            order = _worst_first(pairs) if same else _outermost(len(looked.values), search.ends)
            if not self._carry_over(space, looked.vectors[order]):
                return pairs

    def _carry_over(self, space: Subspace, vectors: Tensor) -> int:
        """Multiply vectors by the matrix of all examples while there is time; tell how many were new."""
        n = space.n
        for vector in vectors:
            if self.left < _VARIES * (self.all.seconds + self.part.seconds):
                break
            space.add(vector)
        return space.n - n


def _after(steps: int, brake: Callable[[int], bool]) -> Callable[[int], bool]:
    """Give a brake that also ends a search after so many steps."""
    taken = 0

    def enough(n: int) -> bool:
        nonlocal taken
        taken += n
        return brake(n) or taken >= steps

    return enough


def _together(pairs: Eigenpairs, tol: float) -> Tensor:
    """Give one vector to start a search from, (P,), that holds all eigenvectors found before."""
    size = np.abs(pairs.values)
    parts = 1 / np.maximum(size, tol * size.max())  # a product makes the large ones larger
    return torch.as_tensor(parts).to(pairs.vectors) @ pairs.vectors


def _worst_first(pairs: Eigenpairs) -> list[int]:
    """Order pairs by how far they are from settled, without those that are."""
    open_ = np.flatnonzero(~pairs.settled)
    relative = pairs.residuals[open_] / np.maximum(np.abs(pairs.values[open_]), 1e-300)
    return [int(i) for i in open_[np.argsort(-relative, kind="stable")]]


def _outermost(count: int, ends: str) -> list[int]:
    """Order so many eigenvalues, which fall, from the ends inwards."""
    depth = {"both": lambda k: min(k, count - 1 - k), "largest": lambda k: k, "smallest": lambda k: -k}
    return sorted(range(count), key=depth[ends])
