"""Directions, lattices on them, and what is read off the values there."""
