"""The way between base, experts and a finished run, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import Between, walking
from mats_core.merging import Event
from mats_core.system import part

from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .loading import EXAMPLES
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

MERGED = 0.2  # of the whole, when the run is made again


def walk(shelf: Shelf, run: Run, ready: Ready, tell: Tell) -> Between:
    """Accuracy and loss along the way."""
    return told(_walking(shelf, run, ready()), tell)


def _walking(shelf: Shelf, run: Run, prepared: Prepared) -> Generator[Event, None, Between]:
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=MERGED)
    events = walking(recipe, looked.encoder, inputs=inputs, examples=EXAMPLES)
    return (yield from part(events, MERGED))
