"""The surface charts: what they draw, in numbers."""

from __future__ import annotations

from types import SimpleNamespace

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert as vlc

from app.charts import grid, surface, theme


def bowl(n=9, m=7, **more):
    x, y = np.linspace(-1, 1, n), np.linspace(-2, 2, m)
    losses = 0.1 + x[:, None] ** 2 + 0.5 * y[None, :] ** 2
    return SimpleNamespace(axes=(x, y), losses=losses, accuracies=np.exp(-losses), settings={}, **more)


def layers(chart):
    with alt.data_transformers.enable("default", max_rows=None):
        return chart.to_dict()


def rows(spec, layer):
    name = spec["layer"][layer]["data"].get("name")
    return spec["datasets"][name] if name else spec["layer"][layer]["data"]["values"]


def test_cell_edges_are_halfway_between_nodes():
    np.testing.assert_allclose(grid.edges(np.array([0.0, 1.0, 3.0])), [-0.5, 0.5, 2.0, 4.0])
    np.testing.assert_allclose(grid.edges(np.array([2.0])), [1.5, 2.5])


def test_every_cell_has_its_value_at_its_place_and_the_first_index_is_x():
    result = bowl()
    spec = layers(surface.heat_map(result))
    cells = rows(spec, 0)
    assert len(cells) == 63
    for cell in cells:
        i = int(np.argmin(abs(result.axes[0] - cell["cx"])))
        j = int(np.argmin(abs(result.axes[1] - cell["cy"])))
        assert cell["value"] == pytest.approx(result.losses[i, j])
        assert cell["x"] < cell["cx"] < cell["x2"]
        assert cell["y"] < cell["cy"] < cell["y2"]
    encoding = spec["layer"][0]["encoding"]
    assert encoding["x"]["title"] == "first direction (steps)"
    assert encoding["color"]["scale"]["type"] == "log"
    assert encoding["color"]["scale"]["scheme"] == "viridis"
    assert "9 by 7 grid" in spec["description"]


def places(chart, width, height):
    """Return where a chart of a size draws its marks, in pixels."""
    found = []

    def walk(node):
        if isinstance(node, dict):
            if node.get("marktype") == "symbol":
                found.extend((item["x"], item["y"]) for item in node["items"])
            node = list(node.values())
        if isinstance(node, list):
            for part in node:
                walk(part)

    walk(vlc.vegalite_to_scenegraph(layers(chart.properties(width=width, height=height))))
    return np.array(found)


MARKERS = [{"label": "A", "x": 0.0, "y": 0.0}, {"label": "B", "x": 0.5, "y": 0.0}, {"label": "C", "x": 0.0, "y": 0.5}]


@pytest.mark.parametrize(("width", "height"), [(300, 420), (700, 300), (150, 400)])
def test_axes_of_one_unit_keep_their_aspect_at_any_size_and_show_the_whole_map(width, height):
    chart = surface.heat_map(bowl(markers=MARKERS, axis_titles=["u (distance)", "v (distance)"]))
    a, b, c = places(chart, width, height)
    assert b[0] - a[0] == pytest.approx(a[1] - c[1])
    assert (b[0] - a[0]) * 2 / 0.5 <= width and (a[1] - c[1]) * 4 / 0.5 <= height  # all of it is in sight
    other = surface.heat_map(bowl(markers=MARKERS, axis_titles=["u (distance)", "v (steps)"]))
    a, b, c = places(other, width, height)
    assert abs((b[0] - a[0]) / (a[1] - c[1]) - 1) > 0.05  # two units: each fills its side


def test_a_preview_is_hatched_and_says_what_is_missing():
    measured = np.zeros((9, 7), bool)
    measured[::4, ::3] = True
    preview = layers(surface.heat_map(bowl(evaluated=measured, converged=False)))
    hatched = next(layer for layer in preview["layer"] if layer["mark"]["type"] == "rule")
    cells = preview["datasets"][hatched["data"]["name"]]
    assert len(cells) == (~measured).sum()
    assert f"{(~measured).sum()} cells are still to be measured" in preview["description"]
    done = layers(surface.heat_map(bowl(evaluated=measured, converged=True)))
    assert all(layer["mark"]["type"] != "rule" for layer in done["layer"])


