"""One layer of a finished run, stage by stage, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import stepping
from mats_core.merging import Event, inputs_of_last_round
from mats_core.system import part

from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

MERGED, MEASURED = 0.3, 0.7  # of the whole, when the run is made again, and its last round's files


def step_through(shelf: Shelf, run: Run, layer: str, ready: Ready, tell: Tell) -> None:
    """Put the stages of a layer on the shelf."""
    told(_stepping(shelf, run, layer, ready()), tell)


def _stepping(
    shelf: Shelf, run: Run, layer: str, prepared: Prepared
) -> Generator[Event, None, None]:
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=MERGED)
    if looked.last_round is None:
        rounds = inputs_of_last_round(recipe, inputs)
        looked.last_round = yield from part(rounds, MERGED, MEASURED)
    recipe = recipe.model_copy(update={"rounds": 1})
    events = stepping(recipe, run.report, looked.last_round, layer)
    looked.steps[layer] = yield from part(events, MEASURED)
