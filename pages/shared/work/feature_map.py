"""A map of examples under the base, the experts and a finished run, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import mapping, travelling, under_experts
from mats_core.merging import Event
from mats_core.system import part

from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

MERGED = 0.2  # of the whole, when the run is made again
TRAVELLED = 0.5  # of the rest of a map, when the way is known


def draw_map(shelf: Shelf, run: Run, ready: Ready, tell: Tell) -> None:
    """Put the map of a run on the shelf, with base, experts and merge."""
    told(_mapping(shelf, run, ready()), tell)


def _mapping(shelf: Shelf, run: Run, prepared: Prepared) -> Generator[Event, None, None]:
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=MERGED)
    looked.map = yield from part(mapping(recipe, looked.encoder, inputs=inputs), MERGED)


def finish_map(shelf: Shelf, run: Run, ready: Ready, tell: Tell) -> None:
    """Add the way from the base to the merge, and all examples under every expert."""
    told(_finishing(shelf, run, ready()), tell)


def _finishing(shelf: Shelf, run: Run, prepared: Prepared) -> Generator[Event, None, None]:
    recipe, inputs = again.opened(run, prepared)
    looked = shelf.place(run)
    assert looked.map is not None
    events = travelling(looked.map, recipe, looked.encoder, inputs=inputs)
    looked.map = yield from part(events, stop=TRAVELLED)
    looked.map = yield from part(under_experts(looked.map, recipe, inputs=inputs), TRAVELLED)
