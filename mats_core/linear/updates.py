"""Task matrices Δ_m = W_m − W0, sums over experts, and norms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import torch
from torch import Tensor

from .apart import host


class Updates(Sequence[Tensor]):
    """The task matrices Δ_m = W_m − W0, each subtracted on access: never all copied at once.

    signs   −1 for those that are taken negated, W0 − W_m; all as they are by default
    """

    def __init__(
        self, base: Tensor, experts: tuple[Tensor, ...], signs: tuple[float, ...] = ()
    ) -> None:
        self.base, self.experts = base, experts
        self.signs = signs or (1.0,) * len(experts)

    def __len__(self) -> int:
        return len(self.experts)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | Sequence[Tensor]:
        if isinstance(index, slice):
            return Updates(self.base, self.experts[index], self.signs[index])
        if self.signs[index] < 0:
            return self.base - self.experts[index]
        return self.experts[index] - self.base

    def every(self, stride: int, phase: int = 0) -> list[Tensor]:
        """Every `stride`-th entry of each task matrix, flat, from the one at `phase` on."""
        base = self.base.reshape(-1)[phase::stride]
        parts = [expert.reshape(-1)[phase::stride] for expert in self.experts]
        return [
            base - part if sign < 0 else part - base
            for part, sign in zip(parts, self.signs, strict=True)
        ]


def weighted_sum(values: Iterable[Tensor], weights: Iterable[float]) -> Tensor:
    """The sum Σ_m α_m V_m."""
    total: Tensor | None = None
    for value, weight in zip(values, weights, strict=True):
        total = value * weight if total is None else total.add_(value, alpha=weight)
    if total is None:
        raise ValueError("nothing to sum")
    return total


def norm(value: Tensor) -> float:
    """The Frobenius norm, accumulated in float64 where the device has it."""
    if value.device.type == "mps":
        return float(value.norm())
    return float(torch.linalg.vector_norm(value, dtype=torch.float64))


def norms(values: Sequence[Tensor]) -> list[float]:
    """The Frobenius norm of each tensor, as `norm` has it, all in one read."""
    if values[0].device.type == "mps":
        return host([[value.norm() for value in values]])[0]
    return host([[torch.linalg.vector_norm(value, dtype=torch.float64) for value in values]])[0]
