"""Reusable blocks of a page; a page composes these.

- ``page_header``: title, the question the page answers, and two columns: inputs, picture
- ``subject_bar``: what the frame draws over a page
- ``subject``: the network, the examples and the engine's settings, chosen once for all pages; gives ``Subject``
- ``measure_button``: make a checkpoint the subject, and go and see its surface
- ``point_picker``, ``data_picker``: one more network, or examples of a page's own, every message beside its input
- ``points_picker``: several checkpoints of one kind, or the epochs of one
- ``Form``: a page's own inputs, a line each
- ``cost``: what a run takes, before it: work × measured time; ``time_budget``: how long it may take
- ``run_button``: the one primary button of a page
- ``start_fit``: queue a fit with the script and the settings that reproduce it
- ``job_panel``: progress, time left, cancel, partial and final results of the page's newest job
- ``settings_line``: what a result was computed with, in one line
- ``show_chart``: a chart at the width of its column, named for screen readers
- ``picture``, ``in_pairs``, ``heading``, ``show_table``, ``note``, ``notes``: pictures, and what stands around them
- ``over_examples``: how much the numbers would change with other examples; ``interval_under``: one number's, under it
- ``definitions``: what the numbers mean, with the papers
- ``answer``: that, and what the numbers mean
- ``show_view``: the head of a page with several views, and the chosen one
- ``take_along``: pin, files and script together
- ``downloads``: PNG, SVG, PDF, CSV, NPZ, chart JSON; ``copy_as_python``: the script that reproduces the result
- ``pin_button``, ``beside_pinned``: keep a result beside the next ones
- ``language_switch``, ``chosen_language``: the language of the interface
- ``go_to``, ``go_on``, ``page_link``: to another page by its name; again where a timer was quicker
- ``verdict``: what a measurement says of a claim, beside the sentence it judges
"""

from app.widgets.cost import cost, time_budget
from app.widgets.data import data_picker
from app.widgets.form import Form
from app.widgets.frame import (
    definitions,
    go_on,
    go_to,
    heading,
    in_pairs,
    note,
    notes,
    opening,
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
from app.widgets.pickers import point_picker
from app.widgets.pins import beside_pinned, pin_button
from app.widgets.sampling import interval_under, over_examples
from app.widgets.several import points_picker
from app.widgets.subject import Subject, measure_button, subject, subject_bar

__all__ = [
    "Form", "Subject", "activity", "answer", "beside_pinned", "chosen_language", "copy_as_python", "cost",
    "data_picker", "definitions", "downloads", "go_on", "go_to", "heading", "in_pairs", "interval_under", "job_panel",
    "language_switch", "measure_button", "note", "notes", "opening", "over_examples", "page_header", "page_link",
    "picture", "pin_button", "point_picker", "points_picker", "run_button", "settings_line", "show_chart",
    "show_table", "show_view", "start_fit", "subject", "subject_bar", "take_along", "time_budget", "verdict",
]  # fmt: skip
