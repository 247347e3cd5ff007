"""Accuracy along the iterations of a finished run, followed in the worker."""

from __future__ import annotations

from collections.abc import Callable, Generator

from mats_core.analysis import Trajectory, convergence
from mats_core.merging import Event, Recipe
from mats_core.system import part

from .again import inputs_of
from .following import told
from .jobs import Tell
from .prepare import Prepared

UNDAMPED = {"damping": 0.0, "anchor": 0.0, "off_diagonal": 1.0}


def follow(
    recipes: dict[str, Recipe], examples: int, ready: Callable[[], Prepared], tell: Tell
) -> dict[str, Trajectory]:
    """Accuracy along the iterations of each recipe."""
    return told(_following(recipes, examples, ready()), tell)


def _following(
    recipes: dict[str, Recipe], examples: int, prepared: Prepared
) -> Generator[Event, None, dict[str, Trajectory]]:
    found: dict[str, Trajectory] = {}
    for index, (label, recipe) in enumerate(recipes.items()):
        inputs = inputs_of(prepared, recipe)
        events = convergence.follow(recipe, inputs=inputs, examples=examples)
        start, stop = index / len(recipes), (index + 1) / len(recipes)
        found[label] = yield from part(events, start, stop, f"{label}: {{}}")
    return found
