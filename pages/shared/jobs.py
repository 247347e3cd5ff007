"""Long work beside the page: one worker thread a session, and jobs that can be watched.

Work is a function `work(tell) -> result` that knows no Streamlit.  It calls `tell(fraction, text)`
between its steps, which is also where a cancelled job stops.  The page polls snapshots.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from mats_core.checks import InputError

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Tell = Callable[[float, str], None]
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
    error: str = ""
    seconds: float = 0.0

    @property
    def active(self) -> bool:
        return self.state in ("waiting", "running")


class Job:
    """One piece of work for a frozen request."""

    def __init__(self, request: Any, title: str, work: Work) -> None:
        self.request, self.title, self._work = request, title, work
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._now = Snapshot()
        self._started = time.perf_counter()

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

    def cancel(self) -> None:
        """Ask the work to stop; a job that has not begun ends here."""
        self._stop.set()
        if self.snapshot().state == "waiting":
            self._set(state="cancelled", text="Cancelled")

    def tell(self, fraction: float, text: str) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._set(fraction=min(1.0, max(0.0, fraction)), text=text)

    def run(self) -> None:
        """In the worker: do the work, and turn whatever happens into a state and a sentence."""
        if self._stop.is_set():
            return
        self._set(state="running", text=self.title)
        try:
            result = self._work(self.tell)
        except Cancelled:
            self._set(state="cancelled", text="Cancelled")
        except InputError as error:
            self._set(state="failed", error=str(error))
        except Exception as error:
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
            seconds = time.perf_counter() - self._started
            self._now = replace(self._now, seconds=seconds, **changes)


def _leave_a_core() -> None:
    """One core is the page's, where there are more than two; OMP_NUM_THREADS decides otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = os.cpu_count() or 2
        torch.set_num_threads(min(cores, max(2, cores - 1)))


class Worker:
    """One thread that does one job after another; closed when its session ends."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "mats-worker", initializer=_leave_a_core)
        self._jobs: list[Job] = []

    def submit(self, job: Job) -> Job:
        self._jobs = [*(j for j in self._jobs if j.active), job]
        self._executor.submit(job.run)
        return job

    def close(self) -> None:
        for job in self._jobs:
            job.cancel()
        self._executor.shutdown(wait=False, cancel_futures=True)
