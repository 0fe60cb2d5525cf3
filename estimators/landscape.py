"""Landscape: the function L(θ) of one model, one fixed set of examples and one loss.

This file is long because a landscape is one object, and everything that may touch its network goes through it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from . import cache
from .checks import check_choice, check_device, check_integer, check_loss, check_memory_fits
from .core.network.batchnorm import AUTO, POLICIES, batch_norms, policy_settings, resolved_policy
from .core.network.copying import cast, private_copy
from .core.network.cuda_graph import recorded
from .core.network.derivative_checks import check_derivatives
from .core.network.derivatives import Products, loss_and_gradient, of_examples
from .core.network.evaluation import Batch, batches, totals
from .core.network.fields import Fields, Inputs, in_precision, spread_at_the_door
from .core.network.layout import image_layout
from .core.network.losses import Loss, correct, per_example_losses
from .core.network.memories import forget, forget_known
from .core.network.parameters import copy_for_moving, seat_on
from .core.network.probes import (
    check_outputs,
    check_repeatable,
    check_same_function,
    check_weights,
    deviation_from_float32,
    protect_input,
    spread_indices,
)
from .core.network.products import ExampleGraph, is_likelihood, output_weights
from .core.network.vmapped import totals_of_points
from .core.network.working_copy import Network, one_thread_at_a_time
from .core.network.wrappers import run_as_written, unwrapped
from .data import Examples, load_data, remapped
from .memory import return_freed_memory
from .models import compatible_state_dict, read_checkpoint
from .progress import OnProgress, ignore_progress

_LARGE_ANCHORS = 64 * 2**20  # bytes beyond which vectors on a CPU are not kept in a second order
_LARGE_WEIGHTS = 16 * 2**20  # bytes from which what the checks took is worth giving back
_WORTH_RECORDING = 16  # points from which a pass is recorded
_EXAMPLES_AT_ONCE = 128  # whose derivatives are told apart: the graph is larger than that of a product
PRECISIONS = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


@dataclass(frozen=True)
class Evaluation:
    """Loss and accuracy at n points.

    Attributes
    ----------
    losses : ndarray of shape (n,)
        Mean loss over the examples, in the loss's unit (nats for cross-entropy); non-finite values are kept.
    accuracies : ndarray of shape (n,)
        Share of correct predictions in [0, 1], of positions where each has a class; NaN where targets are not classes.

    Examples
    --------
    >>> import torch
    >>> from estimators import Landscape, load_data
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    >>> landscape = Landscape(model, load_data("digits", image_size=8, n_samples=32))
    >>> evaluation = landscape.evaluate([landscape.theta], [[0.0], [1.0]])  # at 0 and at θ
    >>> evaluation.losses.shape, bool(evaluation.losses[1] == landscape.loss())
    ((2,), True)
    """

    losses: np.ndarray
    accuracies: np.ndarray


@dataclass(frozen=True)
class Anchors:
    """K vectors of shape (P,), ready for many calls of `evaluate`.

    Attributes
    ----------
    rows : sequence of Tensor, or Tensor of shape (K, P)
        On the device of the working copy.
    public : bool
        Whether they have the order of θ: large vectors are left in it, and rearranged at each point, since a second
        copy of them would take more memory than the network.
    """

    rows: Sequence[Tensor] | Tensor
    public: bool


class Landscape:
    """L(θ), its gradient and its curvature products for one model on fixed examples.

    The model is copied: the caller's parameters, buffers, mode and random state are never touched. Dropout
    and drop-path are off, and L is the data loss alone, without weight decay. Several threads may use one landscape
    and its siblings (`on`): they share one working copy and take turns.

    Parameters
    ----------
    model : nn.Module
        Any module that maps inputs (N, ...) to class scores; tuples, dicts and objects with `.logits` work.
    data : Examples, (inputs, targets), Dataset or DataLoader
        The examples, see :func:`load_data`. Inputs in a tuple are handed to the model as `model(*inputs)`, in a dict as
        `model(**inputs)`.
    loss : str or callable, default="cross_entropy"
        "cross_entropy", "bce", "mse" or "huber", with settings as in "cross_entropy(label_smoothing=0.1,
        ignore_index=255)" or "huber(delta=0.5)"; or `(outputs, targets)` → per-example losses (N,). Values of positions
        (images, tokens) are averaged for each example, over those that count; every example weighs the same.
    batch_size : int, default=512
        Examples in one forward pass. On CUDA it is halved when memory runs out.
    device : str, default="auto"
        "auto" takes CUDA when there is one, otherwise the CPU.
    precision : {"float32", "float64", "bfloat16"}, default="float32"
        bfloat16 runs the forward pass in mixed precision; θ and sums stay in float32 and float64.
    batch_norm : {"auto", "frozen", "recompute", "batch"}, default="auto"
        Where batch-norm statistics come from: the checkpoint, an estimate at each θ from the fixed examples
        (:mod:`estimators.core.network.batchnorm` says which, whatever the batch size), or each batch of
        `batch_size` examples.
        "auto" is "frozen", or "recompute" with `several_networks`. L is one function of θ, statistics included:
        gradients and products are its derivatives under every policy.
    parameters : str, sequence of str or None, default=None
        Regular expressions that choose which trainable parameters make up θ; None takes all. Where θ is the end of
        the network (its head, say), what lies before it runs once and not at every point.
    points_per_pass : int, default=1
        Points of `evaluate` in one forward pass, by `vmap` over the parameters. More than 1 pays for small networks
        without convolutions, and is meant for small networks on a GPU (not measured there); convolutions on a CPU
        gain nothing. Values agree with single passes to rounding. Needs `batch_norm="frozen"` or no batch norm.
    several_networks : bool, default=False
        Whether points between or of several networks will be looked at, which have no statistics of their own: what
        `batch_norm="auto"` goes by.

    Attributes
    ----------
    theta : Tensor of shape (P,)
        The model's own point, in the order of `torch.nn.utils.parameters_to_vector`, tied weights once.
    names, shapes, slices : tuple, tuple, dict
        The parameters in θ, their shapes, and where each lies.
    n_parameters, n_examples, n_classes : int
        P, N, and the width of the model's output.
    settings : dict
        Everything a picture has to say about itself.
    fingerprint : str
        Content hash of all that changes L.

    Raises
    ------
    ValueError
        If an argument is not allowed, targets are not classes of the model, or two evaluations at the same θ
        disagree.

    Examples
    --------
    >>> import torch
    >>> from estimators import Landscape, load_data
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    >>> landscape = Landscape(model, load_data("digits", image_size=8, n_samples=32))
    >>> loss, gradient = landscape.loss_and_gradient()
    >>> gradient.shape, landscape.loss(landscape.theta - 1e-3 * gradient) < loss, landscape.hvp(gradient).shape
    (torch.Size([1930]), True, torch.Size([1930]))
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        *,
        loss: str | Loss = "cross_entropy",
        batch_size: int = 512,
        device: str = "auto",
        precision: str = "float32",
        batch_norm: str = "auto",
        parameters: str | Sequence[str] | None = None,
        points_per_pass: int = 1,
        several_networks: bool = False,
    ) -> None:
        self.loss_function = check_loss(loss)
        self.batch_size = check_integer("batch_size", batch_size, "Use 512 when in doubt.")
        self.device = check_device(device)
        self.precision = check_choice("precision", precision, PRECISIONS)
        self.batch_norm = resolved_policy(check_choice("batch_norm", batch_norm, (*POLICIES, AUTO)), several_networks)
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}. Use load_model(name).")
        self.dtype = PRECISIONS[precision]
        self._patterns = (parameters,) if isinstance(parameters, str) else parameters
        self._options = {
            "loss": loss,
            "batch_size": batch_size,
            "device": device,
            "precision": precision,
            "batch_norm": batch_norm,
            "parameters": parameters,
            "points_per_pass": points_per_pass,
            "several_networks": several_networks,
        }
        self.points_per_pass = check_integer("points_per_pass", points_per_pass, "Use 1 when in doubt.")
        self.data = load_data(data)
        self._template = private_copy(unwrapped(model)).cpu()
        forget_known(self._template)
        self._model_fingerprint: str | None = None
        self._origin: Landscape | None = None
        self._mixed_deviation: float | None = None
        self._replay: Callable[[], Tensor] | None = None
        self.parcel: Any = None  # what workers were sent of this landscape
        self._fitting: set[str] = set()
        self._derivatives: dict[str, str] = {}  # kinds looked at, and why one could not be
        self._inputs, self._targets = self._place(self.data)
        with torch.random.fork_rng(devices=[]):
            patterns = None if self._patterns is None else tuple(self._patterns)
            module = copy_for_moving(self._template, patterns)
            module = cast(run_as_written(module), self.device, self.dtype).eval()
            if image_layout(module) != torch.channels_last:  # what the model brought along
                module = module.to(memory_format=torch.contiguous_format)
            if isinstance(self._inputs, Fields):
                spread_at_the_door(module)
            self._network = Network(module, patterns, self.batch_norm, precision == "bfloat16")
            self.theta = self._network.flat.read()
            seat_on(self.theta, self._network.flat, self._template)
            self._network.estimate_from(self._inputs)
            self._non_finite = check_weights(self._template, self.batch_norm)
            found = check_outputs(self._network, self._inputs, self._targets, self.loss_function)
            self.n_classes, self._n_axes = found
            self._network.copies_input = protect_input(self._network.module, self.sample_inputs(2))
            check_repeatable(self._network, self.loss_function, self._inputs, self._targets, self.batch_size)
            if points_per_pass > 1 and not self._network.is_fixed_function:
                raise ValueError(
                    f"points_per_pass must be 1 with batch norm under batch_norm={self.batch_norm!r}, got "
                    f"{points_per_pass}. Use batch_norm='frozen' or one point in a pass."
                )
            self._network.settle(self.sample_inputs(2))
            forget(self._template, self._network.memories)
            self._network.shorten(self.sample_inputs(4))
            self._enter()
            if self._network.tail is not None:
                protect_input(self._network.tail, self.sample_inputs(2))
            self._network.fold(self.sample_inputs(8))
            self._network.refresh_statistics()  # it stands there already
            if points_per_pass > 1:
                few = batches(self._inputs[:4], self._targets[:4], self.batch_size, self.device)
                totals_of_points(self._network, self._network.flat.flat.expand(2, -1), self.loss_function, few)
            if self._network.mixed:
                x, y = next(batches(self._inputs, self._targets, min(32, self.batch_size), self.device))
                self._mixed_deviation = deviation_from_float32(self._network, self.loss_function, x, y)
            if self._network.is_fixed_function:
                self._network.leave()  # coming back costs a copy; under "recompute" it would cost a pass
        if self.theta.nbytes > _LARGE_WEIGHTS:
            return_freed_memory()

    # -- what it is -------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parameters in θ; of tied ones, the first."""
        return self._network.flat.names

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the parameters in θ."""
        return self._network.flat.shapes

    @property
    def slices(self) -> dict[str, slice]:
        """Where each parameter lies in θ."""
        return self._network.flat.slices

    @property
    def n_parameters(self) -> int:
        """P, the length of θ."""
        return self._network.flat.n

    @property
    def n_examples(self) -> int:
        """N, the number of examples L is a mean over."""
        return len(self._targets)

    @property
    def has_batch_norm(self) -> bool:
        """Whether the model has batch-norm layers with running statistics."""
        return self._network.has_batch_norm

    @property
    def is_fixed_function(self) -> bool:
        """Whether the outputs depend on θ and the input alone: there is no batch norm, or its statistics are frozen."""
        return self._network.is_fixed_function

    @property
    def is_likelihood(self) -> bool:
        """Whether the loss names a distribution to draw labels from, which the model's own Fisher matrix needs."""
        return is_likelihood(self.loss_function, self._n_axes)

    @property
    def changes_input(self) -> bool:
        """Whether the network writes into its input; here it then gets a copy."""
        return self._network.copies_input

    @property
    def settings(self) -> dict[str, Any]:
        """What a result has to say about itself: model, data, loss, policies, device, versions."""
        provenance = getattr(self._template, "provenance", {})
        return {
            "model": provenance.get("architecture", type(self._template).__name__),
            "weights": provenance.get("weights", "as given"),
            "n_parameters": self.n_parameters,
            "parameters": list(self._patterns) if self._patterns is not None else "all trainable",
            "data": self.data.name,
            "split": self.data.split,
            "n_examples": self.n_examples,
            "data_fingerprint": self.data.fingerprint[:12],
            "loss": self._options["loss"] if isinstance(self._options["loss"], str) else "custom",
            **self._policy_settings(),
            "batch_size": self.batch_size,
            "precision": self.precision,
            **({"non_finite": self._non_finite} if self._non_finite else {}),
            **({} if self._mixed_deviation is None else {"bfloat16_deviation": self._mixed_deviation}),
            "device": str(self.device),
            "fold": self._network.fold_note,
            **({"derivatives": note} if (note := next(filter(None, self._derivatives.values()), "")) else {}),
            **({} if self._network.tail is None else {"backbone": "run once"}),
            "torch": torch.__version__,
        }

    def _policy_settings(self) -> dict[str, str]:
        if not self.has_batch_norm:
            return {"batch_norm": "none in the model"}
        return policy_settings(str(self._options["batch_norm"]), bool(self._options["several_networks"]))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the network with its code, weights and buffers, the data, and what else changes the number."""
        if self._model_fingerprint is None:
            self._model_fingerprint = cache.describe_module(self._template)
        origin = self._origin or self
        return cache.fingerprint(
            self._model_fingerprint,
            self.data.fingerprint,
            origin.data.fingerprint,
            self.loss_function,
            self.batch_size,
            self.precision,
            self._network.statistics_rule or self.batch_norm,
            self.device.type,
            list(self.names),
            self.points_per_pass,
            cache.arithmetic(self.device.type),
        )

    @one_thread_at_a_time
    def on(self, data: Any) -> Landscape:
        """Give the same network on other examples (held-out data, say).

        Under "recompute" the batch-norm statistics still come from this landscape's own examples. The two
        share one working copy of the network.
        """
        # copy.copy would go through __reduce__ and build a second network, with statistics of the wrong examples
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._origin, other._replay, other.parcel = self._origin or self, None, None
        other.data = load_data(data)
        other._inputs, other._targets = other._place(other.data)
        found = check_outputs(other._network, other._inputs, other._targets, other.loss_function)
        other.n_classes, other._n_axes = found
        other._enter()
        return other

    # -- values -----------------------------------------------------------------------------------------

    def loss(self, theta: Tensor | None = None) -> float:
        """Mean loss at θ (the model's own point by default)."""
        return float(self.losses(self._vector(theta)[None])[0])

    def accuracy(self, theta: Tensor | None = None) -> float:
        """Share of correct predictions at θ, in [0, 1]."""
        return float(self.evaluate(self._vector(theta)[None], [[1.0]]).accuracies[0])

    def losses(self, thetas: Tensor) -> np.ndarray:
        """Mean losses at many points (n, P) → (n,)."""
        return self.evaluate(thetas, np.eye(len(thetas))).losses

    def evaluate(
        self,
        anchors: Tensor | Sequence[Tensor] | Anchors,
        coefficients: Any,
        *,
        on_progress: OnProgress = ignore_progress,
    ) -> Evaluation:
        """Evaluate L at linear combinations of a few vectors.

        Parameters
        ----------
        anchors : Tensor of shape (K, P), sequence of K tensors, or what `anchored` gives
            The vectors; lines, planes and curves need two to four of them.
        coefficients : array-like of shape (n, K)
            Point i is `coefficients[i] @ anchors`; with coefficients 0 and 1 it is an anchor to the last bit.
        on_progress : callable
            Called after each point; may raise `Cancelled`.

        Returns
        -------
        Evaluation
            Losses and accuracies, each (n,).
        """
        network = self._network
        ready = anchors if isinstance(anchors, Anchors) else self.anchored(anchors)
        weights = torch.tensor(np.asarray(coefficients), dtype=network.flat.flat.dtype)
        results = torch.full((len(weights), 2), float("nan"), dtype=torch.float64, device=self.device)
        anchors_themselves = (weights != 0).sum(1) <= 1  # one by one, so that they are exact to the last bit
        singles = anchors_themselves if self.points_per_pass > 1 else torch.ones_like(anchors_themselves)
        with network.lock:
            run = self._pass(int(singles.sum()))
        done = 0
        for i in singles.nonzero().flatten().tolist():
            with network.lock, torch.no_grad():  # one point at a time: whoever waits for progress may use the network
                network.combine(ready.rows, weights[i], ready.public)
                results[i] = run()
            on_progress(done := done + 1, len(weights), "points")
        together = (~singles).nonzero().flatten()
        for block in together.split(self.points_per_pass) if len(together) else ():
            assert isinstance(ready.rows, Tensor)
            points = weights[block].to(self.device) @ ready.rows
            with network.lock:
                results[block] = totals_of_points(network, points, self.loss_function, self._batches())
            on_progress(done := done + len(block), len(weights), "points")
        table = results.cpu().numpy() / self.n_examples
        return Evaluation(table[:, 0], table[:, 1])

    def anchored(self, anchors: Tensor | Sequence[Tensor]) -> Anchors:
        """Bring vectors, K of shape (P,), to the working copy, once for many calls of `evaluate`."""
        flat = self._network.flat
        rows = [anchor.to(flat.flat) for anchor in anchors]
        if self.points_per_pass > 1:
            return Anchors(torch.stack([flat.to_internal(row) for row in rows]), public=False)
        if flat.is_identity:
            return Anchors(rows, public=False)
        large = self.device.type == "cpu" and sum(row.nbytes for row in rows) > _LARGE_ANCHORS
        return Anchors(rows, True) if large else Anchors([flat.to_internal(row) for row in rows], False)

    def per_example_losses(self, theta: Tensor | None = None) -> Tensor:
        """Losses of the single examples at θ, (N,)."""
        return self._of_outputs(theta, lambda z, y: per_example_losses(self.loss_function, z, y))

    def per_example_accuracies(self, theta: Tensor | None = None) -> Tensor:
        """Share of correct predictions of each example at θ, (N,): 0 or 1, or of its positions; NaN without classes."""

        def hits(z: Tensor, y: Tensor) -> Tensor:
            found = correct(z, y, self.loss_function)
            return z.new_full((len(z),), torch.nan) if found is None else found.double()

        return self._of_outputs(theta, hits)

    def per_example_weights(self) -> Tensor:
        """Tell how much the single examples weigh in the Hessian, as far as their outputs tell, (N,)."""
        return self._of_outputs(None, lambda z, y: output_weights(self.loss_function, z, y))

    def outputs(self, theta: Tensor | None = None) -> Tensor:
        """Class scores at θ, (N, C)."""
        return self._of_outputs(theta, lambda z, y: z)

    @one_thread_at_a_time
    @torch.no_grad()
    def _of_outputs(self, theta: Tensor | None, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        self._network.move(self._vector(theta))
        with self._network.policy():
            return torch.cat([read(self._network.scores(x), y) for x, y in self._batches()])

    # -- derivatives ------------------------------------------------------------------------------------

    def gradient(self, theta: Tensor | None = None) -> Tensor:
        """∇L at θ, (P,). Parameters outside the graph have zeros."""
        return self.loss_and_gradient(theta)[1]

    def loss_and_gradient(self, theta: Tensor | None = None) -> tuple[float, Tensor]:
        """L and ∇L at θ from one pass."""
        return self._loss_and_gradient(theta, list(self._batches()), self.n_examples)

    def minibatch_gradient(self, indices: Any, theta: Tensor | None = None) -> Tensor:
        """Gradient of the mean loss over the examples at `indices`, (P,)."""
        return self.minibatch_loss_and_gradient(indices, theta)[1]

    def minibatch_loss_and_gradient(self, indices: Any, theta: Tensor | None = None) -> tuple[float, Tensor]:
        """Mean loss over the examples at `indices` and its gradient, (P,), from one pass."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        x, y = self._inputs[chosen.to(self._inputs.device)], self._targets[chosen.to(self._targets.device)]
        return self._loss_and_gradient(theta, list(batches(x, y, self.batch_size, self.device)), len(chosen))

    def hvp(self, v: Tensor, theta: Tensor | None = None) -> Tensor:
        """Hessian-vector products H v, for v of shape (P,) or (P, k)."""
        return self._product("hessian", v, theta, lambda graph, pieces, keep: graph.product(pieces, keep))

    def ggn_vp(self, v: Tensor, theta: Tensor | None = None) -> Tensor:
        """Gauss-Newton products G v, for v of shape (P,) or (P, k)."""
        return self._product("outputs", v, theta, lambda graph, pieces, keep: graph.gauss_newton(pieces))

    def fisher_vp(self, v: Tensor, theta: Tensor | None = None, kind: str = "empirical") -> Tensor:
        """Fisher products F v, for v of shape (P,) or (P, k) and kind "empirical" or "model"."""
        check_choice("kind", kind, ("empirical", "model"))
        return self._product("outputs", v, theta, lambda graph, pieces, keep: graph.fisher(pieces, kind))

    def per_example_slopes(self, v: Tensor, theta: Tensor | None = None) -> Tensor:
        """Slopes ∇ℓᵢ·v of the single examples' losses, (N,), or (N, k) for v of shape (P, k).

        Raises
        ------
        ValueError
            Where batch-norm statistics make an example's loss depend on the others.
        """
        columns = self._columns(v)

        def read(graph: ExampleGraph) -> Tensor:
            return torch.stack([graph.slopes(pieces) for pieces in self._pieces(columns)], dim=1)

        return self._of_examples("gradient", theta, read).reshape(self.n_examples, *torch.as_tensor(v).shape[1:])

    def per_example_curvatures(self, v: Tensor, w: Tensor, theta: Tensor | None = None) -> Tensor:
        """Curvatures vᵀ∇²ℓᵢw of the single examples' losses for v of shape (P,), (N,) or (N, k) for w of shape (P, k).

        One product with v serves all of w.

        Raises
        ------
        ValueError
            As for `per_example_slopes`.
        """
        (pieces,), columns = self._pieces(self._columns(v)), self._columns(w)
        found = self._of_examples("hessian", theta, lambda graph: graph.curvatures(pieces, self._pieces(columns)))
        return found.reshape(self.n_examples, *torch.as_tensor(w).shape[1:])

    # -- points -----------------------------------------------------------------------------------------

    def point(self, other: Any) -> Tensor:
        """Read θ, (P,), from a module, a state dict, a checkpoint file or a vector.

        Raises
        ------
        ValueError
            With every missing, unexpected and misshapen entry listed; or if a module is another function of its
            weights than this network, by a few examples.
        """
        if isinstance(other, Tensor | np.ndarray):
            vector = torch.as_tensor(other).detach().to(self.theta)
            if vector.shape != self.theta.shape:
                raise ValueError(
                    f"A point must be a vector of shape ({self.n_parameters},), got {tuple(vector.shape)}. "
                    "Use the same model and the same filter on parameter names."
                )
            return vector.clone()
        module = unwrapped(other) if isinstance(other, nn.Module) else None
        if module is not None:
            other = module.state_dict()
        elif isinstance(other, str | os.PathLike):
            other, _ = read_checkpoint(other)
        state = compatible_state_dict(self._template, other)
        if module is not None:
            check_same_function(self._template, module, state, self.data.fields)
        return self._network.flat.join([state[name].to(self.theta) for name in self.names])

    def state_dict(self, theta: Tensor | None = None) -> dict[str, Tensor]:
        """State dict of the network at θ, on the CPU; buffers follow the batch-norm policy."""
        return {k: v.detach().clone() for k, v in self.model_at(theta).state_dict().items()}

    @one_thread_at_a_time
    def model_at(self, theta: Tensor | None = None) -> nn.Module:
        """Build a fresh module at θ, on the CPU, in the mode and precision of the model given."""
        fresh = private_copy(self._template)
        named = dict(fresh.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for name, value in zip(self.names, self._network.flat.split(self._vector(theta)), strict=True):
                named[name].copy_(value.cpu())
            if self.batch_norm != "frozen" and batch_norms(fresh):
                self._network.leave()
                self._network.flat.load(self._vector(theta))
                self._network.estimate_statistics()
                ours = dict(self._network.module.named_buffers())
                for name, buffer in fresh.named_buffers():
                    buffer.copy_(ours[name].cpu())
        forget(fresh, self._network.memories)
        return fresh

    # -- inside -----------------------------------------------------------------------------------------

    def __reduce__(self) -> tuple:
        # views into one buffer do not survive pickling: rebuild from the plain parts
        origin = self._origin or self
        template = private_copy(self._template)  # its parameters are pieces of θ, and a piece is pickled with the whole
        return _rebuild, (template, origin.data, self._options, None if self._origin is None else self.data)

    def sample_inputs(self, n: int) -> Inputs:
        """First n inputs, on the device, as a copy."""
        return self._inputs[:n].to(self.device, copy=True)

    def _vector(self, theta: Tensor | None) -> Tensor:
        return self.theta if theta is None else self.point(theta)

    def _place(self, data: Examples) -> tuple[Inputs, Tensor]:
        x, y = data.fields, in_precision(data.targets, self.dtype)
        layout = image_layout(self._template)

        def laid_out(part: Tensor) -> Tensor:
            if data.streamed:
                return remapped(part, self.dtype, layout)
            part = in_precision(part, self.dtype)
            return part.to(memory_format=layout) if part.dim() == 4 else part

        x = x.map(laid_out) if isinstance(x, Fields) else laid_out(x)
        if self.device.type == "cuda" and x.nbytes > torch.cuda.mem_get_info(self.device)[0] // 2:
            return (x, y) if data.streamed else (x.pin_memory(), y.pin_memory())
        return x.to(self.device), y.to(self.device)

    def _enter(self) -> None:
        """Put the frozen backbone's outputs in the place of the inputs; without one nothing changes."""
        if self._network.tail is not None:
            self._inputs = torch.cat(list(self._network.features(x for x, _ in self._batches())))

    def _pass(self, n_points: int) -> Callable[[], Tensor]:
        """Give one pass over the examples: a recorded one where it touches only memory that stays where it is."""
        if self._inputs.device != self.device or not self._network.is_fixed_function:
            return self._totals
        if self._replay is None and n_points >= _WORTH_RECORDING:
            self._replay = recorded(self._totals, self.device)
        return self._replay or self._totals

    def _batches(self) -> Iterator[Batch]:
        return batches(self._inputs, self._targets, self.batch_size, self.device)

    def _totals(self) -> Tensor:
        try:
            with self._network.policy():
                return totals(self._network.forward, self.loss_function, self._batches(), self.device)
        except torch.cuda.OutOfMemoryError:
            if self.batch_size == 1:
                raise
            torch.cuda.empty_cache()
            self.batch_size = max(1, self.batch_size // 2)
            return self._totals()

    @one_thread_at_a_time
    def _loss_and_gradient(self, theta: Tensor | None, data: list[Batch], n: int) -> tuple[float, Tensor]:
        self._check_derivatives("gradient")
        self._network.move(self._vector(theta))
        self._check_block_fits(self._network.activation_bytes)
        return loss_and_gradient(self._network, self.loss_function, data, n)

    def _check_derivatives(self, kind: str) -> None:
        """Compare the first derivatives of a kind with differences, on a few examples."""
        if kind in self._derivatives:
            return
        chosen = spread_indices(len(self.data), 4)
        x, y = self.data.fields[chosen].to(self.device), self.data.targets[chosen].to(self.device)
        network = self._network
        self._derivatives[kind] = check_derivatives(
            kind, network.module, self.theta, network.flat.groups, self.loss_function, x, y, self.batch_norm
        )

    @one_thread_at_a_time
    def _product(self, kind: str, v: Tensor, theta: Tensor | None, apply: Callable) -> Tensor:
        columns = self._columns(v)
        self._check_derivatives(kind)
        network = self._network
        network.move(self._vector(theta))
        self._check_block_fits(network.graph_bytes)
        products = Products(network, self, kind, self.loss_function, self._batches, self.n_examples)
        return products.apply(columns, apply).div_(self.n_examples).reshape(torch.as_tensor(v).shape)

    @one_thread_at_a_time
    def _of_examples(self, kind: str, theta: Tensor | None, read: Callable[[ExampleGraph], Tensor]) -> Tensor:
        if not self._network.is_fixed_function:
            raise ValueError(
                f"batch_norm must be 'frozen' for derivatives of single examples, got {self.batch_norm!r}: there the "
                "loss of an example depends on the others. Use batch_norm='frozen'."
            )
        self._check_derivatives(kind)
        self._network.move(self._vector(theta))
        size = min(self.batch_size, _EXAMPLES_AT_ONCE)
        data = batches(self._inputs, self._targets, size, self.device)
        return of_examples(self._network, self.loss_function, data, read)

    def _columns(self, v: Tensor) -> Tensor:
        """Read one vector or several as columns (P, k)."""
        vectors = torch.as_tensor(v).to(self.theta)
        if vectors.dim() not in (1, 2) or vectors.shape[0] != self.n_parameters:
            raise ValueError(
                f"v must have shape ({self.n_parameters},) or ({self.n_parameters}, k), got {tuple(vectors.shape)}. "
                "Vectors have the order of Landscape.theta."
            )
        return vectors[:, None] if vectors.dim() == 1 else vectors

    def _pieces(self, columns: Tensor) -> Iterator[Sequence[Tensor]]:
        return (self._network.flat.split(column.contiguous()) for column in columns.T)

    def _check_block_fits(self, bytes_per_example: Callable[[object], float]) -> None:
        """Refuse derivatives for which one block of the fixed examples does not fit; looked at once for each size."""
        network, size = self._network, bytes_per_example.__name__
        if not network.statistics_move or size in self._fitting:
            return
        block = len(next(network.blocks()))
        check_memory_fits(
            bytes_per_example(self) * block,
            self.device,
            f"The graph of the {block} examples that batch-norm statistics are differentiated through together",
            "Use fewer examples, a smaller image size or batch_norm='frozen'.",
        )
        self._fitting.add(size)


def _rebuild(model: nn.Module, data: Examples, options: dict, other: Examples | None) -> Landscape:
    landscape = Landscape(model, data, **options)
    return landscape if other is None else landscape.on(other)
