import numpy as np
import torch

from estimators.core.paths.bends import train_bends
from estimators.core.paths.paths import PATHS, barrier


def ring(_, point):
    """A circular valley with a gentle tilt to one side, so that the way round has a side to start to."""
    loss = (point @ point - 1.0) ** 2 + 0.05 * (point[1] - 1.0) ** 2
    gradient = 4.0 * (point @ point - 1.0) * point
    gradient[1] += 0.1 * (point[1] - 1.0)
    return float(loss), gradient


A, B = torch.tensor([-1.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)


def train(name, n_bends, **changes):
    options = {"n_bends": n_bends, "n_examples": 64, "epochs": 60, "batch_size": 8, "lr": 0.02, **changes}
    return train_bends(ring, A, B, PATHS[name], **options)


def barrier_of(name, n_bends, bends):
    t = np.linspace(0, 1, 101)
    anchors = torch.stack([A, *bends, B])
    points = torch.from_numpy(PATHS[name](t, n_bends)) @ anchors
    return barrier(t, [ring(None, p)[0] for p in points])


def test_bends_leave_the_ridge_for_the_valley():
    straight = barrier_of("bezier", 1, train("bezier", 1, epochs=0).bends)
    assert straight > 0.9
    for name, n_bends, share in (("bezier", 1, 0.35), ("bezier", 2, 0.15), ("polychain", 1, 0.35)):
        found = train(name, n_bends)
        assert barrier_of(name, n_bends, found.bends) < share * straight, name
        assert found.losses[-1] < found.losses[0]
        assert found.diverged_at == 0


def test_zero_epochs_leave_the_straight_line():
    found = train("bezier", 3, epochs=0)
    torch.testing.assert_close(found.bends[:, 0], torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64))
    assert found.losses.size == 0


def test_one_seed_gives_one_path():
    first, second, other = train("bezier", 1), train("bezier", 1), train("bezier", 1, random_state=1)
    assert torch.equal(first.bends, second.bends)
    assert not torch.equal(first.bends, other.bends)


def test_gradient_of_a_bend_is_its_coefficient_times_the_gradient():
    # a linear loss g @ point: after one step without momentum the bend has moved by -lr c(t) g
    g = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = train_bends(
        lambda _, point: (0.0, g.clone()),
        A,
        B,
        PATHS["bezier"],
        n_bends=1,
        n_examples=4,
        epochs=1,
        batch_size=4,
        lr=0.5,
        random_state=3,
    )
    rng = np.random.default_rng(3)
    rng.permutation(4)
    t = rng.random(1)[0]
    torch.testing.assert_close(found.bends[0], -0.5 * 2 * t * (1 - t) * g)


def test_every_example_is_seen_once_an_epoch_and_no_batch_has_one():
    seen = []

    def record(indices, point):
        seen.append(indices)
        return ring(indices, point)

    train_bends(record, A, B, PATHS["bezier"], n_bends=1, n_examples=17, epochs=2, batch_size=8, lr=0.1)
    assert [len(i) for i in seen] == [8, 8, 8, 8]
    assert len(set(np.concatenate(seen[:2]))) == 16


def test_divergence_keeps_the_last_finite_bends_and_says_when():
    calls = []

    def explode(_, point):
        calls.append(1)
        return (float("nan"), point) if len(calls) > 10 else ring(_, point)

    found = train_bends(explode, A, B, PATHS["bezier"], n_bends=1, n_examples=64, epochs=5, batch_size=8, lr=0.1)
    assert found.diverged_at == 2
    assert torch.isfinite(found.bends).all()
    assert found.losses.shape == (1,)
