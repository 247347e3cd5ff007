"""Where a solve starts: at zero, at the base, or at another merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..linear import Kronecker
from .fisher import FisherOptions, fisher
from .layer import Layer, averaged
from .regmean import regmean_value
from .task_arithmetic import ArithmeticOptions, task_arithmetic

WAYS: dict[str, Callable[[Layer, Sequence[Kronecker]], Tensor]] = {
    "zero": lambda layer, blocks: torch.zeros_like(layer.base),
    "pretrained": lambda layer, blocks: layer.base.clone(),
    "average": lambda layer, blocks: averaged(layer).value,
    "task_arithmetic": lambda layer, blocks: task_arithmetic(layer, ArithmeticOptions()).value,
    "regmean": lambda layer, blocks: regmean_value(layer, [block.a for block in blocks])[0],
    "fisher": lambda layer, blocks: fisher(layer, FisherOptions()).value,
}
STARTS = tuple(WAYS)


def starting_point(layer: Layer, start: str, blocks: Sequence[Kronecker]) -> Tensor:
    """X₀: one of `STARTS`, or the layer of the checkpoint that the option names."""
    if start in WAYS:
        return WAYS[start](layer, blocks)
    if layer.starts is None:
        raise ValueError(f"no reader for the start '{start}'")
    return layer.starts(layer.name)
