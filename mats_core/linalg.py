"""Decompositions that methods share, exact to float64.

Eigen- and singular-value decompositions and Cholesky solves run in float64 whatever the arithmetic
of the merge: the systems here have condition numbers of 1e5 and more, and float32 `eigh` loses
1e-2 on them.  Results come back in the caller's dtype, on the caller's device.
"""

from __future__ import annotations

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-10  # singular values below this share of the largest count as zero, in float64


def exact(value: Tensor) -> Tensor:
    """`value` in float64, on its device where that has float64 (Apple's MPS has not)."""
    return value.to(device="cpu" if value.device.type == "mps" else value.device).double()


def like(value: Tensor, reference: Tensor) -> Tensor:
    """`value` with the dtype and device of `reference`."""
    return value.to(device=reference.device, dtype=reference.dtype)


def singular_below(dtype: torch.dtype) -> float:
    """The share of the largest eigenvalue below which one is the rounding of a matrix's entries.

    A Gram of few tokens that was kept in float32 has eigenvalues of 1e-8 where it should have
    zeros; to divide by them fills the answer with noise.
    """
    return max(1e-12, 4 * torch.finfo(dtype).eps)


def symmetric(matrix: Tensor) -> Tensor:
    """The symmetric part, which removes the rounding of an accumulated Gram."""
    return (matrix + matrix.mT) / 2


def eigh_descending(matrix: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues (rank,), largest first, and eigenvectors (d, rank) of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(symmetric(exact(matrix)))
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    return like(values, matrix), like(vectors, matrix)


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Thin SVD in float64: U (m, k), σ (k,) descending, Vᵀ (k, n)."""
    left, values, right = torch.linalg.svd(exact(matrix), full_matrices=False)
    return like(left, matrix), like(values, matrix), like(right, matrix)


def polar(matrix: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """The polar factor `U Vᵀ` of a thin SVD, and the singular values.

    For a rank-deficient matrix `U Vᵀ` is not defined (any completion of the null space is as
    good); here it is the partial isometry over the singular values above `RANK_TOLERANCE` times
    the largest, and above `floor`.  Published code keeps whatever the SVD routine returns there.
    """
    left, values, right = torch.linalg.svd(exact(matrix), full_matrices=False)
    kept = (values > RANK_TOLERANCE * values[:1]) & (values > floor)
    return like(left[:, kept] @ right[kept], matrix), like(values, matrix)


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor | None:
    """`right @ matrix⁻¹` for a symmetric positive definite matrix, or None where it is not."""
    factor, info = torch.linalg.cholesky_ex(symmetric(exact(matrix)))
    if int(info) or not bool(torch.isfinite(factor).all()):
        return None
    diagonal = factor.diagonal()
    # Cholesky of a singular matrix can succeed by rounding; its smallest pivot gives it away.
    if float(diagonal.min()) ** 2 <= singular_below(matrix.dtype) * float(diagonal.max()) ** 2:
        return None
    return like(torch.cholesky_solve(exact(right).mT, factor).mT, right)


def pseudo_solve(matrix: Tensor, right: Tensor, anchor: Tensor) -> Tensor:
    """The solution X of `X matrix = right` nearest to `anchor`, for a singular symmetric matrix."""
    values, vectors = torch.linalg.eigh(symmetric(exact(matrix)))
    kept = values > singular_below(matrix.dtype) * values.max().clamp_min(1e-300)
    residual = (exact(right) - exact(anchor) @ exact(matrix)) @ vectors[:, kept]
    return anchor + like((residual / values[kept]) @ vectors[:, kept].mT, anchor)
