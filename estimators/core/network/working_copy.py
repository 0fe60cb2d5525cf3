"""The working copy of a network: it stands at one point θ, under one batch-norm policy, and can be moved.

It stands at one point only, so whoever moves it keeps its `lock` until the values there are read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .batchnorm import (
    LARGEST_BLOCK,
    NUMBERS_IN_BLOCK,
    SMALLEST_BLOCK,
    batch_norms,
    batch_statistics,
    normalising_by,
    recompute_statistics,
    statistics_blocks,
    statistics_of_block,
    statistics_vector,
)
from .evaluation import logits
from .fields import Inputs
from .folding import fold_batch_norm
from .memories import Memory, forget_before_each_pass, make_forgetful
from .operations import REPLACEMENTS, derive_through_plain_operations, functions_called
from .parameters import FlatParameters, weighted_sum
from .products import ATTENTION, CHOOSE_KERNELS, double_backward
from .trailing import features_before, moving_tail

GRAPH_PER_ACTIVATION = 3.0  # size of a kept double-backward graph, in multiples of the forward's activations


class _Kept(NamedTuple):
    graphs: list
    n_bytes: float


class Network:
    """A private module whose parameters lie in one flat buffer.

    Parameters
    ----------
    module : nn.Module
        In eval mode, on its device and in its dtype; owned and changed by this object.
    patterns : iterable of str or None
        Which parameters make up θ, see :class:`FlatParameters`.
    batch_norm : str
        A key of :data:`batchnorm.POLICIES`.
    mixed : bool
        Whether the forward pass runs in bfloat16.

    Attributes
    ----------
    lock : RLock
        Held by the one thread that moves or reads the network.
    """

    def __init__(self, module: nn.Module, patterns: tuple[str, ...] | None, batch_norm: str, mixed: bool) -> None:
        self.module, self.batch_norm, self.mixed = module, batch_norm, mixed
        self.lock = threading.RLock()
        self.flat = FlatParameters(module, patterns)
        self.has_batch_norm = bool(batch_norms(module))
        self._statistics_inputs: Inputs | None = None
        self.fold_note = f"not folded: batch_norm={batch_norm!r}" if self.has_batch_norm else "no batch norm"
        self.forward_module: nn.Module = module
        self.tail: nn.Module | None = None
        self.memories: list[Memory] = []
        self.copies_input = False  # whether the module would write into the examples, and is given a copy
        self._position: Tensor | None = None
        self._estimated_at: Tensor | None = None
        self._kind_of_graphs = ""
        self._graphs: WeakKeyDictionary[object, dict[str, _Kept]] = WeakKeyDictionary()  # of each owner, by part
        self._activation_bytes: float | None = None

    @property
    def is_fixed_function(self) -> bool:
        """Whether the outputs depend on θ and the input alone, not on other examples."""
        return not self.has_batch_norm or self.batch_norm == "frozen"

    @property
    def statistics_move(self) -> bool:
        """Whether batch-norm statistics are a function of θ, estimated from the fixed examples."""
        return self.has_batch_norm and self.batch_norm == "recompute"

    @property
    def statistics_rule(self) -> tuple[str | int, ...]:
        """Say how statistics follow θ, for a key; empty where they do not."""
        return (self.batch_norm, LARGEST_BLOCK, SMALLEST_BLOCK, NUMBERS_IN_BLOCK) if self.statistics_move else ()

    def estimate_from(self, inputs: Inputs) -> None:
        """Name the fixed examples that statistics are estimated from, (N, ...)."""
        self._statistics_inputs = inputs

    def settle(self, example: Inputs) -> None:
        """See what the network calls, and let it forget what it remembers of θ; it was run before.

        One that attends shares a lock; one whose functions lack a right derivative has them in plain operations.
        """

        def look() -> None:
            self.memories = make_forgetful(self.module, self.flat.parameters, example)

        called = functions_called(look)
        if called & CHOOSE_KERNELS:
            self.lock = ATTENTION
        if called & REPLACEMENTS.keys():
            derive_through_plain_operations(self.module, example)

    def shorten(self, example: Inputs) -> None:
        """Leave out the part before θ, where there is one: its outputs then take the place of the inputs."""
        if self.is_fixed_function:
            self.tail = moving_tail(self.module, self.flat.parameters, example)
            self.forward_module = self.tail or self.module
            if self.tail is not None and self.memories:
                inside = next(path for path, child in self.module.named_modules() if child is self.tail)
                forget_before_each_pass(self.tail, self.memories, inside)

    def features(self, batches: Iterator[Inputs]) -> Iterator[Tensor]:
        """Yield what reaches the tail for each batch of inputs."""
        assert self.tail is not None
        yield from features_before(self.tail, self.whole, batches)

    def fold(self, example: Inputs) -> None:
        """Fold batch norm into the convolutions where the policy allows and the outputs agree."""
        if self.has_batch_norm and self.batch_norm == "frozen":
            tolerance = 1e-4 if self.flat.flat.dtype == torch.float32 else 1e-9
            self.forward_module, self.fold_note = fold_batch_norm(self.forward_module, example, tolerance)

    # -- where it stands ----------------------------------------------------------------------------------

    def move(self, theta: Tensor) -> None:
        """Go to θ, (P,) in public layout; statistics follow the policy."""
        if self._position is not None and (self._position is theta or torch.equal(self._position, theta)):
            return
        self.leave()
        self.flat.load(theta)
        self.refresh_statistics()
        self._position = theta.clone()

    def combine(self, vectors: Sequence[Tensor] | Tensor, row: Tensor, public: bool = False) -> None:
        """Go to `row @ vectors`, (K,) times (K, P) in buffer or public layout; exactly a vector at a unit `row`."""
        self.leave()
        used = [(w, v) for w, v in zip(row.tolist(), vectors, strict=True) if w != 0.0]
        if public:
            self.flat.load_sum(used)
        else:
            weighted_sum(used, self.flat.flat)
        self.refresh_statistics()

    def leave(self) -> None:
        """Forget the point and the graphs that hang on it: the buffer is about to be written."""
        self._position = None
        self._graphs.clear()

    def refresh_statistics(self) -> None:
        """Re-estimate batch-norm statistics where the policy says so."""
        if self.batch_norm == "recompute":
            self.estimate_statistics()

    def estimate_statistics(self) -> None:
        """Re-estimate batch-norm statistics at the present point, unless the last ones are of the same point."""
        if self._estimated_at is None or not torch.equal(self._estimated_at, self.flat.flat):
            self._estimated_at = None
            recompute_statistics(self.module, self.blocks(), self.forward)
            self._estimated_at = self.flat.flat.clone()

    def blocks(self) -> Iterator[Inputs]:
        """Walk the blocks of fixed examples that statistics are estimated on."""
        assert self._statistics_inputs is not None
        for x in statistics_blocks(self._statistics_inputs):
            yield x.to(self.device, non_blocking=True)

    @property
    def n_statistics(self) -> int:
        """Number of fixed examples that statistics are estimated from."""
        assert self._statistics_inputs is not None
        return len(self._statistics_inputs)

    def share_of_statistics(self, x: Inputs) -> Tensor:
        """Give a block's share of the statistics s(θ), (S,), with its graph: the sum over the blocks is s."""
        return statistics_of_block(self.module, self.forward, x) * (len(x) / self.n_statistics)

    # -- what it computes ---------------------------------------------------------------------------------

    def forward(self, x: Inputs) -> object:
        """Give the model's output."""
        with self.precision():
            return self.forward_module(x)

    def whole(self, x: Inputs) -> object:
        """Give the output of the whole network, whatever has been left out of it or folded."""
        with self.precision():
            return self.module(x.clone())

    def scores(self, x: Inputs) -> Tensor:
        """Give the class scores (N, C), in the dtype of θ."""
        return logits(self.forward(x)).to(self.flat.flat.dtype)

    def precision(self) -> AbstractContextManager:
        """Run forward passes in the precision chosen."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed else nullcontext()

    def parameters_at(self, points: Tensor) -> dict[str, Tensor]:
        """Name the parameters of `forward_module` at k points (k, P) in buffer layout, each (k, *shape)."""
        at = {p.data_ptr(): values for p, values in zip(self.flat.parameters, self.flat.stacked(points), strict=True)}
        # a folded layer is reached by several names: each slot once, tied weights in every slot they have
        slots = (
            (f"{path}.{name}".lstrip("."), parameter)
            for path, module in self.forward_module.named_modules()
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        )
        return {name: at[p.data_ptr()] for name, p in slots if p.data_ptr() in at}

    @contextmanager
    def policy(self) -> Iterator[None]:
        """Run forward passes under the batch-norm policy."""
        if self.batch_norm == "batch" and self.has_batch_norm:
            with batch_statistics(self.module):
                yield
        else:
            yield

    def zero_statistics(self) -> Tensor:
        """Give zeros of the shape of s(θ), (S,); empty where the statistics do not follow θ."""
        layers = batch_norms(self.module) if self.statistics_move else []
        return self.flat.flat.new_zeros(2 * sum(m.num_features for m in layers))

    @contextmanager
    def differentiable(self) -> Iterator[list[Tensor]]:
        """Run forward passes that are differentiated; yields what L depends on: the parameters of θ, then s(θ)."""
        if self.statistics_move:
            layers = batch_norms(self.module)
            statistics = statistics_vector(layers).requires_grad_()
            with normalising_by(layers, statistics):
                yield [*self.flat.parameters, statistics]
        else:
            with self.policy():
                yield list(self.flat.parameters)

    # -- backward graphs kept between products ------------------------------------------------------------

    def graphs(
        self, owner: object, kind: str, part: str, n_examples: int, build: Callable[[], Iterator]
    ) -> Iterator[tuple[Any, bool]]:
        """Yield each batch's backward graph and whether it is kept for the next product at the same point.

        Graphs are kept when the memory that all of them are estimated to need is at most half of what is free without
        them: until the network moves, another kind is asked for, or their owner is gone.
        """
        if self._kind_of_graphs != kind:
            self._kind_of_graphs = kind
            self._graphs.clear()
        own = self._graphs.setdefault(owner, {})
        if part in own:
            yield from ((graph, True) for graph in own[part].graphs)
            return
        n_bytes = self.graph_bytes(owner) * n_examples
        held = sum(kept.n_bytes for parts in self._graphs.values() for kept in parts.values())
        keep = held + n_bytes < 0.5 * (free_memory(self.device) + held)
        graphs = []
        for graph in build():
            if keep:
                graphs.append(graph)
            yield graph, keep
        if keep:
            own[part] = _Kept(graphs, n_bytes)

    def graph_bytes(self, owner: object) -> float:
        """Estimate the bytes that a double-backward graph takes for one example."""
        return GRAPH_PER_ACTIVATION * self.activation_bytes(owner)

    @property
    def device(self) -> torch.device:
        """Where θ lies."""
        return self.flat.flat.device

    def activation_bytes(self, owner: object) -> float:
        """Bytes that autograd keeps for one example, measured on a few."""
        if self._activation_bytes is None:
            x: Inputs = owner.sample_inputs(4)  # type: ignore[attr-defined]
            seen: dict[int, int] = {}

            def pack(tensor: Tensor) -> Tensor:
                if not isinstance(tensor, nn.Parameter):  # the inputs are a slice: their storage holds all examples
                    place = tensor.untyped_storage().data_ptr()
                    seen[place] = max(seen.get(place, 0), tensor.nbytes)
                return tensor

            hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t)
            with hooks, double_backward(), torch.enable_grad(), self.policy():
                self.forward(x)
            self._activation_bytes = sum(seen.values()) / len(x)
        return self._activation_bytes


Method = TypeVar("Method", bound=Callable)


def one_thread_at_a_time(method: Method) -> Method:
    """Let a method of an object with a `_network` keep that network to itself while it runs."""

    @wraps(method)
    def alone(self: Any, *args: Any, **kwargs: Any) -> Any:
        with self._network.lock:
            return method(self, *args, **kwargs)

    return alone  # type: ignore[return-value]


def free_memory(device: torch.device) -> int:
    """Count the bytes that can still be allocated on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = [*_available_memory(), *_free_in_group()]
    return min(available) if available else 4 * 2**30  # not known on this system: assume a small machine


def _available_memory() -> Iterator[int]:
    """Bytes the system can give: what it keeps of files for later counts as free, unlike in SC_AVPHYS_PAGES."""
    with suppress(OSError, ValueError):
        words = Path("/proc/meminfo").read_text().split()
        yield int(words[words.index("MemAvailable:") + 1]) * 1024
        return
    with suppress(OSError, ValueError, AttributeError):
        yield os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free_in_group(group: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """Bytes left below the limit of the container, where there is one (cgroup v2, then v1)."""
    for limit, used, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):
            bound, taken = (int((group / name).read_text()) for name in (limit, used))  # "max": no limit
            statistics = (group / limit).with_name("memory.stat").read_text().split()
            cached = int(statistics[statistics.index(files) + 1]) if files in statistics else 0
            yield max(bound - taken + cached, 0)
