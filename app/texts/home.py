"""Texts of the page Home."""

EN = {
    "title": "Loss Atlas",
    "question": "A trained network is one point in a space of weights. Here you see the land around it.",
    "missing": "The example landscape is not in this installation (assets/demo_surface.npz).",
    "caption": "{title}. One network, one set of images, one loss: each cell is the loss of other weights. "
    "The cross is the trained network.",
    "tour": "What each page answers",
    "start": "Start here",
    "start.text": "Train a small network on handwritten digits (seconds, no download), take one of timm's "
    "architectures, or bring a checkpoint of your own. Then map the land around it.",
    "start.link": "Open the Workbench",
    "rotate": "Turn the landscape",
    "view": "View",
    "view.relief": "Relief",
    "view.map": "Map",
    "number.loss": "Loss at A, B and C, at most",
    "number.accuracy": "Held-out accuracy, at least",
    "number.barrier": "Highest loss on this plane",
    "number.points": "Points measured",
}
