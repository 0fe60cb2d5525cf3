"""Stationary points: minimum, saddle, or not stationary at all."""
