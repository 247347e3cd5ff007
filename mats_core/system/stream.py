"""How long work says where it is: one stream of events, one way to read it, one way to nest it.

A long job is a generator of `Event`s that returns its result.  `fraction` goes from 0 to 1 over the
whole job and never backwards.  A job inside another one is a `part` of it; `drain` runs a job to
its end.  Whoever closes the generator, or raises while handling an event, cancels the job.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

E = TypeVar("E", bound="Event")
F = TypeVar("F", bound="Event")
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Where a long job stands.

    fraction   of the whole job that is done, 0 to 1
    text       what is being done, as the head of a progress bar
    """

    fraction: float = 0.0
    text: str = ""


def drain(events: Generator[E, Any, R], on_event: Callable[[E], Any] | None = None) -> R:
    """The result of a job, which is run to its end here; `on_event` is called with each event.

    What `on_event` raises ends the job, whose own clearing up is done before it goes on.
    """
    with contextlib.closing(events):
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                return end.value
            if on_event is not None:
                on_event(event)


def drained(job: Callable[P, Generator[Any, Any, R]]) -> Callable[P, R]:
    """The function that runs a job to its end, for callers that need no events."""

    @functools.wraps(job)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        return drain(job(*args, **kwargs))

    return run


def changed(events: Generator[E, Any, R], change: Callable[[E], F | None]) -> Generator[F, Any, R]:
    """The events that `change` makes of a job's (None: left out); returns the job's result."""
    with contextlib.closing(events):
        while True:
            try:
                event = change(next(events))
            except StopIteration as end:
                return end.value
            if event is not None:
                yield event


def part(
    events: Generator[E, Any, R], start: float = 0.0, stop: float = 1.0, said: str = "{}"
) -> Generator[E, Any, R]:
    """The events of a job that is the part from `start` to `stop` of another one.

    `said`: the whole job's sentence, with `{}` where the part's text stands.  Returns the result of
    the part.
    """

    def of_whole(event: E) -> E:
        fraction = start + (stop - start) * min(1.0, max(0.0, event.fraction))
        text = event.text
        if not said.startswith("{}"):  # in the middle of a sentence
            text = text[:1].lower() + text[1:]
        return replace(event, fraction=fraction, text=said.replace("{}", text, 1))

    return changed(events, of_whole)


def shares(costs: Iterable[float]) -> list[tuple[float, float]]:
    """The `start` and `stop` of each part of a job, in proportion to what the parts cost.

    In any unit.  Parts of which none costs anything are alike; a cost below zero or that is no
    finite number counts as none.
    """
    known = [cost if math.isfinite(cost) and cost > 0 else 0.0 for cost in costs]
    if not any(known):
        known = [1.0] * len(known)
    ends = [end / math.fsum(known) for end in itertools.accumulate(known)]
    ends[-1:] = [1.0] * bool(ends)  # whatever was rounded
    return list(itertools.pairwise([0.0, *ends]))


def ahead(calls: Iterable[Callable[[], R]], at_once: int = 1) -> Generator[R, None, None]:
    """The results of calls in their order; while one is used, the next `at_once` are computed.

    Each in a thread.  What a call raises is raised at its turn.  Closed early, it waits for no
    call.
    """
    threads = ThreadPoolExecutor(at_once, "mats-ahead")
    waiting = deque[Future[R]]()
    try:
        for call in calls:
            waiting.append(threads.submit(contextvars.copy_context().run, call))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


class _Stopped(BaseException):
    """Raised inside work whose ticks are not read any more."""


Work = Callable[[Callable[[Any], None]], R]
_END = object()


def beside(
    works: Iterable[Work[R]], at_once: int = 1
) -> Generator[Generator[Any, None, R], None, None]:
    """For each `work(tick)`, in their order, a job: its events are what it calls `tick` with.

    Works are plain functions, which cannot yield: they run in threads, `at_once` of them at the
    same time, the first ones first.  So jobs are to be run one after the other; what a work raises
    is raised at its job's turn.  Closed early, it stops the works under way at their next ticks,
    and waits for them.
    """
    threads = ThreadPoolExecutor(at_once, "mats-solve")
    left, under_way = iter(works), deque[tuple[SimpleQueue[Any], Future[R]]]()
    stopped = threading.Event()

    def begin(work: Work[R]) -> None:
        told = SimpleQueue[Any]()

        def tick(value: Any) -> None:
            if stopped.is_set():
                raise _Stopped
            told.put(value)

        future = threads.submit(contextvars.copy_context().run, work, tick)
        future.add_done_callback(lambda _: told.put(_END))
        under_way.append((told, future))

    try:
        for work in itertools.islice(left, at_once):
            begin(work)
        while under_way:
            yield _job(*under_way.popleft())
            for work in itertools.islice(left, 1):
                begin(work)
    finally:
        stopped.set()
        threads.shutdown(cancel_futures=True)


def _job(told: SimpleQueue[Any], result: Future[R]) -> Generator[Any, None, R]:
    while (value := told.get()) is not _END:
        yield value
    return result.result()
