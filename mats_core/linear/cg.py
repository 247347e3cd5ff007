"""Conjugate gradients on weights, with the trace of what was solved.

The solver knows no models and no methods: it takes callables and tensors.  A numerical failure is
a value with a reason (`Status`), never an exception and never silent.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor

from .apart import host, is_apart

Apply = Callable[[Tensor], Tensor]
GROWTH = 1000.0  # CG's residual may rise by the square root of the condition number before it falls
UNREAD = 8  # iterations at most that run on a GPU before their numbers are looked at, together
FEW = 2  # of them while the residual has not fallen yet


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
    On a GPU numbers are read of several iterations at once, and what ran past the end is dropped:
    the answer, the trace and the number of iterations are those of a look after each.
    """
    wanted = set(keep)
    # Below four times the rounding of the arithmetic no residual can go.
    rounding = 4 * torch.finfo(rhs.dtype).eps
    seen_from = None if preconditioner is None else origin
    goal = (error or 0.0) if seen_from is not None else 0.0
    enough = rounding if goal else max(tolerance, rounding)
    steps = _steps(matvec, rhs, start, preconditioner, residual, seen_from)
    (x, numbers), *_ = _read(steps, 1)
    scale = numbers[0] or 1.0
    best, best_residual = x, numbers[1] / scale
    residuals, distances = [best_residual], [0.0]
    objectives = [-0.5 * numbers[2]]
    errors = [] if seen_from is None else [_error(*numbers[3:])]
    iterates = {0: x.clone()} if 0 in wanted else {}
    status = Status.CONVERGED if best_residual <= enough else Status.ITERATION_LIMIT
    size = 0.0  # the largest ‖K p‖ / ‖p‖ so far, a lower bound of ‖K‖

    def unread() -> int:
        if not is_apart(rhs):
            return 1
        return _ahead(errors, goal) if goal else _ahead(residuals, enough)

    limit = 0 if status == Status.CONVERGED else iterations
    for iteration, (moved, numbers) in enumerate(_looked_at(steps, limit, unread), 1):
        rz, curvature, length, product, norm, inner, distance, *sizes = numbers
        size = max(size, product / length) if length else size
        if not (curvature > 0 and rz > 0):  # zero, NaN or rounding: stuck; below that: no norm
            negative = curvature < -rounding * size * length**2 or rz < 0
            status = Status.NOT_POSITIVE if negative else Status.STAGNATED
            break
        relative = norm / scale
        if not math.isfinite(relative) or relative > GROWTH * residuals[0]:
            status = Status.STAGNATED
            break
        x = moved
        residuals.append(relative)
        objectives.append(-0.5 * inner)
        distances.append(distance)
        if seen_from is not None:
            errors.append(_error(*sizes))
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


Step = tuple[Tensor, list[Tensor]]  # X, and numbers of it that are still on its device


def _steps(
    matvec: Apply,
    rhs: Tensor,
    start: Tensor,
    preconditioner: Apply | None,
    residual: Tensor | None,
    origin: Tensor | None,
) -> Iterator[Step]:
    """The start with ‖b‖, ‖r‖ and ⟨x, b + r⟩, then iterate after iterate with ⟨r, z⟩, ⟨p, q⟩, ‖p‖,
    ‖q‖, ‖r‖, ⟨x, b + r⟩ and ‖x − x₀‖; with an origin ‖z‖ and ‖x − origin‖ as well.

    Without a look at a number: what comes after a breakdown is not meant to be used.
    """

    def seen() -> list[Tensor]:
        return [] if origin is None else [z.norm(), (x - origin).norm()]

    x = start.clone()
    r = rhs - matvec(x) if residual is None else residual
    z = preconditioner(r) if preconditioner else r
    yield x, [rhs.norm(), r.norm(), _inner(x, rhs + r), *seen()]
    p, rz = z, _inner(r, z)
    while True:
        q = matvec(p)
        curvature = _inner(p, q)
        told = [rz, curvature, p.norm(), q.norm()]
        alpha = rz / curvature
        x = _moved(x, alpha, p)
        r = _moved(r, -alpha, q)
        z = preconditioner(r) if preconditioner else r
        yield x, [*told, r.norm(), _inner(x, rhs + r), (x - start).norm(), *seen()]
        rz, previous = _inner(r, z), rz
        p = _moved(z, rz / previous, p)


def _inner(one: Tensor, other: Tensor) -> Tensor:
    # One pass on a GPU; on the CPU the product first, whose sum is the more exact one.
    if is_apart(one):
        return torch.dot(one.reshape(-1), other.reshape(-1))
    return (one * other).sum()


def _moved(value: Tensor, factor: Tensor, direction: Tensor) -> Tensor:
    if is_apart(value):
        return torch.addcmul(value, factor, direction)
    return value + factor * direction


def _looked_at(
    steps: Iterator[Step], limit: int, unread: Callable[[], int]
) -> Iterator[tuple[Tensor, list[float]]]:
    """At most `limit` steps with their numbers, read together as many as `unread` says each time"""
    done = 0
    while done < limit:
        count = min(unread(), limit - done)
        yield from _read(steps, count)
        done += count


def _read(steps: Iterator[Step], count: int) -> list[tuple[Tensor, list[float]]]:
    taken = list(itertools.islice(steps, count))
    return [(x, row) for (x, _), row in zip(taken, host([n for _, n in taken]), strict=True)]


def _ahead(values: Sequence[float], goal: float) -> int:
    """How many iterations are run before the next look: half of those that are left at the rate so
    far, `UNREAD` at most.  What was run past the goal is thrown away."""
    first, last = values[0], values[-1]
    if not 0 < goal < last < first:
        return 1 if len(values) == 1 else FEW
    left = (len(values) - 1) * math.log(last / goal) / math.log(first / last)
    return max(1, min(UNREAD, int(left / 2)))


def _error(z: float, x: float) -> float:
    # K e = r with K near P: e is about P⁻¹r.
    return z / x if x else math.nan


def _objective(x: Tensor, r: Tensor, rhs: Tensor) -> float:
    # ½⟨X, K X⟩ − ⟨b, X⟩ with K X = b − r: no further product with K.
    return -0.5 * float(_inner(x, rhs + r))
