"""One stream of events: nested, drained, cancelled, and out of plain functions."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from mats_core.system.stream import Event, ahead, changed, drain, drained, part, ticking


@dataclass(frozen=True)
class Step(Event):
    number: int


def job(count: int, closed: list[str] | None = None) -> Generator[Step, None, int]:
    """Counts to `count`; the result is the sum."""
    try:
        for number in range(count):
            yield Step(number, fraction=number / count, text=f"Step {number}")
    finally:
        if closed is not None:
            closed.append("closed")
    return sum(range(count))


def test_a_job_is_drained_to_its_result():
    seen: list[Step] = []
    assert drain(job(4), seen.append) == 6
    assert [event.number for event in seen] == [0, 1, 2, 3]
    assert drain(job(0), seen.append) == 0
    assert drained(job)(4) == 6
    assert drained(job).__doc__ == job.__doc__


def test_what_a_handler_raises_closes_the_job_first():
    closed: list[str] = []

    def stop(event: Step) -> None:
        if event.number == 1:
            raise KeyError

    with pytest.raises(KeyError):
        drain(part(part(job(4, closed)), 0.2, 0.4), stop)
    assert closed == ["closed"]


def test_a_part_runs_from_its_start_to_its_stop_and_speaks_in_the_whole_jobs_sentence():
    events = part(part(job(4), 0.5, 1.0, "Trial {}"), 0.2, 0.4, "{}, at last")
    found = list(events)
    assert [event.fraction for event in found] == pytest.approx([0.3, 0.325, 0.35, 0.375])
    assert found[2].text == "Trial step 2, at last"
    assert [event.number for event in found] == [0, 1, 2, 3]
    assert drain(part(job(4), 0.5)) == 6


def test_a_text_with_braces_is_no_template():
    def odd() -> Generator[Event, None, None]:
        yield Event(text="{} {0}")

    (event,) = part(odd(), said="of {x}: {}")
    assert event.text == "of {x}: {} {0}"


def test_events_can_be_changed_and_left_out():
    events = changed(job(4), lambda event: event if event.number % 2 else None)
    assert [event.number for event in events] == [1, 3]
    assert drain(changed(job(4), lambda event: None)) == 6


def work(count: int, log: list[object], tick) -> str:
    log.append(threading.current_thread().name)
    try:
        for number in range(count):
            tick(number)
            log.append(number)
    finally:
        log.append("cleared up")
    return "result"


def test_a_plain_function_tells_its_ticks_and_returns_its_result():
    log: list[object] = []

    def outer() -> Generator[int, None, None]:
        log.append((yield from ticking(lambda tick: work(3, log, tick))))

    assert list(outer()) == [0, 1, 2]
    assert log[1:] == [0, 1, 2, "cleared up", "result"]
    assert log[0] != threading.current_thread().name


def test_the_work_waits_for_its_reader_and_is_stopped_at_its_tick():
    log: list[object] = []
    ticks = ticking(lambda tick: work(100, log, tick))
    assert next(ticks) == 0
    assert next(ticks) == 1
    assert log[1:] == [0], "the work stands at its second tick"
    ticks.close()
    assert log[1:] == [0, "cleared up"]
    assert all(thread.name != "mats-solve" for thread in threading.enumerate())


def test_an_exception_thrown_in_stops_the_work_and_comes_out():
    log: list[object] = []
    ticks = ticking(lambda tick: work(100, log, tick))
    next(ticks)
    with pytest.raises(KeyError):
        ticks.throw(KeyError())
    assert log[1:] == ["cleared up"]


def test_what_the_work_raises_is_raised_here():
    def fails(tick) -> None:
        tick(1)
        raise ValueError("bad layer")

    ticks = ticking(fails)
    assert next(ticks) == 1
    with pytest.raises(ValueError, match="bad layer"):
        next(ticks)


def test_ahead_computes_the_next_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(4)]

    def call(number: int) -> int:
        begun[number].set()
        return number * 10

    results = ahead(functools.partial(call, number) for number in range(4))
    assert next(results) == 0
    assert begun[1].wait(10)  # without being asked for
    assert not begun[2].is_set()  # one at most
    assert list(results) == [10, 20, 30]


def test_what_a_call_raises_comes_at_its_turn() -> None:
    def call(number: int) -> int:
        if number == 1:
            raise ValueError("the second")
        return number

    results = ahead(functools.partial(call, number) for number in range(3))
    assert next(results) == 0
    with pytest.raises(ValueError, match="the second"):
        next(results)


def test_closing_ahead_waits_for_no_call() -> None:
    never, started = threading.Event(), threading.Event()

    def call(number: int) -> int:
        if number:
            started.set()
            never.wait(30)
        return number

    results = ahead(functools.partial(call, number) for number in range(3))
    next(results)
    assert started.wait(10)
    begun = time.perf_counter()
    results.close()
    assert time.perf_counter() - begun < 10
    never.set()


def test_ahead_of_nothing_is_nothing() -> None:
    assert list(ahead([])) == []
