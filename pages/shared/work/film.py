"""Calibration block by block of a finished run, in the worker."""

from __future__ import annotations

from collections.abc import Generator

from mats_core.analysis import Film, FrameDone, filming
from mats_core.merging import Event
from mats_core.system import part

from . import again
from .confusion import Ready
from .following import gathering, told
from .jobs import Tell
from .loading import EXAMPLES
from .prepare import Prepared
from .runs import Run
from .shelf import Shelf

REMADE = 0.4  # of the whole, when the run is made again


def film(shelf: Shelf, run: Run, ready: Ready, tell: Tell) -> Film:
    """The film of a run's calibration; the frames that are known so far are told on the way."""
    known = gathering(FrameDone, lambda event: event.frame)
    return told(_filming(shelf, run, ready()), tell, known)


def _filming(shelf: Shelf, run: Run, prepared: Prepared) -> Generator[Event, None, Film]:
    recipe, inputs, looked = yield from again.remade(shelf, run, prepared, stop=REMADE)
    events = filming(recipe, run.report, looked.encoder, inputs=inputs, examples=EXAMPLES)
    return (yield from part(events, REMADE))
