"""What the experiments share: jobs kept one by one, groups judged by their pairs, the note on unequal losses."""

import numpy as np
import pytest

from estimators.experiments._paired import Job, PairedResult, Quantity, judge_pairs, run_jobs, unequal_losses

CALLS = []


def rows_of(seed, on_progress):
    on_progress(1, 2, "half")
    CALLS.append(seed)
    return [{"group": group, "value": seed + shift} for group, shift in (("a", 0.0), ("b", 1.0))]


def jobs(drawn):
    for seed in range(3):
        drawn.append(seed)
        yield Job(f"seed {seed}", rows_of, (seed,), ("test of jobs", seed), {"seed": seed})


def run(drawn, **options):
    options = {"memory": None, "on_progress": lambda *_: None, "on_partial": None} | options
    return run_jobs(jobs(drawn), 3, lambda rows: PairedResult(rows=rows), **options)


def test_jobs_are_drawn_in_turn_and_told_of_one_by_one():
    drawn, partial, progress = [], [], []
    result = run(
        drawn,
        on_partial=lambda found: partial.append((len(found.rows), list(drawn))),
        on_progress=lambda done, total, message: progress.append((done, message)),
    )
    assert partial == [(2, [0]), (4, [0, 1]), (6, [0, 1, 2])]  # no network is built before its turn
    assert [row["seed"] for row in result.rows] == [0, 0, 1, 1, 2, 2]
    assert progress == [(d, f"seed {i // 2}") for i, d in enumerate((167, 333, 500, 667, 833, 1000))]


def test_a_finished_job_is_not_run_again(tmp_path):
    CALLS.clear()
    first = run([], memory=str(tmp_path))
    assert CALLS == [0, 1, 2]
    assert run([], memory=str(tmp_path)).rows == first.rows
    assert CALLS == [0, 1, 2]


def rows(a, b):
    return [
        {"group": group, "seed": seed, "value": value}
        for group, values in (("a", a), ("b", b))
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("treated", "control", "verdict", "n"),
    [
        ((2.0, 2.1, 2.2), (1.0, 1.2, 1.1), "supported", 3),
        ((5.0, 6.0, 7.0), (5.5, 6.5, 8.0), "not comparable", 0),  # nothing below the level on either side
        ((5.0, 6.0, 2.0), (5.5, 6.5, 1.0), "not clear here", 1),
        ((np.nan,) * 3, (np.nan,) * 3, "not comparable", 0),
        ((2.0, 2.1), (1.0, 1.2, 1.1), "supported", 2),  # the third seed has one side
    ],
)
def test_pairs_that_say_nothing_are_left_out(treated, control, verdict, n):
    quantity = Quantity("value", "larger", vacuous_from=4.0)
    (claim,) = judge_pairs(rows(treated, control), (quantity,), "a", "b", 0.95)
    assert (claim["verdict"], claim["n"]) == (verdict, n)


def test_unequal_training_losses_are_said():
    def said(a, b, factor=1.5):
        return unequal_losses([{"group": g, "train_loss": v} for g, v in (("a", a), ("b", b))], ("a", "b"), factor)

    assert said(0.1, 0.14) == [] == said(np.nan, 0.1)
    (note,) = said(0.1, 0.2)
    assert "different training losses (a 0.1, b 0.2)" in note
