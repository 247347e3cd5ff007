"""Why one finished run is better than another, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import Why, explaining
from mats_core.merging import Event
from mats_core.system import part

from . import again
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

MERGED = 0.4  # of the whole, when one of the two is merged again


def explain(shelf: Shelf, first: Run, second: Run, prepared: Prepared, tell: Tell) -> Why:
    """What two runs are predicted to cost every expert of the family, by layer."""
    return told(_explaining(shelf, first, second, prepared), tell)


def _explaining(
    shelf: Shelf, first: Run, second: Run, prepared: Prepared
) -> Generator[Event, None, Why]:
    encoders = []
    for place, run in enumerate((first, second)):
        start, stop = place * MERGED, (place + 1) * MERGED
        _, _, found = yield from again.remade(shelf, run, prepared, start, stop=stop)
        encoders.append(found.encoder)
    # The experts of the family, not of either run: both are then asked the same.
    events = explaining(prepared.inputs, encoders[0], encoders[1])
    return (yield from part(events, 2 * MERGED))
