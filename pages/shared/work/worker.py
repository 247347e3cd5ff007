"""One worker thread for all sessions, and a session's way to it.

Jobs that a visitor waits for go first; those in the background let them, and rest while a page is
drawn; a long one lets short ones pass.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import OrderedDict
from typing import Any

import torch

from mats_core.errors import InputError, listing
from mats_core.system import nbytes

from .. import policy
from ..policy import Visitor
from .jobs import Job

log = logging.getLogger(__name__)
MOST_SHARED = 1 << 28  # bytes of results that the worker keeps; the newest stays in any case
SLICE = 0.05  # seconds after which a job lets shorter ones pass
SHORT = 1.0  # seconds that a job is expected to take of whose kind none has ended yet
DEEPEST = 8  # jobs that have begun and wait for shorter ones, at most
REST = 2.0  # seconds that work in the background rests at most while a page is drawn
PATIENT = 10.0  # seconds that a patient job waits at most for pages that are drawn
Shared = tuple[Visitor | None, str]  # whose it is alone, where sessions are apart, and its name
PATIENCE = 5.0  # seconds that the running job has to end by itself when the process does


def _leave_a_core() -> None:
    """One core is the page's, where there are more than two; OMP_NUM_THREADS decides otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        cores = os.cpu_count() or 2
        torch.set_num_threads(min(cores, max(2, cores - 1)))


class Worker:
    """One thread for the whole process that does one job after another.

    Two merges at once would only fight for the same cores and the same memory.  Jobs that somebody
    waits for come first, in the order in which they were asked for; then those in the background.
    A job that takes long lets those pass between its steps that are expected to take less than what
    is left of it: a short one waits for a moment, whoever asked for the long one.
    """

    def __init__(self) -> None:
        self._took: dict[str, float] = {}  # seconds of the last job of each title
        self._waiting: list[Job] = []
        self._running: list[Job] = []  # one, and the one that lets it go first
        self._shared: OrderedDict[Shared, tuple[Job, int]] = OrderedDict()  # and the result's bytes
        self._ended = False
        self._pages = 0  # that are being drawn
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="mats-worker", daemon=True)
        self._thread.start()
        atexit.register(self.end)

    def end(self) -> None:
        """Cancel all jobs and wait for the running one, so that the process can end.

        A thread that is inside PyTorch when Python ends would abort the process.
        """
        with self._changed:
            self._ended = True
            for job in (*self._waiting, *self._running):
                job.cancel()
            self._changed.notify()
        self._thread.join(PATIENCE)

    def submit(self, job: Job) -> Job:
        if job.visitor is not None and job.visitor.closed:
            job.cancel()
            return job
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job

    def forget(self, visitor: Visitor) -> None:
        """A session has ended that was apart: its jobs end, and what they have found goes."""
        with self._changed:
            jobs = [*self._waiting, *self._running]
            for key in [key for key in self._shared if key[0] is visitor]:
                del self._shared[key]
        for job in jobs:
            if job.visitor is visitor:
                job.cancel()
        visitor.close()

    def attend(self, pages: int) -> None:
        """So many more pages are being drawn; fewer where it is negative."""
        with self._changed:
            self._pages += pages
            self._changed.notify()

    def _share(self, job: Job, result: Any) -> None:
        """Keep a shared job that has its result; those that were not asked for longest go."""
        if not job.shared:
            return
        room = nbytes(result)
        with self._changed:
            if job.visitor is not None and job.visitor.closed:
                return
            self._shared.pop((job.visitor, job.name), None)
            self._shared[job.visitor, job.name] = job, room
            own = [key for key in self._shared if key[0] is job.visitor]
            self._drop(own, policy.current().results)
            self._drop(list(self._shared), MOST_SHARED)

    def _drop(self, keys: list[Shared], most: float) -> None:
        """Let the oldest of these results go until they are small enough; the newest stays."""
        held = sum(self._shared[key][1] for key in keys)
        for key in keys[:-1]:
            if held <= most:
                return
            held -= self._shared.pop(key)[1]

    def named(self, name: str, visitor: Visitor | None = None) -> Job | None:
        """The job of this name that has not ended, or a shared one that has its result; of this
        session alone where sessions are apart."""
        with self._changed:
            jobs = [*self._running, *self._waiting]
        named = (job for job in jobs if name and job.name == name and job.visitor is visitor)
        return next((job for job in named if job.active), None) or self.finished(name, visitor)

    def finished(self, name: str, visitor: Visitor | None = None) -> Job | None:
        """The shared job of this name that has its result, also while another one is under way."""
        with self._changed:
            if (visitor, name) in self._shared:
                self._shared.move_to_end((visitor, name))
            job = self._shared.get((visitor, name), (None, 0))[0]
        return job if job is not None and not job.active else None

    def before(self, job: Job) -> list[str]:
        """The titles of what comes before a job that waits: what runs, then what will be begun."""
        with self._changed:
            running = [other for other in self._running[-1:] if other.active and other is not job]
            waiting = [other for other in self._waiting if other.active]
        if job.background is False:  # which passes those in the background
            running = [other for other in running if not other.background]
        order = sorted(waiting, key=lambda other: other.background)  # stable
        ahead = order[: order.index(job)] if job in order else []
        return [other.title for other in (*running, *ahead)]

    def _next(self, *, background: bool) -> Job | None:
        """Take the next job out of the queue, if there is one."""
        self._waiting = [job for job in self._waiting if job.active]
        ready = [job for job in self._waiting if job.ready and not self._holds_back(job)]
        first = next((job for job in ready if not job.background), None)
        if first is None and background:
            first = next(iter(ready), None)
        if first is not None:
            self._waiting.remove(first)
        return first

    def _holds_back(self, job: Job) -> bool:
        """Whether a patient job lets a page be drawn first."""
        return job.patient and self._pages > 0 and job.worked < PATIENT

    def _loop(self) -> None:
        _leave_a_core()
        while True:
            with self._changed:
                while not self._ended and (job := self._next(background=True)) is None:
                    # A page that hangs holds nothing back for good.
                    self._changed.wait(REST if self._waiting else None)
                if self._ended:
                    return
            self._run(job)
            del job  # or its result would live until the next one comes

    def _run(self, job: Job) -> None:
        self._running.append(job)
        passing = self._let_others_go_first if job.background else self._let_shorter_pass
        begun = time.perf_counter()
        if job.visitor is not None and job.visitor.closed:
            job.cancel()
        try:
            job.run(lambda: passing(job), self._share)
        except BaseException:  # as of a log that cannot be written
            log.critical("%s ended in a way that no job should", job.title, exc_info=True)
        finally:
            self._running.pop()
            if self._running:
                self._running[-1].away(time.perf_counter() - begun)
            if job.visitor is not None:
                job.visitor.sweep()
        if job.snapshot().state == "done":
            self._took[job.title] = job.worked
        if job.next is not None:
            job.next.visitor = job.visitor
            self.submit(job.next)

    def _let_shorter_pass(self, job: Job) -> None:
        """Run those first that are expected to take less than what is left of a long job."""
        if job.worked < SLICE or len(self._running) > DEEPEST:
            return
        while (other := self._shorter(job.remaining)) is not None:
            job.wait_for(other)
            self._run(other)

    def _shorter(self, seconds: float) -> Job | None:
        """The shortest job that waits, out of the queue, if it takes less than so long."""
        with self._changed:
            waiting = [one for one in self._waiting if one.ready and not one.background]
            first = min(waiting, key=self._expected, default=None)
            if first is None or self._expected(first) >= seconds:
                return None
            self._waiting.remove(first)
            return first

    def _expected(self, job: Job) -> float:
        """Seconds that a job takes, by the last one of its title."""
        return self._took.get(job.title, SHORT)

    def _let_others_go_first(self, job: Job) -> None:
        del job  # any other one goes first
        while True:
            with self._changed:
                other = self._next(background=False)
                if other is None:
                    # A page that hangs stops no work for good.
                    self._changed.wait_for(self._is_wanted, REST)
                    other = self._next(background=False)
            if other is None:
                return
            self._run(other)

    def _is_wanted(self) -> bool:
        """Whether a job in the background need not rest any longer."""
        foreground = any(job.active and not job.background for job in self._waiting)
        return self._ended or foreground or not self._pages


