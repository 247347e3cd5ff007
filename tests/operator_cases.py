"""The literal list of operators: a new one is enrolled here and gets the whole matrix of tests."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mats_core.linear.lowrank import LowRank
from mats_core.linear.operators import (
    Dense,
    Diagonal,
    Identity,
    InputGram,
    Kronecker,
    Operator,
    Spectral,
    Stacked,
    WeightedSum,
    truncated,
)

SHAPE = (4, 3)


def positive(size: int, seed: int, rank: int | None = None) -> Tensor:
    """A positive (semi-)definite matrix whose non-zero eigenvalues lie between 0.5 and 3."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator))[0]
    eigenvalues = torch.linspace(3, 0.5, size, dtype=torch.float64)
    if rank is not None:
        eigenvalues[rank:] = 0
    return (q * eigenvalues) @ q.T


def _diagonal(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(SHAPE, dtype=torch.float64, generator=generator)


def in_factors(size: int, seed: int) -> LowRank:
    """`FᵀF + diag(v)` with two rows in F."""
    generator = torch.Generator().manual_seed(seed)
    factor = torch.randn(2, size, dtype=torch.float64, generator=generator)
    return LowRank(factor, torch.rand(size, dtype=torch.float64, generator=generator))


A, B = positive(3, 1), positive(4, 2)

OPERATORS: dict[str, Callable[[], Operator]] = {
    "identity": lambda: Identity(SHAPE),
    "diagonal": lambda: Diagonal(_diagonal(3)),
    "input gram": lambda: InputGram(A, 4),
    "input gram, singular": lambda: InputGram(positive(3, 4, rank=2), 4),
    "kronecker": lambda: Kronecker(B, A),
    "kronecker, singular": lambda: Kronecker(positive(4, 5, rank=1), A),
    "kronecker of factors": lambda: Kronecker(in_factors(4, 11), in_factors(3, 12)),
    "kronecker of a matrix and a factor": lambda: Kronecker(B, in_factors(3, 13)),
    "spectral": lambda: Spectral(torch.linalg.eigh(B)[1], torch.linalg.eigh(A)[1], _diagonal(6)),
    "truncated kronecker": lambda: truncated(Kronecker(B, A), 5),
    "truncated, with ties": lambda: truncated(Kronecker(torch.eye(4).double(), A), 7),
    "dense": lambda: Dense(positive(12, 7)),
    "sum of kroneckers": lambda: WeightedSum(
        (Kronecker(B, A), Kronecker(positive(4, 8), positive(3, 9))), (0.3, 2.0)
    ),
    "stacked": lambda: Stacked(
        torch.cat([0.3 * B, 2.0 * positive(4, 8)], 1), torch.stack([A, positive(3, 9)])
    ),
    "sum of a mixture": lambda: WeightedSum(
        (InputGram(A, 4), Diagonal(_diagonal(10)), truncated(Kronecker(B, A), 3)),
        (1.0, 0.5, 0.25),
    ),
}
