"""Progress and cancellation: one protocol for a script's bar and for the app's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from tqdm.auto import tqdm

OnProgress = Callable[[int, int, str], None]


class Cancelled(Exception):
    """Raised by an `on_progress` callback to stop the work between two chunks; finished chunks stay cached."""


def ignore_progress(done: int, total: int, message: str) -> None:
    """Report to nobody."""


def resumed(what: str, at: int, total: int) -> str:
    """Say what is being done, and where it began when an earlier call had got somewhere.

    Examples
    --------
    >>> resumed("points", 649, 10201)
    'points, resumed at 649 of 10,201'
    >>> resumed("points", 0, 10201)
    'points'
    """
    return f"{what}, resumed at {at:,} of {total:,}" if 0 < at < total else what


def progress_bar(description: str) -> OnProgress:
    """Report to a tqdm bar, which closes itself when the work is done."""
    bar: tqdm | None = None

    def report(done: int, total: int, message: str) -> None:
        nonlocal bar
        if bar is None or bar.total != total:
            if bar is not None:
                bar.close()
            bar = tqdm(total=total, desc=description)
        bar.set_postfix_str(message)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()
            bar = None

    return report


def subprogress(on_progress: OnProgress, start: float, stop: float, message: str = "") -> OnProgress:
    """Map a step's own progress into the share [start, stop] of a longer job."""

    def report(done: int, total: int, text: str) -> None:
        share = done / total if total else 1.0
        on_progress(round(1000 * (start + (stop - start) * share)), 1000, message or text)

    return report


def shares(on_progress: OnProgress, weights: Sequence[float]) -> list[OnProgress]:
    """Give each step of a job its part of the whole, in proportion to its cost."""
    whole = max(sum(weights), 1e-12)
    edges = [edge / whole for edge in accumulate(weights, initial=0.0)]
    return [subprogress(on_progress, start, stop) for start, stop in pairwise(edges)]
