"""Averaging against plain SGD over seeds, a view of the page Weight averaging."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import widgets
from app.pages.averaging import charts
from app.state import form
from app.texts import texts
from app.widgets import Form
from app.widgets.jobs import duration
from app.work import jobs
from app.work.work import Work, restartable

PAGE = "averaging.seeds"
DEFINITIONS = ("swa", "ema", "sharp", "pairs")
ARCHITECTURES = ("test_resnet", "test_efficientnet", "test_convnext", "test_vit")
SHOWN = ("held_out_accuracy", "held_out_loss", "lambda_max", "average_sharpness")


def render(left: DeltaGenerator, right: DeltaGenerator) -> None:
    """Draw the inputs on the left and the comparison on the right."""
    text = texts("averaging")
    with left:
        st.caption(text("seeds.intro"))
        form = Form(PAGE, "averaging")
        name = form.choice("architecture", ARCHITECTURES, help=None)
        row = form.columns(3)
        n_seeds = row[0].integer("n", 3, 1, 100)
        epochs = row[1].integer("epochs", 20, 2, 1000)
        samples = row[2].integer("samples", 300, 20, 1437)
        row = form.columns(2)
        noise = row[0].real("noise", 0.2, 0.0, 1.0, step=0.05)
        pixels = row[1].real("pixels", 0.0, 0.0, 5.0, step=0.1)
        row = form.columns(2)
        lr = row[0].real("lr", 0.1, 1e-5, step=0.05)
        swa_lr = row[1].real("swa_lr", 0.05, 1e-5, step=0.01)
        seconds = n_seeds * (samples / 300) * (epochs * 0.25 + 12)
        st.caption(text("seeds.cost", runs=2 * n_seeds, points=3 * n_seeds, seconds=duration(seconds)))
        if widgets.run_button(PAGE, text("seeds.run")):
            options = {"n_seeds": n_seeds, "epochs": epochs, "lr": lr}
            making = {"n_samples": samples, "label_noise": noise, "pixel_noise": pixels}
            start(name, options, making, swa_lr)
    widgets.answer(right, PAGE, draw, DEFINITIONS, text="averaging")


def start(name: str, options: dict[str, Any], making: dict[str, Any], swa_lr: float) -> None:
    """Queue the job."""
    config = {
        "estimator": "swa_experiment",
        "params": {**options, **making, "swa_lr": swa_lr, "architecture": name},
        "script": code(name, options, making, swa_lr),
        "form": form(),
    }
    title = texts("averaging")("seeds.job", n=options["n_seeds"], epochs=options["epochs"])
    work = Work.of(compare, name=name, options=options, making=making, swa_lr=swa_lr)
    jobs.submit(PAGE, title, work, config=config)


@restartable
def compare(handle: jobs.Handle, name: str, options: dict[str, Any], making: dict[str, Any], swa_lr: float) -> Any:
    """Train with and without averaging from every seed; runs in the worker thread."""
    from estimators import SWAAverager, load_model
    from estimators.experiments import noisy_digits, swa_experiment

    return swa_experiment(
        lambda seed: load_model(name, num_classes=10, image_size=32, random_state=seed),
        partial(noisy_digits, **making),
        estimator=SWAAverager(swa_lr=swa_lr),
        memory="default",
        **handle.reports,
        **options,
    )


def code(name: str, options: dict[str, Any], making: dict[str, Any], swa_lr: float) -> str:
    """Return the Python program that gives the same result."""

    def listed(values: dict[str, Any]) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in values.items())

    return f"""from functools import partial

from estimators import SWAAverager, load_model
from estimators.experiments import noisy_digits, swa_experiment

result = swa_experiment(
    lambda seed: load_model({name!r}, num_classes=10, image_size=32, random_state=seed),
    partial(noisy_digits, {listed(making)}),
    estimator=SWAAverager(swa_lr={swa_lr!r}),
    {listed(options)},
)
for claim in result.claims:
    print(claim)
"""


def draw(result: Any) -> None:
    """Draw a partial or final result; runs in a fragment."""
    text = texts("averaging")
    if not result.rows:
        return
    widgets.heading(text("seeds.claims"))
    claims(result)
    widgets.notes(result.notes)
    shown = [charts.seeds(result, key=name) for name in SHOWN]
    widgets.in_pairs(shown)
    summary(result)
    widgets.settings_line(result)
    widgets.take_along(PAGE, result, shown[0], name="averaging-seeds")


def claims(result: Any) -> None:
    """Write the verdict on each claim, with the number it rests on."""
    text = texts("averaging")
    if result.claims and result.claims[0]["n"] < 2:
        st.caption(text("seeds.need"))
    for claim in result.claims:
        kind = "one" if claim["n"] < 2 else "ratio" if claim["ratio"] else "difference"
        number = text(f"claim.{kind}", **{k: claim[k] for k in ("effect", "low", "high")})
        sentence = text(f"claim.{claim['key']}", who=claim["group"].upper())
        widgets.verdict(claim["verdict"], f"{sentence} ({number}).")


def summary(result: Any) -> None:
    """Write mean and spread of every quantity."""
    text = texts("averaging")

    def cell(row: dict[str, Any], group: str) -> str:
        mean, spread = row[f"{group}_mean"], row[f"{group}_std"]
        form = "{:.1%}" if row["quantity"].endswith("accuracy") else "{:.4g}"
        return form.format(mean) + (f" ± {form.format(spread)}" if np.isfinite(spread) else "")

    rows = [row for row in result.summary() if row["quantity"] != "train_accuracy"]
    columns = {text("seeds.quantity"): [text("seeds." + row["quantity"]) for row in rows]}
    columns |= {text("role." + g): [cell(row, g) for row in rows] for g in ("sgd", "swa", "ema")}
    widgets.show_table(pd.DataFrame(columns), fold=text("seeds.summary"), alt=text("seeds.summary"))
