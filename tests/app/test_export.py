"""Files that come out, and the Python that reproduces a result."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from types import SimpleNamespace

import altair as alt
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator

from app import export
from app.catalog import DataSpec, PointSpec
from app.charts import surface


class Mapper(BaseEstimator):
    """Stands in for an estimator: only its constructor matters here."""

    def __init__(self, *, resolution=41, span=1.0, norm=None, memory=None, verbose=0, random_state=0):
        self.resolution, self.span, self.norm = resolution, span, norm
        self.memory, self.verbose, self.random_state = memory, verbose, random_state


@dataclass
class Result:
    axes: tuple
    losses: np.ndarray
    accuracies: np.ndarray
    settings: dict = field(default_factory=dict)

    def save(self, path):
        with open(path, "wb") as file:
            np.savez(file, losses=self.losses)


def result():
    axis = np.linspace(-1, 1, 3)
    losses = axis[:, None] ** 2 + axis[None, :]
    return Result((axis, axis), losses, np.zeros((3, 3)))


def chart():
    table = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    return alt.Chart(table).mark_line().encode(x="a:Q", y="b:Q").properties(description="two points")


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")])
@pytest.mark.parametrize("dark", [False, True])
def test_pictures_are_drawn_without_a_browser(kind, start, dark):
    assert export.chart_bytes(chart(), kind, dark=dark).startswith(start)


def test_a_dark_picture_has_a_dark_ground():
    assert export.chart_bytes(chart(), "svg", dark=True) != export.chart_bytes(chart(), "svg", dark=False)
    assert b"#15181d" in export.chart_bytes(chart(), "svg", dark=True)


def test_the_chart_json_holds_its_data_and_reads_back():
    specification = json.loads(export.chart_bytes(chart(), "json"))
    assert specification["description"] == "two points"
    assert next(iter(specification["datasets"].values())) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert alt.Chart.from_dict(specification).to_dict()["mark"] == {"type": "line"}


def test_a_map_larger_than_altairs_own_limit_is_exported():
    axis = np.linspace(-1, 1, 80)
    large = SimpleNamespace(axes=(axis, axis), losses=1 + axis[:, None] ** 2 + axis[None, :] ** 2)
    specification = json.loads(export.chart_bytes(surface.heat_map(large), "json"))
    assert max(len(rows) for rows in specification["datasets"].values()) == 6400


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="kind must be png, svg, pdf or json, got 'gif'"):
        export.chart_bytes(chart(), "gif")


def test_a_grid_becomes_one_row_a_cell():
    table = export.result_table(result())
    assert list(table.columns) == ["index_0", "index_1", "losses", "accuracies"]
    assert len(table) == 9
    row = table[(table.index_0 == 2) & (table.index_1 == 0)].iloc[0]
    assert row["losses"] == pytest.approx(0.0)
    assert pd.read_csv(io.BytesIO(export.table_csv(table)))["losses"].tolist() == pytest.approx(
        table["losses"].tolist()
    )


def test_a_result_with_a_table_of_its_own_decides():
    own = SimpleNamespace(table=lambda: [{"measure": "λ", "value": 1.0}])
    assert export.result_table(own).to_dict("records") == [{"measure": "λ", "value": 1.0}]


def test_npz_is_what_the_result_saves():
    with np.load(io.BytesIO(export.result_npz(result()))) as stored:
        np.testing.assert_array_equal(stored["losses"], result().losses)


def test_the_script_names_what_differs_from_the_defaults_and_compiles():
    text = export.script(
        Mapper(resolution=21, memory="default", verbose=1),
        points=[("model", PointSpec(seed=1))],
        data=DataSpec(),
        show="result.losses_",
    )
    compile(text, "script", "exec")
    assert "from estimators import Mapper, load_data, load_model" in text
    assert "Mapper(resolution=21).fit(model, data)" in text
    assert "memory" not in text
    assert text.rstrip().endswith("print(result.losses_)")


def test_a_long_script_and_lists_of_models_compile():
    text = export.script(
        Mapper(resolution=(31, 11), span=(0.123456789, 0.987654321), norm="a long name of a norm, quoted 'twice'"),
        points=[("a", PointSpec(seed=0)), ("b", PointSpec(seed=1))],
        data=DataSpec(),
        held_out=DataSpec(split="test"),
        fit="(a, b), data, held_out=held_out",
        setup="checkpoints = ['x']",
    )
    compile(text, "script", "exec")
    assert "held_out = load_data('digits'" in text
    assert ".fit((a, b), data, held_out=held_out)" in text


def test_a_config_is_json_and_holds_every_parameter():
    found = export.config(Mapper(resolution=7), points=[("model", PointSpec())], data=DataSpec(), script="x")
    again = json.loads(json.dumps(found))
    assert again["estimator"] == "Mapper"
    assert again["params"] == {"resolution": 7, "span": 1.0, "norm": None, "verbose": 0, "random_state": 0}
    assert again["points"]["model"]["architecture"] == "test_resnet"


def test_files_come_as_one_zip():
    with zipfile.ZipFile(io.BytesIO(export.zip_files({"a.txt": b"1", "b/c.txt": b"2"}))) as archive:
        assert archive.read("b/c.txt") == b"2"


def test_an_experiment_is_imported_where_it_is_handed_out():
    from estimators.experiments import WidthSweep

    code = export.script(WidthSweep(n_seeds=2), data=DataSpec(), fit="'test_resnet', data", show="result.summary_")
    compile(code, "script", "exec")
    assert code.startswith("from estimators import load_data\nfrom estimators.experiments import WidthSweep\n\n")
    assert "result = WidthSweep(n_seeds=2).fit('test_resnet', data)" in code
    trained = export.script(Mapper(resolution=3), points=[("model", PointSpec())], data=DataSpec(), call="train")
    assert "Mapper(resolution=3).train(model, data)" in trained
