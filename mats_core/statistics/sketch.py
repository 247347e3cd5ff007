"""Tokens as rows of a factor instead of their Gram: exact while they are few, a sketch beyond.

*Robust Frequent Directions* (Liberty, KDD 2013; Huang, ICML 2018): rows are collected; when there
are 2K of them, their squared singular values are lowered by δ, the (K+1)-th of them, which leaves
K rows, and half of what was lowered is remembered as a multiple of the identity.  For all N tokens
X (N, d) and the sum Δ of all δ, in exact arithmetic

    0 ≤ XᵀX − FᵀF ≤ Δ I,   so   ‖XᵀX − FᵀF − (Δ/2) I‖₂ ≤ Δ/2,
    Δ ≤ Σ_{i>j} σ_i² / (K + 1 − j)   for every j ≤ K, with the singular values σ_i of X.

The error is thus known when it is done: at most the remembered rest itself.  With N ≤ K, or tokens
of rank at most K, nothing is ever lowered.  Deterministic; memory 2K · d.
"""

from __future__ import annotations

from torch import Tensor

from ..linear import eigh, exact, like, symmetric

ROUNDING = 1e-14  # of the largest squared singular value: below it is what float64 leaves of zero


class Sketch:
    """A growing set of rows (n, d), held as at most 2K of them and a multiple of the identity."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.rest = 0.0
        self._rows: Tensor | None = None
        self._filled = 0

    def add(self, rows: Tensor) -> None:
        """Take in rows (n, d); rows of zeros, such as padding, change nothing."""
        rows = rows[rows.any(1)]
        if self._rows is None:
            self._rows = rows.new_zeros(2 * self.rank, rows.shape[1])
        while len(rows):
            if self._filled == 2 * self.rank:
                self._shrink()
            count = min(len(rows), 2 * self.rank - self._filled)
            self._rows[self._filled : self._filled + count] = rows[:count]
            self._filled += count
            rows = rows[count:]

    def close(self) -> tuple[Tensor, float]:
        """F (k, d) with k ≤ K, and the rest Δ/2."""
        if self._filled > self.rank:
            self._shrink()
        assert self._rows is not None
        # At least one row, of zeros where nothing was seen: an empty tensor is no shape for a file.
        return self._rows[: max(1, self._filled)].clone(), self.rest

    def _shrink(self) -> None:
        """To at most K rows.  By the rows' own Gram: singular values of 1e-7 of the largest are
        lost in it, and with them an error that no float32 Gram would show."""
        assert self._rows is not None
        rows = exact(self._rows[: self._filled])
        values, vectors = eigh(symmetric(rows @ rows.mT))
        values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
        lowered = float(values[self.rank])
        if lowered <= ROUNDING * float(values[0]):
            lowered = 0.0
        kept = values > max(lowered, ROUNDING * float(values[0]))
        kept[self.rank :] = False
        scale = ((values[kept] - lowered) / values[kept]).sqrt()
        shrunk = scale[:, None] * (vectors[:, kept].mT @ rows)
        self._filled = len(shrunk)
        self._rows[: self._filled] = like(shrunk, self._rows)
        self.rest += lowered / 2
