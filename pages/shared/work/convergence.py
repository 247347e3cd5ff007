"""Accuracy along the iterations of a finished run, followed in the worker."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any

from mats_core.analysis import Trajectory, convergence
from mats_core.merging import Event
from mats_core.recipes import Inputs, Recipe
from mats_core.system import part

from . import again
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run


def follow(
    run: Run,
    changes: Mapping[str, Mapping[str, Any]],
    examples: int,
    ready: Callable[[], Prepared],
    tell: Tell,
) -> dict[str, Trajectory]:
    """Accuracy along the iterations of a run, once for each change of its options, by label."""
    recipe, inputs = again.opened(run, ready())
    return told(_following(recipe, inputs, changes, examples), tell)


def _following(
    made: Recipe, inputs: Inputs, changes: Mapping[str, Mapping[str, Any]], examples: int
) -> Generator[Event, None, dict[str, Trajectory]]:
    found: dict[str, Trajectory] = {}
    for index, (label, changed) in enumerate(changes.items()):
        recipe = made.model_copy(update={"options": {**made.options, **changed}})
        events = convergence.follow(recipe, inputs=inputs, examples=examples)
        start, stop = index / len(changes), (index + 1) / len(changes)
        found[label] = yield from part(events, start, stop, f"Solving, {label}: {{}}")
    return found
