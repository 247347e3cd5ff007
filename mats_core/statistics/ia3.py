"""Gradients of (IA)³ vectors from what their layers saw: pure functions, and where they apply.

An expert is measured with its vectors multiplied in, so a layer sees the same x and g as in the
adapted model.  With the base's own weight W and bias b, for each example

    vector on the output, y = l ⊙ (W x + b):    ∂/∂l_i = Σ_tokens g_i (W x + b)_i
    vector on the input,  y = W (l ⊙ x) + b:    ∂/∂l_j = Σ_tokens (Wᵀ g)_j x_j

Nothing is divided by l, so a vector with zeros in it has its gradient, too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters import Adapted
from ..checkpoints import Weights
from ..names import module_of
from ..system import Device


@dataclass(frozen=True)
class Rescaled:
    """A linear layer with a vector: W (d_out, d_in) and b (d_out,) as they are without it."""

    vector: str
    side: str
    weight: Tensor
    bias: Tensor | None = None


def vector_gradients(x: Tensor, g: Tensor, layer: Rescaled) -> Tensor:
    """Per-example gradient of a vector: (examples, d), from x (examples, tokens, d_in) and g."""
    if layer.side == "input":
        return ((g @ layer.weight) * x).sum(1)
    y = x @ layer.weight.T
    if layer.bias is not None:
        y = y + layer.bias
    return (g * y).sum(1)


def rescaled_layers(
    checkpoint: Weights, *, dtype: torch.dtype = torch.float32, device: Device = "cpu"
) -> dict[str, Rescaled]:
    """The layers that have an (IA)³ vector, by the name of their weight; empty for other models."""
    if not isinstance(checkpoint, Adapted):
        return {}
    read = functools.partial(checkpoint.base.read, dtype=dtype, device=device)
    found: dict[str, Rescaled] = {}
    for name, vector in checkpoint.vectors.items():
        stem = module_of(name)
        weight = read(f"{stem}.weight")
        axis = vector.scales[f"{stem}.weight"]
        if (vector.side == "input") != bool(axis):  # stored as (d_in, d_out)
            weight = weight.T
        bias = read(f"{stem}.bias") if f"{stem}.bias" in vector.scales else None
        found[f"{stem}.weight"] = Rescaled(name, vector.side, weight, bias)
    return found
