"""The record of the inputs that an expert was matched on: what a page or a report shows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import typed

SHOWN = 16  # inputs of an expert that are kept by number


@dataclass(frozen=True)
class Picked:
    """One input of an expert.

    source   reference of the task that it is of, or `pool`
    row      its number among the source's training examples, or in the pool (`source_of`)
    scores   how much more each expert answers to it than the others do, in the order of the
             recipe's experts; empty where nothing was chosen
    """

    source: str
    row: int
    scores: tuple[float, ...] = ()


@dataclass(frozen=True)
class Margin:
    """How sure a choice is: the expert's score of an input less the highest of the other experts.

    least    of all inputs that it took
    median   of them
    ahead    share of them that it answers to more than every other expert
    """

    least: float
    median: float
    ahead: float


@dataclass(frozen=True)
class ChosenInputs:
    """The calibration inputs of one expert; in `report.json` one row of `inputs`, of plain values.

    expert         its name
    inputs         where they come from: `own`, `pile` or `pool`
    candidates     how many there were to take from
    examples       how many it took
    augmented      how many these are with their moved and lit copies
    update_share   w, the share of the update's Gram beside them
    sources        reference of a task (or `pool`) → share of the inputs that are of it
    first          up to 16 of them: of a choice those with the highest scores, the highest first
    margin         how sure the choice is; None where nothing was chosen
    """

    expert: str
    inputs: str
    candidates: int
    examples: int
    augmented: int
    update_share: float
    sources: Mapping[str, float]
    first: tuple[Picked, ...]
    margin: Margin | None = None


def chosen_of(content: Mapping[str, Any]) -> ChosenInputs:
    """The record whose plain values `report.json` holds."""
    first = tuple(typed(Picked, one) for one in content["first"])
    margin = typed(Margin, content["margin"]) if content.get("margin") else None
    return typed(ChosenInputs, {**content, "first": first, "margin": margin})
