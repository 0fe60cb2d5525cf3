"""What a network remembers from one pass to the next, though it was computed from its weights.

Some networks keep such values in evaluation mode: attention biases looked up from a table (timm's levit, tiny_vit,
efficientformer and efficientvit), a weight put together once. Moved to another point they would go on with the first
point's values, and have no gradient there. What is kept as an attribute is emptied before each pass; what can't be
emptied is refused.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .copying import loose_tensors, sharing_copy
from .evaluation import logits
from .fields import Inputs
from .parameters import moved

Memory = tuple[str, str]  # path of the module, its attribute; no attribute: what it computes on entering evaluation
KNOWN = ("attention_bias_cache",)
REMEDY = "Compute it in each forward pass, or switch the memory off."


def forget(module: nn.Module, memories: Iterable[Memory]) -> None:
    """Empty these memories; a module in training mode has none of the kind that comes with evaluation mode."""
    for path, name in memories:
        owner = module.get_submodule(path)
        if name:
            setattr(owner, name, {} if isinstance(vars(owner).get(name), dict) else None)
        elif not owner.training:
            modes = [(m, m.training) for m in owner.modules()]
            owner.train(True)
            owner.train(False)
            for m, mode in modes:
                m.training = mode


def forget_known(module: nn.Module) -> None:
    """Empty memories of a known name, which may come from other weights than the module's own."""
    for path, child in module.named_modules():
        forget(module, [(path, name) for name in KNOWN if vars(child).get(name)])


def forget_before_each_pass(module: nn.Module, memories: list[Memory], inside: str = "") -> None:
    """Let `module`, which lies at the path `inside`, forget what is below it before each forward pass."""
    prefix = inside + "." if inside else ""
    below = [(path[len(prefix) :], name) for path, name in memories if path.startswith(prefix)]
    below += [("", name) for path, name in memories if inside and path == inside]
    if below:
        module.register_forward_pre_hook(lambda network, _: forget(network, below))


@torch.no_grad()
def make_forgetful(module: nn.Module, parameters: list[nn.Parameter], example: Inputs) -> list[Memory]:
    """Find what `module` remembers of its parameters, and let it forget that before each forward pass.

    At other weights nearby, the module is compared with a copy that was never anywhere else.

    Parameters
    ----------
    module : nn.Module
        In eval mode, and run before where it stands; private, it is given a hook where it remembers something.
    parameters : list of nn.Parameter
        What moves.
    example : Tensor
        A few inputs.

    Returns
    -------
    list of Memory
        What is forgotten; most often nothing.

    Raises
    ------
    ValueError
        Where a memory can't be emptied; the module that holds it is named.
    """
    memories = _memories(module, example)
    with moved(parameters):
        fresh = sharing_copy(module)
        forget(fresh, memories)
        right, found = logits(fresh(example)).clone(), logits(module(example)).clone()
        memories = [memory for memory in memories if _differ(module, fresh, memory)]
        if not memories and _agree(found, right):
            return []
        if not _agree(logits(module(example)), found):
            return []  # it draws random numbers, which is said elsewhere
        forget_before_each_pass(module, memories)
        if not _agree(logits(module(example)), right):
            _refuse(module, fresh, example)
    return memories


def _memories(module: nn.Module, example: Inputs) -> list[Memory]:
    """Find attributes that a pass fills again when they are empty, and modules that compute some on `eval()`."""
    kept = list(dict.fromkeys((path, name) for path, name, _ in loose_tensors(module)))
    if not kept:
        return []
    expected = logits(module(example)).clone()
    refilled = _refilled(module, kept, example, expected)
    if refilled is None:
        alone = [_refilled(module, [memory], example, expected) for memory in kept]
        refilled = [memory for memories in alone if memories for memory in memories]
    owners = {path for path, _ in kept} - {path for path, _ in refilled}
    entered = [path for path in sorted(owners) if type(module.get_submodule(path)).train is not nn.Module.train]
    return [*refilled, *((path, "") for path in entered)]


def _refilled(module: nn.Module, kept: list[Memory], example: Inputs, expected: Tensor) -> list[Memory] | None:
    """Which of these a pass fills again, to the same outputs; None where it does not run without them."""
    clone = sharing_copy(module)
    forget(clone, kept)
    try:
        outputs = logits(clone(example))
    except Exception:  # foreign code that misses what was taken away
        return None
    filled = {(path, name) for path, name, _ in loose_tensors(clone)}
    written = [memory for memory in kept if memory in filled]
    if _agree(outputs, expected):
        return written
    if len(kept) > 1 or not written:
        return None
    path, name = kept[0]
    raise ValueError(
        f"The model must compute its outputs from its weights, got {name!r} in {path or type(module).__name__}, which "
        f"it remembers from other weights or other inputs. {REMEDY}"
    )


def _differ(module: nn.Module, fresh: nn.Module, memory: Memory) -> bool:
    """Whether a memory holds other values than in the copy that was never anywhere else."""
    path, name = memory
    kept, right = (
        [t for _, n, t in loose_tensors(network.get_submodule(path)) if name in ("", n)] for network in (module, fresh)
    )
    return len(kept) != len(right) or not all(map(torch.equal, kept, right))


def _agree(found: Tensor, right: Tensor) -> bool:
    finite = torch.isfinite(right)
    if not finite.any():
        return True
    tolerance = 1e-5 if right.dtype == torch.float32 else 1e-10
    return bool(((found - right)[finite].abs() <= tolerance * right[finite].abs().max()).all())


def _refuse(module: nn.Module, fresh: nn.Module, example: Inputs) -> None:
    """Name the first module whose outputs are not those of the fresh copy."""
    seen: list[dict[str, list[Tensor]]] = []
    for network in (module, fresh):
        calls: dict[str, list[Tensor]] = {}
        hooks = [
            child.register_forward_hook(
                lambda _, args, output, path=path, calls=calls: calls.setdefault(path, []).append(output)
            )
            for path, child in network.named_modules()
        ]
        network(example)
        for hook in hooks:
            hook.remove()
        seen.append(calls)
    names = [
        path
        for path, outputs in seen[0].items()
        if any(
            isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape and not _agree(a, b)
            for a, b in zip(outputs, seen[1].get(path, []), strict=False)
        )
    ]
    where = f"{names[0]} ({type(module.get_submodule(names[0])).__name__})" if names else type(module).__name__
    raise ValueError(
        "The model must compute its outputs from its weights, got a memory of other weights in evaluation mode, in "
        f"{where}. {REMEDY}"
    )
