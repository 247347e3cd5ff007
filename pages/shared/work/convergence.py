"""Accuracy along the iterations of a finished run, followed in the worker."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from mats_core.analysis import Trajectory, TrajectoryDone, convergence
from mats_core.evaluation import Asked
from mats_core.merging import Progress

from . import again
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
    made, inputs = again.opened(run, ready())
    found: dict[str, Trajectory] = {}
    for place, (label, changed) in enumerate(changes.items()):
        recipe = made.model_copy(update={"options": {**made.options, **changed}})
        part, text = 0.0, f"Solving, {label}"
        progress = Progress(recipe.rounds, f"Solving, {label}:")

        def pulse(iteration: int, residual: float) -> None:
            tell((place + part) / len(changes), text)  # noqa: B023  (used in this turn only)

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
                tell((place + part) / len(changes), text)
    return found
