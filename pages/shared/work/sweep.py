"""A grid of merges over two options, in the worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from mats_core.analysis import Axis, Cell, CellDone, sweep
from mats_core.recipes import Recipe
from mats_core.system import part

from . import again
from .following import gathering, told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .several import seconds


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
    if request.like is None:
        inputs = again.of_family(prepared, request.recipe)
    else:
        _, inputs = again.opened(request.like, prepared)
    events = sweep(
        request.recipe,
        request.x,
        request.y,
        inputs=inputs,
        examples=request.examples,
        cost=partial(seconds, prepared=prepared),
    )
    known = gathering(CellDone, lambda event: event.cell)
    return told(part(events, said="Sweeping: {}"), tell, known)
