"""Where a solve starts: at zero, at the base, or at another merge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..linear import Kronecker
from .fisher import FisherOptions, fisher
from .layer import Layer, averaged
from .regmean import regmean_value
from .task_arithmetic import ArithmeticOptions, task_arithmetic

STARTS = ("zero", "pretrained", "average", "task_arithmetic", "regmean", "fisher")


def starting_point(layer: Layer, start: str, blocks: Sequence[Kronecker]) -> Tensor:
    """X₀: one of `STARTS`, or the layer of the checkpoint that the option names."""
    if start == "zero":
        return torch.zeros_like(layer.base)
    if start == "pretrained":
        return layer.base.clone()
    if start == "average":
        return averaged(layer).value
    if start == "task_arithmetic":
        return task_arithmetic(layer, ArithmeticOptions()).value
    if start == "regmean":
        return regmean_value(layer, [block.a for block in blocks])[0]
    if start == "fisher":
        return fisher(layer, FisherOptions()).value
    if layer.starts is None:
        raise ValueError(f"no reader for the start '{start}'")
    return layer.starts(layer.name)
