"""A grid of merges over two options, in the worker."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from mats_core.analysis import Axis, Cell, CellDone, sweep
from mats_core.merging import Progress, Recipe, TaskDone

from . import again
from .jobs import Tell
from .prepare import Prepared
from .runs import Run


@dataclass(frozen=True)
class SweepRequest:
    """The sweep that was asked for.

    titles   name the options as the page does
    like     the run whose other settings these are; None: those of the method
    """

    family: str
    recipe: Recipe
    x: Axis
    y: Axis
    titles: Mapping[str, str]
    examples: int
    like: Run | None = None


def run_sweep(request: SweepRequest, prepared: Prepared, tell: Tell) -> tuple[Cell, ...]:
    """All points of a grid; what is known so far is told on the way."""
    cells: list[Cell] = []
    total = len(request.x.values) * len(request.y.values)
    if request.like is None:
        inputs = again.of_family(prepared, request.recipe)
    else:
        _, inputs = again.opened(request.like, prepared)
    events = sweep(request.recipe, request.x, request.y, inputs=inputs, examples=request.examples)
    part, progress = 0.0, Progress(request.recipe.rounds)
    with contextlib.closing(events):  # type: ignore[type-var]
        for event in events:
            if progress.see(event):
                part = 0.5 * progress.fraction
            elif isinstance(event, TaskDone):
                part = 0.5 + 0.5 * event.index / event.total
            elif isinstance(event, CellDone):
                cells.append(event.cell)
                part, progress = 0.0, Progress(request.recipe.rounds)
            now = min(total, len(cells) + 1)
            tell((len(cells) + part) / total, f"Sweeping: point {now} of {total}", tuple(cells))
    return tuple(cells)
