"""A method step by step: every rung of a ladder merged and tested on the same validation examples.

A rung that cannot be merged has a reason and ends nothing.  What a step adds is the paired
difference to the step before it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

from ..errors import InputError
from ..evaluation import Comparison, TaskResult, compare
from ..merging import Event
from ..methods import Ladder, Rung
from ..recipes import Inputs, Recipe, open_inputs
from ..system import part, shares
from .attempt import MergeCost, alike, attempt, quietly

EXAMPLES = 200  # a task


@dataclass(frozen=True)
class Stand:
    """One rung after it was tried.

    rung      of the ladder
    results   of every task; empty where the merge failed
    reason    why it failed; empty where it did not
    """

    rung: Rung
    results: tuple[TaskResult, ...]
    reason: str = ""


@dataclass(frozen=True)
class Stood(Event):
    """Event: `stand` is finished."""

    stand: Stand


def of_rung(recipe: Recipe, rung: Rung) -> Recipe:
    """The recipe with the method, the options and the rounds of a rung."""
    update = {"method": rung.method, "options": dict(rung.options), "rounds": rung.rounds}
    return recipe.model_copy(update=update)


def climb(
    recipe: Recipe,
    ladder: Ladder,
    *,
    inputs: Inputs | None = None,
    examples: int | None = EXAMPLES,
    cost: MergeCost = alike,
) -> Generator[Event, None, tuple[Stand, ...]]:
    """Events of merging and testing every rung with the experts of a recipe, and a `Stood` after
    each; returns all stands.

    `cost`: what a rung's merge takes, by which the events' fractions go.  Raises `InputError` for a
    family whose experts name no tasks.
    """
    inputs = inputs or open_inputs(recipe)
    if not any(expert.can_be_asked for expert in inputs.family.experts):
        raise InputError("ladder", expected="experts with tasks, for validation data", found="none")
    stands: list[Stand] = []
    tried = [of_rung(quietly(recipe, examples), rung) for rung in ladder.rungs]
    places = shares(map(cost, tried))
    for rung, trial, (start, stop) in zip(ladder.rungs, tried, places, strict=True):
        events = attempt(trial, inputs)
        report, reason = yield from part(events, start, stop, f"{rung.title}: {{}}")
        stands.append(Stand(rung, tuple(report.tasks) if report else (), reason))
        yield Stood(stands[-1], fraction=stop, text=f"{rung.title} is tested")
    return tuple(stands)


def steps(stands: Sequence[Stand]) -> list[Comparison | None]:
    """What each stand adds to the one that its rung names, else to the last one before it that has
    results; None for the first, and where one of the two has no results."""
    found: list[Comparison | None] = []
    known: dict[str, Stand] = {}
    for stand in stands:
        before = known.get(stand.rung.against or next(reversed(known), ""))
        found.append(
            compare(stand.results, before.results, same_examples=True)
            if stand.results and before is not None
            else None
        )
        if stand.results:
            known[stand.rung.title] = stand
    return found
