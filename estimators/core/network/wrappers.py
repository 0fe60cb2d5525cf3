"""Networks inside of others that compute the same: replicated over devices, compiled, averaged."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

_KINDS = (nn.DataParallel, DistributedDataParallel, AveragedModel)
_AVERAGES = {"ModelEma", "ModelEmaV2", "ModelEmaV3"}  # timm's, which compute nothing themselves


def unwrapped(module: nn.Module) -> nn.Module:
    """Give the network inside of wrappers that only replicate, compile or average it."""
    inside = _inside(module)
    while inside and not (module._forward_hooks or module._forward_pre_hooks):
        module = module._modules[inside]  # type: ignore[assignment]
        inside = _inside(module)
    return module


def run_as_written(module: nn.Module) -> nn.Module:
    """Let wrapped parts of a network run without their wrappers, in place; names of parameters stay.

    What is compiled has no double backward (torch 2.14), and what is replicated insists on its own devices.
    """
    if _inside(module):
        return _AsWritten(module)
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and _inside(child):
                parent._modules[name] = _AsWritten(child)
    return module


class _AsWritten(nn.Module):
    """Stands for a wrapper: has its names and hooks, and calls what is inside."""

    def __init__(self, wrapper: nn.Module) -> None:
        super().__init__()
        inside = _inside(wrapper)
        for name, value in vars(wrapper).items():
            if name in ("training", "_buffers", "_parameters") or name.endswith("_hooks"):
                self.__dict__[name] = value
        self._modules[inside] = run_as_written(wrapper._modules[inside])  # type: ignore[arg-type]
        self.__dict__["_inside_name"] = inside

    def __getattr__(self, name: str) -> Tensor | nn.Module:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__(self.__dict__["_inside_name"]), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call what is inside."""
        return self._modules[self.__dict__["_inside_name"]](*args, **kwargs)  # type: ignore[misc]


def _inside(module: nn.Module) -> str:
    """Name the slot of the network in a wrapper; empty for other modules."""
    if type(module).__name__ == "OptimizedModule" and "_orig_mod" in module._modules:
        return "_orig_mod"  # by name: importing torch._dynamo takes a second
    return "module" if isinstance(module, _KINDS) else ""


def bare(module: nn.Module) -> nn.Module:
    """Give the network whose weights a wrapper holds, whatever else hangs on the wrapper: averages of timm's too."""
    kinds = {kind.__name__ for kind in type(module).__mro__}
    inside = _inside(module) or ("module" if kinds & _AVERAGES else "")
    return bare(module._modules[inside]) if inside else module  # type: ignore[arg-type]
