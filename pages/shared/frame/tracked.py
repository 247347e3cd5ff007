"""Jobs of the session: started in a slot, watched by the page, collected from it once.

A page is drawn while the worker goes on, so a job may end between any two of its lines.  What the
page knew is therefore written down before its first line (`begin`); whatever ends later is `news`,
and the page is drawn again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakSet

import streamlit as st

from ..work import Job, Prepared, Run
from . import browser, caches, show, state
from .state import Slot, session


@contextmanager
def drawing() -> Iterator[None]:
    """While a page is drawn, what runs in the background rests: both would share one interpreter,
    and a visitor waits for the page alone."""
    desk = caches.worker()
    desk.attend(1)
    try:
        yield
    finally:  # a page that stops or starts over raises
        desk.attend(-1)


def begin() -> None:
    """Write down which jobs have ended, before anything of a page is drawn."""
    jobs = (*map(state.job, Slot), *session.refining, session.sweep, session.search, session.ladder,
            session.sizes, session.soup, session.board)  # fmt: skip
    # Weak: the result of a job that is collected now would live until the next run of the page.
    session.known_ended = WeakSet(job for job in jobs if job is not None and not job.active)


def news(jobs: Iterable[Job]) -> bool:
    """Whether one of the jobs has ended since the page began to be drawn."""
    known = session.known_ended or ()
    return any(not job.active and job not in known for job in jobs)


def start(
    slot: Slot,
    request: Any,
    title: str,
    work: Callable[..., Any],
    *,
    background: bool = False,
    after: Job | None = None,
    patient: bool = False,
) -> Job:
    """A job in a slot, handed to the worker; the one that was there is cancelled."""
    job = Job(request, title, work, background=background, after=after, patient=patient)
    return put(slot, job)


def press(
    slot: Slot,
    request: Any,
    title: str,
    work: Callable[..., Any],
    *,
    background: bool = False,
    keep: Callable[[Job], None] = lambda job: None,
    name: str = "",
) -> None:
    """The same of a button: the page is drawn again, with the progress.  `keep` gets the job.

    `name`: any session finds the job and its result by it (see `shared`).
    """
    job = Job(request, title, work, background=background, name=name, shared=bool(name))
    keep(pressed(slot, job))
    st.rerun()


def name(prepared: Prepared, *said: str) -> str:
    """The name of what is measured on the files of a family, whoever asks for it."""
    return " ".join((*caches.identity(prepared.inputs), *prepared.data, *said))


def of_run(prepared: Prepared, run: Run, *said: str) -> str:
    """The same of what is measured on a run: only who knows of the run asks for it."""
    files = (Path(entry.statistics).name for entry in run.recipe.experts if entry.statistics)
    return name(prepared, *said, run.id, *files)


def named(link: str, name: str) -> str:
    """The name of what an address can name: by the digest of all that decides on it."""
    return f"{link} {hashlib.sha256(name.encode()).hexdigest()[:20]}"


def of_address(slot: Slot, link: str, now: Job | None) -> Job | None:
    """The job that the session shows, or the one that the address names by `link` since: the tab
    was reloaded, the address was handed on, or Back was pressed.  One that is under way is put into
    the slot."""
    wanted = browser.given(link, session.linked.get(link))
    if wanted is None or session.linked.get(link) == wanted:
        return now
    job = caches.worker().named(f"{link} {wanted}")
    if job is not None and job.active and state.job(slot) is None:
        state.put_job(slot, job)
    session.linked = {**session.linked, link: wanted}
    return job


def in_address(link: str, job: Job | None) -> dict[str, str | None]:
    """What the address shall say of a job that `named` has named."""
    if job is None:
        return {}
    session.linked = {**session.linked, link: job.name.removeprefix(f"{link} ")}
    return {link: session.linked[link]}


def shared(slot: Slot, name: str) -> Job | None:
    """The job of this name, also of another window or of a tab that was closed.

    One that is under way is put into the slot, and the page is drawn again with its progress.
    """
    job = caches.worker().named(name)
    if job is not None and job.active and state.job(slot) is None:
        state.put_job(slot, job)
        st.rerun()
    return job


def found(slot: Slot, name: str) -> Any:
    """What a job of this name has found, in this session or another, also while the next one of
    this name is under way; None where there is nothing."""
    shared(slot, name)
    job = caches.worker().finished(name)
    return None if job is None else job.outcome()


def pressed(slot: Slot, job: Job, *, look: bool = False) -> Job:
    """A job that was asked for by a press: what was said before goes, and page readers hear it."""
    show.forget()
    browser.say(f"{job.title}.", look=look)
    return put(slot, job)


def put(slot: Slot, job: Job) -> Job:
    """The same of a job that is made already."""
    stop(slot)
    state.put_job(slot, caches.worker().submit(job))
    return job


def stop(slot: Slot) -> None:
    """Cancel the job in a slot, and empty the slot."""
    if (job := state.job(slot)) is not None:
        job.cancel()
    state.put_job(slot, None)


def active(*slots: Slot) -> Job | None:
    """The first job in the slots that has not ended."""
    jobs = map(state.job, slots)
    return next((job for job in jobs if job is not None and job.active), None)


def collect(
    slot: Slot, on_done: Callable[[Job], None] = lambda job: None, *, cancelled: str = ""
) -> None:
    """Empty a slot whose job has ended: hand the job to `on_done` where it has a result.

    Where it failed, the page says why; where it was cancelled, it says `cancelled`.  Page readers
    hear all three.
    """
    job = state.job(slot)
    if job is None or job.active:
        return
    state.put_job(slot, None)
    now = job.snapshot()
    if now.state == "done":
        browser.say(f"{job.title}: done.")
        on_done(job)
    elif now.state == "failed":
        show.keep("error", now.error)
    elif cancelled:
        show.keep("info", cancelled)


def ended_badly(slot: Slot, *, cancelled: str = "", again: str = "Try again") -> bool:
    """Whether the job in a slot failed or was cancelled; says why, and offers to begin anew."""
    job = state.job(slot)
    now = job.snapshot() if job is not None else None
    if now is None or now.state not in ("failed", "cancelled"):
        return False
    if sentence := now.error or cancelled:
        show.problem(sentence)
    if st.button(again, icon=":material/refresh:"):
        stop(slot)
        st.rerun()
    return True
