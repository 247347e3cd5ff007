"""All merges of a lesson, one after another, in one job; each is kept as any merge is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .jobs import Job, Tell
from .merge import Request, merge
from .prepare import Prepared
from .several import turns


def job(requests: Sequence[Request], preparing: Job, name: str) -> Job:
    """The job that makes these merges.  It lasts: what it has made is kept, whoever looks, and
    another session finds it by its name."""
    ready = preparing.outcome

    def work(tell: Tell) -> int:
        return run_all(requests, ready, tell)

    return Job(
        tuple(requests), "Running the lesson", work, lasting=True, after=preparing, name=name
    )


def run_all(requests: Sequence[Request], ready: Callable[[], Prepared], tell: Tell) -> int:
    """Make every merge, tested on all examples; returns how many there are."""
    prepared = ready()
    steps = turns(tell, [request.recipe(prepared.files) for request in requests], prepared)
    for request, step in zip(requests, steps, strict=True):
        merge(request, lambda: prepared, step)
    return len(requests)
