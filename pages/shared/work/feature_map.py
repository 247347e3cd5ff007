"""A map of examples under the base, the experts and a finished run, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import FeatureMap, mapping, travelling, under_experts
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
TRAVELLED = 0.6  # of the rest of a map, when the way is known


def draw_map(shelf: Shelf, run: Run, ready: Ready, tell: Tell) -> FeatureMap:
    """The map of a run, with base, experts and merge."""
    return told(_mapping(shelf, run, ready()), tell)


def _mapping(shelf: Shelf, run: Run, prepared: Prepared) -> Generator[Event, None, FeatureMap]:
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=MERGED)
    return (yield from part(mapping(recipe, looked.encoder, inputs=inputs), MERGED))


def finish_map(shelf: Shelf, run: Run, known: FeatureMap, ready: Ready, tell: Tell) -> FeatureMap:
    """A map with the way from the base to the merge, and all examples under every expert."""
    return told(_finishing(shelf, run, known, ready()), tell)


def _finishing(
    shelf: Shelf, run: Run, known: FeatureMap, prepared: Prepared
) -> Generator[Event, None, FeatureMap]:
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=MERGED)
    events = travelling(known, recipe, looked.encoder, inputs=inputs)
    known = yield from part(events, MERGED, TRAVELLED)
    return (yield from part(under_experts(known, recipe, inputs=inputs), TRAVELLED))
