"""Greedy soup (arXiv 2203.05482): an average of those experts that raise it, chosen on validation.

Experts are added one after the other, the best alone first; one stays if the mean accuracy of the
average over all tasks does not fall.  Every task is asked with its expert's head, whether that
expert is in the average or not, so that all averages are measured by the same.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from dataclasses import dataclass

from ..errors import InputError, listing
from ..merging import Event
from ..recipes import Inputs, Recipe, open_inputs
from ..system import part
from .attempt import attempt, quietly
from .sweep import EXAMPLES


@dataclass(frozen=True)
class Ingredient:
    """One expert, when its turn came.

    name       of the expert
    alone      mean accuracy over all tasks of its encoder by itself
    together   that of the average with it
    kept       whether it stays
    """

    name: str
    alone: float
    together: float
    kept: bool


@dataclass(frozen=True)
class IngredientDone(Event):
    """Event: `ingredient` was tried."""

    ingredient: Ingredient


@dataclass(frozen=True)
class GreedySoup:
    """What a greedy selection came to.

    ingredients   all experts, in the order in which they were tried
    recipe        the average of those that were kept
    """

    ingredients: tuple[Ingredient, ...]
    recipe: Recipe

    @property
    def accuracy(self) -> float:
        """Mean validation accuracy of the average, over the tasks of all experts."""
        return max(one.together for one in self.ingredients if one.kept)


def greedy_soup(
    recipe: Recipe, *, inputs: Inputs | None = None, examples: int | None = EXAMPLES
) -> Generator[Event, None, GreedySoup]:
    """Events of a greedy selection of the recipe's experts for an average; returns what it came to.

    examples   validation examples of each task that are asked; None: all

    What the recipe says of a method is not looked at, nor are its weights.  Raises `InputError` for
    experts without tasks and for those that cannot be averaged.
    """
    inputs = inputs or open_inputs(recipe)
    if not any(expert.can_be_asked for expert in inputs.family.experts):
        raise InputError("soup", expected="experts with tasks, for validation data", found="none")
    names = [entry.name for entry in recipe.experts]
    plain = quietly(_averaged(recipe, names), examples)
    trials, done = 2 * len(names) - 1, 0

    def tried(members: Collection[str], said: str) -> Generator[Event, None, float]:
        nonlocal done
        start, done = done / trials, done + 1
        weighed = [
            entry.model_copy(update={"weight": float(entry.name in members)})
            for entry in plain.experts
        ]
        trial = plain.model_copy(update={"experts": tuple(weighed)})
        found, why = yield from part(attempt(trial, inputs), start, done / trials, said + ": {}")
        if found is None:
            raise InputError(f"soup of {listing(members)}", expected="an average", found=why)
        return sum(task.merged.value for task in found.tasks) / len(found.tasks)

    alone: dict[str, float] = {}
    for name in names:
        alone[name] = yield from tried([name], f"{name} alone")
    kept: list[str] = []
    best = 0.0
    ingredients: list[Ingredient] = []
    for name in sorted(names, key=lambda name: -alone[name]):
        together = alone[name]
        if kept:
            together = yield from tried([*kept, name], f"With {name}")
        stays = not kept or together >= best
        if stays:
            kept, best = [*kept, name], together
        ingredients.append(Ingredient(name, alone[name], together, stays))
        text = f"{name} {'stays' if stays else 'is left out'}"
        yield IngredientDone(ingredients[-1], fraction=done / trials, text=text)
    return GreedySoup(tuple(ingredients), _averaged(recipe, kept))


def _averaged(recipe: Recipe, members: Collection[str]) -> Recipe:
    """The plain average of some of the recipe's experts, by no weights, rules and steps."""
    chosen = tuple(
        entry.model_copy(update={"weight": 1.0})
        for entry in recipe.experts
        if entry.name in members
    )
    plain = {"rounds": 1, "by": (), "after": (), "refine": None, "routed": None, "adds_to": None}
    return recipe.model_copy(
        update={
            **plain, "experts": chosen, "method": "average", "options": {}, "search": None,
            "weighting": "weights",
        }
    )  # fmt: skip
