"""Averaging against plain training at equal epochs: whether the average is flatter and generalises better.

For each seed two runs share every step until the switch; one goes on with a cosine to zero, the other with a
constant (or cyclic) learning rate, and its points are averaged. The exponential mean follows the second run.
Everything the claim speaks of is then measured at all three, with batch-norm statistics estimated again at each,
and judged by paired differences over seeds (Izmailov et al. 2018 report the claim).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..averaging import SWAAverager
from ..checks import check_seed
from ..core.network.copying import private_copy
from ..data import Examples, load_data
from ..landscape import Landscape
from ..progress import OnProgress, ignore_progress, subprogress
from ..results import Uncertainty
from ..sharpness import SharpnessSettings, average_case, lambda_max
from ._paired import Job, PairedResult, Quantity, judge_pairs, network_key, run_jobs, unequal_losses

PLAIN, SWA, EMA = "sgd", "swa", "ema"
GROUPS = (PLAIN, SWA, EMA)
SIGMA = 0.1  # of the average-case sharpness, relative to the size of each filter

QUANTITIES = (
    Quantity("held_out_accuracy", "larger"),
    Quantity("held_out_loss", "smaller"),
    Quantity("lambda_max", "smaller", ratio=True),
    Quantity("average_sharpness", "smaller", ratio=True),
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SwaComparisonResult(PairedResult):
    """Rows of single seeds and a verdict for each claim.

    Attributes
    ----------
    rows : list of dict
        One a seed and group ("sgd", "swa", "ema"): ``seed``, ``group``, losses and accuracies on both sets,
        ``lambda_max`` with ``lambda_max_residual``, ``average_sharpness`` with ``average_sharpness_stderr``,
        and ``distance`` from the end of the plain run.
    claims : list of dict
        One a group and quantity: ``group``, ``key``, ``claimed``, ``verdict``, ``effect``, ``low``, ``high``,
        ``ratio``, ``n``, ``confidence``. The pairs are the seeds; the other side is always "sgd".
    notes : list of str
        What limits the comparison.

    Examples
    --------
    >>> from estimators.experiments import SwaComparisonResult
    >>> rows = [{"group": g, "seed": 0, "held_out_accuracy": a} for g, a in (("sgd", 0.5), ("swa", 0.75))]
    >>> result = SwaComparisonResult(rows=rows)  # made up; `swa_experiment` measures them
    >>> result.values("swa", "held_out_accuracy") - result.values("sgd", "held_out_accuracy")
    array([0.25])
    """

    uncertainties: ClassVar[dict[str, Uncertainty]] = {
        **PairedResult.uncertainties,
        "rows.lambda_max_residual": Uncertainty("residual", "rows.lambda_max"),
        "rows.average_sharpness_stderr": Uncertainty("stderr", "rows.average_sharpness"),
    }
    groups = GROUPS
    summarised = ("train_loss", "train_accuracy", *(q.key for q in QUANTITIES), "distance")


def noisy_digits(
    seed: int, *, n_samples: int = 300, label_noise: float = 0.2, pixel_noise: float = 0.0, image_size: int = 32
) -> tuple[Examples, Examples]:
    """Draw a small training set of digits with wrong labels or noisy pixels, and the held-out digits.

    Parameters
    ----------
    seed : int
        Of the choice of examples and of the noise.
    n_samples : int, default=300
        Training examples.
    label_noise : float, default=0.2
        Share of training labels replaced by another class. Held-out labels are the true ones.
    pixel_noise : float, default=0.0
        Standard deviation of Gaussian noise on every pixel after normalisation, on both sets.
    image_size : int, default=32
        Side in pixels.

    Returns
    -------
    data, held_out : Examples
    """
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise must be in [0, 1], got {label_noise!r}. It is a share of the labels.")
    if not pixel_noise >= 0:
        raise ValueError(f"pixel_noise must be 0 or more, got {pixel_noise!r}. It is a standard deviation.")
    data = load_data("digits", n_samples=n_samples, image_size=image_size, random_state=seed)
    held_out = load_data("digits", split="test", image_size=image_size)
    generator = torch.Generator().manual_seed(seed)
    targets = data.targets.clone()
    chosen = torch.randperm(len(targets), generator=generator)[: round(label_noise * len(targets))]
    # A shift by 1 to 9 classes is never the true label.
    targets[chosen] = (targets[chosen] + torch.randint(1, 10, (len(chosen),), generator=generator)) % 10

    def blur(inputs: Tensor) -> Tensor:
        return inputs + pixel_noise * torch.randn(inputs.shape, generator=generator) if pixel_noise else inputs

    noisy = Examples(blur(data.images), targets, data.class_names, "noisy digits", "train")
    return noisy, Examples(blur(held_out.images), held_out.targets, held_out.class_names, "noisy digits", "test")


def swa_experiment(
    make_model: Callable[[int], nn.Module],
    make_data: Callable[[int], tuple[Examples, Examples]] = noisy_digits,
    *,
    n_seeds: int = 10,
    epochs: int = 40,
    lr: float = 0.1,
    batch_size: int = 64,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    estimator: SWAAverager | None = None,
    n_draws: int = 16,
    sigma: float = SIGMA,
    confidence: float = 0.95,
    memory: Any = None,
    random_state: int | None = 0,
    on_progress: OnProgress = ignore_progress,
    on_partial: Callable[[SwaComparisonResult], None] | None = None,
) -> SwaComparisonResult:
    """Train with and without averaging over several seeds, measure, compare.

    Parameters
    ----------
    make_model : callable
        ``make_model(seed) -> nn.Module``, freshly initialised.
    make_data : callable, default=noisy_digits
        ``make_data(seed) -> (data, held_out)``.
    n_seeds : int, default=10
        Pairs; an interval needs at least 2.
    epochs, lr, batch_size, momentum, weight_decay
        Of both runs, see :meth:`SWAAverager.train`.
    estimator : SWAAverager, optional
        Settings of the averaging.
    n_draws, sigma : int, float
        Of the average-case sharpness: mean loss rise under Gaussian noise of standard deviation `sigma` times
        the root mean square of each filter.
    confidence : float, default=0.95
        Level of each interval; not adjusted for the number of claims.
    memory : None, str or joblib.Memory
        Finished seeds are kept there.
    random_state : int or None, default=0
        First seed, None draws one; pair i uses ``random_state + i`` for sample, noise, initial weights and order.
    on_progress, on_partial : callable, optional
        Progress, and the result so far after each seed.

    Returns
    -------
    SwaComparisonResult
    """
    if isinstance(n_seeds, bool) or not isinstance(n_seeds, int | np.integer) or n_seeds < 1:
        raise ValueError(f"n_seeds must be a whole number from 1, got {n_seeds!r}. Use 10 to see the spread.")
    template = SWAAverager() if estimator is None else estimator
    averager = template.get_params(deep=False) | {"method": "swa", "memory": None}
    training = {
        "epochs": epochs,
        "lr": lr,
        "batch_size": batch_size,
        "momentum": momentum,
        "weight_decay": weight_decay,
    }
    measure = {"n_draws": n_draws, "sigma": sigma}
    random_state = check_seed(random_state)
    settings = {k: v for k, v in averager.items() if k not in ("memory", "verbose", "n_jobs")}
    told: dict[str, Any] = {}

    def jobs() -> Iterator[Job]:
        for seed in range(random_state, random_state + n_seeds):
            model, (data, held_out) = make_model(seed), make_data(seed)
            told.update(data=data.name, n_examples=len(data), n_held_out=len(held_out))
            sets = data.fingerprint, held_out.fingerprint
            yield Job(
                label=f"seed {seed}",
                function=run_seed,
                arguments=(model, data, held_out, averager, training, measure, seed),
                key=("swa comparison", *network_key(model), *sets, training, measure, settings, seed),
                columns={"seed": seed},
            )

    def result(rows: list[dict[str, Any]]) -> SwaComparisonResult:
        return SwaComparisonResult(
            settings={
                **training,
                **{k: settings[k] for k in ("start", "every", "swa_lr", "schedule", "decay")},
                **measure,
                "n_seeds": n_seeds,
                "random_state": random_state,
                **told,
                "batch_norm": "recompute",
            },
            rows=rows,
            claims=judge(rows, confidence),
            notes=_notes(rows),
        )

    return run_jobs(jobs(), n_seeds, result, memory=memory, on_progress=on_progress, on_partial=on_partial)


def run_seed(
    model: nn.Module,
    data: Examples,
    held_out: Examples,
    averager: dict[str, Any],
    training: dict[str, Any],
    measure: dict[str, Any],
    seed: int,
    on_progress: OnProgress,
) -> list[dict[str, Any]]:
    """Train both runs of one seed and measure the three points; returns three rows."""
    fitted = SWAAverager(**{**averager, "random_state": seed}).train(
        model,
        data,
        held_out=held_out,
        compare=True,
        trace=False,
        on_progress=subprogress(on_progress, 0.0, 0.5),
        **training,
    )
    land = fitted._landscape(model, data, batch_norm="recompute")
    end = land.point(fitted.states_[PLAIN])
    noise = SharpnessSettings(noise="filter", random_state=seed, **measure)
    spectrum = SharpnessSettings(n_lanczos=1000, tol=1e-2)
    rows = []
    for i, group in enumerate(GROUPS):
        report = fitted.result_.row("average" if group == SWA else group)
        at = Landscape(_loaded(model, fitted.states_[group]), data, device=fitted.device, loss=fitted.loss)
        rise, top = average_case(at, noise), lambda_max(at, spectrum)
        rows.append(
            {
                "group": group,
                **{k: report[k] for k in ("train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy")},
                **{k: top[k] for k in ("lambda_max", "lambda_max_residual")},
                **{k: rise[k] for k in ("average_sharpness", "average_sharpness_stderr")},
                "distance": float((at.theta.double() - end.double()).norm()),
            }
        )
        subprogress(on_progress, 0.5, 1.0)(i + 1, len(GROUPS), f"measured {group}")
    return rows


def judge(rows: Sequence[dict[str, Any]], confidence: float = 0.95) -> list[dict[str, Any]]:
    """Judge every claim for both averages, from paired differences over the seeds."""
    return [
        {"group": group, **claim}
        for group in (SWA, EMA)
        for claim in judge_pairs(rows, QUANTITIES, group, PLAIN, confidence)
    ]


def _loaded(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    loaded = private_copy(model)
    loaded.load_state_dict(state)
    return loaded


def _notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    notes = unequal_losses(rows, GROUPS, 1.1)
    loose = [r for r in rows if not r["lambda_max_residual"] <= 0.05 * abs(r["lambda_max"])]
    if loose:
        notes.append(f"The largest eigenvalue of {len(loose)} of {len(rows)} points is not settled to 5 %.")
    return notes
