"""What accuracy costs in size: from the static merge over routed ones to all experts side by side.

Every rank is merged and tested on the same validation examples.  A static merge is 1 × the base,
T experts are T ×, whatever routes between them; heads, one a task, are not counted in either.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ..errors import InputError
from ..evaluation import TaskResult
from ..merging import Event
from ..recipes import Inputs, Recipe, Routed, open_inputs
from ..system import part, shares
from .attempt import MergeCost, alike, attempt, quietly

EXAMPLES = 200  # a task
Rank = int | Literal["full"]
RANKS: tuple[Rank, ...] = (0, 2, 8, 32, "full")


@dataclass(frozen=True)
class Sized:
    """One point of the curve after it was tried.

    rank      of the branches; 0 for the static merge, None for all experts
    size      as a multiple of the base; NaN where the merge failed
    results   of every task; empty where the merge failed
    reason    why it failed; empty where it did not
    """

    rank: Rank | None
    size: float
    results: tuple[TaskResult, ...]
    reason: str = ""

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        names = {0: "static merge", None: "all experts", "full": "full rank"}
        return names.get(self.rank, f"rank {self.rank}")


@dataclass(frozen=True)
class SizeDone(Event):
    """Event: `point` is finished."""

    point: Sized


def sizing(
    recipe: Recipe,
    ranks: Sequence[Rank] = RANKS,
    *,
    inputs: Inputs | None = None,
    examples: int | None = EXAMPLES,
    cost: MergeCost = alike,
) -> Generator[Event, None, tuple[Sized, ...]]:
    """Events of merging and testing a recipe at every rank of its branches, and a `SizeDone` after
    each; returns the points, with all experts as the last one.

    A recipe that is not routed is routed by the defaults of `Routed`.  `cost`: what the merge at a
    rank takes, by which the events' fractions go.  Raises `InputError` for a family whose experts
    name no tasks.
    """
    inputs = inputs or open_inputs(recipe)
    if not any(expert.can_be_asked for expert in inputs.family.experts):
        raise InputError("sizes", expected="experts with tasks, for validation data", found="none")
    still, routed = quietly(recipe, examples), recipe.routed or Routed()
    points: list[Sized] = []
    tried = [
        still.model_copy(update={"routed": routed.model_copy(update={"rank": rank})})
        for rank in ranks
    ]
    places = shares(map(cost, tried))
    for rank, trial, (start, stop) in zip(ranks, tried, places, strict=True):
        said = f"{Sized(rank, 1, ()).title.capitalize()}: {{}}"
        events = attempt(trial, inputs)
        report, reason = yield from part(events, start, stop, said)
        size, results = (report.size, tuple(report.tasks)) if report else (float("nan"), ())
        points.append(Sized(rank, size, results, reason))
        text = f"{points[-1].title.capitalize()} is tested"
        yield SizeDone(points[-1], fraction=stop, text=text)
    tested = next((point.results for point in points if point.results), ())
    experts = tuple(replace(result, merged=result.finetuned) for result in tested)
    return (*points, Sized(None, float(len(inputs.family.experts)), experts))
