"""Orthonormal bases that several updates share, and the updates in them.

    KnOTS   [Δ_1 … Δ_T] = U Σ [V_1 … V_T]ᵀ        Δ_t = U · (Uᵀ Δ_t)
    core    U of [B_1 … B_T], V of [A_1; …; A_T]   Δ_t = B_t A_t = U · (Uᵀ B_t)(A_t V) · Vᵀ

Both are exact: what is done to the small matrices, and multiplied back, is done to the updates.
Everything is in float64.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .decompositions import RANK_TOLERANCE, exact
from .fallbacks import thin_svd

Pair = tuple[Tensor, Tensor]  # L (m, r) and R (r, n) of an update Δ = L R


def column_basis(blocks: Sequence[Tensor], floor: float = 0.0) -> Tensor:
    """The left singular vectors (m, k) of the blocks side by side, the strongest first.

    blocks   (m, n_t) each
    floor    singular values up to it are none; those that are rounding in float64 never are

    Of wide blocks only a triangular factor is decomposed.
    """
    whole = exact(torch.cat(list(blocks), 1))
    if whole.shape[1] > whole.shape[0]:
        whole = torch.linalg.qr(whole.mT, mode="r").R.mT
    if not min(whole.shape):
        return whole[:, :0]
    left, values, _ = thin_svd(whole)
    return left[:, values > max(floor, RANK_TOLERANCE * float(values[0]))]


def knots_basis(updates: Iterable[Tensor], floor: float = 0.0) -> tuple[Tensor, list[Tensor]]:
    """U (m, k), the basis of the updates' columns, and each `Uᵀ Δ_t` (k, n), which is `Σ V_tᵀ`.

    floor    singular values of all updates side by side that are none up to it
    """
    wide = [exact(update) for update in updates]
    left = column_basis(wide, floor)
    return left, [left.mT @ update for update in wide]


def knots_basis_of_factors(pairs: Sequence[Pair]) -> tuple[Tensor, list[Tensor]]:
    """`knots_basis` of `Δ_t = L_t R_t`, none of which is formed."""
    lefts, rights = ([exact(pair[side]) for pair in pairs] for side in (0, 1))
    outer = torch.linalg.qr(torch.cat(lefts, 1)).Q
    inner = [(outer.mT @ left) @ right for left, right in zip(lefts, rights, strict=True)]
    left = column_basis(inner)
    return outer @ left, [left.mT @ update for update in inner]


def core_bases(pairs: Sequence[Pair]) -> tuple[Tensor, list[Tensor], Tensor]:
    """U (m, k) of all L_t, each core `(Uᵀ L_t)(R_t V)` (k, l), and Vᵀ (l, n) of all R_t."""
    lefts, rights = ([exact(pair[side]) for pair in pairs] for side in (0, 1))
    left, right = column_basis(lefts), column_basis([one.mT for one in rights])
    cores = [(left.mT @ one) @ (two @ right) for one, two in zip(lefts, rights, strict=True)]
    return left, cores, right.mT
