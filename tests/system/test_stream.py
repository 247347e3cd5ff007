"""One stream of events: nested, drained, cancelled, and out of plain functions."""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass

import pytest

from mats_core.system.stream import Event, ahead, beside, changed, drain, drained, part, shares


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
    return f"result of {count}"


def one_after_the_other(works, at_once: int) -> Generator[object, None, list[str]]:
    results = []
    with contextlib.closing(beside(works, at_once)) as jobs:
        for one in jobs:
            results.append((yield from one))
    return results


@pytest.mark.parametrize("at_once", [1, 2, 5])
def test_plain_functions_tell_their_ticks_and_return_their_results_in_order(at_once):
    log: list[object] = []
    works = [functools.partial(work, count, log) for count in (3, 0, 2)]
    told = []

    def outer() -> Generator[object, None, None]:
        told.append((yield from one_after_the_other(works, at_once)))

    assert list(outer()) == [0, 1, 2, 0, 1]
    assert told == [["result of 3", "result of 0", "result of 2"]]
    assert threading.current_thread().name not in log


def test_as_many_as_asked_for_are_under_way_and_no_more():
    both, third = threading.Barrier(2, timeout=10), threading.Event()

    def meets(tick) -> None:
        both.wait()

    def late(tick) -> None:
        third.set()

    with contextlib.closing(beside([meets, meets, late], 2)) as jobs:
        drain(next(jobs))  # would time out if the second were not at work
        assert not third.is_set(), "the first may still be in use"
        drain(next(jobs))
        drain(next(jobs))
    assert third.is_set()


@pytest.mark.parametrize("at_once", [1, 2])
def test_closing_stops_the_works_at_their_ticks_and_waits_for_them(at_once):
    log: list[object] = []
    works = [functools.partial(work, 10**9, log) for _ in range(3)]
    jobs = beside(works, at_once)
    assert next(next(jobs)) == 0
    jobs.close()
    assert log.count("cleared up") == at_once
    assert all(not thread.name.startswith("mats-solve") for thread in threading.enumerate())


def test_what_a_work_raises_is_raised_at_its_turn_and_stops_the_others():
    log: list[object] = []

    def fails(tick) -> None:
        tick(1)
        while not log:  # the other one has begun
            time.sleep(0.001)
        raise ValueError("bad layer")

    steps = one_after_the_other([fails, functools.partial(work, 10**9, log)], 2)
    assert next(steps) == 1
    with pytest.raises(ValueError, match="bad layer"):
        next(steps)
    assert log[-1] == "cleared up"


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_ahead_computes_the_next_while_one_is_used(at_once: int) -> None:
    begun = [threading.Event() for _ in range(5)]

    def call(number: int) -> int:
        begun[number].set()
        return number * 10

    results = ahead((functools.partial(call, number) for number in range(5)), at_once)
    assert next(results) == 0
    assert all(event.wait(10) for event in begun[: at_once + 1])  # without being asked for
    assert not begun[at_once + 1].is_set()  # and not one more
    assert list(results) == [10, 20, 30, 40]


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


@pytest.mark.parametrize(
    ("costs", "ends"),
    [
        ([1, 1, 2], [0.25, 0.5, 1]),
        ([0, 3, 1], [0, 0.75, 1]),
        ([0, 0], [0.5, 1]),
        ([float("nan"), 1, -1, float("inf"), 1], [0, 0.5, 0.5, 0.5, 1]),
        ([0.1] * 10, [(k + 1) / 10 for k in range(10)]),
        ([], []),
    ],
)
def test_parts_of_a_job_take_their_share_of_it(costs, ends):
    found = shares(costs)
    assert [stop for _, stop in found] == pytest.approx(ends)
    assert [start for start, _ in found] == pytest.approx([0, *ends][: len(costs)])
    assert not found or found[-1][1] == 1.0
