"""A merge at every size, in the worker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mats_core.analysis import Sized, SizeDone, sizing
from mats_core.recipes import Recipe

from . import again
from .following import gathering, told
from .jobs import Tell
from .prepare import Prepared
from .several import seconds


@dataclass(frozen=True)
class SizesRequest:
    """The curve that was asked for; `recipe` is the static merge below its branches."""

    family: str
    recipe: Recipe
    examples: int


def run_sizes(request: SizesRequest, prepared: Prepared, tell: Tell) -> tuple[Sized, ...]:
    """All points of the curve; what is known so far is told on the way."""
    inputs = again.of_family(prepared, request.recipe)
    cost = partial(seconds, prepared=prepared)
    events = sizing(request.recipe, inputs=inputs, examples=request.examples, cost=cost)
    return told(events, tell, gathering(SizeDone, lambda event: event.point))
