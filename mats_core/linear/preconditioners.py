"""Preconditioners of conjugate gradients: Jacobi, and Kronecker by eigenbases or inverses."""

from __future__ import annotations

import torch
from torch import Tensor

from .cg import Apply
from .decompositions import inverse_positive


def jacobi(diagonal: Tensor) -> Apply:
    """A preconditioner that divides by the diagonal, or by its mean where an entry is zero."""
    floor = diagonal.mean().clamp_min(torch.finfo(diagonal.dtype).tiny)
    safe = torch.where(diagonal > 1e-12 * floor, diagonal, floor)
    return lambda r: r / safe


def floored(values: Tensor) -> Tensor:
    """Eigenvalues to divide by, none of them below a trillionth of the largest, or zero."""
    return values.clamp_min(1e-12 * float(values.max()) or torch.finfo(values.dtype).tiny)


Eigen = tuple[Tensor, Tensor]  # eigenvalues λ (n,), and their vectors T as columns (n, n)


def kronecker(a: Eigen, b: Eigen, shift: float = 0.0) -> Apply:
    """A preconditioner `P⁻¹R = T_B((T_Bᵀ R T_A) ⊘ (λ_B λ_Aᵀ + shift)) T_Aᵀ`.

    `a`, `b`: the eigenbases of ΣA_m and ΣB_m, scaled so that the Kronecker product of the sums has
    the size of the operator; `shift` is the proximal term μ s.
    """
    (values_a, q_a), (values_b, q_b) = a, b
    values = floored(torch.outer(values_b, values_a) + shift)
    return lambda r: q_b @ ((q_b.mT @ r @ q_a) / values) @ q_a.mT


def kronecker_inverse(a_sum: Tensor, b_sum: Tensor) -> Apply | None:
    """A preconditioner `P⁻¹R = B̄⁻¹ R Ā⁻¹`: `kronecker` without shift, two products for four.

    None where a sum is too ill-conditioned for its inverse; `kronecker` still works then.  Turning
    the whole system into the eigenbases would make P⁻¹ free, but costs as much as two iterations
    (square layers) to six (4 : 1), and the two products here an M-th of one.
    """
    a, b = inverse_positive(a_sum), inverse_positive(b_sum)
    if a is None or b is None:
        return None
    return lambda r: b @ r @ a
