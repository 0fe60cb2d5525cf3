"""Torch, numpy and scipy maths, one algorithm a file; nothing here knows of estimators, caches or files."""
