"""All merges of a lesson, one after another, in one job; each is kept as any merge is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .jobs import Job, Tell
from .merge import Request, merge
from .prepare import Prepared


def job(requests: Sequence[Request], preparing: Job, name: str) -> Job:
    """The job that makes these merges.  It lasts: what it has made is kept, whoever looks, and
    another session finds it by its name."""
    ready = preparing.outcome

    def work(tell: Tell) -> int:
        return run_all(requests, ready, tell)

    return Job(tuple(requests), "Running the lesson", work, lasting=True, name=name)


def run_all(requests: Sequence[Request], ready: Callable[[], Prepared], tell: Tell) -> int:
    """Make every merge, tested on all examples; returns how many there are."""
    for index, request in enumerate(requests):
        merge(request, ready, within(tell, index, len(requests)))
    return len(requests)


def within(tell: Tell, index: int, count: int) -> Tell:
    """How one of several merges tells where the whole is."""

    def said(fraction: float, text: str, partial: Any = None) -> None:
        tell((index + fraction) / count, f"Merge {index + 1} of {count}: {text}")

    return said