def test_some_isolines_say_their_level():
    spec = layers(surface.heat_map(bowl(41, 41)))
    said = [layer for layer in spec["layer"] if layer["mark"]["type"] == "text"]
    words = {row["words"]: row for row in spec["datasets"][said[-1]["data"]["name"]]}
    assert len(words) >= 3
    for row in words.values():
        assert 0.1 + row["x"] ** 2 + 0.5 * row["y"] ** 2 == pytest.approx(row["level"], rel=0.05)
        assert float(row["words"]) == pytest.approx(row["level"], rel=0.06)


def test_isolines_lie_on_their_level():
    x = y = np.linspace(-1, 1, 81)
    lines = grid.isolines(x, y, x[:, None] ** 2 + y[None, :] ** 2, [0.25])
    np.testing.assert_allclose(np.hypot(lines["x"], lines["y"]), 0.5, atol=1e-3)
    assert (np.diff(lines["order"]) == 1).all()
    assert grid.isolines(x, y, np.ones((81, 81)), [0.5]).empty


def test_isolines_of_an_oblong_map_are_not_transposed():
    x, y = np.linspace(0, 3, 31), np.linspace(0, 1, 11)
    lines = grid.isolines(x, y, np.broadcast_to(x[:, None], (31, 11)), [2.0])
    np.testing.assert_allclose(lines["x"], 2.0)
    assert lines["y"].max() == pytest.approx(1.0)


def test_cells_that_are_not_finite_are_grey_counted_and_never_replaced():
    result = bowl()
    result.losses[0, 0], result.losses[1, 2] = np.nan, np.inf
    spec = layers(surface.heat_map(result))
    assert len(rows(spec, 0)) == 61
    grey = rows(spec, 1)
    assert len(grey) == 2
    assert spec["layer"][1]["mark"]["color"] == theme.MISSING
    assert "2 cells are not finite" in spec["description"]


def test_cells_still_to_be_measured_are_not_called_lost():
    result = bowl()
    result.losses[:2] = np.nan
    result.losses[8, 6] = np.inf
    result.evaluated = np.isfinite(result.losses)
    result.evaluated[8, 6] = True
    spec = layers(surface.heat_map(result, levels=0))
    covered, strokes = rows(spec, 1), rows(spec, 2)
    assert len(covered) == 7 and len(strokes) == 14  # a rectangle for two neighbours, and hatched
    assert sum((r["x2"] - r["x"]) * (r["y2"] - r["y"]) for r in covered) == pytest.approx(14 * 0.25 * 2 / 3, rel=0.15)
    assert len(rows(spec, 3)) == 1
    assert "14 cells are still to be measured; 1 cells are not finite" in spec["description"]


def test_a_large_map_that_has_begun_takes_few_marks_for_what_it_lacks():
    waiting = np.ones((101, 101), bool)
    waiting[50, ::2] = waiting[:30] = False
    axis = np.arange(101.0)
    i, j = (index.ravel() for index in np.indices(waiting.shape))
    cells = pd.DataFrame({"x": axis[i], "x2": axis[i] + 1, "y": axis[j], "y2": axis[j] + 1})
    covers, strokes = surface._hatching(cells, waiting)
    assert len(covers) < 160 and 300 < len(strokes) < 1600
    areas = (covers["x2"] - covers["x"]) * (covers["y2"] - covers["y"])
    assert areas.sum() == waiting.sum()
    for stroke in strokes.astype(int).itertuples():
        assert waiting[stroke.x : stroke.x2, stroke.y : stroke.y2].all()


def test_levels_that_are_close_are_written_with_the_digits_that_tell_them_apart():
    assert grid.told_apart([0.5251, 0.5264, 0.53]) == ["0.525", "0.526", "0.53"]
    assert grid.told_apart([0.1, 12.34, 1234.0]) == ["0.1", "12", "1200"]
    assert grid.told_apart([]) == []


def test_axis_titles_of_the_result_are_used_whole():
    result = bowl(axis_titles=["First direction (1 = own norm)"])
    assert layers(surface.heat_map(result))["layer"][0]["encoding"]["x"]["title"].endswith("own norm)")
    assert layers(surface.heat_map(result))["layer"][0]["encoding"]["y"]["title"] == "second direction (steps)"


