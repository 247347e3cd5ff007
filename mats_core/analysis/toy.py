"""Two parameters, a few tasks: the smallest merge in which everything can be seen.

Task m has the loss `½ (w − w_m)ᵀ C_m (w − w_m)` over w of shape (2,).  C_m is drawn as the ellipse
on which the loss is ½: long half-axes are directions that the task does not mind.  What is computed
here goes through the operators, solver and decompositions of the library, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .. import linear
from ..errors import InputError
from ..linear import Dense, Diagonal, Operator, WeightedSum, damped, polar, solve_positive
from ..methods import essential_subspace, relative_power

Point = tuple[float, float]
Preconditioner = Literal["none", "jacobi"]
LONGEST = 1000.0  # of a half-axis over the other: curvatures then differ by a million


@dataclass(frozen=True)
class Task:
    """A quadratic loss, as the ellipse on which it is ½.

    name     of the task
    centre   w_m, where the loss is zero
    angle    of the first half-axis against the first parameter, in degrees
    axes     half-axes (a, b); the curvature along them is 1/a² and 1/b²
    """

    name: str
    centre: Point
    angle: float
    axes: tuple[float, float]

    def __post_init__(self) -> None:
        numbers = (*self.centre, self.angle, *self.axes)
        if len(numbers) != 5 or not all(math.isfinite(number) for number in numbers):
            raise InputError(
                f"task '{self.name}'", expected="five finite numbers", found=str(numbers)
            )
        small, large = sorted(self.axes)
        if not small > 0 or large > LONGEST * small:
            raise InputError(
                f"half-axes of task '{self.name}'",
                expected=f"positive numbers, one at most {LONGEST:g} times the other",
                found=f"{self.axes[0]:g} and {self.axes[1]:g}",
            )

    @property
    def curvature(self) -> Tensor:
        """The curvature C_m (2, 2) = R diag(1/a², 1/b²) Rᵀ."""
        cos, sin = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        turn = _tensor([[cos, -sin], [sin, cos]])
        return turn @ torch.diag(_tensor(self.axes) ** -2) @ turn.mT

    def loss(self, point: Point) -> float:
        """The loss `½ (w − w_m)ᵀ C_m (w − w_m)` at a point."""
        step = _tensor(point) - _tensor(self.centre)
        return 0.5 * float(step @ Dense(self.curvature).apply(step))


@dataclass(frozen=True)
class Merged:
    """The outcome of one way to merge.

    name     of the way
    point    the merged w
    losses   of every task at this point
    """

    name: str
    point: Point
    losses: tuple[float, ...]

    @property
    def total(self) -> float:
        """The summed loss of the tasks."""
        return sum(self.losses)


@dataclass(frozen=True)
class Walk:
    """Conjugate gradients from a start.

    points      w after 0, 1, 2, ... iterations
    losses      summed loss of the tasks (undamped) at each
    distances   ‖w − start‖ at each
    residuals   relative residuals of the system that is solved
    target      the exact solution of that system, with damping and anchor
    status      why it ended
    """

    points: tuple[Point, ...]
    losses: tuple[float, ...]
    distances: tuple[float, ...]
    residuals: tuple[float, ...]
    target: Point
    status: str


@dataclass(frozen=True)
class Essential:
    """Essential Subspace Merging of a layer with one input and two outputs: Δ_m is (2, 1).

    updates      Δ_m = w_m − origin
    directions   E_m, the essential direction of each task, towards its Δ_m
    spread       singular values of E_cat: (1, 1) where the directions are orthogonal
    freed        columns of polar(E_cat) · mean σ, in the tasks' order
    weights      polarized scaling, level 1: (‖Δ_m‖ / mean)^p
    moves        what each task adds to the merge: its freed direction · ‖Δ_m‖ · weight
    point        origin + the sum of the moves
    kept         share of each task's move that the merge contains (`kept`)
    plain        origin + Σ Δ_m, task arithmetic, and
    plain_kept   the same shares of it
    """

    updates: tuple[Point, ...]
    directions: tuple[Point, ...]
    spread: tuple[float, ...]
    freed: tuple[Point, ...]
    weights: tuple[float, ...]
    moves: tuple[Point, ...]
    point: Point
    kept: tuple[float, ...]
    plain: Point
    plain_kept: tuple[float, ...]


def solutions(tasks: Sequence[Task]) -> tuple[Merged, ...]:
    """The merges by averaging, by diagonal Fisher and by full curvature.

    All minimise `Σ_m (w − w_m)ᵀ C_m (w − w_m)`; they differ in what they keep of C_m: nothing
    (C = I), its diagonal, all of it (arXiv 2312.04339).
    """
    _some(tasks)
    ones = torch.ones(2, dtype=torch.float64)
    seen: dict[str, list[Operator]] = {
        "average": [Diagonal(ones) for _ in tasks],
        "Fisher": [Diagonal(task.curvature.diagonal()) for task in tasks],
        "full": [Dense(task.curvature) for task in tasks],
    }
    merged = []
    for name, terms in seen.items():
        operator = WeightedSum(tuple(terms), (1.0,) * len(terms))
        point = _point(_solved(operator.dense(), _right(tasks, terms)))
        merged.append(Merged(name, point, tuple(task.loss(point) for task in tasks)))
    return tuple(merged)


def summed_curvature(tasks: Sequence[Task]) -> Tensor:
    """The curvature Σ_m C_m (2, 2) of the summed loss."""
    return WeightedSum(_dense(tasks, 0.0), (1.0,) * len(tasks)).dense()


def walk(
    tasks: Sequence[Task],
    start: Point,
    *,
    iterations: int = 2,
    preconditioner: Preconditioner = "none",
    damping: float = 0.0,
    anchor: float = 0.0,
) -> Walk:
    """The iterates of CG on `Σ_m C_m w = Σ_m C_m w_m` from `start`, as in the method `kfac`.

    `damping` δ adds δ (tr C_m / 2) I to every C_m and so pulls the solution towards an average
    weighted by the traces; `anchor` μ adds μ s I to the sum, s its mean diagonal, and pulls
    towards the start.  Raises `InputError` for numbers that are not finite or negative.
    """
    _some(tasks)
    if not all(math.isfinite(value) for value in start):
        raise InputError("start", expected="two finite numbers", found=str(start))
    for name, value in (("iterations", iterations), ("damping", damping), ("anchor", anchor)):
        if not (math.isfinite(value) and value >= 0):
            raise InputError(name, expected="a finite number of at least 0", found=str(value))
    terms, first = _dense(tasks, damping), _tensor(start)
    operator = WeightedSum(terms, (1 / len(tasks),) * len(tasks))
    shift = anchor * float(operator.diagonal().mean())
    right = _right(tasks, terms) / len(tasks) + shift * first
    jacobi = linear.jacobi(operator.diagonal() + shift) if preconditioner == "jacobi" else None
    solution = linear.cg(
        lambda x: operator.apply(x) + shift * x,
        right,
        first,
        iterations=iterations,
        preconditioner=jacobi,
        keep=range(iterations + 1),
    )
    points = tuple(_point(solution.iterates[i]) for i in sorted(solution.iterates))
    identity = torch.eye(2, dtype=torch.float64)
    return Walk(
        points=points,
        losses=tuple(sum(task.loss(point) for task in tasks) for point in points),
        distances=solution.distances,
        residuals=solution.residuals,
        target=_point(_solved(operator.dense() + shift * identity, right)),
        status=str(solution.status),
    )


def essential_step(
    tasks: Sequence[Task], *, task_power: float = 0.0, origin: Point = (0.0, 0.0)
) -> Essential:
    """The outcome of steps 1, 2, 4 and 6 of ESM (arXiv 2602.20208), one direction a task.

    The moves sum to ½ Δ with the Δ of `methods.essential.essential_update` (½ takes its factor 2
    back): moves in orthogonal directions are added, moves in one direction are averaged.  Tasks
    that did not move have no direction.
    """
    _some(tasks)
    base, one = _tensor(origin), torch.ones(1, 1, dtype=torch.float64)
    updates = [(_tensor(task.centre) - base)[:, None] for task in tasks]
    directions, lengths = [], []
    for update in updates:
        e, _ = essential_subspace(update, one, 1)
        coordinate = float(e.mT @ update)
        directions.append(-e if coordinate < 0 else e)  # an eigenvector's sign means nothing
        lengths.append(abs(coordinate))
    e_cat = torch.cat(directions, 1)
    factor, spread, _ = polar(e_cat)
    freed = factor * spread.mean()
    weights = relative_power(torch.stack([update.norm() for update in updates]), task_power)
    moves = freed * (_tensor(lengths) * weights)
    point, plain = _point(base + moves.sum(1)), _point(base + torch.cat(updates, 1).sum(1))
    return Essential(
        updates=_columns(torch.cat(updates, 1)),
        directions=_columns(e_cat),
        spread=tuple(spread.tolist()),
        freed=_columns(freed),
        weights=tuple(weights.tolist()),
        moves=_columns(moves),
        point=point,
        kept=kept(tasks, point, origin),
        plain=plain,
        plain_kept=kept(tasks, plain, origin),
    )


def kept(tasks: Sequence[Task], point: Point, origin: Point = (0.0, 0.0)) -> tuple[float, ...]:
    """The shares `⟨w − origin, Δ_m⟩ / ‖Δ_m‖²`: 1 for a merge as far along Δ_m as expert m.

    Above 1 it overshoots (others push the same way), below 1 others hold it back.  0 for a task
    that did not move.
    """
    way = _tensor(point) - _tensor(origin)
    shares = []
    for task in tasks:
        own = _tensor(task.centre) - _tensor(origin)
        square = float(own @ own)
        shares.append(float(way @ own) / square if square > 0 else 0.0)
    return tuple(shares)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    value = solve_positive(matrix, right[None])
    if value is None:  # cannot happen within LONGEST; said rather than hidden
        raise InputError("these ellipses", expected="curvature in every direction", found="none")
    return value[0]


def _right(tasks: Sequence[Task], terms: Sequence[Operator]) -> Tensor:
    """Σ_m C_m w_m."""
    return torch.stack(
        [term.apply(_tensor(task.centre)) for task, term in zip(tasks, terms, strict=True)]
    ).sum(0)


def _dense(tasks: Sequence[Task], damping: float) -> tuple[Operator, ...]:
    return tuple(Dense(damped(task.curvature, damping)) for task in tasks)


def _some(tasks: Sequence[Task]) -> None:
    if not tasks:
        raise InputError("tasks", expected="at least one", found="none")


def _tensor(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def _point(value: Tensor) -> Point:
    x, y = value.tolist()
    return (x, y)


def _columns(matrix: Tensor) -> tuple[Point, ...]:
    return tuple(_point(column) for column in matrix.mT)


__all__ = [
    "Essential", "Merged", "Point", "Preconditioner", "Task", "Walk", "essential_step",
    "kept", "solutions", "summed_curvature", "walk",
]  # fmt: skip
