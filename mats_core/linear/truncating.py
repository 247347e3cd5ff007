"""An update in two factors, `Δ ≈ L R`: what one LoRA can hold of it, and what is lost."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .decompositions import exact, largest_triples, like, svd
from .factored import sketched

SKETCHED = 4  # a sketch of 1/4 of the smaller side is tried before a whole decomposition


class Factors(NamedTuple):
    """A matrix of low rank near an update Δ (m, n), with each singular value's root in both.

    left    L (m, r)
    right   R (r, n)
    lost    ‖Δ − L R‖_F², measured with the factors as they are returned
    energy  ‖Δ‖_F²
    """

    left: Tensor
    right: Tensor
    lost: float
    energy: float

    @property
    def rank(self) -> int:
        """r."""
        return self.right.shape[0]


def two_factors(
    update: Tensor, rank: int | None = None, energy: float = 1.0, rounding: float = 0.0
) -> Factors:
    """The nearest matrix to an update Δ of its rank, by the truncated SVD (Eckart and Young).

    rank       at most so many singular values; None: as many as there are
    energy     the fewest whose squares sum to this share of ‖Δ‖_F²; 1: all of them
    rounding   the norm up to which what Δ holds is the rounding of the weights that it is the
               difference of: smaller singular values are none

    Of an update whose rank is small, such as a sum of a few adapters', only a factor of it is
    decomposed; where a rank alone is asked for, only the leading triples are computed.
    """
    total = float(exact(update).square().sum())
    left, values, right = _triples(update, rank if energy == 1 else None, rounding)
    kept = int((values > rounding).sum())
    if energy < 1:
        reached = exact(values[:kept]).square().cumsum(0)
        kept = min(kept, 1 + int((reached < energy * total).sum()))
    kept = kept if rank is None else min(kept, rank)
    roots = values[:kept].sqrt()
    left, right = left[:, :kept] * roots, roots[:, None] * right[:kept]
    lost = float(exact(update - left @ right).square().sum())
    return Factors(left.contiguous(), right.contiguous(), lost, total)


def _triples(update: Tensor, rank: int | None, rounding: float) -> tuple[Tensor, Tensor, Tensor]:
    """Singular triples, largest first: all that are above the rounding, or the leading ones."""
    smaller = min(update.shape)
    thin = sketched(update, smaller // SKETCHED, rounding)
    if thin is not None:
        basis, rest = thin
        left, values, right = svd(rest)
        return like(exact(basis) @ exact(left), update), values, right
    if rank is not None and rank < smaller:
        found = largest_triples(update, rank)
        return found.left, found.values, found.right
    return svd(update)


def rounding_of(weight: Tensor, dtype: torch.dtype) -> float:
    """The norm of what is lost when a weight is kept in a dtype, at most."""
    return torch.finfo(dtype).eps * float(exact(weight).norm())
