"""Write docs/architectures.html (self-contained) and docs/architectures.md from the saved experiments.

Usage: ``python tests/benchmarks/make_architecture_report.py FOLDER`` with the folder of
``architecture_experiments.py``. It draws what is there and says what is missing; it computes nothing itself.
"""

from __future__ import annotations

import html
import sys
from pathlib import Path
from typing import Any

from architecture_experiments import EXPERIMENTS, load

from app.export import chart_bytes
from app.pages.architectures import charts
from app.pages.architectures.views import measured, spread
from app.texts import texts

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = texts("architectures")
QUANTITIES = (
    "train_loss",
    "train_accuracy",
    "held_out_accuracy",
    "gap",
    "lambda_max",
    "sharpness",
)
WIDTH_QUANTITIES = ("train_loss", "held_out_accuracy", "lambda_max", "barrier")
WHAT = {
    "skips": "A ResNet of 56 residual-block convolutions and few channels, trained for 20 epochs, "
    "as built and with every residual sum removed. Everything else is the same: data, budget, rate, seeds.",
    "batch_size": "One network trained with batches of 16 and of all 512 examples at the same constant rate, "
    "until the training loss, over all examples in evaluation mode, was 0.02 or lower (or 40 and 200 epochs were over).",
    "norm": "Batch norm against the same network whose norms only scale and shift, at three learning rates, 16 "
    "epochs. The zero-initialised last gain of each block is kept in both.",
    "dropout": "Dropout before the classifier at 0 and 0.3, 12 epochs. It is off while measuring.",
    "width": "A small ResNet at ¼ to 8 times its width, 16 epochs; straight lines between seeds after "
    "weight matching, batch-norm statistics re-estimated on the line.",
}
STYLE = """
:root { color-scheme: light dark; --ink: #24292f; --soft: #59636e; --line: #d8dde3; --ground: #fff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa4b0; --line: #3a3f47; --ground: #15181d; } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto;
  max-width: 62rem; padding: 2rem 1.2rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h2 { margin: 2.6rem 0 .3rem; font-size: 1.3rem; }
p.soft, td.soft, small { color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; margin: .8rem 0; }
th, td { text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.wrap { white-space: normal; min-width: 16rem; }
figure { margin: 1rem 0; background: #fff; border-radius: 8px; padding: .6rem; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; }
.badge { border-radius: 999px; padding: .1rem .6rem; font-size: .8rem; font-weight: 600; color: #fff; }
.supported { background: #1a7f4b; } .not-supported { background: #b3382c; } .not-clear-here { background: #8a6100; }
"""


def table_of(name: str, result: Any) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of an experiment's table, means with spread."""
    if name == "width":
        head = [TEXT("col.width"), TEXT("quantity.n_parameters"), TEXT("quantity.parameters_per_example")]
        head += [TEXT(f"quantity.{q}") for q in (*WIDTH_QUANTITIES, "zero_share")]
        rows = [
            [
                f"× {line['factor']:g}",
                f"{line['n_parameters']:,}",
                f"{line['parameters_per_example']:.3g}",
                *(spread(line[q], line[f"{q}_spread"]) for q in WIDTH_QUANTITIES),
                f"{line['zero_share']:.0%}",
            ]
            for line in result.summary
        ]
        return head, rows
    shown = [q for q in QUANTITIES if any(line[q] is not None for line in result.summary)]
    head = [TEXT("col.variant"), TEXT("col.runs"), *(TEXT(f"quantity.{q}") for q in shown)]
    rows = [
        [
            line["variant"],
            TEXT("runs_of", ok=line["n"] - line["n_failed"], all=line["n"]),
            *(spread(line[q], line[f"{q}_spread"]) for q in shown),
        ]
        for line in result.summary
    ]
    return head, rows


def charts_of(name: str, result: Any) -> list[Any]:
    """Return the charts of an experiment."""
    if name == "width":
        return [charts.width_sweep(result, q) for q in ("train_loss", "lambda_max", "barrier")]
    first = [charts.small_multiples(result, columns=2)] if charts.maps(result) else []
    chosen = ("held_out_accuracy", "lambda_max") if name != "norm" else ("train_loss", "lambda_max")
    return first + [charts.dots(result, q) for q in chosen]


def claims_of(name: str, result: Any) -> list[dict[str, Any]]:
    """Return the statements an experiment was made for; the ranking needs more kinds of runs than one has."""
    return [claim for claim in result.claims if claim["key"] != "flat_generalises"]


