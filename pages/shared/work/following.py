"""One way from a job's events to what a page shows of it.  No Streamlit here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from mats_core.system import Event, drain

from .jobs import Tell

R = TypeVar("R")


def told(
    events: Generator[Event, Any, R],
    tell: Tell,
    partial: Callable[[Any], Any] = lambda event: None,
) -> R:
    """The result of a job that is run to its end, with every event told to the page's job.

    `partial`: what is known after an event, for a page that shows it grow.
    """

    def see(event: Event) -> None:
        known = partial(event)
        tell(event.fraction, event.text, known)

    return drain(events, see)