def test_a_map_without_one_finite_value_and_a_constant_map_still_draw():
    nothing = bowl()
    nothing.losses[:] = np.nan
    assert len(rows(layers(surface.heat_map(nothing)), 1)) == 63, "all grey"
    constant = bowl()
    constant.losses[:] = 0.7
    spec = layers(surface.heat_map(constant))
    low, high = spec["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert low < high


def test_zero_loss_has_no_place_on_a_log_scale_and_one_on_a_linear():
    result = bowl()
    result.losses[4, 3] = 0.0
    assert len(rows(layers(surface.heat_map(result, log=True)), 0)) == 62
    assert len(rows(layers(surface.heat_map(result, log=False)), 0)) == 63


def test_accuracy_is_never_drawn_on_a_log_scale():
    spec = layers(surface.heat_map(bowl(), quantity="accuracies", log=True))
    assert spec["layer"][0]["encoding"]["color"]["scale"]["type"] == "linear"


def test_clip_and_a_shared_domain_fix_the_colours():
    result = bowl()
    clipped = layers(surface.heat_map(result, clip=0.5))["layer"][0]["encoding"]["color"]["scale"]["domain"]
    assert clipped[1] == pytest.approx(np.quantile(result.losses, 0.5))
    other = bowl()
    other.losses *= 10
    low, high = surface.shared_domain([result, other])
    assert (low, high) == (pytest.approx(result.losses.min()), pytest.approx(other.losses.max()))
    spec = layers(surface.heat_map(result, domain=(low, high)))
    assert spec["layer"][0]["encoding"]["color"]["scale"]["domain"] == [low, high]


def test_models_and_several_trajectories_share_one_legend():
    result = bowl(
        markers=[{"label": "A", "x": 0.0, "y": 0.0, "loss": 0.1}],
        trajectories=[
            {"label": "SGD", "x": [0, 0.5], "y": [0, 1], "loss": [2.0, 1.0]},
            {"label": "Adam", "x": [0, -0.5], "y": [0, 1]},
        ],
    )
    spec = layers(surface.heat_map(result, levels=0))
    line, dots = (layer["encoding"]["color"] for layer in spec["layer"][1:3])
    assert line["scale"]["domain"] == dots["scale"]["domain"] == ["SGD", "Adam"]
    assert line["legend"]["orient"] == "bottom" and dots["legend"] is None
    assert [row["step"] for row in rows(spec, 1) if row["label"] == "Adam"] == [0, 1]
    assert rows(spec, 3)[0]["label"] == "A"
    centre = layers(surface.heat_map(bowl(), levels=0))
    assert rows(centre, 1)[0]["label"] == "centre"


def test_a_cursor_marks_its_point():
    result = bowl()
    flat = layers(surface.heat_map(result, cursor=(0.5, -1.0)))
    spot = rows(flat, len(flat["layer"]) - 1)[0]
    assert (spot["x"], spot["y"]) == (0.5, -1.0)


def test_a_profile_of_several_seeds_is_a_median_in_a_band():
    t = np.linspace(-1, 1, 5)
    result = SimpleNamespace(axes=(t,), losses=np.stack([t**2, 2 * t**2, 4 * t**2 + 1]))
    result.losses[2, 0] = np.inf
    spec = layers(surface.profile(result))
    table = rows({**spec, "layer": [{"data": spec.get("data", spec["layer"][0].get("data"))}]}, 0)
    assert table[2]["middle"] == 0.0
    assert (table[2]["low"], table[2]["high"]) == (0.0, 1.0)
    assert table[0]["high"] == pytest.approx(2.0), "the overflowed seed is left out, not replaced"
    assert "3 seeds" in spec["description"]
    assert "1 values are not finite" in spec["description"]


def test_unknown_and_missing_quantities_are_named():
    with pytest.raises(ValueError, match="quantity must be one of losses"):
        surface.values_of(bowl(), "loss")
    with pytest.raises(ValueError, match="held-out data"):
        surface.values_of(bowl(), "held_out_losses")
    assert surface.quantities(bowl()) == ["losses", "accuracies"]
