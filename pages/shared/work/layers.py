"""A table of every layer of a finished run, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import LayerRow, tabulating
from mats_core.merging import Event
from mats_core.system import part

from . import again
from .confusion import Ready
from .following import told
from .jobs import Tell
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

MERGED = 0.5  # of the whole, when the run is made again


def tabulate(shelf: Shelf, run: Run, ready: Ready, tell: Tell) -> tuple[LayerRow, ...]:
    """The table of a run's layers."""
    return told(_tabulating(shelf, run, ready()), tell)


def _tabulating(
    shelf: Shelf, run: Run, prepared: Prepared
) -> Generator[Event, None, tuple[LayerRow, ...]]:
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=MERGED)
    events = tabulating(inputs, looked.encoder, method=recipe.method)
    return (yield from part(events, MERGED))