def circumstances(name: str, result: Any) -> str:
    """Return the number of examples and of seeds as a sentence."""
    seeds = result.settings["n_seeds"]
    known = f"{seeds} seeds" if seeds > 1 else "one seed, so the spread is unknown and nothing is decided"
    return f"{EXPERIMENTS[name].n_samples} training and 360 held-out digits at 32 px; {known}."


def section(name: str, result: Any) -> str:
    """Return one experiment as HTML."""
    head, rows = table_of(name, result)
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    top = "".join(f"<th>{html.escape(c)}</th>" for c in head)
    pictures = "".join(
        f'<figure role="img" aria-label="{html.escape(chart.description)}">'
        f"{chart_bytes(chart, 'svg').decode()}</figure>"
        for chart in charts_of(name, result)
    )
    said = ""
    for claim in claims_of(name, result):
        kind = claim["verdict"].replace(" ", "-")
        numbers = "<br>".join(html.escape(measured(m)) for m in claim["measurements"])
        said += (
            f'<tr><td class="wrap">{html.escape(TEXT("claim." + claim["key"]))} '
            f"<small>section {claim['section']}</small></td>"
            f'<td><span class="badge {kind}">{claim["verdict"]}</span></td><td class="wrap soft">{numbers}</td></tr>'
        )
    statements = (
        f'<div class="scroll"><table><tr><th>{TEXT("col.statement")}</th><th>{TEXT("col.verdict")}</th>'
        f"<th>{TEXT('col.measured')}</th></tr>{said}</table></div>"
        if said
        else ""
    )
    return (
        f"<h2>{html.escape(EXPERIMENTS[name].title)}</h2><p>{html.escape(WHAT[name])} "
        f"{circumstances(name, result)}</p>"
        f'<div class="scroll"><table><tr>{top}</tr>{cells}</table></div>{pictures}{statements}'
    )


INTRODUCTION = (
    "Small networks on handwritten digits, a few seeds each: these pages say what was measured here and no more. "
    "A number is the mean over seeds ± one standard deviation. A statement is “supported” or “not supported” when the "
    "95 % interval over seeds (Welch; for width, Kendall's τ at p < 0.05) excludes no effect, and every clear "
    "measurement of it agrees; otherwise it is “not clear here”. Curvature is not compared between networks that fit "
    "their training examples differently well."
)


def markdown(results: dict[str, Any]) -> str:
    """Return the summary in Markdown."""
    lines = ["# What architecture does to the landscape", "", INTRODUCTION, ""]
    lines += ["Charts and every interval: [architectures.html](architectures.html).", ""]
    lines += ["| Statement (ours, from the lecture) | Verdict here | Measured in |", "|---|---|---|"]
    for name, result in results.items():
        for claim in claims_of(name, result):
            lines.append(f"| {claim['statement']} | {claim['verdict']} | {EXPERIMENTS[name].title} |")
    for name, result in results.items():
        head, rows = table_of(name, result)
        lines += ["", f"## {EXPERIMENTS[name].title}", "", f"{WHAT[name]} {circumstances(name, result)}", ""]
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += ["| " + " | ".join(row) + " |" for row in rows]
        for claim in claims_of(name, result):
            lines += ["", f"**{claim['statement']}** {claim['verdict']}.", ""]
            lines += [f"- {measured(m)}" for m in claim["measurements"]]
    missing = [EXPERIMENTS[n].title for n in EXPERIMENTS if n not in results]
    if missing:
        lines += ["", f"Not run yet: {'; '.join(missing)}."]
    lines += [
        "",
        "Made by `tests/benchmarks/architecture_experiments.py` and `tests/benchmarks/make_architecture_report.py`.",
    ]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Write both files."""
    results = load(folder)
    body = "".join(section(name, result) for name, result in results.items())
    missing = [EXPERIMENTS[n].title for n in EXPERIMENTS if n not in results]
    if missing:
        body += f'<p class="soft">Not run yet: {html.escape("; ".join(missing))}.</p>'
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>Architectures and the landscape</title>'
        f"<style>{STYLE}</style></head><body><h1>What architecture does to the landscape</h1>"
        f'<p class="soft">{html.escape(INTRODUCTION)}</p>{body}</body></html>'
    )
    DOCS.mkdir(exist_ok=True)
    (DOCS / "architectures.html").write_text(page, encoding="utf-8")
    (DOCS / "architectures.md").write_text(markdown(results), encoding="utf-8")
    print(f"{len(results)} of {len(EXPERIMENTS)} experiments, {len(page) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
