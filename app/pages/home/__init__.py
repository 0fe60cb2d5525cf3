"""Home: a real landscape at once, and where to go from there."""
