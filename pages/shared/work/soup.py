"""A greedy soup in the worker; what it comes to is kept as a run like any other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mats_core.analysis import GreedySoup, IngredientDone, greedy_soup
from mats_core.recipes import FamilyFile, Recipe, as_tuned
from mats_core.system import part

from . import again, merge
from .following import gathering, told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run

SELECTING = 0.9  # of the job's work; the rest merges what was chosen


@dataclass(frozen=True)
class SoupRequest:
    """The soup that was asked for: the average of the recipe's experts, and validation examples of
    each task that every average is asked."""

    collection: FamilyFile
    recipe: Recipe
    examples: int

    @property
    def family(self) -> str:
        """The name of the family."""
        return self.collection.name

    @property
    def merges(self) -> int:
        """How many averages are tried: each expert alone, and with those before it."""
        return 2 * len(self.recipe.experts) - 1


@dataclass(frozen=True)
class Souped:
    """A greedy soup, and the run that its average is kept as."""

    soup: GreedySoup
    run: Run


def run_soup(request: SoupRequest, prepared: Prepared, tell: Tell) -> Souped:
    """The soup of a request; the experts that were tried so far are told on the way."""
    inputs = again.of_family(prepared, request.recipe)
    events = greedy_soup(request.recipe, inputs=inputs, examples=request.examples)
    known = gathering(IngredientDone, lambda event: event.ingredient)
    soup = told(part(events, 0.0, SELECTING, "Greedy soup: {}"), tell, known)
    experts = tuple(entry.name for entry in soup.recipe.experts)
    asked = merge.Request(request.collection, "average", {}, experts)
    noted = as_tuned(asked.recipe(prepared.files), trials=request.merges, examples=request.examples)

    def last(fraction: float, text: str, partial: object = None) -> None:
        tell(SELECTING + (1 - SELECTING) * fraction, text)

    outcome = merge.merge(replace(asked, tuned=noted.tuned), lambda: prepared, last)
    return Souped(soup, outcome.run)
