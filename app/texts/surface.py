"""Texts of the page Surface."""

EN = {
    "title": "Surface",
    "question": "What does the loss look like around this point? Two directions span a plane through the weights; "
    "the loss is measured on a grid in it.",
    "directions": "Directions",
    "resolution": "Points on a side",
    "span": "Half-width",
    "span.help": "In steps of the normalised direction: 1 moves each filter by as much as its own norm.",
    "normalization": "Normalisation",
    "run": "Map the surface",
    "job": "Surface of {model}, {n} × {n}",
    "scale": "Colours",
    "scale.log": "Logarithmic",
    "scale.linear": "Linear",
    "scheme": "Scheme",
    "levels": "Isolines",
    "clip": "Clip at quantile",
    "rotation": "Rotate",
    "elevation": "Height of view",
    "centre": "Loss at the centre",
    "lowest": "Lowest on the map",
    "highest": "Highest finite",
    "not_finite": "Not finite",
    "too_large": "{points:,} evaluations are more than a page can draw ({limit:,}). Lower the points on a side.",
    "def.filter.term": "Filter normalisation",
    "def.filter.text": "Each filter of a random direction gets the norm of the same filter of the weights, "
    "so that one step changes every layer in proportion and two networks can be compared.",
    "def.filter.source": "Li et al., Visualizing the Loss Landscape of Neural Nets, NeurIPS 2018",
    "def.centre.term": "Centre",
    "def.centre.text": "The point (0, 0) is the model itself: its value equals the loss of the checkpoint exactly.",
    "def.centre.source": "",
}
