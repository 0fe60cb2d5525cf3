"""Sharpness: how fast the loss rises around a point."""
