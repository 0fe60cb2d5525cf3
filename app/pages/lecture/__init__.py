"""The lecture: its claims, how each is tested, and what was measured."""
