"""A method step by step, in the worker."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from mats_core.analysis import Stand, Stood, climb
from mats_core.methods import Ladder
from mats_core.recipes import Recipe

from . import again
from .following import gathering, told
from .jobs import Tell
from .prepare import Prepared
from .several import seconds


@dataclass(frozen=True)
class LadderRequest:
    """The ladder that was asked for; `recipe` names family and experts."""

    family: str
    recipe: Recipe
    ladder: Ladder
    examples: int


def run_ladder(request: LadderRequest, prepared: Prepared, tell: Tell) -> tuple[Stand, ...]:
    """All rungs of a ladder; what is known so far is told on the way."""
    inputs = again.of_family(prepared, request.recipe)
    events = climb(
        request.recipe,
        request.ladder,
        inputs=inputs,
        examples=request.examples,
        cost=partial(seconds, prepared=prepared),
    )
    return told(events, tell, gathering(Stood, lambda event: event.stand))
