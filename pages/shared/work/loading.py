"""Layer-by-layer loading of a finished run, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import Grain, Ordering, loading
from mats_core.merging import Event, Inputs, Recipe
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
) -> None:
    """Put the layer-by-layer loading of a run on the shelf."""
    recipe, inputs = again.opened(run, ready())
    told(_loading(shelf, run, grain, orderings, recipe, inputs), tell)


def _loading(
    shelf: Shelf,
    run: Run,
    grain: Grain,
    orderings: tuple[Ordering, ...],
    recipe: Recipe,
    inputs: Inputs,
) -> Generator[Event, None, None]:
    looked = yield from part(again.looked(shelf, run, recipe, inputs), stop=0.1)
    events = loading.load(
        recipe, looked.encoder, inputs=inputs, grain=grain, orderings=orderings, examples=EXAMPLES
    )
    looked.loadings[grain, orderings] = yield from part(events, start=0.1)
