"""Several merges in one job: how far the whole is goes by what each of them is expected to take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mats_core.errors import InputError
from mats_core.estimating import estimate
from mats_core.recipes import Recipe
from mats_core.system import shares

from .jobs import Tell
from .prepare import Prepared


def counts(prepared: Prepared) -> dict[str, int]:
    """The number of validation examples of each expert's task."""
    return {name: card.validation for name, card in prepared.cards.items()}


def seconds(recipe: Recipe, prepared: Prepared) -> float:
    """How long a merge of the family is expected to take; 0 where it will be refused at once."""
    try:
        return estimate(prepared.inputs, recipe, examples=counts(prepared)).seconds
    except InputError:
        return 0.0


def turns(tell: Tell, recipes: Sequence[Recipe], prepared: Prepared) -> list[Tell]:
    """How each of several merges tells where the whole is."""
    parts = shares(seconds(recipe, prepared) for recipe in recipes)
    return [_turn(tell, index, parts) for index in range(len(parts))]


def _turn(tell: Tell, index: int, parts: Sequence[tuple[float, float]]) -> Tell:
    start, stop = parts[index]

    def said(fraction: float, text: str, partial: Any = None) -> None:
        text = f"Merge {index + 1} of {len(parts)}: {text}"
        tell(start + (stop - start) * fraction, text, partial)

    return said
