"""One layer of a finished run, stage by stage, in the worker."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

from mats_core.analysis import LayerSteps, stepping, task_matrices
from mats_core.merging import Event, inputs_of_last_round
from mats_core.methods import METHODS
from mats_core.system import part, recall

from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

MADE = 0.8  # of the whole, when the merge that it is measured at is made again
MEASURED = 0.5  # of the whole, when its last round's files are measured


@dataclass(frozen=True)
class First(Event):
    """Event: `steps` holds the first stage, which waits for no merge."""

    steps: LayerSteps | None = None


def step_through(shelf: Shelf, run: Run, layer: str, ready: Ready, tell: Tell) -> LayerSteps:
    """The stages of a layer, which are on the shelf then; from another window where one has them.
    The first one is told on the way."""
    prepared = ready()
    files = tuple(expert.statistics for expert in run.recipe.experts)
    key = ("layer steps", run.id, files, layer)
    events = _stepping(shelf, run, layer, prepared)
    first = lambda event: event.steps if isinstance(event, First) else None  # noqa: E731
    found = recall(key, lambda: told(events, tell, first))
    shelf.place(run).steps[layer] = found
    return found


def _stepping(
    shelf: Shelf, run: Run, layer: str, prepared: Prepared
) -> Generator[Event, None, LayerSteps]:
    """The layer alone is merged again: its report says what it took from the others.  One that is
    measured at the merge of those before it needs that merge as well."""
    recipe, inputs = again.opened(run, prepared)
    yield First(text="Merging the layer once more", steps=task_matrices(recipe, inputs, layer))
    looked = shelf.place(run)
    if METHODS[recipe.method].calibrates:
        events = again.looked(shelf, run, recipe, inputs)
        looked = yield from part(events, stop=MADE)
        events = stepping(recipe, run.report, inputs, layer, looked.encoder)
        return (yield from part(events, MADE))
    if looked.last_round is None:
        looked.last_round = yield from part(inputs_of_last_round(recipe, inputs), stop=MEASURED)
    recipe = recipe.model_copy(update={"rounds": 1})
    events = stepping(recipe, run.report, looked.last_round, layer)
    return (yield from part(events, MEASURED))
