"""What the worker does for the Compare page: a prediction, a sweep.  No Streamlit here."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from mats_core.analysis import Axis, Cell, CellDone, Interference, predicted_loss, sweep
from mats_core.errors import InputError
from mats_core.merging import Inputs, Progress, Recipe, TaskDone, open_inputs

from .jobs import Tell
from .prepare import Prepared

LOSS_EXAMPLES = 200


@dataclass(frozen=True)
class SweepRequest:
    """A sweep that somebody asked for; `titles` name the options as the page does."""

    family: str
    recipe: Recipe
    x: Axis
    y: Axis
    titles: Mapping[str, str]
    examples: int


def opened(prepared: Prepared, recipe: Recipe) -> Inputs:
    """The family's open files where the recipe is over all of them, else its own preflight."""
    names = [expert.name for expert in prepared.inputs.family.experts]
    if [entry.name for entry in recipe.experts] == names:
        return prepared.inputs
    return open_inputs(recipe)


def predict(
    recipe: Recipe, fingerprints: Mapping[str, str], prepared: Prepared, tell: Tell
) -> Interference:
    """Predicted and measured loss of a run, merged again from the files as they are now."""
    inputs = opened(prepared, recipe)
    members = {expert.name: expert.checkpoint for expert in inputs.family.experts}
    for name, checkpoint in {"base": inputs.family.base, **members}.items():
        if fingerprints.get(name, checkpoint.fingerprint) != checkpoint.fingerprint:
            raise InputError(
                f"predicted loss: '{name}'",
                expected="the checkpoint that this run merged",
                found="another one",
                remedy="The family's files have changed since; merge again with these settings.",
            )
    return predicted_loss.interference(recipe, inputs=inputs, examples=LOSS_EXAMPLES, step=tell)


def run_sweep(request: SweepRequest, prepared: Prepared, tell: Tell) -> tuple[Cell, ...]:
    """All points of a grid; what is known so far is told on the way."""
    cells: list[Cell] = []
    total = len(request.x.values) * len(request.y.values)
    inputs = opened(prepared, request.recipe)
    events = sweep(request.recipe, request.x, request.y, inputs=inputs, examples=request.examples)
    part, progress = 0.0, Progress(request.recipe.rounds)
    with contextlib.closing(events):  # type: ignore[type-var]
        for event in events:
            if progress.see(event):
                part = 0.5 * progress.fraction
            elif isinstance(event, TaskDone):
                part = 0.5 + 0.5 * event.index / event.total
            elif isinstance(event, CellDone):
                cells.append(event.cell)
                part, progress = 0.0, Progress(request.recipe.rounds)
            now = min(total, len(cells) + 1)
            tell((len(cells) + part) / total, f"Sweeping: point {now} of {total}", tuple(cells))
    return tuple(cells)
