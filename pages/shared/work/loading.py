"""Layer-by-layer loading of a finished run, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import Grain, Loading, Ordering, loading
from mats_core.merging import Event
from mats_core.recipes import Inputs, Recipe
from mats_core.system import part

from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .runs import Run
from .shelf import Shelf

EXAMPLES = 200  # validation images a task, for every state of the loading


def load(
    shelf: Shelf,
    run: Run,
    grain: Grain,
    orderings: tuple[Ordering, ...],
    ready: Ready,
    tell: Tell,
) -> Loading:
    """The layer-by-layer loading of a run."""
    recipe, inputs = again.opened(run, ready())
    return told(_loading(shelf, run, grain, orderings, recipe, inputs), tell)


def _loading(
    shelf: Shelf,
    run: Run,
    grain: Grain,
    orderings: tuple[Ordering, ...],
    recipe: Recipe,
    inputs: Inputs,
) -> Generator[Event, None, Loading]:
    looked = yield from part(again.looked(shelf, run, recipe, inputs), stop=0.1)
    events = loading.load(
        recipe, looked.encoder, inputs=inputs, grain=grain, orderings=orderings, examples=EXAMPLES
    )
    return (yield from part(events, start=0.1))
