"""Low-rank branches beside a merged matrix: what leads from the merge M back to one expert.

A branch stands for the difference `Δ' = W_t − M` in factors, `left @ right` with left (d_out, r)
and right (r, d_in).  `output_branch` keeps the r directions of the output that carry most of
`Δ' x` over inputs x whose Gram is A (ESM++, arXiv 2606.19164),

    E = the r leading eigenvectors of Δ' A Δ'ᵀ,    left = E,  right = Eᵀ Δ',

and without a Gram those of `Δ' Δ'ᵀ`, which is the truncated SVD (SMILE, arXiv 2408.10174).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .decompositions import exact, largest_triples, like, symmetric
from .fallbacks import eigh, solve


def worth_factors(rows: int, columns: int, rank: int) -> bool:
    """Whether two factors of this rank take less space than the matrix (rows, columns) itself."""
    return rank * (rows + columns) < rows * columns


def output_branch(update: Tensor, rank: int, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`E` (d_out, rank) with orthonormal columns, and `Eᵀ Δ'` (rank, d_in) (see the module's text).

    update   Δ' (d_out, d_in)
    rank     r, at most the smaller of the two
    gram     A (d_in, d_in), symmetric and positive semidefinite; None: the identity
    """
    wide = exact(update)
    weighted = wide if gram is None else wide @ _root(exact(gram))
    # Where Δ' has a smaller rank than asked for, what the decomposition fills up with need not be
    # orthonormal: QR makes it so, and keeps the leading directions.
    left = torch.linalg.qr(exact(largest_triples(like(weighted, update), rank).left))[0]
    return like(left, update), like(left.mT @ wide, update)


def input_gate(update: Tensor, rank: int, *, scaled: bool) -> Tensor:
    """`S_k V_kᵀ` (rank, d_in) of the SVD of `Δ / ‖Δ‖`; `V_kᵀ` where it is not `scaled`.

    Its product with an input x has nearly the norm of `Δ x` for a large rank, and otherwise says
    how much of x lies in the directions that the update reads.
    """
    found = largest_triples(update, rank)
    size = found.values / update.norm().clamp_min(1e-30)
    return size[:, None] * found.right if scaled else found.right


def discriminant(groups: Sequence[Tensor], shrinkage: float = 0.1) -> tuple[Tensor, Tensor]:
    """Directions `p_t = S⁻¹ μ_t` (T, d) and offsets `o_t = ½ μ_tᵀ S⁻¹ μ_t` (T,) that tell groups
    apart: x belongs to the group with the largest `x · p_t − o_t` (Fisher's linear discriminant,
    groups equally likely).

    groups      of T kinds, (n_t, d) each; μ_t is the mean of one, S their pooled covariance,
                each group counted alike
    shrinkage   share of the mean variance times the identity in S, for few examples
    """
    wide = [exact(group) for group in groups]
    means = torch.stack([group.mean(0) for group in wide])
    scatter = [(g - m) / len(g) ** 0.5 for g, m in zip(wide, means, strict=True)]
    middle = means.mean(0)  # which no difference of scores depends on
    solved = _pooled_solve if sum(map(len, wide)) > means.shape[1] else _pooled_solve_by_examples
    found = solved(scatter, shrinkage, means - middle)
    offsets = (found * (means + middle)).sum(1) / 2
    return like(found, groups[0]), like(offsets, groups[0])


def _pooled_solve(scatter: Sequence[Tensor], shrinkage: float, rows: Tensor) -> Tensor:
    """`rows S⁻¹` with S of the discriminant; `scatter` holds Z_t with Z_tᵀ Z_t the covariance of
    one group."""
    pooled = torch.stack([z.mT @ z for z in scatter]).mean(0)
    variance = pooled.diagonal().mean()
    pooled = pooled * (1 - shrinkage)
    pooled.diagonal().add_(shrinkage * variance + 1e-12)
    return solve(pooled, rows.mT).mT


def _pooled_solve_by_examples(scatter: Sequence[Tensor], shrinkage: float, rows: Tensor) -> Tensor:
    """`_pooled_solve` by Woodbury's identity, for more dimensions than examples."""
    z = torch.cat(list(scatter)) * ((1 - shrinkage) / len(scatter)) ** 0.5
    variance = sum(float(one.square().sum()) for one in scatter) / len(scatter) / z.shape[1]
    ridge = shrinkage * variance + 1e-12
    small = z @ z.mT
    small.diagonal().add_(ridge)
    return (rows - solve(small, z @ rows.mT).mT @ z) / ridge


def _root(gram: Tensor) -> Tensor:
    """A symmetric R with `R R = A`; what rounding made negative counts as zero."""
    values, vectors = eigh(symmetric(gram))
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
