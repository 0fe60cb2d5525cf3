"""Workbench: which model, weights and data; training; the library of checkpoints."""
