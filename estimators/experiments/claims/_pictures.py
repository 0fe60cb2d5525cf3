"""Section 5: what pictures of the landscape are said to show."""

from ._claim import CROSSED, EQUAL_LOSS, PAIRED, Claim

_SKIPS = "Depth, width, examples, epochs, start of the last gains (1 in both); each net has its own best rate of three."
_ONE_RATE = (
    "Depth, width, examples, learning rate (0.1), start of the last gains (1 in both), training loss at the end (0.05)."
)
_TRAINS = " Where the net with skips does not train either, nothing is compared."
_NETS = "A seed: its own initial weights and order of the examples."

CLAIMS = (
    Claim(
        key="skips_flat",
        section=5,
        says="A ResNet with skip connections lies in a wide, flat basin.",
        contrast="λ_max and the average rise with skips, against without, in a shallow net that trains both ways.",
        equal=_ONE_RATE,
        controls="The shallow net: a deep one without skips is at no minimum, and nothing to compare with. "
        + EQUAL_LOSS,
        n=5,
        unit=_NETS,
        test=PAIRED,
        smallest="A factor of 1.5.",
        against="A net without skips that is as flat, or flatter, at the same training loss.",
        experiment="skips_depth",
    ),
    Claim(
        key="skips_generalise",
        section=5,
        says="A ResNet with skip connections generalises well.",
        contrast="Held-out accuracy with skips, against without, in the shallow net.",
        equal=_ONE_RATE,
        controls="The shallow net: a deep one without skips is at no minimum, and nothing to compare with.",
        n=5,
        unit="A seed, crossed with the held-out examples.",
        test=CROSSED,
        smallest="One point of accuracy.",
        against="A net without skips that generalises as well, or better.",
        experiment="skips_depth",
    ),
    Claim(
        key="vgg_sharp",
        section=5,
        says="A VGG, without skips, lies in a narrow and sharp basin and generalises less well than a ResNet.",
        contrast="λ_max, the average rise and held-out accuracy of a small VGG with batch norm (thin_vgg), against a shallow "
        "ResNet of like size.",
        equal="Number of weights within a fifth, examples, learning rate (0.1), training loss at the end (0.05).",
        controls="The same ResNet without its skips: a VGG differs in more than these. " + EQUAL_LOSS,
        n=5,
        unit=_NETS,
        test=PAIRED + " Sharper and less accurate: all rows have to be supported.",
        smallest="A factor of 1.5; one point of accuracy.",
        against="A VGG that is as flat and generalises as well.",
        experiment="skips_depth",
    ),
    Claim(
        key="large_batch_sharp",
        section=5,
        says="Training with large batches tends to end in sharp minima.",
        contrast="λ_max, trace and average rise of the largest batch, against the smallest, at one learning rate.",
        equal="Learning rate, initial weights of a seed, examples, training loss at the end (0.05).",
        controls="The same contrast at equal ratio rate/batch, which the claim does not speak of: at one rate the ratio "
        "differs as much as the batch. " + EQUAL_LOSS,
        n=5,
        unit=_NETS,
        test=PAIRED,
        smallest="A factor of 1.5.",
        against="Minima of the large batch that are as flat, or flatter.",
        experiment="rate_batch",
    ),
    Claim(
        key="small_batch_generalises",
        section=5,
        says="Training with small batches generalises better.",
        contrast="Held-out accuracy of the largest batch, against the smallest, at one learning rate.",
        equal="Learning rate, initial weights of a seed, examples, training loss at the end (0.05).",
        controls="The same contrast at equal ratio rate/batch.",
        n=5,
        unit="A seed, crossed with the held-out examples.",
        test=CROSSED,
        smallest="One point of accuracy.",
        against="A large batch that generalises as well, or better.",
        experiment="rate_batch",
    ),
    Claim(
        key="skips_depth",
        section=5,
        says="Skip connections are why a ResNet can be trained deeper than a net without them.",
        contrast="What depth does to the training loss without skips, against what it does with them.",
        equal=_SKIPS,
        controls="The shallow pair: the claim is about depth, so that a difference there is taken off." + _TRAINS,
        n=5,
        unit=_NETS,
        test=PAIRED + " Where runs fail, the shares that trained are compared (Fisher).",
        smallest="0.1 nats of training loss.",
        against="Depth that costs as much with skips as without.",
        experiment="skips_depth",
    ),
)
