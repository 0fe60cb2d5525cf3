"""Analytic 41 × 41 maps: those that adaptive mode was set on, those it is judged on, and rough ones."""

import numpy as np

SIDE = 41
X, Y = np.meshgrid(*[np.linspace(-1, 1, SIDE)] * 2, indexing="ij")


def turned(angle):
    return X * np.cos(angle) + Y * np.sin(angle), -X * np.sin(angle) + Y * np.cos(angle)


def tuned():
    u, v = turned(0.7)
    s, t = turned(-0.3)
    basins = 0.02 + 2 * (X + 0.4) ** 2 + (Y + 0.3) ** 2
    return {
        "bowl": 0.01 + (X + 0.3 * Y) ** 2 + 4 * Y**2,
        "ridge": 1e-3 + X**2 + 3 * Y**2 + 2 * np.exp(-(((X + Y - 0.9) / 0.12) ** 2)),
        "cliff": np.exp(2 / (1 + np.exp(-(u - 0.2) / 0.04)) + 0.2 * v),
        "plateau": 2.3 - 2.2 * np.exp(-4 * np.maximum(0, np.sqrt(X**2 + Y**2) - 0.2)),
        "narrow valley": 1e-2 + (u / 0.05) ** 2 + 0.1 * v**2,
        "two basins": 0.05 + np.minimum((X - 0.4) ** 2 + (Y - 0.2) ** 2, basins),
        "kinks": 0.1 + np.abs(u) + 2 * np.maximum(0, v - 0.3) + np.maximum(0, s + 0.5 * t),
        "overflow": np.where(X * X + 0.7 * Y * Y + 0.3 * X * Y > 1.0, np.inf, np.exp(3 * (X * X + Y * Y))),
        "bump": 1 + np.exp(-((X - 0.33) ** 2 + (Y + 0.41) ** 2) / 0.15**2),
    }


def judged():
    u, v = turned(1.1)
    s, t = turned(-0.55)
    basins = (
        (X - 0.5) ** 2 + (Y - 0.4) ** 2,
        0.1 + 1.5 * ((X + 0.5) ** 2 + Y**2),
        0.05 + 2 * ((X - 0.1) ** 2 + (Y + 0.6) ** 2),
    )
    return {
        "tilted bowl": 0.003 + (u + 0.2 * v**2) ** 2 + 6 * v**2,
        "curved ridge": 0.02 + X**2 + Y**2 + 1.5 * np.exp(-(((u - 0.5 * v**2 - 0.15) / 0.15) ** 2)),
        "cliff": np.exp(-1.5 * np.tanh((s + 0.25) / 0.06) + 0.3 * t**2),
        "plateau": 0.05 + 2 * np.tanh(3 * np.maximum(0, np.hypot(X - 0.2, Y + 0.1) - 0.3)),
        "narrow curved valley": 0.02 + ((u - 0.4 * v * v) / 0.07) ** 2 + 0.3 * v**2,
        "three basins": 0.03 + np.minimum(np.minimum(basins[0], basins[1]), basins[2]),
        "kinks": 0.2 + np.maximum(np.abs(s) - 0.2, 0) + 1.5 * np.maximum(0, -t - 0.1) + 0.7 * np.maximum(0, u),
        "overflow": np.where(np.maximum(np.abs(u), np.abs(v - 0.2)) > 0.8, np.inf, np.exp(4 * (X * X + 0.5 * Y * Y))),
        "saddle": 1 + u**2 - 0.8 * v**2 * np.exp(-v * v),
        "bump": 1 + 2 * np.exp(-((X + 0.22) ** 2 + (Y - 0.52) ** 2) / 0.2**2),
    }


def rough():
    """Noise from 0.5 to 30 % of the range of the log-loss, and steps as fine as the lattice."""
    generator = np.random.default_rng(0)
    base = 0.3 * (X * X + 2 * Y * Y)
    maps = {
        f"noise of {share:.1%}": np.exp(base + share * np.ptp(base) * generator.normal(size=X.shape))
        for share in (0.005, 0.01, 0.03, 0.1, 0.3)
    }
    maps["steps"] = np.exp(np.round(6 * base + 0.8 * np.sin(37 * X) + 0.8 * np.cos(41 * Y)) / 6)
    return maps
