"""Eigenvalues, traces and spectral densities of matrices known by their products."""
