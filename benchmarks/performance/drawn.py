"""Layers with drawn weights and statistics that are as hard as measured ones.

Measured Grams have eigenvalues over several orders of magnitude, tasks that agree on the leading
directions more than on the rest, and traces far apart.  Here: a common basis with eigenvalues
i^(-0.7), which every task turns a little, scales anew direction by direction, and as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mats_core.methods import Layer, LayerStatistics


@dataclass(frozen=True)
class Wideness:
    """The shape of a layer, and how many tasks."""

    rows: int
    columns: int
    tasks: int = 8


def gram(size: int, common: Tensor, generator: torch.Generator) -> Tensor:
    """One task's Gram (size, size) around the basis `common`."""
    turned = common + torch.randn(size, size, generator=generator) * (0.5 / size**0.5)
    spread = torch.exp(torch.randn(size, generator=generator))
    factor = turned * (torch.arange(1, size + 1) ** -0.7 * spread).sqrt()
    return factor @ factor.T * float(torch.exp(torch.randn(1, generator=generator)))


def layer(shape: Wideness, seed: int = 0, *, with_outputs: bool = True) -> Layer:
    """A layer of `tasks` experts with A_m, and with B_m where wanted."""
    generator = torch.Generator().manual_seed(seed)

    def basis(size: int) -> Tensor:
        return torch.linalg.qr(torch.randn(size, size, generator=generator))[0]

    inputs = [gram(shape.columns, common, generator) for common in [basis(shape.columns)]
              for _ in range(shape.tasks)]  # fmt: skip
    outputs: Sequence[Tensor | None] = [None] * shape.tasks
    if with_outputs:
        common = basis(shape.rows)
        outputs = [gram(shape.rows, common, generator) for _ in range(shape.tasks)]
    size = (shape.rows, shape.columns)
    base = torch.randn(size, generator=generator) * 0.03
    experts = tuple(
        base + torch.randn(size, generator=generator) * 0.003 for _ in range(shape.tasks)
    )
    return Layer(
        name="layer.weight",
        base=base,
        experts=experts,
        weights=(1.0,) * shape.tasks,
        labels=tuple(str(task) for task in range(shape.tasks)),
        is_matrix=True,
        statistics=tuple(
            LayerStatistics(input_gram=a, output_gradient_gram=b)
            for a, b in zip(inputs, outputs, strict=True)
        ),
    )
