"""Texts of the page Known landscapes."""

EN = {
    "nav": "Known landscapes",
    "nav.help": "Is this installation right where the answer is known?",
    "title": "Known landscapes",
    "question": "Networks and losses whose critical points, spectra, sharpness, paths and averages are known by a "
    "formula. The engine measures each of them here, on this machine, as every other page does.",
    "about": "Every row is right when the formula and the measured value agree within the error that the engine states "
    "(a residual, three standard errors, a bracket) or that float64 rounding leaves. It takes some ten seconds.",
    "terminal": "From a terminal: `loss-atlas check`, whose exit code is 1 when a row is red.",
    "run": "Check this installation",
    "job": "Check of this installation",
    "empty": "Press the button: eight landscapes are measured and set beside their formulas.",
    "right": "All {count} numbers agree with their formulas.",
    "wrong": "{wrong} of {count} numbers disagree with their formulas: {where}. Results of these parts of the engine "
    "can't be trusted on this machine.",
    "so_far": "{count} numbers so far.",
    "heading.ladder": "The ladder of the linear autoencoder: critical points by index",
    "ladder.note": "Each rung is a critical point: the autoencoder keeps one eigenvector of the covariance, or nothing "
    "(the origin). The further from the best one, the more directions lead down. In a random landscape this holds on "
    "average (Dauphin et al. 2014); here it is exact.",
    "axis.index": "Index (negative eigenvalues)",
    "axis.loss": "Loss",
    "formula": "formula",
    "at": "measured at the point",
    "found": "found from random starts",
    "alt.ladder": "Loss against index of the linear autoencoder's critical points: {points}. Measured and found values lie "
    "on the exact rungs.",
    "alt.rung": "{loss} at {index}",
    "known": "**What is known.** {answer}",
    "source": "Source: {source}",
    "col.verdict": "Verdict",
    "col.quantity": "Quantity",
    "col.expected": "Formula",
    "col.measured": "Measured",
    "col.difference": "Difference",
    "col.error": "Stated error",
    "col.error_of": "Kind of error",
    "col.engine": "Measured by",
    "verdict.right": "✓ right",
    "verdict.wrong": "✗ wrong",
    "told.right": "right",
    "told.wrong": "WRONG",
    "told.at": "{landscape} ({done} of {count}) …",
    "told.end": "{right} of {count} numbers right, in {seconds:.0f} s.",
    "rung": "{quantity}, index {rung}",
    "seconds": "{seconds:.0f} s",
}
