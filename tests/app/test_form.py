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
