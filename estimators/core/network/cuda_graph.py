"""A pass over the examples recorded once as a CUDA graph and replayed at every point.

The parameters are views into one buffer that is written in place, so the recorded kernels read the new point. A replay
costs one launch instead of one for each operation, which is what small networks wait for. Not measured: no GPU was at
hand when this was written.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_WARM_UPS = 3  # libraries choose their kernels and allocate their workspaces outside the recording


class CudaRecording:
    """`compute` recorded as a CUDA graph; calling it replays the kernels and gives a copy of the output.

    Parameters
    ----------
    compute : callable
        Gives a tensor, reads and writes only memory that stays where it is, and never waits for the device.

    Raises
    ------
    RuntimeError
        When `compute` does something that cannot be recorded.
    """

    def __init__(self, compute: Callable[[], Tensor]) -> None:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                compute()
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = compute()

    def __call__(self) -> Tensor:
        """Replay."""
        self._graph.replay()
        return self._output.clone()


def recorded(compute: Callable[[], Tensor], device: torch.device) -> Callable[[], Tensor]:
    """Record `compute` on CUDA where that works; otherwise give `compute` itself."""
    if device.type != "cuda":
        return compute
    try:
        return CudaRecording(compute)
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError:  # an operation that waits for the device: the kernels are the same without the recording
        torch.cuda.synchronize(device)
        return compute
