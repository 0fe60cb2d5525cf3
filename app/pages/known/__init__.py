"""Known landscapes: the engine beside closed forms."""
