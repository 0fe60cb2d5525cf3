"""Surface: what the loss looks like around a network."""
