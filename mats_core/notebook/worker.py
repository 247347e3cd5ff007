"""One thread that answers the newest request, and stops what is asked for no more.

An answer is a generator of states.  Between two of them a newer request closes it, which cancels
the merge that it runs; no event loop is needed, because callbacks of widgets run in threads of
kernels that differ in theirs.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Generator
from typing import Any, Protocol

QUIET = 0.06  # seconds without a change before work begins: a drag moves more often
EVERY = 0.1  # seconds between two tellings of mere progress
LET_END = 0.25  # seconds that an outdated answer may still take
PATIENCE = 5.0  # seconds that the thread has to end with the process


class Step(Protocol):
    """A state of an answer, as far as the worker reads it.

    fraction   of the answer that is done, 0 to 1
    news       changes whenever there is more to be seen than progress
    answered   whether the request has its first result
    """

    @property
    def fraction(self) -> float: ...
    @property
    def news(self) -> int: ...
    @property
    def answered(self) -> bool: ...


Answer = Generator[Any, None, None]


class Worker:
    """A thread for one panel.

    answer   request → its states; what it raises goes to `failed`
    tell     called in the thread with the states that are worth showing
    failed   called in the thread with an exception, after which the request counts as answered

    `history` holds (seconds, how it ended) of the latest requests, for measurements.
    """

    def __init__(
        self,
        answer: Callable[[Any], Answer],
        tell: Callable[[Any], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._answer, self._tell, self._failed = answer, tell, failed
        self._changed = threading.Condition()
        self._request: Any = None
        self._asked = self._answered = self._done = 0
        self._closed = False
        self.history: list[tuple[float, str]] = []
        self._thread = threading.Thread(target=self._loop, name="mats-explore", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def ask(self, request: Any) -> None:
        """Make this the newest request."""
        with self._changed:
            self._request = request
            self._asked += 1
            self._changed.notify_all()

    def wait(self, seconds: float | None = None, *, whole: bool = False) -> bool:
        """Whether the newest request has its first result (`whole`: all of it) in this time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or self._is_done(whole), seconds)

    def close(self) -> None:
        """Stop the work and end the thread."""
        atexit.unregister(self.close)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(PATIENCE)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _is_done(self, whole: bool) -> bool:
        return (self._done if whole else self._answered) == self._asked

    def _loop(self) -> None:
        while (number := self._next()) is not None:
            started = time.perf_counter()
            ended = self._follow(self._answer(self._request), number, started)
            self.history = [*self.history[-99:], (time.perf_counter() - started, ended)]
            with self._changed:
                self._changed.notify_all()

    def _next(self) -> int | None:
        """The number of the newest request, once it has stood for a moment; None: closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._done != self._asked)
            now = -1
            while now != self._asked and not self._closed:
                now = self._asked
                self._changed.wait_for(lambda at=now: self._closed or self._asked != at, QUIET)
            return None if self._closed else now

    def _follow(self, states: Answer, number: int, started: float) -> str:
        """Show an answer to its end, or until it is outdated."""
        told, news, answered = 0.0, -1, False
        try:
            for state in states:
                outdated = self._closed or self._asked != number
                if outdated and (self._closed or answered or self._far(state, started)):
                    states.close()
                    return "stopped"
                now = time.perf_counter()
                if state.news != news or now - told > EVERY:
                    told, news = now, state.news
                    self._tell(state)
                if state.answered and not answered:
                    answered = True
                    self._reached(number)
        except Exception as error:  # a sentence in the panel, never a traceback elsewhere
            with contextlib.suppress(Exception):  # nothing that is shown may end the thread
                self._failed(error)
            self._reached(number, whole=True)
            return "failed"
        self._reached(number, whole=True)
        return "done"

    def _far(self, state: Step, started: float) -> bool:
        """Whether a first result is more than a moment away: a nearly finished merge may end."""
        spent = time.perf_counter() - started
        return spent * (1 - state.fraction) / max(state.fraction, 1e-3) > LET_END

    def _reached(self, number: int, *, whole: bool = False) -> None:
        with self._changed:
            self._answered = number
            if whole:
                self._done = number
            self._changed.notify_all()
