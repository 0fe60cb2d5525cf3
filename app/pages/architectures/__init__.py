"""Architectures: what skips, normalisation, dropout, width and batch size change."""
