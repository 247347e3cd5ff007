"""Decompositions that methods share, exact to float64.

Eigen- and singular-value decompositions and Cholesky solves run in float64 whatever the arithmetic
of the merge: the systems here have condition numbers of 1e5 and more, and float32 `eigh` loses
1e-2 on them.  Results come back in the caller's dtype, on the caller's device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .apart import host, is_apart
from .fallbacks import eigh, thin_svd
from .products import self_product

GRAM_CONDITION = 1e4  # σ_max/σ_min up to which eps · (σ_max/σ_min)² stays below float32's rounding
# The polar factor bears more: rounding the matrix itself to float32 moves it by 6e-8 κ, the Gram by
# 2e-16 κ², which is 4e-9 κ of that and at most 2e-6.
POLAR_CONDITION = 1e5
# Of a Gram's largest eigenvalue, below which directions are left to an SVD of their own: rounding
# turns the stronger ones by 2e-16 over it.
WEAK = 1e-9
AT_ONCE = 1 << 25  # elements of matrices that are decomposed together: 256 MB
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
    """The symmetric part (C + Cᵀ) / 2, which removes the rounding of an accumulated Gram."""
    return (matrix + matrix.mT) / 2


def eigh_descending(matrix: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    """Eigenvalues (rank,), largest first, and eigenvectors (d, rank) of a symmetric matrix, or of
    each of a batch (M, d, d)."""
    values, vectors = _descending(exact(matrix), rank)
    return like(values, matrix), like(vectors, matrix)


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin SVD, computed in float64: U (m, k), σ (k,) descending, Vᵀ (k, n)."""
    left, values, right = thin_svd(exact(matrix))
    return like(left, matrix), like(values, matrix), like(right, matrix)


class Polar(NamedTuple):
    """A polar decomposition.

    factor   `U Vᵀ` (m, n)
    values   all singular values (min(m, n),), largest first
    by       how it was computed: `Gram`, `SVD`, or `both`: the strong directions by the Gram and
             the weak ones by an SVD
    """

    factor: Tensor
    values: Tensor
    by: str


class Triples(NamedTuple):
    """The largest singular triples.

    left     left singular vectors U (m, k)
    values   singular values σ (k,), descending
    right    right singular vectors Vᵀ (k, n)
    by       how they were computed: `Gram` or `SVD`
    """

    left: Tensor
    values: Tensor
    right: Tensor
    by: str


def polar(matrix: Tensor, floor: float = 0.0) -> Polar:
    """The polar factor `U Vᵀ` of a thin SVD, and the singular values.

    For a rank-deficient matrix `U Vᵀ` is not defined (any completion of the null space is as
    good); here it is the partial isometry over the singular values above `RANK_TOLERANCE` times
    the largest, and above `floor`.  Published code keeps what the SVD routine returns.

    Where the smallest singular value allows it (`POLAR_CONDITION`), `(X Xᵀ)^(-1/2) X` of an
    eigendecomposition in float64 gives the same in less than half the time.  Where most of them do,
    only the weak directions are left to an SVD.
    """
    # On a GPU a matrix of zeros is noticed without a read of its own.
    suits = matrix.dtype != torch.float64 if is_apart(matrix) else _may_use_gram(matrix)
    found = _polar_by_gram(matrix, floor) if suits else None
    if found is not None:
        return found
    left, values, right = thin_svd(exact(matrix))
    kept = (values > RANK_TOLERANCE * values[:1]) & (values > floor)
    return Polar(like(left[:, kept] @ right[kept], matrix), like(values, matrix), "SVD")


