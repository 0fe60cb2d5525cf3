"""What a network, its loss and its examples must fulfil before hours are spent on them."""

from __future__ import annotations

import copy
import math
import warnings

import torch
from torch import Tensor, nn

from .batchnorm import batch_norms
from .copying import private_copy
from .evaluation import logits, totals
from .fields import Fields, Inputs, equal, in_precision, shapes, spread_at_the_door
from .losses import Loss, check_targets, per_example_losses
from .working_copy import Network
from .wrappers import run_as_written

_FEW, _PROBED = 64, 32  # examples up to which all of them are run twice, and how many are of more


def spread_indices(n: int, most: int) -> Tensor:
    """Choose at most so many of n examples: first, last and random ones, the same each time."""
    if n <= most:
        return torch.arange(n)
    k = max(1, most // 4)
    between = torch.randint(k, n - k, (most - 2 * k,), generator=torch.Generator().manual_seed(0))
    return torch.cat([torch.arange(k), between.unique(), torch.arange(n - k, n)])


def check_weights(module: nn.Module, batch_norm: str) -> list[str]:
    """Refuse variances below zero and warn of values that are not finite; give the names of the latter.

    Raises
    ------
    ValueError
        If running variances that are used are negative.
    """
    if batch_norm == "frozen":
        names = {id(m): name for name, m in module.named_modules()}
        layers = batch_norms(module)
        below = [names[id(m)] for m in layers if bool((m.running_var < 0).any())]  # type: ignore[operator,union-attr]
        if below:
            raise ValueError(
                f"Running variances must be 0 or more, got negative ones in {listed(below)}. Repair the checkpoint, "
                "or use batch_norm='recompute'."
            )
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    floating = {name: t for name, t in tensors.items() if t.is_floating_point() or t.is_complex()}
    finite = torch.stack([t.isfinite().all() for t in floating.values()]).tolist() if floating else []
    bad = [name for name, is_finite in zip(floating, finite, strict=True) if not is_finite]
    if bad:
        warnings.warn(
            f"The model has NaN or infinite values in {listed(bad)}: its losses come out as they are.",
            RuntimeWarning,
            stacklevel=3,
        )
    return bad


def check_outputs(network: Network, inputs: Inputs, targets: Tensor, loss: Loss) -> tuple[int, int]:
    """Run a few examples, so that a wrong shape, label or loss is said at once; give the number of classes and of axes.

    Raises
    ------
    ValueError
        If the model does not take the inputs or does not give one output an example, if targets are not classes of
        the model, or if the loss is not one of each example alone.
    """
    chosen = spread_indices(len(targets), 5)
    x, y = inputs[chosen].to(network.device), targets[chosen].to(network.device)
    try:
        with torch.no_grad():
            output = network.whole(x)
    except (RuntimeError, AssertionError, ValueError, IndexError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"The model must accept inputs of shape {shapes(inputs)}, got an error: {error}. "
            "Check image_size and channels of the data and img_size of the model, or the names and order of several "
            "inputs."
        ) from error
    outputs = logits(output)
    if outputs.dim() == 0 or len(outputs) != len(x):
        raise ValueError(
            f"The model must give one output an example, got shape {tuple(outputs.shape)} for {len(x)} examples. "
            "Keep the first axis of the inputs."
        )
    outputs = outputs.to(network.flat.flat.dtype)
    n_classes = check_targets(loss, outputs, y, targets)
    check_loss_values(loss, outputs, y)
    return n_classes, outputs.dim()


@torch.no_grad()
def check_loss_values(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    """Insist that an example's loss is its own: the same among others and among fewer, in another order.

    A loss whose shapes broadcast, to (N, N) say, and one that divides by something of the batch both fail.

    Raises
    ------
    ValueError
        If it is not, with the shapes.
    """
    some = torch.arange(len(targets), device=targets.device).flip(0)[::2]
    given, again, few = loss(outputs, targets), loss(outputs, targets), loss(outputs[some], targets[some])
    values = per_example_losses(lambda *_: given, outputs, targets)
    if not _same(given, again):
        raise ValueError(
            "loss must give the same values twice for the same outputs, got others the second time. It draws random "
            "numbers or remembers earlier calls: use one that does not."
        )
    if len(some) == 1 or given.shape[1:] == few.shape[1:]:
        alone = per_example_losses(lambda *_: few, outputs[some], targets[some])
        if len(targets) == 1 or torch.allclose(values[some], alone, rtol=1e-4, atol=1e-6, equal_nan=True):
            return
    raise ValueError(
        "loss must give each example a value that does not depend on the others, got other values for "
        f"{len(some)} of {len(targets)} examples alone: it returns shape {tuple(given.shape)} for outputs "
        f"{tuple(outputs.shape)} and targets {tuple(targets.shape)}. Shapes that broadcast are the usual "
        "reason: give outputs and targets equal shapes, and use reduction='none'."
    )


@torch.no_grad()
def protect_input(module: nn.Module, x: Inputs) -> bool:
    """Give a module that writes into its input a copy from now on, by a hook; say whether it does."""
    given = x.clone()
    module(given)
    writes = not equal(given, x)
    if writes:
        copy_input(module)
    return writes


def copy_input(module: nn.Module) -> None:
    """Give a module copies of its inputs."""
    module.register_forward_pre_hook(
        lambda _, args: tuple(a.clone() if isinstance(a, Tensor | Fields) else a for a in args), prepend=True
    )


@torch.no_grad()
def check_repeatable(network: Network, loss: Loss, inputs: Inputs, targets: Tensor, batch_size: int) -> None:
    """Insist on the same outputs and losses twice at the same weights, for the first, last and some other examples.

    Raises
    ------
    ValueError
        If two evaluations disagree, with the module where they part.
    """
    chosen = spread_indices(len(inputs), _FEW if len(inputs) <= _FEW else _PROBED)
    with network.policy():
        for part in chosen.split(batch_size):
            x, y = inputs[part].to(network.device), targets[part].to(network.device)
            first, second = network.scores(x), network.scores(x)
            apart = _apart(first, second)
            if apart > 0.0:
                raise ValueError(
                    "The model must give the same loss twice at the same weights, got outputs that differ by "
                    f"{apart:.1e} of their size. {_where_random(network, x)} Switch that off."
                )
            check_loss_values(loss, first, y)


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest difference by size; what an order of summation explains counts as 0, NaN in one alone as infinite."""
    if torch.equal(a, b):
        return 0.0
    finite = a.isfinite() & b.isfinite()
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
        return math.inf
    a, b = a[finite], b[finite]
    scale = float(a.abs().max()) if len(a) else 0.0
    difference = float((a - b).abs().max()) / scale if scale else 0.0
    return difference if difference > 100 * torch.finfo(a.dtype).eps else 0.0


def _where_random(network: Network, x: Inputs) -> str:
    """Name the first module whose output differs between two runs, and say of what kind the difference is."""

    def run() -> list[tuple[str, object]]:
        seen: list[tuple[str, object]] = []
        hooks = [
            m.register_forward_hook(lambda m, _, out, name=name: seen.append((name, copy.deepcopy(out))))
            for name, m in network.module.named_modules()
        ]
        try:
            network.whole(x)
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    first, second = run(), run()
    name = next(
        (
            a
            for (a, one), (b, other) in zip(first, second, strict=False)
            if a != b or (isinstance(one, Tensor) and isinstance(other, Tensor) and not _same(one, other))
        ),
        "",
    )
    what = f"{name!r} ({type(network.module.get_submodule(name)).__name__})" if name else "the model itself"
    seeded = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            seeded.append(logits(network.whole(x)))
    if _same(*seeded):
        return f"It draws random numbers in eval mode; the first module whose output differs is {what}."
    return (
        f"The first module whose output differs is {what}: it remembers earlier calls, or draws random numbers from "
        "a source of its own."
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=0.0, equal_nan=True)


@torch.no_grad()
def check_same_function(template: nn.Module, other: nn.Module, state: dict[str, Tensor], inputs: Inputs) -> None:
    """Insist that a second network computes what the first one does with the second one's weights and buffers.

    Raises
    ------
    ValueError
        If an attribute, an activation or anything else that is no weight makes it another function.
    """
    chosen = inputs[spread_indices(len(inputs), 4)]
    ours, theirs = (_at_rest(m) for m in (template, other))
    ours.load_state_dict(state)
    dtype = next(p.dtype for p in ours.parameters() if p.is_floating_point())
    if next(p.dtype for p in theirs.parameters() if p.is_floating_point()) != dtype:
        theirs = theirs.to(dtype)
    x = in_precision(chosen, dtype)
    expected, found = (logits(m(x.clone())) for m in (theirs, ours))
    scale = float(expected[expected.isfinite()].abs().max()) if expected.isfinite().any() else 1.0
    if expected.shape == found.shape and torch.allclose(found, expected, rtol=0, atol=1e-4 * scale, equal_nan=True):
        return
    raise ValueError(
        f"A second network must be the same function of its weights, got a {type(other).__name__} whose outputs are "
        f"not those of the first network with its weights{_differing(template, other)}. Give networks that differ in "
        "nothing but weights."
    )


def _at_rest(module: nn.Module) -> nn.Module:
    """Copy a module on the CPU in eval mode, in a type that runs there, for whatever the examples are."""
    fresh = run_as_written(private_copy(module)).cpu()
    spread_at_the_door(fresh)
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in fresh.parameters()):
        fresh = fresh.float()
    return fresh.train().eval()  # what is kept between calls in eval mode is dropped on the way through train mode


def _differing(a: nn.Module, b: nn.Module) -> str:
    """List the plain settings in which two networks differ."""
    others = dict(b.named_modules())
    found = []
    for name, m in a.named_modules():
        if name not in others:
            continue
        mine, its = (vars(n) for n in (m, others[name]))
        if type(m) is not type(others[name]):
            found.append(f"{name or 'the model'}: {type(m).__name__} and {type(others[name]).__name__}")
        found += [
            f"{name}.{key}".lstrip(".")
            for key in mine.keys() & its.keys()
            if not key.startswith("_")
            and key not in ("training", "provenance")
            and (callable(mine[key]) or isinstance(mine[key], bool | int | float | str | tuple))
            and mine[key] != its[key]
        ]
    return f"; they differ in {listed(sorted(found))}" if found else ""


def listed(names: list[str], most: int = 8) -> str:
    """Join the first few names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def deviation_from_float32(network: Network, loss: Loss, x: Inputs, y: Tensor) -> float:
    """Relative difference that bfloat16 makes to the loss of these examples, where the network stands."""
    mixed = _loss(network, loss, x, y)
    network.mixed = False
    exact = _loss(network, loss, x, y)
    network.mixed = True
    return abs(mixed / exact - 1) if exact else abs(mixed)


def _loss(network: Network, loss: Loss, x: Inputs, y: Tensor) -> float:
    with network.policy():
        return float(totals(network.forward, loss, iter([(x, y)]), network.device)[0])
