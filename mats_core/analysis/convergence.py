"""Accuracy along the iterations of one solve: what conjugate gradients pass on their way.

A merge by conjugate gradients is run once, with the iterates of chosen iterations kept; for each
of them the encoder is put together and evaluated.  A layer that stopped earlier keeps its final
value, and parameters that are not solved for (biases, norms) are the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..evaluation import Asked, TaskResult, evaluate, exam
from ..merging import Event, Finished, Inputs, LayerDone, Recipe, Report, open_inputs, run
from ..methods import METHODS
from ..names import bias_of
from ..tasks import SplitName

GRID = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Point:
    """The merge after so many iterations, on every task.

    iteration   0 is the start
    results     of every task
    """

    iteration: int
    results: tuple[TaskResult, ...]

    @property
    def normalised_accuracy(self) -> float:
        """The mean over tasks of merged / expert accuracy."""
        return evaluate.normalised_accuracy(self.results)


@dataclass(frozen=True)
class Trajectory:
    """The points of one solve, and its settings.

    options    the method's options
    points     one for each iteration that was kept
    report     of the merge, with every layer's residuals
    split      that was tested on, and
    examples   at most so many of it a task
    """

    options: Mapping[str, Any]
    points: tuple[Point, ...]
    report: Report
    split: str
    examples: int | None = None


@dataclass(frozen=True)
class PointDone:
    """Event: `point`, number `index` of `total`, is evaluated."""

    point: Point
    index: int
    total: int


@dataclass(frozen=True)
class TrajectoryDone:
    """Event, the last one: the whole `trajectory`."""

    trajectory: Trajectory = field(repr=False)


def grid(iterations: int) -> tuple[int, ...]:
    """The iterations that are worth a look: 0, 1, 2, 5, 10, ... and the last."""
    return tuple(sorted({*(step for step in GRID if step < iterations), iterations}))


def follow(
    recipe: Recipe,
    *,
    inputs: Inputs | None = None,
    keep: Sequence[int] | None = None,
    split: SplitName = "validation",
    examples: int | None = 200,
    pulse: Callable[[int, float], None] | None = None,
) -> Iterator[Event | PointDone | TrajectoryDone]:
    """Events of a merge whose iterates are evaluated: the merge's, a `PointDone` for each iterate,
    and `TrajectoryDone`.

    `keep`: the iterations to look at (`grid` of the recipe's by default).  `pulse`: see `run`.
    Closing the generator
    cancels it.  Raises `InputError` for a method without iterations or a family without tasks.
    """
    options, solve = recipe.parsed_options().model_dump(), METHODS[recipe.method].solve
    if solve is None:
        solving = [f"'{name}'" for name, method in METHODS.items() if method.solve]
        raise InputError(
            f"method '{recipe.method}'",
            expected="a method with iterations",
            found="one that is exact",
            remedy=f"Choose {' or '.join(solving)}.",
        )
    inputs = inputs or open_inputs(recipe)
    if not any(expert.task for expert in inputs.family.experts):
        raise InputError("accuracy along the iterations", expected="tasks", found="none")
    silent = recipe.model_copy(update={"evaluate": False, "output": None, "search": None})
    wanted = tuple(keep) if keep is not None else grid(options[solve.limit])
    kept: dict[str, Mapping[int, Tensor]] = {}
    finished: Finished | None = None
    for event in run(silent, inputs=inputs, keep=wanted, pulse=pulse):
        if isinstance(event, LayerDone) and event.iterates:
            kept[event.layer.name] = event.iterates
        if isinstance(event, Finished):
            finished = event
        else:
            yield event
    assert finished is not None
    points: list[Point] = []
    questions = exam(inputs.family, recipe.folder, split, examples)
    turned = inputs.family.transposed
    for index, iteration in enumerate(wanted):
        asked: Asked | None = None
        for asked in questions.take(assemble(finished.tensors, kept, iteration, turned)):
            yield replace(asked, fraction=(index + asked.fraction) / len(wanted))
        assert asked is not None
        points.append(Point(iteration, asked.results))
        yield PointDone(points[-1], index, len(wanted))
    yield TrajectoryDone(Trajectory(options, tuple(points), finished.report, split, examples))


def assemble(
    final: Mapping[str, Tensor],
    kept: Mapping[str, Mapping[int, Tensor]],
    iteration: int,
    transposed: Collection[str] = (),
) -> dict[str, Tensor]:
    """The merged tensors, with the iterates of one iteration in place of the solutions.

    An iterate with one column more than its weight carries the folded bias in it.  The weights
    `transposed` are (d_in, d_out) in the files.
    """
    tensors = dict(final)
    for name, iterates in kept.items():
        value = iterates.get(iteration)
        if value is None:
            continue  # the layer had stopped before
        weight = final[name].mT if name in transposed else final[name]
        if value.shape != weight.shape:
            bias = bias_of(name)
            tensors[bias] = value[:, -1].to("cpu", final[bias].dtype)
            value = value[:, :-1]
        value = value.mT.contiguous() if name in transposed else value
        tensors[name] = value.to("cpu", weight.dtype)
    return tensors


__all__ = [
    "GRID", "Point", "PointDone", "Trajectory", "TrajectoryDone", "assemble", "follow", "grid",
]  # fmt: skip