def largest_triples(matrix: Tensor, rank: int) -> Triples:
    """The `rank` largest singular triples.

    From the eigenvectors of the smaller Gram, where the smallest of them is large enough for the
    float64 of its square (`GRAM_CONDITION`); else from a thin SVD.
    """
    wide = exact(matrix)
    if _may_use_gram(matrix):
        tall = wide.shape[0] > wide.shape[1]
        values, vectors = _descending(self_product(wide if tall else wide.mT), rank)
        if float(values[-1]) > float(values[0]) / GRAM_CONDITION**2:
            sigma = values.sqrt()
            other = (wide @ vectors if tall else wide.mT @ vectors) / sigma
            left, right = (other, vectors) if tall else (vectors, other)
            # Copies: a view would keep the whole of what it was cut from.
            return _triples(left.contiguous(), sigma, right.mT.contiguous(), matrix, "Gram")
    left, sigma, right = thin_svd(wide)
    cut = left[:, :rank].clone(), sigma[:rank].clone(), right[:rank].clone()
    return _triples(*cut, matrix, "SVD")


def largest_triples_each(matrices: Sequence[Tensor], rank: int) -> list[Triples]:
    """`largest_triples` of each matrix; on a GPU, of those of one shape all at once.

    On the CPU a batch is a loop over its matrices, and its copies are in vain.
    """
    first = matrices[0]
    alike = all(one.shape == first.shape and one.dtype == first.dtype for one in matrices)
    if not (alike and is_apart(first)) or first.dtype == torch.float64:
        return [largest_triples(matrix, rank) for matrix in matrices]
    return [
        triples
        for part in parts_at_once(len(matrices), first.numel())
        for triples in _triples_together(matrices[part], rank)
    ]


