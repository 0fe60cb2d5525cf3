"""The main job's own figures: two seeds of `test_resnet` on digits, the paths between them, the same start, timed.

``python -m tests.benchmarks.main_job`` prints held-out accuracies, the straight and the Bézier barrier between seeds 0 and
1, and the straight barrier between two runs from one start with another order of the data.
"""

import time

from estimators import Landscape, ModeConnector, load_data, load_model, train


def main() -> None:
    """Train, join, print."""
    everything, test = load_data("digits"), load_data("digits", split="test")
    data = everything.subset(512)
    started = time.perf_counter()
    starts = [load_model("test_resnet", num_classes=10, image_size=32, random_state=seed) for seed in (0, 1)]
    began = time.perf_counter()
    a, b = (train(start, everything, random_state=seed).model for seed, start in enumerate(starts))
    print(f"training: {(time.perf_counter() - began) / 2:.1f} s a network")
    for name, model in (("seed 0", a), ("seed 1", b)):
        print(f"{name}: held-out accuracy {Landscape(model, test).accuracy():.4f}")
    path = ModeConnector(path="bezier", epochs=15).fit((a, b), data)
    print(f"straight barrier {path.straight_barrier_:.3f} nats, Bézier {path.barrier_:.3f} nats")
    again = train(starts[0], everything, random_state=7).model
    same = ModeConnector(path="linear").fit((a, again), data)
    print(f"same start, other order: straight barrier {same.barrier_:.3f} nats")
    print(f"all together {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
