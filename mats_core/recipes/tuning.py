"""What a recipe says of how it was chosen, as long as it is the recipe that was chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from .recipe import Recipe
from .tuned import Tuned


def as_tuned(
    recipe: Recipe, *, trials: int, examples: int | None, objectives: Sequence[str] = ("mean",)
) -> Recipe:
    """The recipe with a note that its settings were chosen on validation data.

    trials       merges that were tried
    examples     validation examples of each task that each was asked at most; None: all
    objectives   what was looked for
    """
    note = Tuned(
        trials=trials, examples=examples, objectives=tuple(objectives), settings=_settings(recipe)
    )
    return recipe.model_copy(update={"tuned": note})


def still_tuned(recipe: Recipe) -> bool:
    """Whether the settings of a recipe are those that its note is about."""
    return recipe.tuned is not None and recipe.tuned.settings == _settings(recipe)


def tuning_notes(recipe: Recipe) -> tuple[str, ...]:
    """What a report says of how its settings were chosen, a sentence where there is something."""
    note = recipe.tuned
    if note is None:
        return ()
    if not still_tuned(recipe):
        return ("the settings were changed since a search had chosen them on validation data",)
    asked = "all" if note.examples is None else f"at most {note.examples}"
    return (
        f"the settings were chosen on validation data, {asked} examples of each task, in "
        f"{note.trials} trials: the figure on these flatters them, and the test examples were not "
        "asked while they were chosen",
    )


def _settings(recipe: Recipe) -> str:
    """A digest of what is merged and how, wherever the files lie."""
    content = {
        "method": recipe.method,
        "options": recipe.parsed_options().model_dump(),
        "experts": [(entry.name, entry.weight) for entry in recipe.experts],
        "after": [step.content for step in recipe.steps()],
        "by": [rule.model_dump(mode="json") for rule in recipe.by],
        "rest": [recipe.seed, recipe.rounds, recipe.weighting],
        "further": [
            None if one is None else one.model_dump()
            for one in (recipe.refine, recipe.routed, recipe.lora)
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
