"""The newest request wins: cancellation, debouncing, errors and closing, without widgets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mats_core.notebook.worker import LET_END, Worker

SOON = 10  # seconds: far more than is needed


@dataclass(frozen=True)
class Step:
    fraction: float = 0.0
    news: int = 0
    answered: bool = False
    request: Any = None


class Desk:
    """A worker whose answers are made by hand."""

    def __init__(self, answer: Callable[[Any], Any]) -> None:
        self.told: list[Step] = []
        self.errors: list[Exception] = []
        self.closed: list[Any] = []
        self.worker = Worker(lambda request: self._answer(answer, request), self.told.append,
                             self.errors.append)  # fmt: skip

    def _answer(self, answer: Callable[[Any], Any], request: Any) -> Any:
        try:
            yield from answer(request)
        except GeneratorExit:
            self.closed.append(request)
            raise

    @property
    def results(self) -> list[Any]:
        return [step.request for step in self.told if step.answered]


@pytest.fixture
def desk():
    made: list[Desk] = []

    def open_desk(answer: Callable[[Any], Any]) -> Desk:
        made.append(Desk(answer))
        return made[-1]

    yield open_desk
    for one in made:
        one.worker.close()
        assert not one.worker.alive


def endless(request):
    """Work that ends only when it is closed, but for the request "short"."""
    while request != "short":
        time.sleep(0.01)
        yield Step(0.01, request=request)
    yield Step(1.0, 1, True, request)


def test_a_newer_request_stops_the_work_under_way(desk):
    one = desk(endless)
    one.worker.ask("long")
    time.sleep(0.3)
    assert not one.worker.wait(0)
    started = time.perf_counter()
    one.worker.ask("short")
    assert one.worker.wait(SOON)
    assert time.perf_counter() - started < 5
    assert one.closed == ["long"]
    assert one.results == ["short"]
    assert [how for _, how in one.worker.history] == ["stopped", "done"] or one.worker.wait(
        SOON, whole=True
    )


def test_a_burst_of_requests_gives_one_result(desk):
    def answer(request):
        yield Step(1.0, request, True, request)

    one = desk(answer)
    for number in range(40):
        one.worker.ask(number)
    assert one.worker.wait(SOON, whole=True)
    assert one.results == [39]


def test_a_nearly_finished_answer_shows_its_result_but_nothing_after_it(desk):
    going, begun = threading.Event(), threading.Event()

    def answer(request):
        yield Step(0.0, request=request)
        begun.set()
        if request == "old":
            assert going.wait(SOON)
        yield Step(0.999, request=request)  # the rest would take far less than LET_END
        yield Step(1.0, 1, True, request)
        yield Step(1.0, 2, True, f"{request}, explained")

    one = desk(answer)
    one.worker.ask("old")
    assert begun.wait(SOON)
    one.worker.ask("new")
    going.set()
    assert one.worker.wait(SOON, whole=True)
    assert one.results == ["old", "new", "new, explained"]
    assert LET_END < 0.4


def test_an_exception_is_told_and_the_next_request_is_answered(desk):
    def answer(request):
        yield Step(0.5)
        if request == "bad":
            raise RuntimeError("a library broke")
        yield Step(1.0, 1, True, request)

    one = desk(answer)
    one.worker.ask("bad")
    assert one.worker.wait(SOON, whole=True)
    assert [str(error) for error in one.errors] == ["a library broke"]
    one.worker.ask("good")
    assert one.worker.wait(SOON)
    assert one.results == ["good"]


def test_what_cannot_be_shown_does_not_end_the_thread(desk):
    def answer(request):
        yield Step(1.0, 1, True, request)

    one = desk(answer)
    shown = one.worker._tell

    def broken(thing: Any) -> None:
        raise KeyError("a name")

    one.worker._tell = one.worker._failed = broken
    one.worker.ask("x")
    assert one.worker.wait(SOON, whole=True)
    one.worker._tell = shown
    one.worker.ask("y")
    assert one.worker.wait(SOON)
    assert one.results == ["y"]


def test_progress_is_told_seldom_and_news_at_once(desk):
    def answer(request):
        for number in range(400):
            yield Step(number / 400, number // 100)
        yield Step(1.0, 9, True, request)

    one = desk(answer)
    started = time.perf_counter()
    one.worker.ask("x")
    assert one.worker.wait(SOON, whole=True)
    most = 5 + (time.perf_counter() - started) / 0.1
    assert sorted({step.news for step in one.told}) == [0, 1, 2, 3, 9]
    assert len(one.told) <= most + 1


def test_closing_ends_the_thread_in_the_middle_of_work_and_those_who_wait(desk):
    one = desk(endless)
    one.worker.ask("long")
    waiting = threading.Thread(target=one.worker.wait, args=(SOON,))
    waiting.start()
    time.sleep(0.2)
    one.worker.close()
    waiting.join(SOON)
    assert not waiting.is_alive()
    assert not one.worker.alive
    assert one.closed in ([], ["long"])
    assert one.results == []
