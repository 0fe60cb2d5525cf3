"""Names of the pages, and the question each answers."""

EN = {
    "home": "Home",
    "home.help": "A real landscape, and what each page answers.",
    "workbench": "Workbench",
    "workbench.help": "Choose a timm model and data, train it, and keep its checkpoints.",
    "surface": "Surface",
    "surface.help": "What does the loss look like around this point?",
    "stationary": "Stationary points",
    "stationary.help": "Is this point a minimum, a saddle, or neither?",
    "sharpness": "Sharpness",
    "sharpness.help": "How fast does the loss rise when the weights move?",
    "connectivity": "Mode connectivity",
    "connectivity.help": "Can one walk from one minimum to another without climbing?",
    "averaging": "Weight averaging",
    "averaging.help": "What does averaging the weights along a trajectory do?",
    "escape": "Saddle escape",
    "escape.help": "How long does an optimiser stay at a saddle, and what gets it off?",
    "architectures": "Architectures",
    "architectures.help": "How do skip connections, norms and width change the landscape?",
    "runs": "Runs",
    "runs.help": "Everything computed so far: reopen, export, delete.",
}
