"""Accuracy along the iterations of one solve: what conjugate gradients pass on their way.

A merge by conjugate gradients is run once, with the iterates of chosen iterations kept; for each
of them the encoder is put together and evaluated.  A layer that stopped earlier keeps its final
value, and parameters that are not solved for (biases, norms) are the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..evaluation import TaskResult, evaluate, examining
from ..merging import Event, run
from ..methods import METHODS
from ..names import bias_of
from ..recipes import Finished, Inputs, LayerDone, Recipe, Report, open_inputs
from ..system import changed, part
from ..tasks import SplitName

SOLVED, ASKED = 0.4, 0.45  # of the whole: the merge, and experts and base on their tasks
GRID = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


@dataclass(frozen=True)
class Asking:
    """How iterates are asked, where it is not on the tasks of a recipe.

    take       the tensors of a merge → its results, with events on the way
    split      what is asked, in a word
    """

    take: Callable[[Mapping[str, Tensor]], Generator[Event, Any, Sequence[TaskResult]]]
    split: str


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
    asking: Asking | None = None,
) -> Generator[Event, None, Trajectory]:
    """Events of a merge whose iterates are evaluated: the merge's, and one after each iterate;
    returns the trajectory.

    `keep`: the iterations to look at (`grid` of the recipe's by default).  `asking`: how they are
    asked instead of on the recipe's tasks.  Closing the generator cancels it.  Raises `InputError`
    for a method without iterations or a family without tasks.
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
    if asking is None and not any(entry.task for entry in recipe.experts):
        raise InputError("accuracy along the iterations", expected="tasks", found="none")
    still: dict[str, Any] = {"evaluate": False, "output": None, "search": None}
    # Iterates are those of the merge, whatever it goes on to be.
    still |= {"keep_sums": False, "refine": None, "routed": None}
    silent = recipe.model_copy(update=still)
    wanted = tuple(keep) if keep is not None else grid(options[solve.limit])
    inputs = inputs or open_inputs(recipe)
    kept: dict[str, Mapping[int, Tensor]] = {}

    def seen(event: Event) -> Event | None:
        if isinstance(event, LayerDone) and event.iterates:
            kept[event.layer.name] = event.iterates
        return None if isinstance(event, Finished) else event

    merge = changed(run(silent, inputs=inputs, keep=wanted), seen)
    finished = yield from part(merge, 0.0, SOLVED)
    if asking is None:
        exam = examining(inputs.family, recipe.folder, split, examples)
        asking = Asking((yield from part(exam, SOLVED, ASKED)).take, split)
    points: list[Point] = []
    for index, iteration in enumerate(wanted):
        start, stop = (ASKED + (1 - ASKED) * (index + k) / len(wanted) for k in (0, 1))
        encoder = assemble(finished.tensors, kept, iteration, inputs.family.transposed)
        said = f"Iteration {iteration}: {{}}"
        results = yield from part(asking.take(encoder), start, stop, said)
        points.append(Point(iteration, tuple(results)))
        yield Event(fraction=stop, text=f"Tested after iteration {iteration}")
    yield Event(fraction=1.0, text="Every iterate is tested")
    return Trajectory(options, tuple(points), finished.report, asking.split, examples)


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


__all__ = ["GRID", "Asking", "Point", "Trajectory", "assemble", "follow", "grid"]
