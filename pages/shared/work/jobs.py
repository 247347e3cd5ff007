"""Long work beside the page, as jobs that can be watched and cancelled.

Work is a function `work(tell) -> result` that knows no Streamlit.  It calls `tell(fraction, text)`
between its steps, which is also where a cancelled job stops, and where others pass it
(`worker.py`).  The page polls snapshots.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from mats_core.errors import InputError, duration

from .. import policy
from ..policy import Visitor

State = Literal["waiting", "running", "done", "failed", "cancelled"]


class Tell(Protocol):
    """How work says where it is; raises where it was cancelled."""

    def __call__(self, fraction: float, text: str, partial: Any = None) -> None: ...


Work = Callable[[Tell], Any]
log = logging.getLogger(__name__)


class Cancelled(Exception):
    """Raised inside the work when nobody wants its result any more."""


@dataclass(frozen=True)
class Snapshot:
    """A job at one moment; `error` is a sentence."""

    state: State = "waiting"
    fraction: float = 0.0
    text: str = "Waiting for its turn"
    result: Any = None
    partial: Any = None
    error: str = ""
    seconds: float = 0.0

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running")


class Job:
    """One piece of work for a frozen request.

    background   nobody waits for it (a sweep, a finer evaluation); others go first
    lasting      its work keeps what it makes: it goes on when the tab that asked for it is closed
    after        the job whose result it takes: before that has ended it is not begun
    patient      it is begun when no page is being drawn: what a page shows first comes first
    then         the job that follows from its result, if one does; the worker takes it up
    name         by which another session finds it (see `Worker.named`)
    shared       any session may ask for what it measures: it lasts, and the worker keeps its
                 result under its name

    `visitor`: the session that it belongs to alone, where sessions are apart (see `policy`).
    A snapshot's `partial` is what the work has found so far, for a page that shows it grow; its
    `seconds` are those of its own work, without the ones in which others passed.
    """

    def __init__(
        self,
        request: Any,
        title: str,
        work: Work,
        *,
        background: bool = False,
        lasting: bool = False,
        after: Job | None = None,
        patient: bool = False,
        then: Callable[[Any], Job | None] = lambda result: None,
        name: str = "",
        shared: bool = False,
    ) -> None:
        self.request, self.title, self.background = request, title, background
        self.lasting, self.name, self._then = lasting or shared, name, then
        self.shared, self.work, self.after, self.patient = shared, work, after, patient
        self.visitor: Visitor | None = None
        self.next: Job | None = None
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._ended, self._known = threading.Event(), threading.Event()
        self._now = Snapshot()
        self._started = time.perf_counter()
        self._away = 0.0  # seconds in which others passed
        self._meanwhile: Callable[[], None] | None = None

    @property
    def ready(self) -> bool:
        """Whether it can be begun, or go on."""
        return self.active and (self.after is None or not self.after.active)

    @property
    def worked(self) -> float:
        """Seconds of its own work so far."""
        return time.perf_counter() - self._started - self._away

    @property
    def remaining(self) -> float:
        """Seconds that it still takes, by how far it is; as long again where that says nothing."""
        done = self.snapshot().fraction
        return self.worked * (1 - done) / done if done > 0.01 else 100 * self.worked

    def wait_for(self, other: Job) -> None:
        """Say that another one goes first, until the next step."""
        self._set(text=f"Waiting for a shorter job: {other.title}")

    def away(self, seconds: float) -> None:
        """Others have passed it for so long."""
        self._away += seconds

    def snapshot(self) -> Snapshot:
        with self._lock:
            return self._now

    @property
    def active(self) -> bool:
        return self.snapshot().active

    def outcome(self) -> Any:
        """The result; raises `InputError` with the reason where there is none."""
        now = self.snapshot()
        if now.state != "done":
            raise InputError(now.error or f"{self.title} did not finish ({now.state})")
        return now.result

    def wait(self, seconds: float) -> bool:
        """Whether the work has ended after at most so many seconds."""
        return self._ended.wait(seconds)

    def knows(self, seconds: float) -> bool:
        """Whether there is something to show after at most so many seconds: a part of the result,
        or the end."""
        return self._known.wait(seconds)

    def cancel(self) -> None:
        """Ask the work to stop; a job that has not begun ends here."""
        self._stop.set()
        if self.snapshot().state == "waiting":
            self._set(state="cancelled", text="Cancelled")

    def refuse(self, sentence: str) -> None:
        """End before it has begun, with the reason."""
        self._set(state="failed", error=sentence)

    def tell(self, fraction: float, text: str, partial: Any = None) -> None:
        if self._stop.is_set():
            raise Cancelled
        if self.worked > (most := policy.current().seconds):
            raise InputError(
                self.title, expected=f"at most {duration(most)} of work", found="more",
                remedy="It was stopped: on a shared server others wait too.",
            )  # fmt: skip
        found = {} if partial is None else {"partial": partial}
        self._set(fraction=min(1.0, max(0.0, fraction)), text=text, **found)
        if self._meanwhile is not None:
            self._meanwhile()

    def run(
        self,
        meanwhile: Callable[[], None] | None = None,
        share: Callable[[Job, Any], None] = lambda job, result: None,
    ) -> None:
        """In the worker: do the work, and turn whatever happens into a state and a sentence.

        meanwhile   called between its steps
        share       called with the result, before the job says that it has ended
        """
        if self._stop.is_set():
            return
        self._meanwhile = meanwhile
        self._started = time.perf_counter()
        self._set(state="running", text=self.title)
        work, self.work = self.work, _nothing  # what it reads goes with its end
        try:
            with policy.visiting(self.visitor):
                result = work(self.tell)
                self.next = self._then(result)
            share(self, result)
        except Cancelled:
            self._set(state="cancelled", text="Cancelled")
        except InputError as error:
            self._set(state="failed", error=str(error))
        except BaseException as error:  # no work ends the one worker of all sessions
            if _process_ends():  # and takes the threads of this work with it
                self._set(state="cancelled", text="Cancelled")
                return
            log.exception("%s failed", self.title)
            reason = str(error).strip().split("\n")[0] or "no reason given"
            self._set(
                state="failed",
                error=f"{self.title} stopped unexpectedly ({type(error).__name__}: {reason}). "
                "Your other results are safe; the log of the app has the details.",
            )
        else:
            self._set(state="done", fraction=1.0, result=result)

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._now = replace(self._now, seconds=self.worked, **changes)
            if not self._now.active:
                self._ended.set()
            if self._now.partial is not None or not self._now.active:
                self._known.set()


def _nothing(tell: Tell) -> None:
    """The work of a job that was begun."""


def _process_ends() -> bool:
    """Whether Python shuts down: it begins no thread of a pool any more."""
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(int)
    except RuntimeError:
        return True
    return False
