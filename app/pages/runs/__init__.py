"""Runs: every finished job, to reopen, compare and export."""
