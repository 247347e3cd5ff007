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

Apply = Callable[[Tensor], Tensor]
GROWTH = 1000.0  # CG's residual may rise by the square root of the condition number before it falls


class Status(StrEnum):
    """The reason why a solve ended."""

    CONVERGED = "converged"
    ITERATION_LIMIT = "iteration limit"
    STAGNATED = "stagnated"
    NOT_POSITIVE = "not positive semi-definite"
    CLOSED_FORM = "closed form"


@dataclass(frozen=True)
class Solution:
    """The result of a solve.

    value        X, in the shape of the right-hand side
    status       why the iteration stopped
    residuals    relative residuals ‖b − K X‖ / ‖b‖; index 0 is the start
    objectives   ½⟨X, K X⟩ − ⟨b, X⟩; index 0 is the start
    distances    ‖X − X₀‖_F; index 0 is 0
    errors       estimates ‖P⁻¹(b − K X)‖_F / ‖X − O‖_F of the relative error of X seen from the
                 origin O, NaN at O itself; () without a preconditioner P or an origin
    iterates     X after each iteration that was asked for with `keep`
    """

    value: Tensor
    status: Status
    residuals: tuple[float, ...]
    objectives: tuple[float, ...] = ()
    distances: tuple[float, ...] = ()
    errors: tuple[float, ...] = ()
    iterates: dict[int, Tensor] = field(default_factory=dict)

    @property
    def iterations(self) -> int:
        """The number of iterations that were run."""
        return max(0, len(self.residuals) - 1)


def cg(
    matvec: Apply,
    rhs: Tensor,
    start: Tensor,
    *,
    iterations: int,
    tolerance: float = 0.0,
    preconditioner: Apply | None = None,
    residual: Tensor | None = None,
    error: float | None = None,
    origin: Tensor | None = None,
    keep: Iterable[int] = (),
    callback: Callable[[int, float], None] | None = None,
) -> Solution:
    """The solution of `K X = b` by preconditioned conjugate gradients from `start`.

    Stops when ‖b − K X‖ ≤ tolerance · ‖b‖, after `iterations`, on a direction of non-positive
    curvature, or when the residual has grown `GROWTH`-fold over its start or is no longer finite;
    then the best iterate so far is returned.  Without a preconditioner it never leaves `start`
    plus the range of K, so on a consistent singular system it lands on the solution nearest to
    `start`; with one it does not, and the system should be damped or anchored.
    `residual` is `b − K X₀`, where it is known: one product less.
    `origin`: where the size of X is told from in `Solution.errors`, such as the base's weight; a
    shape that broadcasts serves.  With `error` the solve stops where that estimate of the error is
    as small, and not by `tolerance`: the residual of an ill-conditioned system is small long before
    X is near.  Of a preconditioner that takes small eigenvalues for larger ones the estimate is too
    small.  Without a preconditioner there is none, and `tolerance` holds.
    `callback(iteration, relative residual)` is called after each; what it raises ends the solve.
    """
    wanted = set(keep)
    scale = float(rhs.norm()) or 1.0
    # Below four times the rounding of the arithmetic no residual can go.
    rounding = 4 * torch.finfo(rhs.dtype).eps
    seen_from = None if preconditioner is None else origin
    goal = (error or 0.0) if seen_from is not None else 0.0
    enough = rounding if goal else max(tolerance, rounding)
    x = start.clone()
    r = rhs - matvec(x) if residual is None else residual
    best, best_residual = x, float(r.norm()) / scale
    residuals, distances = [best_residual], [0.0]
    objectives = [_objective(x, r, rhs)]
    iterates = {0: x.clone()} if 0 in wanted else {}
    status = Status.CONVERGED if best_residual <= enough else Status.ITERATION_LIMIT
    z = preconditioner(r) if preconditioner else r
    errors = [] if seen_from is None else [_error(z, x, seen_from)]
    p, rz = r, 1.0
    size = 0.0  # the largest ‖K p‖ / ‖p‖ so far, a lower bound of ‖K‖
    for iteration in range(1, 1 if status == Status.CONVERGED else iterations + 1):
        rz, previous = float((r * z).sum()), rz
        p = z + (rz / previous) * p if iteration > 1 else z
        q = matvec(p)
        curvature, length = float((p * q).sum()), float(p.norm())
        size = max(size, float(q.norm()) / length) if length else size
        if not (curvature > 0 and rz > 0):  # zero, NaN or rounding: stuck; below that: no norm
            negative = curvature < -rounding * size * length**2 or rz < 0
            status = Status.NOT_POSITIVE if negative else Status.STAGNATED
            break
        alpha = rz / curvature
        x = x + alpha * p
        r = r - alpha * q
        relative = float(r.norm()) / scale
        if not math.isfinite(relative) or relative > GROWTH * residuals[0]:
            status = Status.STAGNATED
            break
        residuals.append(relative)
        objectives.append(_objective(x, r, rhs))
        distances.append(float((x - start).norm()))
        z = preconditioner(r) if preconditioner else r
        if seen_from is not None:
            errors.append(_error(z, x, seen_from))
        if callback is not None:
            callback(iteration, relative)
        if iteration in wanted:
            iterates[iteration] = x.clone()
        if relative < best_residual:
            best, best_residual = x, relative
        if relative <= enough or (goal and errors[-1] <= goal):
            status = Status.CONVERGED
            break
    value = best if status in (Status.STAGNATED, Status.NOT_POSITIVE) else x
    trace = tuple(residuals), tuple(objectives), tuple(distances), tuple(errors)
    return Solution(value, status, *trace, iterates)


def _error(z: Tensor, x: Tensor, origin: Tensor) -> float:
    # K e = r with K near P: e is about P⁻¹r.
    size = float((x - origin).norm())
    return float(z.norm()) / size if size else math.nan


def _objective(x: Tensor, r: Tensor, rhs: Tensor) -> float:
    # ½⟨X, K X⟩ − ⟨b, X⟩ with K X = b − r: no further product with K.
    return -0.5 * float((x * (rhs + r)).sum())
