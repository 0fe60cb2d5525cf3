"""The table of errors over examples: an interval beside each number, apart from the ± of its method."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest

from app import widgets
from app.texts import texts
from app.widgets.sampling import sampling_table
from estimators import CurvatureResult, PathResult, SamplingError

TEXT = texts("common")


def told(**changes):
    return SamplingError(
        **{"stderr": 0.5, "low": 1.0, "high": 3.0, "bias": 0.0, "n_examples": 128, "largest_share": 0.02, **changes}
    )._asdict()


def row(result, name):
    table = sampling_table(result, str.upper)
    (found,) = [tuple(cells) for cells in table.itertuples(index=False) if cells[0] == name.upper()]
    return found


def test_the_interval_stands_beside_the_value_and_the_methods_error_is_not_in_it():
    sampling = {"loss": told(), "trace": told(low=-5.0, high=20.0), "accuracy": told(low=0.93, high=0.987)}
    result = CurvatureResult(loss=2.0, accuracy=0.96, trace=12.0, trace_stderr=0.25, sampling=sampling)
    assert row(result, "loss") == ("LOSS", "2", "1 to 3", "")
    assert row(result, "trace") == ("TRACE", "12.0 ± 0.2", "−5 to 20", "")
    assert row(result, "accuracy") == ("ACCURACY", "96.0%", "93.0% to 98.7%", "")


def test_a_bias_and_what_is_taken_as_known_are_said_in_words():
    sampling = {"lambda_max": told(bias=0.1), "lambda_min": told(bias=-0.4), "gradient_norm": told(bias=float("nan"))}
    result = CurvatureResult(lambda_max=2.0, lambda_min=-1.0, gradient_norm=1.0, sampling=sampling)
    assert row(result, "lambda_max")[3] == TEXT("over.bias.high", by="0.1")
    assert row(result, "lambda_min")[3] == "; ".join([TEXT("over.bias.low", by="0.4"), TEXT("over.rough")])
    assert row(result, "gradient_norm")[3] == "; ".join([TEXT("over.bias.unknown"), TEXT("over.rough")])
    alone = CurvatureResult(loss=2.0, sampling={"loss": told(largest_share=0.6)})
    assert row(alone, "loss")[3] == "; ".join([TEXT("over.alone", share=0.6), TEXT("over.rough")])
    path = PathResult(barrier=2.0, barrier_error=0.001, sampling={"barrier": told(given="batch-norm statistics")})
    assert row(path, "barrier")[3] == TEXT("over.given", what="batch-norm statistics")


def draw():
    from app import widgets
    from estimators import CurvatureResult

    told = {"stderr": 0.5, "low": 1.0, "high": 3.0, "bias": 0.0, "n_examples": 128, "largest_share": 0.02, "given": ""}
    widgets.over_examples(CurvatureResult(loss=2.0), str.upper)  # nothing was asked for: nothing is drawn
    widgets.over_examples(CurvatureResult(loss=2.0, sampling={"loss": told}), str.upper)


def test_the_table_says_how_many_examples_would_halve_the_interval():
    at = AppTest.from_function(draw, default_timeout=60).run()
    assert not at.exception
    (table,) = at.dataframe
    assert table.value.iloc[0].tolist() == ["LOSS", "2", "1 to 3", ""]
    (caption,) = at.caption
    assert caption.value == TEXT("over.help", count=128, more=512)


def test_one_numbers_interval_stands_under_it():
    shown = widgets.interval_under({"loss": told(), "accuracy": told(low=0.9, high=0.95)}, "loss")
    assert shown["delta"] == TEXT("over.short", ends="1 to 3") and shown["delta_arrow"] == "off"
    assert "90.0% to 95.0%" in widgets.interval_under({"accuracy": told(low=0.9, high=0.95)}, "accuracy")["delta"]
    assert widgets.interval_under({}, "loss") == widgets.interval_under({"loss": told(low=float("nan"))}, "loss") == {}
