"""The page Surface: jobs of every kind from the page, what it draws, files, and large maps."""

from __future__ import annotations

import ast
import json

import altair as alt
import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import catalog
from app.charts import grid
from app.charts import surface as charts
from app.pages.surface import numbers as surface_numbers
from app.pages.surface import page as module
from app.texts import texts
from app.work import jobs
from app.workspace import library
from estimators import Landscape, SurfaceResult, load_model, save_checkpoint, train

TEXT = texts("surface")


def draw():
    from app.pages.surface import page as surface

    surface.render()


def page():
    return AppTest.from_function(draw, default_timeout=120)


def finish(at, seconds=180):
    assert jobs.get_queue().wait(seconds)
    at.run()
    assert not at.exception
    return at


@pytest.fixture(scope="module")
def runs(digits):
    """Two tiny networks with their checkpoints, trained once."""
    model = load_model("test_resnet", num_classes=10)
    return [train(model, digits.subset(64), epochs=3, random_state=seed) for seed in (0, 1)]


@pytest.fixture
def entries(runs, workspace_folder):
    """The networks in the library of this test's workspace."""
    kept = []
    for k, run in enumerate(runs):
        path = save_checkpoint(workspace_folder.parent / f"{k}.safetensors", run.model.state_dict())
        meta = {
            "name": f"net {k}", "architecture": "test_resnet", "num_classes": 10, "image_size": 32,
            "data": {"source": "digits"},
        }  # fmt: skip
        kept.append(library.add_checkpoint(path, meta, epochs=run.checkpoints))
    return kept


def small(at, side=5, samples=32):
    at.number_input(key="surface.resolution").set_value(side)
    at.number_input(key="subject.samples").set_value(samples)
    return at.run()


def run(at):
    at.button(key="surface.run").click().run()
    return finish(at)


def pictures(at):
    return [json.loads(p.proto.spec) for p in at.get("vega_lite_chart")]


def result_of():
    return jobs.latest("surface").result


# ---- the page ----


def test_maps_a_random_plane_and_shows_map_relief_and_numbers(entries):
    at = small(page().run())
    at.segmented_control(key="surface.mode").set_value("exact").run()
    run(at)
    found = result_of()
    assert found.losses.shape == (5, 5)
    assert found.converged
    alts = [p["description"] for p in pictures(at)]
    assert any("Map of loss" in a for a in alts) and any("Relief of loss" in a for a in alts)
    shown = {m.label: m.value for m in at.metric}
    assert shown[TEXT("centre")] == f"{found.loss:.4g}"
    assert shown[TEXT("evaluated")] == "25 / 25"
    assert shown[TEXT("not_finite")] == "0"
    entry = library.list_checkpoints()[0]
    data = catalog.DataSpec("digits", "train", 32, 32).load()
    assert found.loss == Landscape(catalog.PointSpec.from_checkpoint(entry).load(), data).loss()
    # another look at it computes nothing
    before = len(jobs.get_queue().jobs())
    at.segmented_control(key="surface.scale").set_value("linear").run()
    at.slider(key="surface.azimuth").set_value(90).run()
    at.slider(key="surface.levels").set_value(4).run()
    assert not at.exception
    assert len(jobs.get_queue().jobs()) == before


def test_the_script_reproduces_the_map(entries):
    at = small(page().run(), side=3)
    at.toggle(key="surface.held_out").set_value(True).run()
    run(at)
    script = jobs.latest("surface").config["script"]
    ast.parse(script)
    scope = {}
    exec(script, scope)
    assert np.array_equal(scope["result"].losses_, result_of().losses)
    assert np.array_equal(scope["result"].held_out_losses_, result_of().held_out_losses)


