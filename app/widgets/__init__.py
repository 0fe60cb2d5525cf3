"""Reusable blocks of a page; a page composes these.

- ``page_header``: title, the question the page answers, and two columns: inputs, picture
- ``inputs``: model(s), data and engine settings, with every message beside its input; gives ``Inputs``
- ``point_picker``, ``data_picker``, ``engine_settings``: the parts of ``inputs`` alone
- ``points_picker``: several checkpoints of one kind, or the epochs of one
- ``Form``: a page's own inputs, a line each
- ``cost``: points × measured milliseconds, before the run
- ``run_button``: the one primary button of a page
- ``start_fit``: queue a fit with the script and the settings that reproduce it
- ``job_panel``: progress, time left, cancel, partial and final results of the page's newest job
- ``settings_line``: what a result was computed with, in one line
- ``show_chart``: a chart at the width of its column, named for screen readers
- ``picture``, ``in_pairs``, ``heading``, ``show_table``, ``note``, ``notes``: pictures, and what stands around them
- ``definitions``: what the numbers mean, with the papers
- ``answer``: that, and what the numbers mean
- ``show_view``: the head of a page with several views, and the chosen one
- ``take_along``: pin, files and script together
- ``downloads``: PNG, SVG, PDF, CSV, NPZ, chart JSON; ``copy_as_python``: the script that reproduces the result
- ``pin_button``, ``beside_pinned``: keep a result beside the next ones
- ``language_switch``, ``chosen_language``: the language of the interface
- ``go_to``, ``page_link``: to another page by its name
- ``verdict``: what a measurement says of a claim, beside the sentence it judges
"""

from app.widgets.cost import cost
from app.widgets.form import Form
from app.widgets.frame import (
    definitions,
    go_to,
    heading,
    in_pairs,
    note,
    notes,
    page_header,
    page_link,
    picture,
    run_button,
    settings_line,
    show_chart,
    show_table,
    verdict,
)  # fmt: skip
from app.widgets.jobs import activity, answer, job_panel, show_view, start_fit
from app.widgets.language import chosen_language, language_switch
from app.widgets.outputs import copy_as_python, downloads, take_along
from app.widgets.pickers import Inputs, data_picker, engine_settings, inputs, point_picker
from app.widgets.pins import beside_pinned, pin_button
from app.widgets.several import points_picker

__all__ = [
    "Form", "Inputs", "activity", "answer", "beside_pinned", "chosen_language", "copy_as_python", "cost", "data_picker",
    "definitions", "downloads", "engine_settings", "go_to", "heading", "in_pairs", "inputs", "job_panel",
    "language_switch", "note", "notes", "page_header", "page_link", "picture", "pin_button",
    "point_picker", "points_picker", "run_button", "settings_line", "show_chart", "show_table", "show_view",
    "start_fit", "take_along", "verdict",
]  # fmt: skip
