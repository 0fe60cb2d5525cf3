"""Eval-mode batch norm folded into the convolution before it, as a differentiable function of the parameters.

With running statistics (m, v) fixed, batch norm after a convolution is again a convolution, with weight
W·γ/√(v+ε) and bias β + (b − m)·γ/√(v+ε). The folded network is the same function of (W, b, γ, β): its values,
gradients and Hessian-vector products are the original's, at the cost of the convolutions alone.

Which norm follows which convolution is seen by running an example, and whether the folded network is the same function
by comparing outputs, at these weights and at others. Nothing is traced: torch.fx patches `nn.Module` for the whole
process, and another thread may be running a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .copying import sharing_copy
from .evaluation import logits
from .fields import Inputs
from .parameters import moved

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LARGEST_MOVED = 2**22  # elements: what makes a second reader silent, a gate at zero, is smaller


class FoldedConvolution(nn.Module):
    """A convolution and the batch norm it alone feeds, computed as one convolution."""

    inverse_deviation: Tensor
    shift: Tensor

    def __init__(self, conv: Convolution, norm: _BatchNorm) -> None:
        super().__init__()
        self.conv, self.norm = conv, norm
        self._filter_shape = (-1,) + (1,) * (conv.weight.dim() - 1)
        assert norm.running_mean is not None and norm.running_var is not None
        inverse = (norm.running_var.double() + norm.eps).rsqrt()
        self.register_buffer("inverse_deviation", inverse.to(conv.weight.dtype), persistent=False)
        self.register_buffer("shift", -norm.running_mean.clone(), persistent=False)
        self.train(norm.training)

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        """Answer for the convolution, whose weight or width the code around may read."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("conv"), name)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the folded weight and bias."""
        conv, norm = self.conv, self.norm
        scale = self.inverse_deviation if norm.weight is None else norm.weight * self.inverse_deviation
        shift = self.shift if conv.bias is None else self.shift + conv.bias
        bias = shift * scale if norm.bias is None else torch.addcmul(norm.bias, shift, scale)
        return conv._conv_forward(x, conv.weight * scale.view(self._filter_shape), bias)


Replacement = dict[nn.Module, nn.Module]


def fold_batch_norm(module: nn.Module, example: Inputs, tolerance: float = 1e-4) -> tuple[nn.Module, str]:
    """Give a network that computes what `module` computes in eval mode, with batch norm folded.

    Parameters
    ----------
    module : nn.Module
        In eval mode. The result shares its parameters; running statistics are taken as they are now. Its trainable
        parameters are moved for a moment and put back, so no other thread may use it meanwhile.
    example : Tensor
        A few inputs on which the folded outputs are compared with the original's, here and at other weights nearby.
    tolerance : float
        Largest relative difference of outputs that is accepted.

    Returns
    -------
    folded : nn.Module
        `module` itself where nothing could be folded.
    note : str
        How many layers were folded, or why none.
    """
    if not any(isinstance(m, _BatchNorm) for m in module.modules()):
        return module, "no batch norm"
    try:
        clone = sharing_copy(module)
        with torch.no_grad():
            pairs = _pairs(clone, example[:1].clone())
    except Exception as error:  # foreign code runs here: whatever it raises is reported and nothing is folded
        return module, f"not folded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    if not pairs:
        return module, "not folded: no convolution feeds only a batch norm"

    @torch.no_grad()
    def distance(x: Inputs) -> float:
        expected, found = (logits(network(x.clone())).clone() for network in (module, clone))
        return _distance(found, expected)

    def difference(chosen: list[Replacement]) -> float:
        """Largest relative difference of outputs with these pairs folded; infinite where it does not run."""
        _replace(clone, chosen)
        try:
            here = distance(example)
            with moved(p for p in module.parameters() if p.requires_grad and p.numel() <= _LARGEST_MOVED):
                return max(here, distance(example[:2]))
        except Exception:  # code that insists on the layers it was written for
            return float("inf")
        finally:
            _replace(clone, [{new: old for old, new in pair.items()} for pair in chosen])

    kept, largest = pairs, difference(pairs)
    if not largest <= tolerance:
        as_one = largest
        kept = _agreeing(pairs, lambda chosen: difference(chosen) <= tolerance)
        largest = difference(kept) if kept else as_one
        if not largest <= tolerance:
            return module, f"not folded: outputs differ by {as_one:.1e} of their size"
    _replace(clone, kept)
    left = f", {len(pairs) - len(kept)} left as they are: outputs would differ" if len(kept) < len(pairs) else ""
    return clone, f"{len(kept)} batch norms folded (outputs within {largest:.1e}){left}"


def _pairs(module: nn.Module, example: Inputs) -> list[Replacement]:
    """Find what replaces each convolution and the norm it is seen to feed, each called once."""
    calls: dict[nn.Module, list[tuple[object, object]]] = {}
    layers: list[nn.Module] = [m for m in module.modules() if isinstance(m, (*CONVOLUTIONS, _BatchNorm))]
    watched = {m: _has_hooks(m) for m in layers}

    def note(layer: nn.Module, args: tuple, output: object) -> None:
        calls.setdefault(layer, []).append((args[0] if args else None, output))

    hooks = [m.register_forward_hook(note) for m in layers]
    try:
        module(example)
    finally:
        for hook in hooks:
            hook.remove()
    once = {layer: seen[0] for layer, seen in calls.items() if len(seen) == 1 and not watched[layer]}
    made_by = {id(output): layer for layer, (_, output) in once.items() if type(layer) in CONVOLUTIONS}
    found = []
    for norm, (x, _) in once.items():
        conv = made_by.get(id(x))
        is_fixed = isinstance(norm, _BatchNorm) and norm.running_mean is not None and not norm.training
        if is_fixed and conv is not None and conv.padding_mode == "zeros":
            found.append({conv: FoldedConvolution(conv, norm), norm: _rest(norm)})  # type: ignore[arg-type]
    return found


def _has_hooks(layer: nn.Module) -> bool:
    """Whether something waits for the layer's own call: it would wait in vain, or find other values."""
    return any(value for name, value in vars(layer).items() if name.endswith("_hooks") and "state_dict" not in name)


def _rest(norm: _BatchNorm) -> nn.Module:
    """Give what a norm does besides: timm's BatchNormAct2d also holds a drop layer and the activation."""
    rest = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
    return nn.Sequential(*(m for m in rest if not isinstance(m, nn.Identity)))


def _replace(root: nn.Module, pairs: list[Replacement]) -> None:
    """Put the new modules in the places of the old ones."""
    new = {old: replacement for pair in pairs for old, replacement in pair.items()}
    for parent in [m for m in root.modules() if not isinstance(m, FoldedConvolution)]:
        for name, child in parent._modules.items():
            if child in new:
                parent._modules[name] = new[child]


def _agreeing(pairs: list[Replacement], agrees: Callable[[list[Replacement]], bool]) -> list[Replacement]:
    """Find, by halving, the pairs that can be folded among some that can't all be."""
    if len(pairs) == 1:
        return []
    halves = pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]
    return [pair for half in halves for pair in (half if agrees(half) else _agreeing(half, agrees))]


def _distance(found: Tensor, expected: Tensor) -> float:
    """Largest difference relative to the size of the outputs; infinite where only the found ones are not finite."""
    finite = torch.isfinite(expected)
    if not finite.any():
        return 0.0
    scale = expected[finite].abs().max().clamp_min(1e-12)
    difference = ((found - expected)[finite].abs().max() / scale).item()
    return float("inf") if math.isnan(difference) else difference
