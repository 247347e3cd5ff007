"""The progress of the session's jobs: one bar, polled without drawing the page again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ..work import Job, Snapshot
from . import caches, state, tracked
from .show import plain
from .state import Slot

PROGRESS = "progress"  # style.css keeps it in sight
POLL = 0.5  # seconds; the chart is not redrawn meanwhile, only the progress bar


def bar(
    *slots: Slot,
    cancel: Sequence[Slot] = (),
    quiet: Sequence[Job] = (),
    live: Callable[[Any], None] | None = None,
    name: str = PROGRESS,
) -> None:
    """The progress of the first active job in the slots; the page is rerun when any job ends.

    cancel   slots whose first active job can be cancelled here
    quiet    jobs that are watched too, without a bar
    live     draws what the job tells as its partial result
    name     of the bar, where a page has another one
    """
    held = [job for slot in slots if (job := state.job(slot)) is not None]
    before = [job.after for job in held if job.after is not None]  # seen while they are waited for
    jobs = list(dict.fromkeys([*before, *held]))
    watched = [*jobs, *quiet]
    polled = False

    def poll() -> None:
        nonlocal polled
        # Not while the page is drawn: a browser that has not seen its widgets yet would take
        # those of the next run, which are sent without their defaults.
        if polled and tracked.news(watched):
            st.rerun()
        polled = True
        if (job := _first(jobs)) is None:
            return
        now = job.snapshot()
        with st.container(horizontal=True, vertical_alignment="center", key=name):
            st.progress(now.fraction, text=plain(_where(job, now)))
            if (stoppable := tracked.active(*cancel)) is not None:
                st.button(
                    "Cancel", on_click=stoppable.cancel, icon=":material/close:",
                    key=f"cancel {name}",
                )  # fmt: skip
        if live is not None and now.partial is not None:
            live(now.partial)

    busy = any(job.active for job in watched) or tracked.news(watched)
    st.fragment(poll, run_every=POLL if busy else None)()


def meanwhile(place: DeltaGenerator, job: Job) -> DeltaGenerator:
    """The progress of this job and the one before it, until the bar takes its place: what is drawn
    below before the bar does not move then.  To be emptied."""
    found = place.empty()
    first = _first([one for one in (job.after, job) if one is not None])
    if first is not None:
        now = first.snapshot()
        found.progress(now.fraction, text=plain(_where(first, now)))
    return found


def _first(jobs: Sequence[Job]) -> Job | None:
    """The job that is running, else the first that waits."""
    active = [job for job in jobs if job.active]
    running = (job for job in active if job.snapshot().state == "running")
    return next(running, active[0] if active else None)


def _where(job: Job, now: Snapshot) -> str:
    """What the job does, and for how long it still will."""
    if now.state == "waiting":
        before = caches.worker().before(job)
        if not before:
            return "Next in line"
        more = f" and {len(before) - 1} more" if len(before) > 1 else ""
        return f"Waiting, number {len(before)} in line, after: {before[0]}{more}"
    if now.fraction < 0.08 or now.seconds < 1.5:
        return now.text
    left = now.seconds * (1 - now.fraction) / now.fraction
    return f"{now.text} · about {left:.0f} s left" if left >= 1 else now.text
