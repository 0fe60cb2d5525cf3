"""Plain SGD and AdamW training (with SAM by choice) that yields checkpoints on disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .cache import arithmetic, describe_module, fingerprint, machinery
from .checks import check_device, check_loss, check_seed, check_training_batch
from .core.network.batchnorm import batch_norms, uses_batch_statistics
from .core.network.copying import private_copy
from .core.network.evaluation import batches, logits, totals
from .core.network.fields import Fields, Inputs, spread_at_the_door
from .core.network.layout import image_layout
from .core.network.losses import Loss, correct, per_example_losses
from .core.network.probes import check_loss_values
from .data import Examples, load_data
from .models import save_checkpoint, with_provenance
from .progress import OnProgress, ignore_progress, resumed
from .resuming import Carried, OwnRandomness, Standing, restore, state_of, unkept_is_said
from .temporary import temporary_folder

_LOOKS_AN_EPOCH = 8  # at the loss that may end a training
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda p, lr, momentum, weight_decay: torch.optim.SGD(
        p, lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0
    ),
    "adamw": lambda p, lr, momentum, weight_decay: torch.optim.AdamW(p, lr, weight_decay=weight_decay),
}


def cosine(progress: float) -> float:
    """Fall from 1 to 0 along half a cosine, after a warm-up over the first tenth."""
    return min(1.0, progress / 0.1) * 0.5 * (1 + math.cos(math.pi * progress))


def constant(progress: float) -> float:
    """Stay at 1 after a warm-up over the first twentieth."""
    return min(1.0, progress / 0.05)


def flat(progress: float) -> float:
    """Stay at 1 from the first step, as theory assumes."""
    return 1.0


SCHEDULES: dict[str, Callable[[float], float]] = {"cosine": cosine, "constant": constant, "flat": flat}


@dataclass(frozen=True)
class TrainingRun:
    """A trained network and how it came about.

    Attributes
    ----------
    model : nn.Module
        The trained copy, on the CPU, in eval mode.
    checkpoints : list of Path
        safetensors files, one for each recorded epoch, the starting point first. In a temporary folder they are
        there as long as one of these paths is, and no longer than the program.
    history : dict of ndarray
        By epoch: "epoch", "loss", "accuracy" (training, running mean over the epoch), "lr", and "held_out_loss",
        "held_out_accuracy" where held-out data were given.
    settings : dict
        The arguments.

    Examples
    --------
    >>> import torch
    >>> from estimators import load_data, train
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    >>> run = train(model, load_data("digits", image_size=8, n_samples=32), epochs=2)
    >>> len(run.checkpoints), run.checkpoints[0].suffix, run.settings["epochs"], run.model is model
    (3, '.safetensors', 2, False)
    """

    model: nn.Module
    checkpoints: list[Path]
    history: dict[str, np.ndarray]
    settings: dict[str, Any] = field(default_factory=dict)


def train(
    model: nn.Module,
    data: Any,
    *,
    epochs: int = 8,
    batch_size: int = 64,
    lr: float = 0.1,
    optimizer: str = "sgd",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str | Callable[[float], float] = "cosine",
    sam_rho: float = 0.0,
    loss: str | Loss = "cross_entropy",
    label_noise: float = 0.0,
    held_out: Any = None,
    stop_at_loss: float | None = None,
    checkpoint_dir: str | Path | None = None,
    checkpoint_every: int = 1,
    random_state: int | None = 0,
    device: str = "auto",
    on_progress: OnProgress | None = None,
    on_epoch: Callable[[int, nn.Module, dict[str, float]], None] | None = None,
    on_step: Callable[[nn.Module], None] | None = None,
    carried: Carried | None = None,
) -> TrainingRun:
    """Train a copy of `model` and keep its checkpoints on disk.

    With a `checkpoint_dir` a training that was killed or cancelled goes on after its last epoch, to the same weights
    bit for bit: call it again with the same arguments. A training that has ended is read from there.

    Parameters
    ----------
    model : nn.Module
        The starting point; it is not changed.
    data : Examples or what :func:`load_data` takes
        Training examples, without augmentation.
    epochs, batch_size : int
        Passes over the data and examples a step. One example has no batch statistics: under batch norm a batch size
        of 1 is refused, and a last batch of one example is left out.
    lr, momentum, weight_decay : float
        Of the optimiser. Weight decay is part of the training, never of the loss reported.
    optimizer : {"sgd", "adamw"}
        SGD with Nesterov momentum, or AdamW (which wants `lr` near 1e-3).
    schedule : {"cosine", "constant", "flat"} or callable
        Factor on `lr` as a function of progress in [0, 1].
    sam_rho : float, default=0
        Radius of sharpness-aware minimisation (Foret et al. 2021); 0 is off. Its probing passes do not
        update batch-norm statistics.
    loss : str or callable
        As in :class:`Landscape`.
    label_noise : float, default=0
        Share of training labels replaced by random classes, drawn once from `random_state`.
    held_out : Examples or None
        Measured after each epoch, never trained on.
    stop_at_loss : float or None
        Stop once the loss over all training examples, in evaluation mode, is this low. It is looked at about eight
        times an epoch: an epoch's running mean lags behind, and by different amounts for different batch sizes.
    checkpoint_dir : path or None
        Where checkpoints go, and where the training stands; None makes a temporary folder that goes with the last
        path in `checkpoints`. What a full disk refuses is said in a warning and missing there: the training goes on.
    checkpoint_every : int
        Epochs between checkpoints; the first and the last point are always kept.
    random_state : int or None
        Seed of data order, dropout and label noise. The global random state is left as it was and does not matter,
        and trainings in several threads do not disturb each other.
    device : str
        As in :class:`Landscape`.
    on_progress : callable or None
        Called after each epoch; may raise `Cancelled`.
    on_epoch : callable or None
        Called as `on_epoch(epoch, network, row)` after each epoch with the live network; not for epochs that an
        earlier call has done.
    on_step : callable or None
        Called as `on_step(network)` after each step with the live network (exponential means follow it).
    carried : object with `state_dict()` and `load_state_dict(state)`, optional
        What `on_epoch` and `on_step` keep: it is written down with the training after each epoch, and given back
        before the first new one. Numbers, strings, tensors, and lists and dicts of them.

    Returns
    -------
    TrainingRun
    """
    examples = load_data(data)
    test = None if held_out is None else load_data(held_out)
    _check(examples, epochs, batch_size, lr, optimizer, schedule, sam_rho, label_noise)
    check_training_batch(batch_size, model)
    report, random_state = on_progress or ignore_progress, check_seed(random_state)
    factor = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
    where, measure = check_device(device), check_loss(loss)
    folder = Path(checkpoint_dir) if checkpoint_dir is not None else temporary_folder()
    rows: list[dict[str, float]] = []
    standing = Standing(None, "")
    if checkpoint_dir is not None:
        asked = [epochs, batch_size, lr, optimizer, momentum, weight_decay, factor, sam_rho, measure, label_noise]
        asked += [stop_at_loss, checkpoint_every, random_state, type(carried), where.type]
        moving = [name for name, p in model.named_parameters() if p.requires_grad]
        tested, now = None if test is None else test.fingerprint, [arithmetic(where.type), machinery()]
        key = fingerprint("training", describe_module(model), moving, examples.fingerprint, tested, asked, now)
        standing = Standing(folder, key)
    layout = image_layout(model)
    network = private_copy(model).to(where).to(memory_format=layout)
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    door = spread_at_the_door(network)
    x, y = _as_dtype(examples.fields, dtype).to(where), examples.targets.to(where)
    if isinstance(x, Tensor) and x.dim() == 4:
        x = x.to(memory_format=layout)
    order = torch.Generator().manual_seed(random_state)
    own = OwnRandomness(random_state, where, network)
    if callable(loss):
        with torch.no_grad(), own():
            check_loss_values(measure, logits(network.eval()(x[:5].clone())), y[:5])
    if label_noise:
        y = _noisy(y, label_noise, random_state)
    step = _Step(
        network,
        measure,
        OPTIMIZERS[optimizer]([p for p in network.parameters() if p.requires_grad], lr, momentum, weight_decay),
        sam_rho,
    )
    facts = {
        "architecture": getattr(model, "provenance", {}).get("architecture", type(model).__name__),
        "data": examples.name,
        "lr": lr,
        "batch_size": batch_size,
        "random_state": random_state,
    }
    paths: list[Path] = []

    def keep(epoch: int) -> None:
        path = folder / f"epoch-{epoch:04d}.safetensors"
        with unkept_is_said(str(path)):
            save_checkpoint(path, network.state_dict(), facts | {"epoch": epoch})
            paths.append(path)

    def note(ended: bool) -> None:
        standing.write(
            {
                **state_of(network, step.optimizer),
                "rows": rows,
                "order": order.get_state(),
                "randomness": own.state_dict(),
                "checkpoints": [path.name for path in paths],
                "carried": None if carried is None else carried.state_dict(),
                "ended": ended,
            }
        )

    found = standing.read()
    if found is not None and all((folder / name).is_file() for name in found["checkpoints"]):
        restore(found, network, step.optimizer)
        rows, paths = found["rows"], [folder / name for name in found["checkpoints"]]
        order.set_state(found["order"])
        own.load_state_dict(found["randomness"])
        if carried is not None:
            carried.load_state_dict(found["carried"])
        report(len(rows), epochs, resumed("epochs", len(rows), epochs))
    else:
        found = None
        keep(0)
    per_epoch = max(1, math.ceil(len(y) / batch_size))
    look_every = max(1, per_epoch // _LOOKS_AN_EPOCH)
    needs_two = uses_batch_statistics(network)
    ended = found is not None and found["ended"]
    for epoch in range(len(rows) + 1, epochs + 1 if not ended else 0):
        network.train()
        total, hits, seen, reached = 0.0, 0.0, 0, False
        for i, index in enumerate(torch.randperm(len(y), generator=order).split(batch_size)):
            if len(index) == 1 and needs_two:
                continue
            rate = lr * factor(((epoch - 1) * per_epoch + i + 1) / (epochs * per_epoch))
            with own():
                values, outputs = step(x[index], y[index], rate)
            if on_step is not None:
                on_step(network)
            right = correct(outputs, y[index], measure)
            total += float(values.sum())
            hits += float("nan") if right is None else float(right.sum())
            seen += len(index)
            if stop_at_loss is not None and (i + 1) % look_every == 0:
                with own():
                    reached = _evaluated(network, x, y, measure, where)[0] <= stop_at_loss
                network.train()
                if reached:
                    break
        row = {"epoch": epoch, "loss": total / seen, "accuracy": hits / seen, "lr": rate}
        if test is not None:
            with own():
                outside = _evaluated(network, _as_dtype(test.fields, dtype), test.targets, measure, where)
            row |= {"held_out_loss": outside[0], "held_out_accuracy": outside[1]}
        rows.append(row)
        if on_epoch is not None:
            on_epoch(epoch, network, row)
        last = epoch == epochs or reached or not math.isfinite(row["loss"])
        if last or epoch % checkpoint_every == 0:
            keep(epoch)
        note(last)
        report(epoch, epochs, f"epoch {epoch}: loss {row['loss']:.4f}, accuracy {row['accuracy']:.1%}")
        if last:
            break
    settings = facts | {
        "epochs": epochs,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule if isinstance(schedule, str) else "custom",
        "sam_rho": sam_rho,
        "label_noise": label_noise,
        "n_examples": len(examples),
        "stop_at_loss": stop_at_loss,
        "loss": loss if isinstance(loss, str) else "custom",
    }
    history = {k: np.array([row[k] for row in rows]) for k in (rows[0] if rows else ())}
    door.remove()
    trained = network.to("cpu").to(memory_format=torch.contiguous_format).eval()
    with_provenance(trained, facts["architecture"], f"trained {len(rows)} epochs (seed {random_state})", [])
    return TrainingRun(trained, paths, history, settings)


class _Step:
    """One optimisation step, with the ascent of SAM before it when asked for."""

    def __init__(self, network: nn.Module, loss: Loss, optimizer: torch.optim.Optimizer, rho: float) -> None:
        self.network, self.loss, self.optimizer, self.rho = network, loss, optimizer, rho
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, x: Inputs, y: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.enable_grad():
            outputs = logits(self.network(x.clone() if self.rho else x))  # the ascent needs x as it is
            values = per_example_losses(self.loss, outputs, y)
            self._backward(values)
            if self.rho:
                self._ascend(x, y)
        self.optimizer.step()
        return values.detach(), outputs.detach()

    def _backward(self, values: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        values.mean().backward()

    def _ascend(self, x: Inputs, y: Tensor) -> None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        scale = self.rho / (torch.stack([g.norm() for g in grads]).norm() + 1e-12)
        moved = [(p, p.grad * scale) for p in self.parameters if p.grad is not None]
        momenta = [(m, m.momentum) for m in batch_norms(self.network)]
        with torch.no_grad():
            for p, e in moved:
                p.add_(e)
        for m, _ in momenta:
            m.momentum = 0.0  # the probing pass must leave running statistics as they are
        self._backward(per_example_losses(self.loss, logits(self.network(x)), y))
        for m, momentum in momenta:
            m.momentum = momentum
        with torch.no_grad():
            for p, e in moved:
                p.sub_(e)


def _as_dtype(x: Inputs, dtype: torch.dtype) -> Inputs:
    """Give float64 inputs the precision of the weights; integers, and lower precisions, stay."""
    if isinstance(x, Fields):
        return x.map(lambda part: part.to(dtype) if part.dtype == torch.float64 else part)
    return x.to(dtype) if x.dtype == torch.float64 else x


def _evaluated(network: nn.Module, x: Inputs, y: Tensor, loss: Loss, device: torch.device) -> tuple[float, float]:
    """Mean loss and accuracy in evaluation mode, in which the network is left."""
    network.eval()
    total, hits = totals(lambda v: network(v.clone()), loss, batches(x, y, 512, device), device).tolist()
    return total / len(y), hits / len(y)


def _noisy(y: Tensor, share: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    chosen = torch.randperm(len(y), generator=generator)[: round(share * len(y))]
    noisy = y.clone()
    noisy[chosen] = torch.randint(int(y.max()) + 1, (len(chosen),), generator=generator).to(y)
    return noisy


def _check(
    data: Examples,
    epochs: int,
    batch_size: int,
    lr: float,
    optimizer: str,
    schedule: Any,
    rho: float,
    noise: float,
) -> None:
    count = "an integer of at least 1"
    rules: list[tuple[bool, str, str, object, str]] = [
        (isinstance(epochs, int) and epochs >= 1, "epochs", count, epochs, "8 suits digits."),
        (isinstance(batch_size, int) and batch_size >= 1, "batch_size", count, batch_size, "64 suits most."),
        (lr > 0, "lr", "positive", lr, "0.1 suits SGD, 0.001 AdamW."),
        (optimizer in OPTIMIZERS, "optimizer", f"one of {sorted(OPTIMIZERS)}", optimizer, "Choose one of these."),
        (
            callable(schedule) or schedule in SCHEDULES,
            "schedule",
            f"one of {sorted(SCHEDULES)} or a callable",
            schedule,
            "'cosine' is the default.",
        ),
        (rho >= 0, "sam_rho", "0 or positive", rho, "0.05 is common."),
        (0 <= noise <= 1, "label_noise", "a share in [0, 1]", noise, "0 is none."),
        (len(data) >= 2, "data", "at least 2 examples", len(data), "Add more."),
    ]
    for ok, name, allowed, value, hint in rules:
        if not ok:
            raise ValueError(f"{name} must be {allowed}, got {value!r}. {hint}")
