"""Conjugate gradients on weights, with the trace of what was solved.

The solver knows no models and no methods: it takes callables and tensors.  A numerical failure is
a value with a reason (`Status`), never an exception and never silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from .decompositions import (
    eigh_descending,
    exact,
    inverse_positive,
    like,
    singular_below,
    symmetric,
)
from .operators import Kronecker

Apply = Callable[[Tensor], Tensor]
GROWTH = 1000.0  # CG's residual may rise by the square root of the condition number before it falls


class Status(StrEnum):
    """Why a solve ended."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit"
    STAGNATED = "stagnated"
    NOT_POSITIVE = "not positive semi-definite"
    CLOSED_FORM = "closed form"


@dataclass(frozen=True)
class Solution:
    """What a solve returns.

    value        X, in the shape of the right-hand side
    status       why it stopped
    residuals    relative residuals ‖b − K X‖ / ‖b‖; index 0 is the start
    objectives   ½⟨X, K X⟩ − ⟨b, X⟩; index 0 is the start
    distances    ‖X − X₀‖_F; index 0 is 0
    iterates     X after each iteration that was asked for with `keep`
    true_residual   the relative residual of `value`, recomputed from its definition
    """

    value: Tensor
    status: Status
    residuals: tuple[float, ...]
    objectives: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    iterates: dict[int, Tensor] = field(default_factory=dict)
    true_residual: float = float("nan")

    @property
    def iterations(self) -> int:
        return max(0, len(self.residuals) - 1)


def cg(
    matvec: Apply,
    rhs: Tensor,
    start: Tensor,
    *,
    iterations: int,
    tolerance: float = 0.0,
    preconditioner: Apply | None = None,
    keep: Iterable[int] = (),
    callback: Callable[[int, float], None] | None = None,
) -> Solution:
    """Preconditioned conjugate gradients for `K X = b` from `start`.

    Stops when ‖b − K X‖ ≤ tolerance · ‖b‖, after `iterations`, on a direction of non-positive
    curvature, or when the residual has grown `GROWTH`-fold over its start or is no longer finite;
    then the best iterate so far is returned.  Without a preconditioner it never leaves `start`
    plus the range of K, so on a consistent singular system it lands on the solution nearest to
    `start`; with one it does not, and the system should be damped or anchored.
    `callback(iteration, relative residual)` is called after each; what it raises ends the solve.
    """
    wanted = set(keep)
    scale = float(rhs.norm()) or 1.0
    x = start.clone()
    r = rhs - matvec(x)
    best, best_residual = x, float(r.norm()) / scale
    residuals, distances = [best_residual], [0.0]
    objectives = [_objective(x, r, rhs)]
    iterates = {0: x.clone()} if 0 in wanted else {}
    status = Status.ITERATION_LIMIT
    if best_residual <= max(tolerance, _rounding(rhs)):
        return _solution(
            matvec, rhs, x, Status.CONVERGED, residuals, objectives, distances, iterates
        )
    z = preconditioner(r) if preconditioner else r
    p = z.clone()
    rz = float((r * z).sum())
    size = 0.0  # the largest ‖K p‖ / ‖p‖ so far, a lower bound of ‖K‖
    for iteration in range(1, iterations + 1):
        q = matvec(p)
        curvature, length = float((p * q).sum()), float(p.norm())
        size = max(size, float(q.norm()) / length) if length else size
        if not (curvature > 0 and rz > 0):  # zero, NaN or rounding: stuck; below that: no norm
            negative = curvature < -_rounding(rhs) * size * length**2 or rz < 0
            status = Status.NOT_POSITIVE if negative else Status.STAGNATED
            break
        alpha = rz / curvature
        x = x + alpha * p
        r = r - alpha * q
        residual = float(r.norm()) / scale
        if not math.isfinite(residual) or residual > GROWTH * residuals[0]:
            status = Status.STAGNATED
            break
        residuals.append(residual)
        objectives.append(_objective(x, r, rhs))
        distances.append(float((x - start).norm()))
        if callback is not None:
            callback(iteration, residual)
        if iteration in wanted:
            iterates[iteration] = x.clone()
        if residual < best_residual:
            best, best_residual = x, residual
        if residual <= max(tolerance, _rounding(rhs)):
            status = Status.CONVERGED
            break
        z = preconditioner(r) if preconditioner else r
        rz, previous = float((r * z).sum()), rz
        p = z + (rz / previous) * p
    value = best if status in (Status.STAGNATED, Status.NOT_POSITIVE) else x
    return _solution(matvec, rhs, value, status, residuals, objectives, distances, iterates)


