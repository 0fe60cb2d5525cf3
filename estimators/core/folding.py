"""Eval-mode batch norm folded into the convolution before it, as a differentiable function of the parameters.

With running statistics (m, v) fixed, batch norm after a convolution is again a convolution, with weight
W·γ/√(v+ε) and bias β + (b − m)·γ/√(v+ε). The folded network is the same function of (W, b, γ, β): its values,
gradients and Hessian-vector products are the original's, at the cost of the convolutions alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


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

    def forward(self, x: Tensor) -> Tensor:
        """Convolve with the folded weight and bias."""
        conv, norm = self.conv, self.norm
        scale = self.inverse_deviation if norm.weight is None else norm.weight * self.inverse_deviation
        shift = self.shift if conv.bias is None else self.shift + conv.bias
        bias = shift * scale if norm.bias is None else torch.addcmul(norm.bias, shift, scale)
        return conv._conv_forward(x, conv.weight * scale.view(self._filter_shape), bias)


class _Tracer(fx.Tracer):
    """Enters only modules that hold a batch norm, so that everything else may contain untraceable code."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, _BatchNorm) or super().is_leaf_module(m, module_qualified_name):
            return True
        return not any(isinstance(child, _BatchNorm) for child in m.modules())


def fold_batch_norm(module: nn.Module, example: Tensor, tolerance: float = 1e-4) -> tuple[nn.Module, str]:
    """Give a network that computes what `module` computes in eval mode, with batch norm folded.

    Parameters
    ----------
    module : nn.Module
        In eval mode. The result shares its parameters; running statistics are taken as they are now.
    example : Tensor
        A few inputs on which the folded outputs are compared with the original's.
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
        graph = _Tracer().trace(module)
        traced = fx.GraphModule(module, graph)
        pairs = _pairs(traced)
        for conv_node, norm_node in pairs:
            _fold_pair(traced, conv_node, norm_node)
        traced.graph.lint()
        traced.recompile()
        with torch.no_grad():
            expected, found = _first_tensor(module(example)), _first_tensor(traced(example))
    except Exception as error:  # tracing runs foreign code: whatever it raises is reported and nothing is folded
        return (
            module,
            f"not folded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
        )
    if not pairs:
        return module, "not folded: no convolution feeds only a batch norm"
    finite = torch.isfinite(expected)
    scale = expected[finite].abs().max().clamp_min(1e-12) if finite.any() else expected.new_tensor(1.0)
    difference = ((found - expected)[finite].abs().max() / scale).item() if finite.any() else 0.0
    if not difference <= tolerance:
        return module, f"not folded: outputs differ by {difference:.1e} of their size"
    return traced.eval(), f"{len(pairs)} batch norms folded (outputs within {difference:.1e})"


def _pairs(traced: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Convolutions whose only reader is a batch norm, both called once."""
    modules = dict(traced.named_modules())
    calls: dict[str, int] = {}
    for node in traced.graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    found = []
    for norm in traced.graph.nodes:
        if norm.op != "call_module" or not isinstance(modules[norm.target], _BatchNorm):
            continue
        conv = norm.args[0] if norm.args else None
        if not isinstance(conv, fx.Node) or conv.op != "call_module" or len(conv.users) != 1:
            continue
        layer, statistics = modules[str(conv.target)], modules[norm.target].running_mean
        foldable = type(layer) in CONVOLUTIONS and layer.padding_mode == "zeros" and statistics is not None
        if foldable and calls[str(conv.target)] == calls[norm.target] == 1:
            found.append((conv, norm))
    return found


def _fold_pair(traced: fx.GraphModule, conv_node: fx.Node, norm_node: fx.Node) -> None:
    conv = traced.get_submodule(str(conv_node.target))
    norm = traced.get_submodule(str(norm_node.target))
    traced.add_submodule(str(conv_node.target), FoldedConvolution(conv, norm))  # type: ignore[arg-type]
    # timm's BatchNormAct2d is a batch norm that also holds a drop layer and the activation: those stay
    rest = [getattr(norm, name) for name in ("drop", "act") if isinstance(getattr(norm, name, None), nn.Module)]
    rest = [m for m in rest if not isinstance(m, nn.Identity)]
    if not rest:
        norm_node.replace_all_uses_with(conv_node)
        traced.graph.erase_node(norm_node)
        return
    traced.add_submodule(str(norm_node.target), rest[0] if len(rest) == 1 else nn.Sequential(*rest))


def _first_tensor(output: object) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values())) if isinstance(output, dict) else output[0]  # type: ignore[index]
    return output