class Desk:
    """A session's way to the worker; when the session ends, its jobs are cancelled, but for those
    that last.

    visitor   the session, where sessions are apart: it finds its own jobs alone, and ends with all
    """

    def __init__(self, worker: Worker, visitor: Visitor | None = None) -> None:
        self._worker, self._jobs, self.visitor = worker, list[Job](), visitor

    def submit(self, job: Job) -> Job:
        """Hand a job to the worker; one that is not done here, or too many, fails with a sentence
        at once."""
        active = [j for j in self._jobs if j.active]
        alike = [j for j in active if j.background == job.background]
        job.visitor, limits = self.visitor, policy.current()
        try:
            limits.require_work(job.work)
            if len(alike) >= limits.jobs:
                raise InputError(
                    job.title, expected=f"at most {limits.jobs:g} pieces of work of one session",
                    found=f"{len(alike)} under way ({listing(j.title for j in alike)})",
                    remedy="On a shared server others wait too: cancel one, or wait for it.",
                )  # fmt: skip
        except InputError as error:
            job.refuse(str(error))
            return job
        self._jobs = [*active, job]
        return self._worker.submit(job)

    def attend(self, pages: int) -> None:
        self._worker.attend(pages)

    def before(self, job: Job) -> list[str]:
        return self._worker.before(job)

    def named(self, name: str) -> Job | None:
        return self._worker.named(name, self.visitor)

    def finished(self, name: str) -> Job | None:
        return self._worker.finished(name, self.visitor)

    def close(self) -> None:
        if self.visitor is not None:
            self._worker.forget(self.visitor)
        for job in self._jobs:
            if not job.lasting:
                job.cancel()
