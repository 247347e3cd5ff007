"""Two options of a method on a grid: mean normalised accuracy on validation data at every point.

A sweep is a generator of events.  It passes on what each merge says, which is where a caller can
stop it, and yields a `CellDone` for every point, so that a picture of it can fill as it goes.  A
point that cannot be merged is a cell with a reason; it ends nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..evaluation import normalised_interval
from ..merging import Event
from ..methods import OptionField, describe
from ..recipes import Inputs, Recipe, Report, open_inputs, parse_options, prepare
from ..system import part, shares
from .attempt import MergeCost, alike, attempt, quietly

EXAMPLES = 150  # a task: the choice of a good region needs no more, and a sweep is many merges
MOST_STEPS = 80
KINDS = ("int", "float", "bool", "choice")


@dataclass(frozen=True)
class Axis:
    """An axis of a sweep: one `option` and the `values` to try, in the order of the picture."""

    option: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    x, y        indices of its values on the two axes
    options     those of the two axes, with their values
    accuracy    mean normalised accuracy; None where the merge failed
    low, high   ends of its 95 % interval
    reason      why the merge failed; empty where it did not
    """

    x: int
    y: int
    options: dict[str, Any]
    accuracy: float | None
    low: float = 0.0
    high: float = 1.0
    reason: str = ""


@dataclass(frozen=True)
class CellDone(Event):
    """Event: `cell` is finished."""

    cell: Cell


def knobs(method: str) -> tuple[OptionField, ...]:
    """The options of a method that can be an axis."""
    return tuple(field for field in describe(method) if field.kind in KINDS)


def suggested(method: str, field: OptionField, points: int = 5) -> tuple[Any, ...]:
    """Values worth trying for an option: all choices, or numbers that span its range.

    A range of few steps is crossed evenly, with the default in place of the value next to it; a
    wider one is gone through by factors of the default: of ten for a float, of two for a count.
    """
    if field.kind == "bool":
        return (False, True)
    if field.kind == "choice":  # its default may be a number, where one is allowed
        named = field.default in (None, *field.choices)
        return field.choices if named else (*field.choices, field.default)
    kind = int if field.kind == "int" else float
    low, high, step = field.low, field.high, field.step
    if low is not None and high is not None and low < 0 < high:
        low = 0  # a sweep looks for the best merge: what is taken away is chosen by hand
    default = field.default if isinstance(field.default, int | float) else None
    if low is not None and high is not None and step and (high - low) / step <= MOST_STEPS:
        cells = int((high - low) / step + 1e-9)
        places = [round(i * cells / (points - 1)) for i in range(points)]
        values = [kind(round(low + place * step, 10)) for place in places]
        if default is not None and default not in values:
            inner = values[1:-1] or values
            values[values.index(min(inner, key=lambda v: abs(v - default)))] = kind(default)
    elif default:
        factors = (0.25, 0.5, 1, 2, 4) if kind is int else (0.01, 0.1, 1, 10, 100)
        scaled = (float(f"{default * factor:.3g}") for factor in factors if factor != 1)
        values = [kind(default), *map(kind, scaled)]
    else:
        values = [kind(v) for v in ((1, 2, 5, 10, 20) if kind is int else (0, 0.1, 0.3, 1, 3))]
    return tuple(sorted(v for v in set(values) if _allowed(method, field.name, v)))


def _allowed(method: str, option: str, value: Any) -> bool:
    try:
        parse_options(method, {option: value})
    except InputError:
        return False
    return True


def sweep(
    recipe: Recipe,
    x: Axis,
    y: Axis,
    *,
    inputs: Inputs | None = None,
    examples: int | None = EXAMPLES,
    cost: MergeCost = alike,
) -> Generator[Event, None, tuple[Cell, ...]]:
    """Events of a sweep that merges and evaluates every point, column by column: the merges', and a
    `CellDone` for each point; returns all cells.

    All other options are the recipe's.  `cost`: what a point's merge takes, by which the events'
    fractions go.  Raises `InputError` before any work for options that the method does not have,
    for the same option twice, and for a family whose experts name no tasks.
    """
    _check(recipe, x, y)
    inputs = inputs or open_inputs(recipe)
    if not any(expert.can_be_asked for expert in inputs.family.experts):
        raise InputError("sweep", expected="experts with tasks, for validation data", found="none")
    point = quietly(recipe, examples)
    prepare(point, inputs)  # what is wrong everywhere is an error, not a grid of holes
    places = list(itertools.product(range(len(x.values)), range(len(y.values))))
    options = [{x.option: x.values[i], y.option: y.values[j]} for i, j in places]
    trials = [
        point.model_copy(update={"options": {**recipe.options, **tried}}) for tried in options
    ]
    parts = shares(map(cost, trials))
    cells: list[Cell] = []
    for index, ((i, j), tried, trial) in enumerate(zip(places, options, trials, strict=True)):
        start, stop = parts[index]
        said = f"Point {index + 1} of {len(places)}: {{}}"
        found = yield from part(attempt(trial, inputs), start, stop, said)
        cells.append(Cell(i, j, tried, **_tried(*found)))
        text = f"Point {index + 1} of {len(places)} is done"
        yield CellDone(cells[-1], fraction=stop, text=text)
    return tuple(cells)


def _check(recipe: Recipe, x: Axis, y: Axis) -> None:
    if x.option == y.option:
        raise InputError(
            "sweep", expected="two different options", found=f"'{x.option}' twice",
            remedy="Choose another option for one of the axes.",
        )  # fmt: skip
    for axis in (x, y):
        if not axis.values:
            raise InputError(f"sweep over '{axis.option}'", expected="values to try", found="none")
        for value in axis.values:
            try:
                parse_options(recipe.method, {axis.option: value}, recipe.folder)
            except InputError as error:
                raise InputError(f"sweep over '{axis.option}': {error}") from None


def _tried(report: Report | None, reason: str) -> dict[str, Any]:
    """What the cell of an attempt holds."""
    if report is None:
        return {"accuracy": None, "reason": reason}
    low, high = normalised_interval(report.tasks)
    return {"accuracy": report.normalised_accuracy, "low": low, "high": high}


def best(cells: Sequence[Cell]) -> Cell | None:
    """The point with the highest accuracy (the first of equals); None where all failed."""
    there = [cell for cell in cells if cell.accuracy is not None]
    return max(there, key=lambda cell: cell.accuracy or 0.0) if there else None


__all__ = ["Axis", "Cell", "CellDone", "best", "knobs", "suggested", "sweep"]
