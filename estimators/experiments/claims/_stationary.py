"""Section 1: what stationary points a loss has."""

from ._claim import SIGN, Claim

CLAIMS = (
    Claim(
        key="nonconvex",
        section=1,
        says="The loss of a deep network is not convex.",
        contrast="The most negative eigenvalue of the Hessian along trainings, against zero.",
        equal="One network, one training set, one schedule; runs differ in the seed.",
        controls="A Ritz value is never below the eigenvalue it stands for, so that a negative one is proof. Convex losses of "
        "the page Known landscapes have none.",
        n=6,
        unit="A training from its own seed.",
        test=SIGN + " A run counts where more than half of its checkpoints have such an eigenvalue.",
        smallest="A ten thousandth of the largest eigenvalue: any that is beyond rounding is proof.",
        against="Most runs without negative curvature at most of their checkpoints.",
        experiment="negative_curvature",
    ),
    Claim(
        key="mostly_saddles",
        section=1,
        says="In many dimensions almost every stationary point is a saddle, and few are minima.",
        contrast="The share of saddles among stationary points of one loss, against one half.",
        equal="One network and one set of examples.",
        controls="A way to draw stationary points that does not prefer an index.",
        n=0,
        unit="A stationary point, drawn without regard to its index.",
        test=SIGN,
        smallest="More than half.",
        against="Half or more of the stationary points are minima.",
        untested="The searches here ask for an index and find points of that index, which says nothing about their share. "
        "No draw of stationary points of a network that prefers no index is known to us.",
    ),
    Claim(
        key="minimum_rare",
        section=1,
        says="The probability that a random stationary point is a minimum falls exponentially with the dimension.",
        contrast="The share of positive definite matrices among random symmetric ones in d = 2 to 5 dimensions, against 1 in 2ᵈ.",
        equal="Gaussian entries of one variance (the Gaussian orthogonal ensemble).",
        controls="The exact share for d = 2, (2 − √2)/4. A random matrix stands for the Hessian of a random function, not of a network.",
        n=20_000,
        unit="A matrix.",
        test="Exact binomial test for each dimension, corrected for their number (Holm).",
        smallest="Any share below 1 in 2ᵈ.",
        against="A share above 1 in 2ᵈ.",
        experiment="random_matrices",
    ),
)
