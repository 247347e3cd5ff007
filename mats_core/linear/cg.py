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
    seen_from = None if preconditioner is None else origin
    goal = (error or 0.0) if seen_from is not None else 0.0
    # Below four times the rounding of the arithmetic no residual can go.
    rounding = 4 * torch.finfo(rhs.dtype).eps
    steps = _steps(matvec, rhs, start, preconditioner, residual, seen_from)
    solve = _Solve(*_read(steps, 1)[0], rounding, rounding if goal else tolerance, goal)
    iterates = {0: solve.x.clone()} if 0 in wanted else {}
    limit = 0 if solve.reached() else iterations
    unread = solve.unread if is_apart(rhs) else _one
    for iteration, (x, numbers) in enumerate(_looked_at(steps, limit, unread), 1):
        if not solve.take(x, numbers):
            break
        if callback is not None:
            callback(iteration, solve.residuals[-1])
        if iteration in wanted:
            iterates[iteration] = x.clone()
        if solve.reached():
            break
    return solve.solution(iterates)


class _Solve:
    """A solve under way: where it is, the best so far, and the trace.

    numbers    of the start, as `_steps` yields them
    rounding   of the arithmetic, on the scale of relative residuals
    enough     the relative residual at which it ends; `goal`, the estimate of the error, if not 0
    """

    def __init__(
        self, x: Tensor, numbers: list[float], rounding: float, enough: float, goal: float
    ) -> None:
        bound, norm, inner, *sizes = numbers
        self.scale = bound or 1.0
        self.x = self.best = x
        self.rounding, self.enough, self.goal = rounding, max(enough, rounding), goal
        self.residuals, self.distances = [norm / self.scale], [0.0]
        self.objectives = [-0.5 * inner]
        self.errors = [_error(*sizes)] if sizes else []
        self.best_residual = self.residuals[0]
        self.status = Status.ITERATION_LIMIT
        self.size = 0.0  # the largest ‖K p‖ / ‖p‖ so far, a lower bound of ‖K‖

    def take(self, x: Tensor, numbers: list[float]) -> bool:
        """Whether an iteration counts; one that broke down does not, and is the status."""
        rz, curvature, length, product, norm, inner, distance, *sizes = numbers
        self.size = max(self.size, product / length) if length else self.size
        if not (curvature > 0 and rz > 0):  # zero, NaN or rounding: stuck; below that: no norm
            negative = curvature < -self.rounding * self.size * length**2 or rz < 0
            self.status = Status.NOT_POSITIVE if negative else Status.STAGNATED
            return False
        relative = norm / self.scale
        if not math.isfinite(relative) or relative > GROWTH * self.residuals[0]:
            self.status = Status.STAGNATED
            return False
        self.x = x
        self.residuals.append(relative)
        self.objectives.append(-0.5 * inner)
        self.distances.append(distance)
        self.errors += [_error(*sizes)] if sizes else []
        if relative < self.best_residual:
            self.best, self.best_residual = x, relative
        return True

    def reached(self) -> bool:
        """Whether it is where it should come to; then that is the status."""
        near = len(self.residuals) > 1 and bool(self.goal) and self.errors[-1] <= self.goal
        if self.residuals[-1] <= self.enough or near:
            self.status = Status.CONVERGED
        return self.status == Status.CONVERGED

    def unread(self) -> int:
        """How many iterations may run on a GPU before the next look."""
        if self.goal:
            return _ahead(self.errors, self.goal)
        return _ahead(self.residuals, self.enough)

    def solution(self, iterates: dict[int, Tensor]) -> Solution:
        """Where it ended: at the best so far, if it broke down."""
        broken = self.status in (Status.STAGNATED, Status.NOT_POSITIVE)
        return Solution(
            self.best if broken else self.x, self.status, tuple(self.residuals),
            tuple(self.objectives), tuple(self.distances), tuple(self.errors), iterates,
        )  # fmt: skip


def _one() -> int:
    """A look after each iteration."""
    return 1


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
