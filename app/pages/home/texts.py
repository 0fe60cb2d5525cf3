"""Texts of the page Home."""

EN = {
    "nav": "Home",
    "nav.help": "A real landscape, and what each page answers.",
    "title": "Loss Atlas",
    "question": "A trained network is one point in a space of weights. Here you see the land around it.",
    "missing": "The example landscape is not in this installation (assets/demo_surface.npz).",
    "caption": "Three test_resnet networks (timm), each trained on 1,437 handwritten digits from its own seed, and the "
    "plane through them: the loss of 512 training images, batch-norm statistics recomputed at every point. Each network "
    "lies in a valley of its own, with a wall between them on the straight way.",
    "tour": "What each page answers",
    "start": "Start here",
    "start.text": "One press trains a small network on handwritten digits, maps the land around it, and begins a tour through "
    "the lecture's seven sections: about two minutes, no download.",
    "go": "Train, map, see",
    "start.link": "Your own model: Workbench",
    "turn": "Turn the landscape",
    "turn.help": "Or drag it with the mouse; a double click puts it back.",
    "view": "View",
    "view.relief": "Relief",
    "view.map": "Map",
    "number.loss": "Loss at A, B and C, at most",
    "number.accuracy": "Held-out accuracy, at least",
    "number.barrier": "Highest loss on this plane",
    "number.points": "Points measured",
}
