"""Means of weights, and the learning rates under which they are collected."""
