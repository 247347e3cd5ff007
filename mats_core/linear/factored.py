"""Solving with Grams in factors: what RegMean, K-FAC and ESM do where statistics are in low rank.

Each function here has a twin on matrices; `tests/linear/test_factored.py` holds them together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cg import Apply
from .decompositions import eigh_descending, exact, inverse_positive, like, svd
from .lowrank import WORTH, Gram, LowRank, Woodbury, matrix, summed
from .updates import weighted_sum


def sum_in_factors(grams: Sequence[Gram], shares: Sequence[float]) -> LowRank | None:
    """`Σ α_m C_m` in factors; None where not all are, or where that does not pay: the stacked rows
    are more than d / `WORTH`."""
    factors = [gram for gram in grams if isinstance(gram, LowRank)]
    total = summed(factors, shares) if len(factors) == len(grams) else None
    return total if total and WORTH * total.rank <= total.size else None


def solve_factored(grams: Sequence[Gram], shares: Sequence[float], right: Tensor) -> Tensor | None:
    """`right (Σ α_m A_m)⁻¹` by Woodbury's identity, in float64.

    None where factors do not pay or the sum may be singular: a matrix is the better way then.
    """
    total = sum_in_factors(grams, shares)
    inverse = total and Woodbury.of(total)
    return inverse and like(exact(right) @ inverse, right)


def inverted(
    grams: Sequence[Gram], shares: Sequence[float], reference: Tensor
) -> Woodbury | Tensor | None:
    """`(Σ α_m C_m)⁻¹` in the arithmetic of `reference`; None where its rounding would spoil it."""
    total = sum_in_factors(grams, shares)
    if total is None:
        return inverse_positive(weighted_sum((matrix(gram) for gram in grams), shares))
    found = Woodbury.of(total)
    if found is None or found.condition > 0.1 / torch.finfo(reference.dtype).eps:
        return None
    return found.to(reference)


def factored_kronecker_inverse(
    inputs: Sequence[Gram],
    outputs: Sequence[Gram],
    shares: Sequence[float],
    reference: Tensor,
    shift: float = 0.0,
) -> Apply | None:
    """A preconditioner `P⁻¹R = B̄⁻¹ R Ā⁻¹` from factors, as `kronecker_inverse`.

    A shift, of the anchor, goes into both sides: `Ā + π √s I` and `B̄ + √s/π I`, with π² the ratio
    of their mean diagonals (arXiv 1503.05671, section 6.3).
    """
    means = [
        sum(share * float(gram.diagonal().mean()) for share, gram in zip(shares, side, strict=True))
        for side in (inputs, outputs)
    ]
    if shift and min(means) > 0:
        pi = (means[0] / means[1]) ** 0.5
        inputs = [_raised(gram, pi * shift**0.5) for gram in inputs]
        outputs = [_raised(gram, shift**0.5 / pi) for gram in outputs]
    a, b = inverted(inputs, shares, reference), inverted(outputs, shares, reference)
    if a is None or b is None:
        return None
    return lambda r: b @ (r @ a)


def _raised(gram: Gram, by: float) -> Gram:
    """`C + by · I`."""
    if isinstance(gram, LowRank):
        return LowRank(gram.factor, gram.rest + by)
    return gram + by * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)


def update_gram(update: Tensor, summed: int, rounding: float, power: float = 1.0) -> Gram:
    """`(ΔᵀΔ)^p` of an update Δ (d_out, d_in), in factors wherever that pays; of Δᵀ for `ΔΔᵀ`.

    summed     how many of them are added up: factors of a LoRA pay while their rows together do
    rounding   the norm below which what is left of Δ beside its leading directions is rounding
    power      p, of the eigenvalues

    Of an update of low rank no d × d product is formed, nor of a wide one.
    """
    thin = sketched(update, min(update.shape) // (WORTH * summed), rounding)
    if thin is not None:
        _, values, right = svd(thin[1])
        kept = values > rounding
        return _without_rest(values[kept, None] ** power * right[kept])
    wide = WORTH * update.shape[0] <= update.shape[1]
    if power == 1:
        return _without_rest(update) if wide else update.mT @ update
    if update.shape[0] < update.shape[1]:
        _, values, right = svd(update)
        factor = values[:, None] ** power * right
        return _without_rest(factor) if wide else factor.mT @ factor
    own = exact(update)
    values, vectors = eigh_descending(own.mT @ own)
    return like((vectors * values.clamp_min(0) ** power) @ vectors.mT, update)


def _without_rest(factor: Tensor) -> LowRank:
    return LowRank(factor.contiguous(), factor.new_zeros(factor.shape[1]))


def sketched(update: Tensor, size: int, rounding: float) -> tuple[Tensor, Tensor] | None:
    """Q (d_out, size), orthonormal, and F (size, d_in) with `Q F = Δ` up to rounding; None where
    there are none.

    By a random sketch of the columns' span (arXiv 0909.4061), always the same one.
    """
    if size < 1:
        return None
    random = torch.Generator().manual_seed(0)
    sketch = torch.randn(update.shape[1], size, generator=random, dtype=update.dtype)
    q = torch.linalg.qr(update @ like(sketch, update))[0]
    rest = q.mT @ update
    return (q, rest) if float((update - q @ rest).norm()) <= rounding else None


def essential_directions(update: Tensor, gram: LowRank, rank: int) -> tuple[Tensor, Tensor]:
    """The leading eigenvectors (d_out, rank) and eigenvalues of `Δ FᵀF Δᵀ`, in float64.

    By the k × k Gram of `F Δᵀ`, the outputs' shifts at the kept rows.  A sketch's rest ρ is left
    out: it stands for no token, and would fill with directions of Δ what the rows leave open.
    Directions beyond k are zero.
    """
    shifts = exact(gram.factor) @ exact(update).mT  # (k, d_out)
    if shifts.shape[0] >= shifts.shape[1]:
        return eigh_descending(shifts.mT @ shifts, rank)
    return left_directions(shifts.mT, rank, 1e-12)


def left_directions(y: Tensor, rank: int, floor: float) -> tuple[Tensor, Tensor]:
    """The leading eigenvalues (rank,) and eigenvectors (m, rank) of `Y Yᵀ` for Y (m, n), m > n, or
    for each of a batch (M, m, n).

    They are Y v / √λ for the eigenvectors v of Yᵀ Y, with an error of 1e-16 λ_max/λ; shares of the
    largest eigenvalue below `floor` are too small for a direction.  Beyond n nothing is left: zero.
    """
    values, right = eigh_descending(y.mT @ y, rank)
    least = floor * values[..., :1]
    least = torch.where(least == 0, torch.ones_like(least), least)
    vectors = y @ right / torch.maximum(values, least).sqrt()[..., None, :]
    missing = rank - values.shape[-1]
    pad = torch.nn.functional.pad
    return pad(values, (0, missing)), pad(vectors, (0, missing))
