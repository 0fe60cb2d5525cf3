"""The relief: what Vega draws of it, from any side."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import vl_convert as vlc

from app.charts import surface
from app.charts.relief import RISE, relief
from tests.app.charts.test_surface import MARKERS, bowl, layers, rows

FACES, WORDS = 1, 2  # layers


def seen_from(points, azimuth, elevation):
    """Give where points lie on the page, in half-widths of the floor, and how far they are."""
    (x, y, z), (turn, tilt) = np.moveaxis(points, -1, 0), np.radians((azimuth, elevation))
    away = x * np.sin(turn) + y * np.cos(turn)
    up = z * np.cos(tilt) + away * np.sin(tilt)
    return np.stack([x * np.cos(turn) - y * np.sin(turn), up], -1), away * np.cos(tilt) - z * np.sin(tilt)


def drawn(chart, layer):
    """Give the corners of the shapes of a layer in pixels, in the order in which they are drawn."""
    svg = vlc.vegalite_to_svg(layers(chart.properties(width=600, height=400)))
    group = re.search(rf'class="[^"]*layer_{layer}_marks"[^>]*>(.*?)</g>', svg, re.S)[1]
    shapes = [re.findall(r"-?[\d.]+", d) for d in re.findall(r' d="([^"]+)"', group)]
    return [np.array(numbers, float).reshape(-1, 2) for numbers in shapes]


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 30), (35, 30), (200, 70), (300, 5)])
def test_every_cell_is_drawn_once_where_it_is_seen_and_behind_what_is_nearer(azimuth, elevation):
    x, y = np.linspace(-1, 1, 5), np.linspace(-2, 2, 4)
    losses = 1 + np.arange(20.0).reshape(5, 4) % 7
    result = SimpleNamespace(axes=(x, y), losses=losses)
    shapes = drawn(relief(result, azimuth=azimuth, elevation=elevation, log=False), FACES)
    assert len(shapes) == 12
    nodes = np.stack([*np.meshgrid(x, y / 2, indexing="ij"), RISE * (losses - 1) / 6], -1)
    page, depth = seen_from(nodes, azimuth, elevation)
    corners = (
        (slice(-1), slice(-1)),
        (slice(1, None), slice(-1)),
        (slice(1, None), slice(1, None)),
        (slice(-1), slice(1, None)),
    )
    cells = np.stack([page[corner] for corner in corners], 2).reshape(12, 4, 2)
    away = np.stack([depth[corner] for corner in corners], 2).reshape(12, 4).mean(1)
    expected = cells[np.argsort(-away, kind="stable")]
    pixels = np.stack([shape[:4] for shape in shapes])
    scale = np.ptp(pixels[..., 0]) / np.ptp(expected[..., 0])
    found = np.stack([pixels[..., 0], -pixels[..., 1]], -1) / scale
    np.testing.assert_allclose(found - found.mean((0, 1)), expected - expected.mean((0, 1)), atol=5e-3)
    assert pixels.min() >= 0 and pixels[..., 0].max() <= 600 and pixels[..., 1].max() <= 400


def test_seen_along_an_axis_far_rows_lie_higher_and_come_first():
    flat = bowl()
    flat.losses[:] = 1.0
    heights = [shape[:, 1].mean() for shape in drawn(relief(flat, azimuth=0), FACES)]
    assert (np.diff(heights) >= -1e-6).all() and heights[-1] > heights[0]


def test_the_mouse_moves_the_angles_and_nothing_else_stands_on_its_scales():
    spec = layers(relief(bowl(), azimuth=35, elevation=30))
    (dragged,) = [param for param in spec["params"] if param["name"] == "dragged"]
    assert dragged["bind"] == "scales" and dragged["select"]["zoom"] is False
    told = {param["name"]: param["expr"] for param in spec["params"] if "expr" in param}
    assert "35" in told["turn_c"] and "dragged.across" in told["turn_c"] and "dragged.upward" in told["tilt_s"]
    assert sum("x" in layer.get("encoding", {}) for layer in spec["layer"]) == 1


def test_a_large_map_becomes_a_relief_of_bounded_size():
    x = np.linspace(-1, 1, 201)
    big = SimpleNamespace(axes=(x, x), losses=1 + x[:, None] ** 2 + x[None, :] ** 2)
    cells = rows(layers(relief(big)), FACES)
    assert len(cells) <= 54 * 54
    assert min(cell["x"] for cell in cells) < -0.95
    assert max(cell["x"] for cell in cells) > 0.95


def test_a_hole_in_the_data_is_a_hole_in_the_relief():
    result = bowl()
    assert len(rows(layers(relief(result)), FACES)) == 48
    result.losses[4, 3] = np.nan
    assert len(rows(layers(relief(result)), FACES)) == 48 - 4


def test_its_edges_say_their_direction_without_unit_and_its_post_says_the_height():
    words = [row["words"] for row in rows(layers(relief(bowl(axis_titles=["First direction (1 = own norm)"]))), WORDS)]
    assert {"First direction", "second direction", "-2", "2", "0.557", "loss 3.1"} <= set(words)


def test_models_and_the_cursor_lie_on_the_surface():
    result = bowl(markers=MARKERS)
    spec = layers(relief(result, cursor=(0.5, -1.0), log=False))
    names = rows(spec, 3)
    assert [row["label"] for row in names] == ["A", "B", "C"]
    assert names[0]["z"] == pytest.approx(0.0) and names[1]["x"] == pytest.approx(0.5)
    assert names[1]["z"] == pytest.approx(RISE * 0.25 / 3)  # losses 0.1 … 3.1
    spot = rows(spec, len(spec["layer"]) - 2)[0]
    assert (spot["x"], spot["y"]) == (0.5, -0.5)
    assert len(layers(relief(bowl()))["layer"]) == 4  # without any


def test_a_constant_map_still_draws():
    constant = bowl()
    constant.losses[:] = 0.7
    assert len(drawn(surface.relief(constant), FACES)) == 48
