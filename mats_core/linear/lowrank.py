"""Grams of wide layers in factors: `C = FᵀF + diag(v)` with F (k, d), v ≥ 0 (d,) and k ≪ d.

A Gram of N tokens has rank N at most, and a layer of a language model is wider than a calibration
set is long: the rows say the same as their d × d product, in k/d of the space, and a product with
them takes 2 k/d of the time.  Diagonal plus factor is closed under everything that is done to a
Gram before it is solved with: scaling, damping, off-diagonal scaling, sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .decompositions import exact, like

WORTH = 2  # a Gram is kept in factors where WORTH · k ≤ d


@dataclass(frozen=True)
class LowRank:
    """A symmetric matrix `C = FᵀF + diag(v)`; `x @ C` and `C @ x` never form C.

    factor   F (k, d)
    rest     v (d,)
    """

    factor: Tensor
    rest: Tensor

    @property
    def size(self) -> int:
        """d, the number of columns."""
        return self.factor.shape[1]

    @property
    def rank(self) -> int:
        """k, the number of rows of F."""
        return self.factor.shape[0]

    def __rmatmul__(self, x: Tensor) -> Tensor:
        return torch.addcmul((x @ self.factor.mT) @ self.factor, x, self.rest)

    def __matmul__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.factor.mT @ (self.factor @ x), x, self.rest[:, None])

    def diagonal(self) -> Tensor:
        """The diagonal of C (d,)."""
        return self.factor.square().sum(0) + self.rest

    def dense(self) -> Tensor:
        """C as a matrix (d, d)."""
        matrix = self.factor.mT @ self.factor
        matrix.diagonal().add_(self.rest)
        return matrix

    def scaled(self, by: float) -> LowRank:
        """`by · C`, for `by` of at least zero."""
        return LowRank(self.factor * by**0.5, self.rest * by)

    def damped(self, damping: float) -> LowRank:
        """`C + δ (tr C / d) I`."""
        return LowRank(self.factor, self.rest + damping * self.diagonal().mean())

    def off_diagonal_scaled(self, scale: float) -> LowRank:
        """`λ C + (1 − λ) diag(C)`."""
        moved = self.scaled(scale)
        return LowRank(moved.factor, moved.rest + (1 - scale) * self.diagonal())

    def trace_normalised(self) -> LowRank:
        """`C / tr C`; zero stays zero."""
        trace = float(self.diagonal().sum())
        return self.scaled(1 / trace) if trace > 0 else self


Gram = Tensor | LowRank


def matrix(gram: Gram) -> Tensor:
    """The Gram as a matrix (d, d), multiplied out if it is in factors."""
    return gram if isinstance(gram, Tensor) else gram.dense()


def summed(grams: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """`Σ α_m C_m`, of rank Σ k_m."""
    scaled = [gram.scaled(weight) for gram, weight in zip(grams, weights, strict=True)]
    rest = torch.stack([gram.rest for gram in scaled]).sum(0)
    return LowRank(torch.cat([gram.factor for gram in scaled]), rest)


@dataclass(frozen=True)
class Woodbury:
    """`(FᵀF + D)⁻¹ = D⁻¹ − GᵀG` with `G = L⁻¹ F D⁻¹` and `L Lᵀ = I + F D⁻¹ Fᵀ` (k, k).

    `condition` bounds what the difference costs: a share of `condition` · eps of the inverse on the
    leading directions is rounding.
    """

    inverse_rest: Tensor
    half: Tensor
    condition: float

    @classmethod
    def of(cls, gram: LowRank) -> Woodbury | None:
        """None where D has a zero: the sum may then be singular."""
        factor, rest = exact(gram.factor), exact(gram.rest)
        if not float(rest.min()) > 0:
            return None
        scaled = factor / rest
        small = scaled @ factor.mT
        condition = 1 + float(small.diagonal().sum())  # at least the largest eigenvalue
        small.diagonal().add_(1)
        lower, info = torch.linalg.cholesky_ex(small)
        if int(info):
            return None
        half = torch.linalg.solve_triangular(lower, scaled, upper=False)
        return cls(1 / rest, half, condition)

    def to(self, reference: Tensor) -> Woodbury:
        """In another arithmetic, for a preconditioner."""
        half, rest = like(self.half, reference), like(self.inverse_rest, reference)
        return Woodbury(rest, half, self.condition)

    def __rmatmul__(self, x: Tensor) -> Tensor:
        return x * self.inverse_rest - (x @ self.half.mT) @ self.half

    def __matmul__(self, x: Tensor) -> Tensor:
        return x * self.inverse_rest[:, None] - self.half.mT @ (self.half @ x)
