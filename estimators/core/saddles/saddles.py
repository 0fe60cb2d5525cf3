"""Saddles that are known without a search: embedded networks and the origin.

Embedding (Fukumizu & Amari 2000): when the weights into and out of a hidden unit are all 0, and its
activation maps 0 to 0, then the unit's output is 0 and so is every example's gradient for those weights. The
outputs then equal those of the network with the unit removed. They equal the outputs of the *original*
network only if the unit did nothing there: removing a unit that worked is a change, and it is reported apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from .objectives import Objective


@dataclass(frozen=True)
class HiddenUnits:
    """Hidden units of a network, and the coordinates of θ that lead into and out of them.

    Attributes
    ----------
    name : str
        The module they are in ("blocks.0.mlp", or "0 → 2" for a unit between two linear layers).
    unit : int or None
        Which unit; None means all of them.
    into, out : Tensor of int
        Coordinates in θ of the incoming weights with their bias, and of the outgoing weights.
    out_bias : Tensor of int
        Coordinates of the outgoing layer's bias when *all* its input is removed; empty for a single unit.
    first, second : str
        Names of the two linear layers.
    """

    name: str
    unit: int | None
    into: Tensor
    out: Tensor
    out_bias: Tensor
    first: str
    second: str

    @property
    def coordinates(self) -> Tensor:
        """Coordinates whose gradient vanishes for every example once they are 0."""
        return torch.cat([self.into, self.out])


def hidden_layers(module: nn.Module) -> list[tuple[str, str, str]]:
    """List the pairs of linear layers with hidden units between them.

    Returns
    -------
    list of (name, first, second)
        First the MLPs of transformer blocks (modules with `fc1` and `fc2`), then neighbours of an
        `nn.Sequential` with one activation between them.
    """
    found = []
    for name, child in module.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(getattr(child, "fc1", None), nn.Linear) and isinstance(getattr(child, "fc2", None), nn.Linear):
            found.append((name or "mlp", f"{prefix}fc1", f"{prefix}fc2"))
    for name, child in module.named_modules():
        if isinstance(child, nn.Sequential):
            prefix = f"{name}." if name else ""
            linear = [(key, layer) for key, layer in child.named_children() if isinstance(layer, nn.Linear)]
            for (a, first), (b, second) in pairwise(linear):
                if first.out_features == second.in_features:
                    found.append((f"{prefix}{a} → {prefix}{b}", f"{prefix}{a}", f"{prefix}{b}"))
    return found


def hidden_units(module: nn.Module, slices: dict[str, slice], layer: int = 0, unit: int | None = None) -> HiddenUnits:
    """Locate hidden units in θ.

    Parameters
    ----------
    module : nn.Module
        The network.
    slices : dict of str to slice
        Where each parameter lies in θ.
    layer : int, default=0
        Which entry of :func:`hidden_layers`.
    unit : int, default=None
        Which unit of it; None takes all (a transformer block's whole MLP).

    Returns
    -------
    HiddenUnits

    Raises
    ------
    ValueError
        If there is no such layer or unit, or its weights are not part of θ.
    """
    layers = hidden_layers(module)
    if not layers:
        raise ValueError(
            "model must have two linear layers in a row for saddle='embedding', got none. "
            "Use an MLP (nn.Sequential) or a transformer with fc1/fc2 blocks, or saddle='origin'."
        )
    if not 0 <= layer < len(layers):
        raise ValueError(
            f"layer must be between 0 and {len(layers) - 1}, got {layer!r}. Choose one of {[n for n, _, _ in layers]}."
        )
    name, first, second = layers[layer]
    width, fan_in = module.get_parameter(f"{first}.weight").shape
    fan_out = len(module.get_parameter(f"{second}.weight"))
    if unit is not None and not 0 <= unit < width:
        raise ValueError(f"unit must be between 0 and {width - 1}, got {unit!r}. Layer {name} has {width} units.")
    missing = [key for key in (f"{first}.weight", f"{second}.weight") if key not in slices]
    if missing:
        raise ValueError(
            f"parameters must include {missing} for the embedding, got a filter that leaves them out. "
            "Widen the filter or unfreeze the layer."
        )
    rows = torch.arange(width) if unit is None else torch.tensor([unit])
    weight_in = torch.arange(slices[f"{first}.weight"].start, slices[f"{first}.weight"].stop).view(width, fan_in)
    weight_out = torch.arange(slices[f"{second}.weight"].start, slices[f"{second}.weight"].stop).view(fan_out, width)
    into = weight_in[rows].flatten()
    if f"{first}.bias" in slices:
        into = torch.cat([into, slices[f"{first}.bias"].start + rows])
    bias = slices.get(f"{second}.bias") if unit is None else None
    out_bias = torch.arange(bias.start, bias.stop) if bias is not None else torch.empty(0, dtype=torch.long)
    return HiddenUnits(name, unit, into, weight_out[:, rows].flatten(), out_bias, first, second)


def removed_outputs(module: nn.Module, units: HiddenUnits, inputs: Tensor) -> object:
    """Run the network with the units taken out of the computation, whatever their weights are.

    A hook sets what the second layer receives from the units to 0, and drops its bias when all its input is
    removed. This does not read the weights that an embedding zeroes, so it can check one.

    Parameters
    ----------
    module : nn.Module
        The network at its own weights.
    units : HiddenUnits
        What to take out.
    inputs : Tensor of shape (N, ...)
        Examples.

    Returns
    -------
    object
        What the module returns.
    """
    second = module.get_submodule(units.second)

    def before(layer: nn.Module, args: tuple) -> tuple:
        hidden = args[0].clone()
        if units.unit is None:
            hidden.zero_()
        else:
            hidden[..., units.unit] = 0.0
        return (hidden, *args[1:])

    def after(layer: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return torch.zeros_like(output) if units.unit is None else output

    handles = [second.register_forward_pre_hook(before), second.register_forward_hook(after)]
    try:
        with torch.no_grad():
            return module(inputs)
    finally:
        for handle in handles:
            handle.remove()


def settle(objective: Objective, theta: Tensor, *, tol: float = 1e-12, max_steps: int = 50) -> tuple[Tensor, Tensor]:
    """Move only the coordinates whose gradient is not 0 until it is, by Newton's method on them.

    At the origin of a network all gradients vanish but that of the last bias: this sets the bias to its best
    value (the log class frequencies, for cross-entropy), which makes the origin a stationary point.

    Parameters
    ----------
    objective : Objective
    theta : Tensor of shape (P,)
        Start.
    tol : float, default=1e-12
        Gradient norm at which it is done.
    max_steps : int, default=50
        Newton steps.

    Returns
    -------
    theta : Tensor of shape (P,)
    live : Tensor of int
        Coordinates that moved. When they are more than 1,000 nothing is moved.
    """
    _, gradient = objective.values_and_gradients(theta[None])
    live = torch.nonzero(gradient[0]).flatten()
    if not 0 < len(live) <= 1000:
        return theta, live[:0]
    part = objective.restrict(theta, live)
    position = theta[live].clone()
    for _ in range(max_steps):
        _, slope = part.values_and_gradients(position[None])
        if float(slope.norm()) <= tol:
            break
        # softmax ignores a common shift of the biases: the least-squares step leaves that direction alone
        position = position - torch.linalg.pinv(part.hessians(position[None])[0], rcond=1e-10) @ slope[0]
    return theta.index_copy(0, live, position), live


def linear_leaving_step(growth: np.ndarray, start: float, radius: float) -> float:
    """First step at which a linear recursion has carried |position| past a radius.

    Parameters
    ----------
    growth : ndarray of shape (m, m)
        One step of (position, optimiser state) along the negative mode.
    start : float
        |position| at step 0; the state starts at 0.
    radius : float
        Where the saddle counts as left. For gradient descent this is log(radius/start) / log(1 + ηλ).

    Returns
    -------
    float
        Steps, not rounded; inf when nothing grows, 0 when already outside.
    """
    if start >= radius:
        return 0.0
    values, vectors = np.linalg.eig(growth)
    fastest = int(np.argmax(np.abs(values)))
    rate = abs(values[fastest])
    first = np.zeros(len(growth))
    first[0] = start
    share = abs(np.linalg.solve(vectors, first.astype(complex))[fastest] * vectors[0, fastest])
    if start == 0.0 or share == 0.0 or rate <= 1.0:
        return math.inf
    return math.log(radius / share) / math.log(rate)
