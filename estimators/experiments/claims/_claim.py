"""A claim of the lecture and the design that tests it."""

from __future__ import annotations

from dataclasses import dataclass

#: Tests that several designs share.
PAIRED = (
    "Student's test of the differences between pairs, corrected for the number of rows (Holm); where less than the "
    "smallest effect is shown by two one-sided tests, the two are equivalent."
)
CROSSED = (
    "As the other rows, with an interval over networks and held-out examples together, since all networks are scored "
    "on the same examples."
)
EQUAL_LOSS = (
    "Curvature falls with the training loss, at most in proportion: what is said of it has to hold for the curvature over "
    "that loss as well."
)
SIGN = "Sign test over independent units, corrected for the number of rows (Holm)."
RANKED = "Kendall's τ, tested by permuting independent units."


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim and its design, stated before its numbers.

    Attributes
    ----------
    key : str
        Its name.
    section : int
        Section of the lecture, 1 to 7.
    says : str
        The claim in one sentence.
    contrast : str
        What is compared with what.
    equal : str
        What is the same on both sides.
    controls : str
        What rules out another reason for the contrast.
    n : int
        Independent units.
    unit : str
        What one unit is.
    test : str
        How the contrast is tested.
    smallest : str
        The smallest effect that matters.
    against : str
        What would count against the claim.
    experiment : str
        Name in `estimators.experiments.STUDIES`; "" where there is none.
    untested : str
        Why there is no experiment; "" where there is one.

    Examples
    --------
    >>> from estimators.experiments import CLAIMS
    >>> CLAIMS["ratio_decides"].section, CLAIMS["ratio_decides"].experiment
    (3, 'rate_batch')
    """

    key: str
    section: int
    says: str
    contrast: str
    equal: str
    controls: str
    n: int
    unit: str
    test: str
    smallest: str
    against: str
    experiment: str = ""
    untested: str = ""
