"""The main job without a browser: train two networks on digits, measure, map, connect, average, report.

``python -m app.demo`` writes one self-contained HTML file and prints its path.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from app.charts.connectivity import profile
from app.charts.relief import relief
from app.charts.surface import heat_map
from app.pages.sharpness.charts import rise_profile
from app.report import document, figure, section, settings, table
from estimators import ModeConnector, SharpnessEstimator, SurfaceMapper, SWAAverager, load_data, load_model, train


def main() -> None:
    """Run the main job and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("loss-atlas-report.html"), help="the file to write")
    options = parser.parse_args()
    write(options.output)


def write(output: Path) -> int:
    """Write the report into a file and print its path; the exit status, 0."""
    output.write_text(report(), encoding="utf-8")
    print(output.resolve())
    return 0


def report() -> str:
    """Measure everything on two freshly trained networks and give the report as HTML."""
    started = time.perf_counter()
    everything, test = load_data("digits"), load_data("digits", split="test")
    data = everything.subset(512)
    runs = []
    for seed in (0, 1):
        step(f"training test_resnet on digits, seed {seed}")
        model = load_model("test_resnet", num_classes=10, image_size=32, random_state=seed)
        runs.append(train(model, everything, epochs=8, held_out=test, random_state=seed))
    a, b = runs[0].model, runs[1].model
    step("measuring sharpness")
    measures = ("sharpness", "average", "lambda_max", "trace", "profile")
    probe = SharpnessEstimator(measures=measures, n_steps=20, n_restarts=5, n_draws=8, n_probes=6)
    sharpness = [probe.fit(m, data.subset(128)).result_ for m in (a, b)]
    step("mapping the surface")
    surface = SurfaceMapper(mode="adaptive", resolution=41).fit(a, data).result_
    step("connecting the two networks")
    path = ModeConnector(path="bezier", n_points=15).fit((a, b), data, held_out=test).result_
    step("averaging weights")
    start = load_model("test_resnet", num_classes=10, image_size=32, random_state=0)
    average = SWAAverager().train(start, everything, epochs=12, held_out=test, trace=False).result_
    sections = [
        section(
            "Two networks",
            "Same architecture and data, different seeds.",
            table(
                {
                    f"seed {i}": {
                        "training loss": f"{run.history['loss'][-1]:.4f}",
                        "held-out loss": f"{run.history['held_out_loss'][-1]:.4f}",
                        "held-out accuracy": f"{run.history['held_out_accuracy'][-1]:.1%}",
                    }
                    for i, run in enumerate(runs)
                }
            ),
        ),
        section(
            "How sharp are they?",
            "Largest loss rise found within a ball of radius ρ (a lower bound on the maximum; in brackets how far "
            "below it the second-best start ended), mean rise under noise with its standard error, largest Hessian "
            "eigenvalue with its residual, trace with its standard error.",
            table(
                {
                    f"seed {i}": {
                        "worst rise": f"≥ {s.sharpness:.4f} ({s.restart_spread:.1%})",
                        "average rise": f"{s.average_sharpness:.4f} ± {s.uncertainty_of('average_sharpness')[1]:.4f}",
                        "λ_max": f"{s.lambda_max:.3g} (residual {s.uncertainty_of('lambda_max')[1]:.1g})",
                        "trace": f"{s.trace:.3g} ± {s.uncertainty_of('trace')[1]:.2g}",
                    }
                    for i, s in enumerate(sharpness)
                }
            )
            + figure(rise_profile([("seed 0", sharpness[0]), ("seed 1", sharpness[1])]))
            + settings(sharpness[0].settings),
        ),
        section(
            "What does the surface around it look like?",
            f"Two random filter-normalised directions through seed 0 (Li et al. 2018); {surface.n_evaluated} of "
            f"{surface.losses.size} points evaluated, the rest interpolated with an estimated error of at most "
            f"{surface.largest_error:.1%} of the range of log-loss.",
            figure(heat_map(surface)) + figure(relief(surface)) + settings(surface.settings),
        ),
        section(
            "How are they joined?",
            f"Straight barrier {path.straight_barrier:.3f} nats, trained Bézier curve {path.barrier:.3f} nats "
            "(Garipov et al. 2018; barrier as in Entezari et al. 2022).",
            figure(profile(path)) + settings(path.settings),
        ),
        section(
            "What does averaging do?",
            "Stochastic weight averaging over the last quarter of training, beside the last iterate "
            "(Izmailov et al. 2018). One seed: no claim about the method.",
            table(
                {
                    f"{row['name']}": {
                        "training loss": f"{row['train_loss']:.4f}",
                        "held-out loss": f"{row['held_out_loss']:.4f}",
                        "held-out accuracy": f"{row['held_out_accuracy']:.1%}",
                    }
                    for row in average.report
                    if row["role"] != "member"
                }
            )
            + settings(average.settings),
        ),
    ]
    seconds = time.perf_counter() - started
    title = "The loss landscape of test_resnet on digits"
    return document(title, f"Made by Loss Atlas in {seconds:.0f} s.", sections)


def step(message: str) -> None:
    """Say what happens now."""
    print(f"… {message}", flush=True)


if __name__ == "__main__":
    main()
