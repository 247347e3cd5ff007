"""The system of two Kronecker blocks in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .cg import Solution, Status, _objective
from .decompositions import exact, like, regular_factor, singular_below, symmetric
from .fallbacks import eigh
from .lowrank import matrix
from .operators import Kronecker


def two_models(
    first: Kronecker, second: Kronecker, weights: Sequence[float], rhs: Tensor, start: Tensor
) -> Solution | None:
    """`(α₁ B₁⊗A₁ + α₂ B₂⊗A₂) X = rhs` without iterations, or None where it is singular.

    The generalised eigenvectors V of `(A₂, A₁ + A₂)` (and of the B's) turn A₂ into D and A₁ into
    I − D at once, so the whole operator becomes elementwise.  Exact in float64.
    """
    basis_a = _joint_basis(matrix(first.a), matrix(second.a))
    basis_b = _joint_basis(matrix(first.b), matrix(second.b))
    if basis_a is None or basis_b is None:
        return None
    (d_a, v_a), (d_b, v_b) = basis_a, basis_b
    values = weights[0] * torch.outer(1 - d_b, 1 - d_a) + weights[1] * torch.outer(d_b, d_a)
    # A direction that one task sees only by its outputs and the other only by its inputs.
    if float(values.min()) <= singular_below(rhs.dtype) * float(values.max()):
        return None
    value = like(v_b @ ((v_b.mT @ exact(rhs) @ v_a) / values) @ v_a.mT, rhs)

    def matvec(x: Tensor) -> Tensor:
        return weights[0] * first.apply(x) + weights[1] * second.apply(x)

    scale = float(rhs.norm()) or 1.0
    left = [(x, rhs - matvec(x)) for x in (start, value)]
    residuals = tuple(float(r.norm()) / scale for _, r in left)
    distances = (0.0, float((value - start).norm()))
    objectives = tuple(_objective(x, r, rhs) for x, r in left)
    return Solution(value, Status.CLOSED_FORM, residuals, objectives, distances)


def _joint_basis(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor] | None:
    """D and V with `Vᵀ(first + second)V = I` and `Vᵀ second V = D`; None if the sum is singular."""
    factor = regular_factor(exact(first) + exact(second), first.dtype)
    if factor is None:
        return None
    half = torch.linalg.solve_triangular(factor, symmetric(exact(second)), upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    d, vectors = eigh(symmetric(whitened))
    return d.clamp(0, 1), torch.linalg.solve_triangular(factor.mT, vectors, upper=True)
