"""Accuracy along the iterations of a finished run, followed in the worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from mats_core.analysis import Trajectory, TrajectoryDone, convergence
from mats_core.evaluation import Asked
from mats_core.merging import Progress, Recipe

from .again import inputs_of
from .jobs import Tell
from .prepare import Prepared


def follow(
    recipes: dict[str, Recipe], examples: int, ready: Callable[[], Prepared], tell: Tell
) -> dict[str, Trajectory]:
    """Accuracy along the iterations of each recipe."""
    prepared = ready()
    found: dict[str, Trajectory] = {}
    for place, (label, recipe) in enumerate(recipes.items()):
        inputs = inputs_of(prepared, recipe)
        part, text = 0.0, f"Solving, {label}"
        progress = Progress(recipe.rounds, f"Solving, {label}:")

        def pulse(iteration: int, residual: float) -> None:
            tell((place + part) / len(recipes), text)  # noqa: B023  (used in this turn only)

        events = convergence.follow(recipe, inputs=inputs, examples=examples, pulse=pulse)
        with contextlib.closing(events):  # type: ignore[type-var]
            for event in events:
                if progress.see(event):
                    part, text = 0.4 * progress.fraction, progress.text
                elif isinstance(event, Asked):
                    part = 0.4 + 0.6 * event.fraction
                    text = f"Testing the iterates, {label}"
                elif isinstance(event, TrajectoryDone):
                    found[label] = event.trajectory
                    continue
                else:
                    continue
                tell((place + part) / len(recipes), text)
    return found
