"""Section 4: paths between minima."""

from ._claim import PAIRED, SIGN, Claim

_EQUAL = (
    "Architecture, examples, schedule and epochs; batch-norm statistics are estimated again at every point of a path."
)
_PAIR = "A pair of networks of its own."
_JOINED = "A rise over the worse end of 0.1 nats: less counts as joined."

CLAIMS = (
    Claim(
        key="same_start_linear",
        section=4,
        says="Networks that part from the same initialisation are mostly joined by a straight line.",
        contrast="The rise of the loss along the line between two trainings from one start with two orders of the examples.",
        equal=_EQUAL,
        controls="Pairs from different starts, joined in the same way.",
        n=6,
        unit=_PAIR,
        test=SIGN,
        smallest=_JOINED,
        against="Most pairs have a barrier.",
        experiment="connectivity_cases",
    ),
    Claim(
        key="different_starts_curve",
        section=4,
        says="Networks from different initialisations are joined by a curve along which the loss does not rise.",
        contrast="The rise along a trained Bézier curve, and along the straight line, between two starts.",
        equal=_EQUAL,
        controls="The straight line has to fail; the line after matching units tells permutation from distance.",
        n=6,
        unit=_PAIR,
        test=SIGN + " Both halves have to hold: the curve joins, the line does not.",
        smallest=_JOINED,
        against="Most pairs have a barrier along the curve, or none along the line.",
        experiment="connectivity_cases",
    ),
    Claim(
        key="fine_tuned_linear",
        section=4,
        says="Networks fine-tuned from one pretrained network can be joined by a straight line.",
        contrast="The rise along the line between two children of one trained parent.",
        equal=_EQUAL,
        controls="Pairs from different starts, joined in the same way. Children that are less than a hundredth of their distance "
        "apart have hardly moved, and are not comparable.",
        n=6,
        unit=_PAIR,
        test=SIGN,
        smallest=_JOINED,
        against="Most pairs have a barrier.",
        experiment="connectivity_cases",
    ),
    Claim(
        key="connected_valleys",
        section=4,
        says="Minima are not isolated points but form connected valleys.",
        contrast="The share of pairs of independently trained networks that some low path joins.",
        equal=_EQUAL,
        controls="A path that is found shows a connection; one that is not found shows nothing.",
        n=0,
        unit="A group of networks trained apart.",
        test=SIGN,
        smallest=_JOINED,
        against="Groups of networks of which most pairs are joined by no path that is looked for.",
        untested="That pairs are joined is tested by the curve between different starts. A valley is a statement about all "
        "minima, and no number of pairs found by one training method shows it.",
    ),
    Claim(
        key="connectivity_averaging",
        section=4,
        says="Mode connectivity is why averaging weights works.",
        contrast="Accuracy of the mean of two networks over that of its ends, for pairs with and without a barrier.",
        equal=_EQUAL,
        controls="Pairs of one start and of different starts, trained alike.",
        n=0,
        unit=_PAIR,
        test=PAIRED,
        smallest="One point of accuracy.",
        against="Means of joined pairs that are no better than their ends, or means of pairs with a barrier that are.",
        untested="The loss at the middle of a line is the barrier itself at one point, so that the first half is true by "
        "definition; an experiment on the accuracy of means has not been written.",
    ),
)