def test_trajectory_with_another_one_marked(entries):
    at = page().run()
    at.selectbox(key="surface.directions").set_value("trajectory").run()
    at = small(at)
    at.multiselect(key="surface.marked").set_value([library.list_checkpoints()[1].id]).run()
    run(at)
    found = result_of()
    assert len(found.trajectories) == 2
    assert 0 < found.explained_variance_ratio.sum() <= 1 + 1e-9
    (variance,) = (m for m in at.metric if m.label == TEXT("variance"))
    assert "random walk" in variance.delta  # beside the share that tells a walk from a trajectory
    table = at.dataframe[0].value
    assert len(table) == sum(len(t["x"]) for t in found.trajectories)
    assert (table[TEXT("col.distance")] >= 0).all()
    script = jobs.latest("surface").config["script"]
    assert "architecture=model" in script and "marked=marked" in script
    ast.parse(script)


def test_lines_between_two_models_and_random_bands(entries):
    at = page().run()
    at.selectbox(key="surface.directions").set_value("linear").run()
    at = small(at)
    ids = [c.id for c in library.list_checkpoints()]
    at.selectbox(key="subject.checkpoint").set_value(ids[0])
    at.selectbox(key="surface.b.checkpoint").set_value(ids[1]).run()
    run(at)
    assert result_of().losses.shape == (5,)
    assert [m["label"] for m in result_of().markers] == [library.list_checkpoints()[k].name for k in (0, 1)]
    at.selectbox(key="surface.directions").set_value("random").run()
    at.segmented_control(key="surface.dims").set_value(1).run()
    at.number_input(key="surface.seeds").set_value(2).run()
    run(at)
    assert result_of().losses.shape == (2, 5)
    at.segmented_control(key="surface.dims").set_value(3).run()
    at.number_input(key="surface.resolution").set_value(3).run()
    at.number_input(key="surface.resolution.3").set_value(3).run()
    run(at)
    assert result_of().losses.shape == (3, 3, 3)
    assert sum("Map of loss" in p["description"] for p in pictures(at)) == 3


def test_a_picked_cell_is_measured_and_looked_at_closer(entries):
    at = small(page().run())
    run(at)
    found = result_of()
    at.session_state["surface.cell"] = (float(found.axes[0][1]), float(found.axes[1][3]))
    at.run()
    finish(at)
    shown = {m.label: m.value for m in at.metric}
    assert float(shown[TEXT("cell.exact")]) == pytest.approx(found.losses[1, 3], rel=1e-4)
    assert float(shown[TEXT("cell.gradient")]) > float(shown[TEXT("cell.slope")]) > 0
    at.button(key="surface.closer").click().run()
    finish(at)
    closer = result_of()
    assert closer.losses[2, 2] == found.losses[1, 3]
    assert np.ptp(closer.axes[0]) == pytest.approx(np.ptp(found.axes[0]) / 4)
    script = jobs.latest("surface").config["script"]
    assert ".look_closer(" in script
    ast.parse(script)


def test_an_adaptive_map_can_be_finished(entries):
    at = small(page().run(), side=13, samples=8)
    at.number_input(key="surface.tolerance").set_value(20.0).run()
    run(at)
    assert not result_of().evaluated.all()
    at.button(key="surface.finish").click().run()
    finish(at)
    assert result_of().evaluated.all()
    assert TEXT("finish") not in [b.label for b in at.button]


def test_an_adaptive_map_may_choose_its_precision_where_the_subject_leaves_it_float32(entries):
    at = small(page().run())
    at.toggle(key="surface.precision.auto").set_value(True).run()
    run(at)
    found, config = result_of(), jobs.latest("surface").config
    assert found.settings["precision"] in ("float32", "bfloat16") and "precision_choice" in found.settings
    assert any("was chosen: " in c.value for c in at.caption), "the page says which and why"
    assert "precision='auto'" in config["script"] and config["form"]["surface.precision.auto"] is True
    at.selectbox(key="subject.precision").set_value("float64").run()
    assert "surface.precision.auto" not in [t.key for t in at.toggle]
    run(at)
    assert result_of().settings["precision"] == "float64"