def _rounding(rhs: Tensor) -> float:
    """The relative residual below which the arithmetic cannot go."""
    return 4 * torch.finfo(rhs.dtype).eps


def _objective(x: Tensor, r: Tensor, rhs: Tensor) -> float:
    # ½⟨X, K X⟩ − ⟨b, X⟩ with K X = b − r: no further product with K.
    return -0.5 * float((x * (rhs + r)).sum())


def _solution(
    matvec: Apply,
    rhs: Tensor,
    value: Tensor,
    status: Status,
    residuals: list[float],
    objectives: list[float],
    distances: list[float],
    iterates: dict[int, Tensor],
) -> Solution:
    true = float((rhs - matvec(value)).norm()) / (float(rhs.norm()) or 1.0)
    return Solution(
        value, status, tuple(residuals), tuple(objectives), tuple(distances), iterates, true
    )


def jacobi(diagonal: Tensor) -> Apply:
    """Divide by the operator's diagonal; where that is zero, pass through scaled by its mean."""
    floor = diagonal.mean().clamp_min(torch.finfo(diagonal.dtype).tiny)
    safe = torch.where(diagonal > 1e-12 * floor, diagonal, floor)
    return lambda r: r / safe


def kronecker(a_sum: Tensor, b_sum: Tensor, shift: float = 0.0) -> Apply:
    """`P⁻¹R = T_B((T_Bᵀ R T_A) ⊘ (λ_B λ_Aᵀ + shift)) T_Aᵀ` from the eigenbases of ΣA_m and ΣB_m.

    `a_sum` and `b_sum` are scaled so that their Kronecker product has the size of the operator;
    `shift` is the proximal term μ s.
    """
    return kronecker_in(eigh_descending(a_sum), eigh_descending(b_sum), shift)


def kronecker_inverse(a_sum: Tensor, b_sum: Tensor) -> Apply | None:
    """`P⁻¹R = B̄⁻¹ R Ā⁻¹`: the same preconditioner without a shift, in two products instead of four.

    None where a sum is too ill-conditioned for its inverse; `kronecker` still works there.  Turning
    the whole system into the eigenbases would make P⁻¹ free, but costs as much as two iterations
    (square layers) to six (4 : 1), and the two products here an M-th of one.
    """
    a, b = inverse_positive(a_sum), inverse_positive(b_sum)
    if a is None or b is None:
        return None
    return lambda r: b @ r @ a


Eigen = tuple[Tensor, Tensor]


def kronecker_in(a: Eigen, b: Eigen, shift: float = 0.0) -> Apply:
    """`kronecker`, from the (eigenvalues, eigenvectors) of its two sums."""
    (values_a, q_a), (values_b, q_b) = a, b
    values = torch.outer(values_b, values_a) + shift
    values = values.clamp_min(1e-12 * float(values.max()) or 1e-300)
    return lambda r: q_b @ ((q_b.mT @ r @ q_a) / values) @ q_a.mT


def two_models(
    first: Kronecker, second: Kronecker, weights: tuple[float, float], rhs: Tensor, start: Tensor
) -> Solution | None:
    """`(α₁ B₁⊗A₁ + α₂ B₂⊗A₂) X = rhs` without iterations, or None where it is singular.

    The generalised eigenvectors V of `(A₂, A₁ + A₂)` (and of the B's) turn A₂ into D and A₁ into
    I − D at once, so the whole operator becomes elementwise.  Exact in float64.
    """
    basis_a = _joint_basis(first.a, second.a)
    basis_b = _joint_basis(first.b, second.b)
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
    residuals = tuple(float((rhs - matvec(x)).norm()) / scale for x in (start, value))
    distances = (0.0, float((value - start).norm()))
    objectives = tuple(_objective(x, rhs - matvec(x), rhs) for x in (start, value))
    return Solution(value, Status.CLOSED_FORM, residuals, objectives, distances, {}, residuals[-1])


def _joint_basis(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor] | None:
    """D and V with `Vᵀ(first + second)V = I` and `Vᵀ second V = D`; None if the sum is singular."""
    total = symmetric(exact(first) + exact(second))
    factor, info = torch.linalg.cholesky_ex(total)
    diagonal = factor.diagonal()
    limit = singular_below(first.dtype)
    if int(info) or float(diagonal.min()) ** 2 <= limit * float(diagonal.max()) ** 2:
        return None
    half = torch.linalg.solve_triangular(factor, symmetric(exact(second)), upper=False)
    whitened = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    d, vectors = torch.linalg.eigh(symmetric(whitened))
    return d.clamp(0, 1), torch.linalg.solve_triangular(factor.mT, vectors, upper=True)
