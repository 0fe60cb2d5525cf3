"""Every claim has a design, every experiment answers its claims, and what is shipped is what the results say."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from estimators import Landscape, Result, load_data, random_critical_points
from estimators.core.evidence.verdicts import VERDICTS
from estimators.experiments import (
    CLAIMS,
    SECTIONS,
    STUDIES,
    ArmsResult,
    CasesResult,
    NegativeCurvatureResult,
    RateBatchResult,
    SaddlesResult,
    SamSwaResult,
    ShiftedDataResult,
    Subject,
    WidthSweepResult,
    common_verdict,
    elements,
    read_records,
    sam_swa,
    shifted_data,
)
from estimators.experiments.arms import Arm, best_rate, compare_arms
from estimators.experiments.connectivity_cases import summarise
from estimators.experiments.elements import judge_dropout, judge_norm, judge_skips
from estimators.experiments.negative_curvature import judge_curvature, negative_curvature_experiment
from estimators.experiments.saddle_escape import OPTIMIZERS, judge_saddles, saddle_escape_experiment
from estimators.experiments.sam_swa import BOTH, OFTEN, OLD, SAM, SGD, SWA, judge_corners, sam_swa_experiment
from estimators.experiments.shifted_data import SHIFTS, TRAININGS, judge_shifts, shifted_data_experiment
from estimators.experiments.width_sweep import summarise_widths
from estimators.variants import with_dropout
from tests.estimators.experiments import test_rate_batch as grid

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "claims"
TRAINED = (0.05, 2.0, 0.9, True)  # training loss, λ_max, held-out accuracy, reached


def arms(values, n=5, spread=0.05):
    """Rows of arms: for each name the training loss, λ_max and whether runs reach the training loss."""
    rng = np.random.default_rng(0)
    return [
        {"group": group, "seed": seed, "reached": reached, "train_loss": loss * np.exp(spread * rng.normal())}
        | {"lr": 0.1, "n_parameters": 40_000}
        | dict.fromkeys(("lambda_max", "average_sharpness"), sharp * np.exp(spread * rng.normal()))
        | {"held_out_correct": (rng.random(300) < right).astype(int).tolist(), "held_out_accuracy": right}
        for group, (loss, sharp, right, reached) in values.items()
        for seed in range(n)
    ]


def skips(deep_plain=2.0):
    shallow = {"shallow with skips": (0.05, 1.0, 0.95, True), "shallow plain": (0.05, 4.0, 0.8, True)}
    shallow |= {elements.SKIPS: (0.05, 1.0, 0.95, True), elements.PLAIN: (0.05, 4.0, 0.8, True)}
    shallow[elements.VGG] = (0.05, 4.0, 0.8, True)
    deep = {"deep with skips": (0.05, 1.0, 0.95, True), "deep plain": (deep_plain, 1.0, 0.2, deep_plain < 0.1)}
    return arms({**shallow, **deep}, spread=0.02)


def norms(trains_low=True, high=2.3):
    low, far = elements.LOW, elements.HIGH
    normed = {f"norm, rate {rate:g}": (0.05, 1.0, 0.9, True) for rate in (low, far)}
    none = (0.05, 3.0, 0.9, True) if trains_low else (2.3, 3.0, 0.1, False)
    return arms(
        {**normed, f"no norm, rate {low:g}": none, f"no norm, rate {far:g}": (high, 3.0, 0.1, high < 0.1)}, spread=0.02
    )


def saddles(n=12, momentum=100.0, sgd=1.0):
    rng = np.random.default_rng(1)
    rows = []
    for i in range(n):
        loss = 0.5 + 0.05 * i
        row = {"seed": i, "index": 1, "loss": loss, "gradient_norm": 1e-12, "lowest": -0.1}
        for name in OPTIMIZERS:
            row |= {f"rest_{name}": float(name in ("sgd", "perturbed_gd")), f"steps_{name}": 700.0 + rng.normal()}
        row |= {
            "sgd_at_one_rate": 600 * loss**sgd,
            "steps_momentum": momentum,
            "steps_rmsprop": 30.0,
            "steps_adam": 50.0,
        }
        rows.append(row | {"steps_large_step": 120.0})
    return rows


def runs(lowest=-0.5, still=0, n=6, steps=100):
    """Rows of checkpoints and of steps; runs stand still after the first `still` steps, and at their end."""
    points = [
        {"seed": seed, "epoch": epoch, "loss": 2.3, "gradient_norm": 1.0, "lambda_max": 1.0, "lambda_min": lowest}
        for seed in range(n)
        for epoch in range(5)
    ]
    walked = [
        {
            "seed": seed,
            "step": i,
            "loss": 2.3 if i < 80 else 0.1,
            "gradient_norm": 1e-3 if i < still or i >= 80 else 1.0,
        }
        for seed in range(n)
        for i in range(steps)
    ]
    return points, walked


def corners(**flatter):
    """Rows of the four corners: λ_max of each group over that of plain SGD."""
    factors = {SGD: 1.0, SWA: 0.6, SAM: 0.5, BOTH: 0.3, **flatter}
    rows = arms(
        {name: (0.01, factor, 0.95, True) for name, factor in factors.items()}
        | {OLD: (0.5, 1.0, 0.6, True), OFTEN: (0.01, 1.0, 0.95, True)},
        spread=0.02,
    )
    same = [row["held_out_correct"] for row in rows if row["group"] == SWA]
    for row, correct in zip([row for row in rows if row["group"] == OFTEN], same, strict=True):
        row["held_out_correct"] = correct
    ways = [
        {"seed": s, "off_centre_average": 0.1 + 0.01 * s, "off_centre_last": 0.5, "correlation_0.25": 0.8 + 0.01 * s}
        for s in range(5)
    ]
    return rows, ways


def shifts(slope=1.0):
    rng = np.random.default_rng(2)
    return [
        {"group": name, "seed": s, "train_loss": 0.05, "reached": True, "weights": i}
        | {shift: slope * i + 0.1 * rng.normal() for shift in SHIFTS}
        for i, name in enumerate(TRAININGS)
        for s in (0, 1)
    ]  # fmt: skip


def cases(fine_tuned=3.0):
    far = {"same start": 8.0, "different starts": 60.0, "fine-tuned": fine_tuned}
    rises = {
        "same start": {"linear": 0.0},
        "different starts": {"linear": 2.0, "bezier": 0.01},
        "fine-tuned": {"linear": 0.0},
    }
    rows = [
        {"case": case, "seed": seed, "path": path, "rise": rise, "barrier": rise, "distance": far[case]}
        for case, paths in rises.items()
        for path, rise in paths.items()
        for seed in range(6)
    ]
    return CasesResult(rows=rows, summary=summarise(rows, 0.1))


def widths():
    measured = dict.fromkeys(("train_accuracy", "held_out_loss", "gap", "lambda_max"), 1.0)
    rows = [
        {
            "factor": f,
            "seed": s,
            "epochs_run": 60 // f + s,
            "train_loss": 0.05,
            "held_out_accuracy": 0.9 + s / (100 * f),
        }
        | {"status": "ok", "n_parameters": 1000 * f, "parameters_per_example": f, **measured}
        for f in (1, 2, 4, 8, 16, 32)
        for s in range(3)
    ]
    barriers = [{"factor": f, "barrier": 2.0 / f} for f in (1, 2, 4, 8, 16, 32)]
    summary = summarise_widths(rows, barriers, 0.05)
    return WidthSweepResult(factors=np.array([1, 2]), table=rows, barriers=barriers, summary=summary, claims=[])


MADE_UP = {
    "random_matrices": lambda: random_critical_points((1, 2, 3, 4, 5), n_samples=20_000),
    "rate_batch": lambda: RateBatchResult(rows=grid.made_up(-0.6, 0.0), batches=[*grid.BATCHES], ratios=[*grid.RATIOS]),
    "escape": lambda: SaddlesResult(rows=saddles()),
    "skips_depth": lambda: ArmsResult(rows=skips()),
    "sam_swa": lambda: SamSwaResult(rows=corners()[0], trajectories=corners()[1]),
    "negative_curvature": lambda: NegativeCurvatureResult(rows=runs()[0], steps=runs()[1]),
    "shifted_data": lambda: ShiftedDataResult(rows=shifts()),
    "connectivity_cases": cases,
    "norm_rate": lambda: ArmsResult(rows=norms()),
    "dropout": lambda: ArmsResult(rows=arms({elements.NONE: TRAINED, elements.BLOCKS: (0.05, 1.0, 0.9, True)})),
    "widths": widths,
}  # fmt: skip


def verdicts(judged):
    return {claim: [row.verdict for row in rows] for claim, rows in judged.items()}


# ---- the registry ----


def test_every_section_has_claims_and_every_claim_a_whole_design():
    assert {claim.section for claim in CLAIMS.values()} == set(SECTIONS) == set(range(1, 8))
    for key, claim in CLAIMS.items():
        said = asdict(claim)
        assert key == said.pop("key") and said.pop("n") >= 0
        experiment, untested = said.pop("experiment"), said.pop("untested")
        assert all(said.values()), f"{key} leaves a part of its design out"
        assert bool(experiment) != bool(untested), f"{key} has an experiment or says why there is none"
        assert bool(experiment) == bool(claim.n)


@pytest.mark.parametrize("name", STUDIES)
def test_every_experiment_answers_the_claims_that_name_it_and_no_others(name):
    judged = STUDIES[name].judge(MADE_UP[name]())
    assert set(judged) == {claim.key for claim in CLAIMS.values() if claim.experiment == name}
    for row in (row for rows in judged.values() for row in rows):
        assert row.verdict in VERDICTS and row.reason and row.what and row.said()


def test_what_is_shipped_is_what_the_saved_results_say_by_the_rules_of_today():
    records = read_records()
    assert set(records) == {file.stem for file in RESULTS.glob("*.npz")} and set(records) <= set(STUDIES)
    for name, record in records.items():
        judged = STUDIES[name].judge(Result.load(RESULTS / f"{name}.npz"))
        assert record.claims == {key: tuple(rows) for key, rows in judged.items()}
        assert record.minutes > 0 and record.versions["torch"] and record.date.startswith("20")


def test_no_row_counts_more_units_than_its_design():
    for record in read_records().values():
        for key, rows in record.claims.items():
            assert all(0 <= row.n <= CLAIMS[key].n for row in rows), key


# ---- judgements of made-up runs with a known answer ----


def test_eigenvalues_of_random_matrices_are_no_coins():
    found = verdicts(STUDIES["random_matrices"].judge(MADE_UP["random_matrices"]()))
    assert found == {"minimum_rare": ["supported"] * 4, "coin_flips": ["not supported"]}


def test_depth_is_judged_as_an_interaction_and_the_basin_where_both_train():
    assert verdicts(judge_skips(skips())) == {
        "skips_depth": ["supported"], "skips_flat": ["supported"] * 2, "skips_generalise": ["supported"],
        "vgg_sharp": ["supported"] * 3,
    }  # fmt: skip
    assert verdicts(judge_skips(skips(deep_plain=0.05)))["skips_depth"] == ["not supported"], (
        "depth costs neither anything"
    )
    rows = skips()
    for row in rows:
        if row["group"] == "deep plain":
            row["train_loss"] = float("nan")
    assert verdicts(judge_skips(rows))["skips_depth"] == ["supported"], "all runs diverge against none"
    rows = [row | {"reached": row["group"] != "deep with skips"} for row in skips()]
    assert verdicts(judge_skips(rows))["skips_depth"] == ["not comparable"], "with skips it does not train either"


def test_a_vgg_is_held_against_a_resnet_of_like_size_and_has_to_be_worse_in_every_row():
    rows = skips()
    assert common_verdict(judge_skips(rows)["vgg_sharp"]) == "supported"
    for row in rows:
        if row["group"] == elements.VGG:
            row["held_out_correct"] = next(r for r in rows if r["group"] == elements.SKIPS)["held_out_correct"]
    found = judge_skips(rows)["vgg_sharp"]
    assert {row.verdict for row in found} > {"supported"} and common_verdict(found) != "supported", "sharp alone"
    larger = [row | {"n_parameters": 50_000} if row["group"] == elements.VGG else row for row in skips()]
    assert common_verdict(judge_skips(larger)["vgg_sharp"]) == "not comparable"


def test_what_is_said_of_curvature_holds_over_the_training_loss_as_well():
    def judged(loss, sharp):
        rows = arms({elements.NONE: (0.05, 1.0, 0.9, True), elements.BLOCKS: (loss, sharp, 0.9, True)})
        return {row.verdict for row in judge_dropout(rows)["dropout_flat"]}

    assert judged(0.05, 0.5) == {"supported"} and judged(0.05, 1.0) == {"not supported"}
    assert judged(0.01, 0.5) == {"not comparable"}, "the lower loss may be why"
    assert judged(0.2, 0.5) == {"supported"}, "flatter in spite of a higher loss"
    assert judged(0.2, 2.0) == {"not comparable"}, "the higher loss may be why"
    assert judged(0.01, 1.0) == judged(0.01, 2.0) == {"not supported"}


def test_the_rate_that_norm_allows_needs_a_lower_one_that_trains_without_it():
    assert verdicts(judge_norm(norms())) == {"norm_rate": ["supported"], "norm_curvature": ["supported"] * 2}
    assert verdicts(judge_norm(norms(high=0.05)))["norm_rate"] == ["not supported"]
    assert verdicts(judge_norm(norms(trains_low=False))) == {
        "norm_rate": ["not comparable"], "norm_curvature": ["not comparable"],
    }  # fmt: skip


def test_dropout_is_judged_at_equal_training_loss():
    rows = arms({elements.NONE: TRAINED, elements.BLOCKS: TRAINED})
    assert set(verdicts(judge_dropout(rows))["dropout_flat"]) == {"not supported"}, "equivalent"
    missed = arms({elements.NONE: TRAINED, elements.BLOCKS: (0.5, 1.0, 0.9, False)})
    assert set(verdicts(judge_dropout(missed))["dropout_flat"]) == {"not clear here"}, "no pair at one loss"


def test_saddles_are_the_units():
    found = judge_saddles(saddles())
    assert verdicts(found) == {
        "noise_escapes": ["supported"], "injected_noise_escapes": ["supported"], "momentum_escapes": ["supported"],
        "large_rate_escapes": ["supported"], "adaptive_escapes": ["supported"] * 2, "noise_low_energy": ["supported"],
    }  # fmt: skip
    assert {row.n for rows in found.values() for row in rows} == {12}
    against = verdicts(judge_saddles(saddles(momentum=700.0, sgd=-1.0)))
    assert (against["momentum_escapes"], against["noise_low_energy"]) == (["not supported"], ["not supported"])


def test_a_run_that_stands_still_before_it_has_trained_counts():
    assert verdicts(judge_curvature(*runs())) == {"nonconvex": ["supported"], "saddles_matter_little": ["supported"]}
    assert verdicts(judge_curvature(*runs(still=3)))["saddles_matter_little"] == ["supported"], "under 5 %"
    assert verdicts(judge_curvature(*runs(still=6)))["saddles_matter_little"] == ["not supported"]
    assert verdicts(judge_curvature(*runs(lowest=0.0)))["nonconvex"] == ["not supported"]


def test_both_together_have_to_be_flatter_than_each():
    found = verdicts(judge_corners(*corners()))
    assert found["sam_flat"] == found["swa_flat"] == ["supported"] * 2 and found["swa_generalises"] != ["supported"]
    assert found["swa_sam"] == ["supported"] * 4 and found["swa_statistics"] == ["supported"]
    assert found["swa_centre"] == ["supported"] and found["swa_frequency"] == ["supported"] * 2
    rows, ways = corners()
    alone = [way | {"correlation_0.25": 0.3 + 0.01 * way["seed"]} for way in ways]
    assert common_verdict(judge_corners(rows, alone)["swa_frequency"]) == "not supported", "near points are not alike"
    better = [row | {"held_out_correct": [1] * 300} if row["group"] == OFTEN else row for row in rows]
    assert common_verdict(judge_corners(better, ways)["swa_frequency"]) == "not supported", "an epoch is not enough"
    lost = [way | {"off_centre_average": float("nan")} for way in ways]
    assert verdicts(judge_corners(rows, lost))["swa_centre"] == ["not clear here"], "no rim was found"
    alone = verdicts(judge_corners(*corners(**{BOTH: 0.5})))["swa_sam"]
    assert "not supported" in alone, "no flatter than SAM alone"


def test_rank_agreement_counts_ways_of_training():
    found = judge_shifts(shifts())["weights_like_data"]
    assert {row.verdict for row in found} == {"supported"} and {row.n for row in found} == {len(TRAININGS)}
    assert {row.verdict for row in judge_shifts(shifts(slope=-1.0))["weights_like_data"]} == {"not supported"}
    one = [row | {"blurred": row["weights"] % 3} for row in shifts()]
    assert common_verdict(judge_shifts(one)["weights_like_data"]) == "not clear here", "one kind does not follow"
    missed = [row | {"reached": False} if row["group"] == "SAM" else row for row in shifts()]
    assert {row.n for row in judge_shifts(missed)["weights_like_data"]} == {len(TRAININGS) - 1}


def test_the_rate_of_an_arm_is_the_one_that_trains_best():
    arm = Arm("plain", rates=(0.1, 0.3, 1.0))
    tuned = [
        {"group": "plain", "tuning": True, "lr": lr, "reached": reached, "epochs": e, "train_loss": loss}
        for lr, reached, e, loss in ((0.1, True, 9, 0.05), (0.3, True, 4, 0.05), (1.0, False, 9, float("nan")))
    ]
    assert best_rate(arm, tuned) == 0.3 and best_rate(arm, tuned[2:]) == 1.0
    assert best_rate(Arm("other", rates=(0.2,)), tuned) == 0.2


def test_children_that_have_hardly_moved_are_joined_by_any_line():
    judge = STUDIES["connectivity_cases"].judge
    assert verdicts(judge(cases())) == {claim: ["supported"] for claim in judge(cases())}
    assert verdicts(judge(cases(fine_tuned=0.02)))["fine_tuned_linear"] == ["not comparable"]


def test_a_claim_with_halves_needs_each_of_them():
    judge, found = STUDIES["rate_batch"].judge, {}
    for name, power in (("ratio", 0.0), ("batch", 0.6)):
        rows = grid.made_up(-0.6, power)
        result = RateBatchResult(rows=rows, batches=[*grid.BATCHES], ratios=[*grid.RATIOS])
        found[name] = judge(result)["ratio_decides"]
    assert common_verdict(found["ratio"]) == "supported"
    assert common_verdict(found["batch"]) == "not supported", "the batch matters at one ratio as well"
    unclear = [replace(row, verdict="not clear here") if row.needed else row for row in found["ratio"]]
    assert "supported" in {row.verdict for row in unclear} and common_verdict(unclear) == "not clear here"


# ---- small real runs ----


@pytest.fixture(scope="module")
def digits():
    return load_data("digits", image_size=8, n_samples=48), load_data(
        "digits", image_size=8, n_samples=40, split="test"
    )


def small(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
        return nn.Sequential(*body, nn.Linear(4 * 64, 10))


def test_arms_are_tuned_trained_measured_and_resumed(tmp_path):
    data, held_out = load_data("digits", n_samples=40), load_data("digits", n_samples=40, split="test")
    two = [Arm("plain", rates=(0.05, 0.1)), Arm("dropout", ("with_dropout=0,0,0.2",), (0.05,), measures=("average",))]
    options = {"n_seeds": 1, "target_loss": 1.5, "epochs": 2, "memory": str(tmp_path)}
    subject = Subject("test_resnet", data, held_out)
    result = compare_arms(subject, two, lambda rows: {}, **options)
    assert [row["group"] for row in result.rows] == ["plain", "dropout"] and len(result.tuning) == 2
    assert result.rows[0]["lr"] == best_rate(two[0], result.tuning)
    assert np.isfinite(result.rows[0]["lambda_max"]) and np.isnan(result.rows[1]["lambda_max"])
    messages = []
    again = compare_arms(subject, two, lambda rows: {}, on_progress=lambda d, t, m: messages.append(m), **options)
    np.testing.assert_equal(again.rows, result.rows)
    assert len(messages) == 4, "nothing was trained again"


def test_dropout_acts_inside_the_blocks_and_only_while_training():
    model = elements.open_branches(Subject("test_resnet", *[load_data("digits", n_samples=20)] * 2).model(0))
    dropped = with_dropout(model, 0.0, 0.0, 0.5)
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(dropped.eval()(x), model.eval()(x))
    dropped.train()
    assert not torch.equal(dropped(x), dropped(x))
    assert not any(isinstance(m, nn.Dropout2d) for m in with_dropout(dropped, 0.0).modules())
    with pytest.raises(ValueError, match="inside must be 0"):
        with_dropout(Subject("test_vit", *[load_data("digits", n_samples=20)] * 2).model(0), 0.0, 0.0, 0.2)


def test_a_saddle_is_found_and_left():
    result = saddle_escape_experiment(n_seeds=1, indices=(1,), n_starts=1, max_steps=30)
    (row,) = result.rows
    assert row["index"] == 1 and row["lowest"] < 0 and row["gradient_norm"] <= 1e-9 and row["rest_gd"] == 0


def test_curvature_is_followed_through_training(digits):
    result = negative_curvature_experiment(small, digits[0], n_seeds=1, epochs=2, every=1, max_products=12)
    assert [row["epoch"] for row in result.rows] == [0, 1, 2] and [row["step"] for row in result.steps] == [1, 2]
    assert result.steps[-1]["loss"] == pytest.approx(result.rows[-1]["loss"], rel=1e-4), "one loss at one point"
    assert all(row["lambda_min"] < row["lambda_max"] for row in result.rows)


def test_weights_are_moved_and_images_shifted(digits, monkeypatch):
    monkeypatch.setattr(shifted_data, "TRAININGS", {"usual": {}})
    (row,) = shifted_data_experiment(small, *digits, n_seeds=1, epochs=2).rows
    assert (
        row["group"] == "usual"
        and not row["reached"]
        and np.isfinite([row["weights"], *(row[name] for name in SHIFTS)]).all()
    )
    for shift in SHIFTS.values():
        moved = shift(digits[1].images)
        assert moved.shape == digits[1].images.shape and not torch.equal(moved, digits[1].images)


def test_four_corners_and_a_trajectory_of_each_seed(digits):
    result = sam_swa_experiment(small, *digits, n_seeds=1, epochs=12, batch_size=12)
    assert [row["group"] for row in result.rows] == [SGD, SWA, OLD, OFTEN, SAM, BOTH]
    assert [np.mean(row["held_out_correct"]) for row in result.rows] == [
        row["held_out_accuracy"] for row in result.rows
    ]
    (way,) = result.trajectories
    assert 0 <= way["off_centre_average"] <= 1 and 0 <= way["off_centre_last"] <= 1
    assert way["correlation_0.25"] > way["correlation_1"], "neighbours are more alike"


def test_the_way_to_a_level_is_found_on_either_side_and_nowhere_in_a_flat_direction(digits):
    class Point(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return self.w + 0.0 * x.flatten(1)[:, :2]

    land = Landscape(Point(), digits[0], loss=lambda outputs, targets: outputs[:, 0] ** 2)
    centre, along, across = torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert sam_swa.way_to_level(land, centre, along, 0.01, 1.0) == pytest.approx(0.5, rel=0.01)
    assert sam_swa.way_to_level(land, centre, -along, 0.01, 1.0) == pytest.approx(1.5, rel=0.01)
    assert np.isnan(sam_swa.way_to_level(land, centre, across, 0.01, 1.0))