def test_cost_and_wrong_choices_are_said_before_the_run(entries):
    at = page().run()
    at.number_input(key="surface.resolution").set_value(10_000).run()
    assert TEXT("too_large", points=100_000_000, limit=module.LARGEST) in [e.value for e in at.error]
    assert at.button(key="surface.run").disabled
    at.number_input(key="surface.resolution").set_value(41).run()
    at.selectbox(key="surface.directions").set_value("models").run()
    assert TEXT("need_models", count=3) in [w.value for w in at.warning]
    assert at.button(key="surface.run").disabled


def test_a_saved_surface_is_opened_again(entries, tmp_path):
    at = small(page().run())
    run(at)
    content = result_of().save(tmp_path / "mine.npz").read_bytes()
    fresh = page().run()
    assert fresh.code  # the script of the newest map
    fresh.file_uploader[-1].set_value([("mine.npz", content, "application/octet-stream")]).run()
    assert not fresh.exception
    assert TEXT("open.done", name="mine.npz") in [c.value for c in fresh.caption]
    assert not fresh.code  # it did not make the opened one
    fresh.file_uploader[-1].set_value([("other.npz", b"no archive", "application/octet-stream")]).run()
    assert any("holds no surface" in e.value for e in fresh.error)


# ---- pictures and files ----


def surface(side=41, **changes):
    x = np.linspace(-1, 1, side)
    losses = np.exp(np.add.outer(x**2, 2 * x**2))
    values = {
        "axes": (x, x), "losses": losses, "accuracies": np.clip(1.2 - losses / 10, 0, 1), "loss": 1.0,
        "accuracy": 1.0, "evaluated": np.ones(losses.shape, bool), "error_estimate": np.zeros(losses.shape),
        "n_evaluated": losses.size, "largest_error": 0.0, "converged": True,
    }  # fmt: skip
    return SurfaceResult(**{**values, **changes})


def test_a_201_map_stays_small_enough_and_keeps_its_ends():
    large = surface(201)
    flat, relief = charts.heat_map(large), charts.relief(large)
    for chart, limit in ((flat, 2.5e6), (relief, 1.2e6)):
        with alt.data_transformers.enable("default", max_rows=None):  # as the app and the files have it
            assert len(json.dumps(chart.to_dict())) < limit
    cells = charts._cells(large, "losses")
    assert len(cells) == charts.LARGEST**2
    assert cells["cx"].min() == -1 and cells["cx"].max() == 1
    assert set(cells["value"]) <= set(large.losses.ravel())


def test_a_map_that_grows_is_drawn_with_fewer_of_its_nodes():
    large = surface(201, evaluated=np.arange(201 * 201).reshape(201, 201) % 3 == 0)
    few = grid.coarser(large, 41)
    assert few.losses.shape == few.accuracies.shape == few.evaluated.shape == (41, 41)
    for name in ("losses", "evaluated"):
        np.testing.assert_array_equal(getattr(few, name), getattr(large, name)[::5, ::5])
    np.testing.assert_array_equal(few.axes[1], large.axes[1][::5])
    assert few.n_evaluated == large.n_evaluated, "numbers stay those of the whole"
    assert len(charts._cells(few, "losses")) == 41**2


def test_cells_that_are_not_finite_are_grey_and_counted():
    losses = surface(9).losses.copy()
    losses[:2, :2] = np.inf
    losses[8, 8] = np.nan
    broken = surface(9, losses=losses)
    chart = charts.heat_map(broken)
    assert "5 cells are not finite and grey" in chart.description
    table = surface_numbers.table(broken)
    assert (~np.isfinite(table["losses"])).sum() == 5
    assert list(table.columns)[:3] == ["coordinate_1", "coordinate_2", "losses"]
    assert table["losses"].iloc[9 * 3 + 4] == losses[3, 4]


