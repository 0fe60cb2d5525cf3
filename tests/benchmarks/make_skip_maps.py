"""Draw assets/skips.png and .svg: the loss around a deep network with and without its skip connections.

Usage: ``python tests/benchmarks/make_skip_maps.py FOLDER`` with the folder of ``architecture_experiments.py``;
what is not there yet is trained and measured first.
"""

from __future__ import annotations

import sys
from pathlib import Path

from architecture_experiments import load, run

from app.export import chart_bytes
from app.pages.architectures import charts

ASSETS = Path(__file__).resolve().parents[2] / "assets"


def main(folder: Path) -> None:
    """Draw the two maps on one colour scale."""
    if "skips" not in load(folder):
        run(folder, ["skips"])
    result = load(folder)["skips"]
    lines = {line["variant"]: line for line in result.summary}
    chart = charts.small_multiples(result, levels=12, columns=2)
    for panel in chart.concat:
        line = lines[panel.title]
        panel.title = f"{panel.title}: {line['held_out_accuracy']:.1%} held out, λ_max {line['lambda_max']:.3g}"
        panel.width = panel.height = 330
    for kind in ("png", "svg"):
        (ASSETS / f"skips.{kind}").write_bytes(chart_bytes(chart, kind, scale=1.5))
        print(ASSETS / f"skips.{kind}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
