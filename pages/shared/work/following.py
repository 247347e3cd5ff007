"""One way from a job's events to what a page shows of it.  No Streamlit here."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from mats_core.system import Event, drain

from .jobs import Tell

E = TypeVar("E", bound=Event)
R = TypeVar("R")
T = TypeVar("T")


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


def gathering(kind: type[E], value: Callable[[E], T]) -> Callable[[Event], tuple[T, ...]]:
    """What is known after an event, where every event of a kind brings one value more."""
    so_far: list[T] = []

    def known(event: Event) -> tuple[T, ...]:
        if isinstance(event, kind):
            so_far.append(value(event))
        return tuple(so_far)

    return known