def test_volumes_bands_and_the_map_under_a_model():
    band = surface_numbers.table(
        SurfaceResult(axes=(np.arange(3.0),), losses=np.ones((2, 3)), evaluated=np.ones((2, 3), bool),
                      error_estimate=np.zeros((2, 3)))
    )  # fmt: skip
    assert list(band["seed"]) == [0, 0, 0, 1, 1, 1]
    flat = surface(41)
    assert surface_numbers.under(flat, 0.0, 1.0) == flat.losses[20, 40]
    assert np.isnan(surface_numbers.under(flat, 0.0, 1.2))


def test_meshes_are_offered_as_files():
    pytest.importorskip("meshio")
    files = surface_numbers.meshes(surface(9), {"quantity": "losses", "log": True})
    assert list(files) == ["surface.obj", "surface.stl", "surface.vtk"]
    assert files["surface.obj"]().count(b"\nf ") == 2 * 8 * 8
    assert surface_numbers.meshes(SurfaceResult(axes=(np.arange(3.0),), losses=np.ones(3)), {}) == {}


def test_pinned_maps_share_one_scale_of_at_most_four():
    low, high = charts.shared_domain([surface(9), surface(9, losses=surface(9).losses * 10)], log=True)
    assert low == pytest.approx(1.0) and high == pytest.approx(10 * np.exp(3))


def test_ratio_map_writes_a_number_in_each_finite_cell():
    ratio = np.array([[0.0, 0.5, np.nan], [0.1, 0.2, 0.9]])
    chart = charts.ratio_map([np.arange(2.0), np.arange(3.0)], ratio)
    rows = next(iter(chart.to_dict()["datasets"].values()))
    assert [r["words"] for r in rows] == ["0", "0.5", "0.1", "0.2", "0.9"]
    assert "median 0.2" in chart.description


def test_a_mark_whose_own_loss_is_not_the_colour_under_it_is_shown_with_a_sign():
    import json

    from app.charts import surface as charts
    from estimators import SurfaceResult

    line = np.linspace(-1.0, 1.0, 3)
    marker = {"x": 0.0, "y": 0.0, "loss": 0.003, "accuracy": 1.0, "distance": 0.0, "map_loss": 33.0}
    markers = [{**marker, "label": "B", "differs": True}, {**marker, "label": "C", "differs": False}]
    result = SurfaceResult(
        axes=(line, line), losses=np.full((3, 3), 33.0), evaluated=np.ones((3, 3), bool), markers=markers
    )
    drawn = json.dumps(charts.heat_map(result).to_dict(), ensure_ascii=False)
    assert '"B ≠"' in drawn and '"C"' in drawn and '"C ≠"' not in drawn
    assert "on the map (nats)" in drawn


def test_every_page_offers_the_automatic_policy_first_and_the_line_says_who_chose():
    from app.pages.averaging import page as averaging
    from app.pages.connectivity import minima as connectivity_map
    from app.pages.connectivity import page as connectivity
    from app.texts import texts
    from app.widgets.subject import POLICIES

    assert POLICIES[0] == "auto"
    for page in (averaging, connectivity, connectivity_map):
        assert page.POLICIES[0] == "auto" and "recompute" in page.POLICIES
    text = texts("common")
    assert all(text("batch_norm." + p) for p in ("auto", "frozen", "recompute", "batch"))
    assert "several networks" in text("batch_norm.help")


def _line_of(settings):
    from streamlit.testing.v1 import AppTest

    def page(settings):
        from types import SimpleNamespace

        from app.widgets.frame import settings_line

        settings_line(SimpleNamespace(settings=settings))

    return AppTest.from_function(page, args=(settings,), default_timeout=60).run().caption[0].value


def test_the_settings_line_says_that_auto_chose_the_policy():
    assert "batch norm: recompute (automatic)" in _line_of({"batch_norm": "recompute", "batch_norm_chosen_by": "auto"})
    assert "automatic" not in _line_of({"batch_norm": "recompute"})