def parts_at_once(count: int, elements: int) -> list[slice]:
    """The places of `count` tensors of so many elements, in parts of at most `AT_ONCE` elements or
    one tensor: what a GPU decomposes together."""
    size = max(1, AT_ONCE // max(1, elements))
    return [slice(start, start + size) for start in range(0, count, size)]


def _triples_together(matrices: Sequence[Tensor], rank: int) -> list[Triples]:
    tall = matrices[0].shape[0] > matrices[0].shape[1]
    wide = torch.stack([exact(matrix) for matrix in matrices])
    values, vectors = _descending(wide.mT @ wide if tall else wide @ wide.mT, rank)
    ends = host([[own[0], own[-1]] for own in values])
    sigma = values.clamp_min(0).sqrt()
    other = (wide @ vectors if tall else wide.mT @ vectors) / sigma[:, None]
    left, right = (other, vectors) if tall else (vectors, other)
    found: list[Triples] = []
    for index, (largest, smallest) in enumerate(ends):
        if smallest > largest / GRAM_CONDITION**2:
            own = left[index].contiguous(), sigma[index].clone(), right[index].mT.contiguous()
            found.append(_triples(*own, matrices[index], "Gram"))
        else:
            found.append(largest_triples(matrices[index], rank))
    return found


def _triples(left: Tensor, sigma: Tensor, right: Tensor, matrix: Tensor, by: str) -> Triples:
    return Triples(like(left, matrix), like(sigma, matrix), like(right, matrix), by)


def _may_use_gram(matrix: Tensor) -> bool:
    """Squaring costs half the digits: enough are left for float32 answers, not for float64 ones."""
    return matrix.dtype != torch.float64 and bool(matrix.any())


def _polar_by_gram(matrix: Tensor, floor: float) -> Polar | None:
    """The decomposition, or None where most of the matrix is too weak for its Gram.

    Rows and columns of zeros are left out: they are zero in the factor as well.
    """
    wide = exact(matrix)
    rows, columns = wide.any(1), wide.any(0)
    # Numbers are picked by a read of where they are: on a GPU, only where there are zeros at all.
    whole = is_apart(wide) and bool(rows.all() & columns.all())
    inner = wide if whole else wide[rows][:, columns]
    if not inner.numel():
        return None
    tall = inner.shape[0] > inner.shape[1]
    values, vectors = _descending(self_product(inner if tall else inner.mT))
    ((largest, smallest),) = host([[values[0], values[-1]]])
    by = "Gram"
    if smallest <= largest / POLAR_CONDITION**2 or smallest <= floor**2:
        least = max(WEAK * largest, floor**2)
        split = _split(inner if tall else inner.mT, values, vectors, least, floor)
        if split is None:
            return None
        by, (made, sigma) = "both", split
        made = made if tall else made.mT
    else:
        sigma = values.sqrt()
        root = (vectors / sigma) @ vectors.mT
        made = inner @ root if tall else root @ inner
    if whole:
        return Polar(like(made, matrix), like(sigma, matrix), by)
    factor = torch.zeros_like(wide)
    factor[rows.nonzero(), columns.nonzero().mT] = made
    values = torch.nn.functional.pad(sigma, (0, min(matrix.shape) - len(sigma)))
    return Polar(like(factor, matrix), like(values, matrix), by)


def _split(
    tall: Tensor, values: Tensor, vectors: Tensor, least: float, floor: float
) -> tuple[Tensor, Tensor] | None:
    """The polar factor and the singular values of X (m, n), m ≥ n, from the eigenvalues λ, largest
    first, and eigenvectors of XᵀX; None where more than half of them are at most `least`.

    The strong directions are those of the Gram.  X on the weak ones is a thin matrix, whose SVD is
    exact; rounding turned its columns towards the strong ones, out of which they are taken twice.
    """
    count = int((values > least).sum())
    if 2 * count < len(values):
        return None
    strong, weak = vectors[:, :count], vectors[:, count:]
    sigma = values[:count].sqrt()
    left = tall @ (strong / sigma)
    rest = tall @ weak
    for _ in range(2):
        rest = rest - left @ (left.mT @ rest)
    own_left, own, own_right = thin_svd(rest)
    kept = (own > RANK_TOLERANCE * sigma[0]) & (own > floor)
    factor = left @ strong.mT + own_left[:, kept] @ (own_right[kept] @ weak.mT)
    return factor, torch.cat([sigma, own]).sort(descending=True).values


def _descending(matrix: Tensor, rank: int | None = None) -> tuple[Tensor, Tensor]:
    values, vectors = eigh(symmetric(matrix))
    return values.flip(-1)[..., :rank], vectors.flip(-1)[..., :rank]


def solve_positive(matrix: Tensor, right: Tensor) -> Tensor | None:
    """`right @ matrix⁻¹` for a symmetric positive definite matrix, or None where it is not."""
    factor = regular_factor(exact(matrix), matrix.dtype)
    if factor is None:
        return None
    return like(torch.cholesky_solve(exact(right).mT, factor).mT, right)


def inverse_positive(matrix: Tensor) -> Tensor | None:
    """The inverse of a symmetric positive definite matrix, computed in float64; None where it is
    not, or where its small eigenvalues would be lost in the rounding of the result."""
    factor = _cholesky(exact(matrix))
    if factor is None:
        return None
    inverse = torch.cholesky_inverse(factor)
    condition = float(inverse.norm()) * float(exact(matrix).norm())  # at least the true one
    if not condition < 0.1 / torch.finfo(matrix.dtype).eps:
        return None
    return like(symmetric(inverse), matrix)


def regular_factor(matrix: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The lower Cholesky factor in float64, or None where a matrix that was kept in `dtype` is
    not positive definite."""
    factor = _cholesky(matrix)
    if factor is None:
        return None
    diagonal = factor.diagonal()
    # Cholesky of a singular matrix can succeed by rounding; its smallest pivot gives it away.
    singular = float(diagonal.min()) ** 2 <= singular_below(dtype) * float(diagonal.max()) ** 2
    return None if singular else factor


def _cholesky(matrix: Tensor) -> Tensor | None:
    factor, info = torch.linalg.cholesky_ex(symmetric(matrix))
    return None if int(info) or not bool(torch.isfinite(factor).all()) else factor


def pseudo_solve(matrix: Tensor, right: Tensor, anchor: Tensor) -> Tensor:
    """The solution X of `X matrix = right` nearest to `anchor`, for a singular symmetric matrix."""
    values, vectors = eigh(symmetric(exact(matrix)))
    kept = values > singular_below(matrix.dtype) * values.max().clamp_min(1e-300)
    residual = (exact(right) - exact(anchor) @ exact(matrix)) @ vectors[:, kept]
    return anchor + like((residual / values[kept]) @ vectors[:, kept].mT, anchor)
