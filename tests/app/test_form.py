"""The inputs of a page: words by key, values in the URL, types as estimators want them."""

from __future__ import annotations

from streamlit.testing.v1 import AppTest


def page():
    import streamlit as st

    from app.widgets import Form

    form = Form("sharpness")
    left, right = form.columns(2)
    st.session_state["values"] = {
        "rho": left.real("rho", 0.05, 1e-6, step=0.05),
        "norm": right.choice("norm", ("l2", "linf")),
        "n_steps": form.integer("n_steps", 40, 1, 500),
        "adaptive": form.toggle("adaptive"),
        "scale": form.switch("scale", ("log", "linear")),
        "measures": form.several("measures", ("average", "sharpness")),
    }


def test_words_come_from_the_texts_and_values_have_their_types():
    from app.texts import texts

    text = texts("sharpness")
    at = AppTest.from_function(page, default_timeout=60).run()
    assert not at.exception
    assert at.session_state["values"] == {
        "rho": 0.05,
        "norm": "l2",
        "n_steps": 40,
        "adaptive": False,
        "scale": "log",
        "measures": ("average", "sharpness"),
    }
    rho = at.number_input(key="sharpness.rho")
    assert (rho.label, rho.help) == (text("rho"), text("rho.help"))
    assert at.selectbox(key="sharpness.norm").options == [text("norm.l2"), text("norm.linf")]
    assert "norm.help" not in text
    assert not at.selectbox(key="sharpness.norm").help


def test_choices_reach_the_page():
    at = AppTest.from_function(page, default_timeout=60).run()
    at.number_input(key="sharpness.n_steps").set_value(7)
    at.selectbox(key="sharpness.norm").set_value("linf")
    at.toggle(key="sharpness.adaptive").set_value(True).run()
    values = at.session_state["values"]
    assert (values["n_steps"], values["norm"], values["adaptive"]) == (7, "linf", True)
    assert isinstance(values["n_steps"], int)


def view():
    import streamlit as st

    from app.widgets import Form

    form = Form("stationary.random", "stationary")
    st.session_state["values"] = {
        "largest": form.integer("largest", 7, 2, 40),
        "samples": form.integer("samples", 20, 2),
        "scale": form.log(),
        "share": form.percent("shift", 5.0),
        "depth": form.slider("seed", 0.5, 0.0, 2.0),
        "filter": form.text("filter", private=True),
        "kind": form.choice("kind", (1, 2), 2, words=lambda n: f"number {n}"),
        "many": form.many("view", ("point", "random"), ("random",)),
    }


def test_a_view_takes_its_own_words_first_and_the_shared_ones_last():
    from app.texts import texts

    text, common = texts("stationary"), texts("common")
    at = AppTest.from_function(view, default_timeout=60).run()
    assert not at.exception
    assert at.session_state["values"] == {
        "largest": 7,
        "samples": 20,
        "scale": True,
        "share": 0.05,
        "depth": 0.5,
        "filter": "",
        "kind": 2,
        "many": ("random",),
    }
    samples = at.number_input(key="stationary.random.samples")
    assert samples.label == text("random.samples")
    assert "samples.help" in common and not samples.help  # explained by who names it
    assert at.button_group(key="stationary.random.scale").options == [common("scale.log"), common("scale.linear")]
    assert at.selectbox(key="stationary.random.kind").options == ["number 1", "number 2"]
    at.text_input(key="stationary.random.filter").set_value("  ^fc ")
    at.button_group(key="stationary.random.scale").set_value("linear").run()
    assert (at.session_state["values"]["filter"], at.session_state["values"]["scale"]) == ("^fc", False)


def test_a_choice_offers_what_has_words_and_that_is_what_the_engine_knows():
    """A new direction, path or optimiser is offered once it has words; words without an engine behind are wrong."""
    from app.texts import texts
    from estimators import SHARPNESS_MEASURES, CurvatureEstimator, ModeConnector, SurfaceMapper
    from estimators.core.saddles.optimizers import OPTIMIZERS

    def options(estimator, name):
        return estimator._parameter_constraints[name][0].options

    assert set(texts("surface").options("directions")) == options(SurfaceMapper, "directions")
    assert set(texts("surface").options("normalization")) == options(SurfaceMapper, "normalization")
    assert set(texts("stationary").options("kind")) == options(CurvatureEstimator, "kind")
    assert set(texts("connectivity").options("path")) == options(ModeConnector, "path")
    assert texts("escape").options("optimizer") == tuple(OPTIMIZERS)
    assert texts("sharpness").options("measure") == tuple(SHARPNESS_MEASURES)


def unnamed():
    import streamlit as st

    from app.widgets import Form

    form = Form("sharpness")
    kinds = Form("stationary").several("kind")
    st.session_state["values"] = (form.choice("norm"), form.switch("noise"), kinds)


def test_options_come_from_the_words_where_none_are_given():
    from app.texts import texts

    at = AppTest.from_function(unnamed, default_timeout=60).run()
    assert not at.exception
    assert at.session_state["values"] == ("l2", "plain", texts("stationary").options("kind"))
