"""The frame of what tries many merges of one family: a sweep, a search, a greedy soup.

Controls on the left with the press and what it will take; on the right what there is to know before
it, then the picture as it grows, and at the end what can be done with the best.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import streamlit as st

from mats_core.recipes import Recipe

from ..frame import Slot, session, show, state, tracked
from ..work import Job, Prepared
from . import runs

POLL = 1.5  # seconds between two looks at one that runs


class Asked(Protocol):
    """What was asked for, over which family."""

    @property
    def family(self) -> str: ...


R = TypeVar("R", bound=Asked)


@dataclass(frozen=True)
class Frame(Generic[R]):
    """How one kind of them is asked for and shown.

    name      under which the session holds its last job, and the keys of its widgets begin
    slot      of the job until its end was said
    icon      of the press
    before    what there is to know before the first
    start     hands a request over a prepared family to the worker
    live      draws what is known of a job that runs; finished: of one that has ended
    left      a sentence for one that was cancelled after `{count}` of them
    """

    name: str
    slot: Slot
    icon: str
    before: str
    start: Callable[[R, Prepared], None]
    live: Callable[[Job], None]
    finished: Callable[[Job], None]
    left: str

    def section(
        self,
        family: str,
        controls: Callable[[], tuple[R | None, str]],
        estimate: Callable[[R], None],
        label: Callable[[R | None], str],
        prepared: Prepared | None,
    ) -> None:
        """Controls and press on the left, what came of them on the right.

        controls   draw themselves, and give what they ask for, or what is wrong with it
        estimate   says what a request will take
        label      what the press is called
        """
        left, right = st.columns([4, 9], gap="large")
        with left:
            request, problem = controls()
            clicked = st.button(
                label(request), type="primary", icon=self.icon, key=f"{self.name} start",
                disabled=request is None or prepared is None,
            )  # fmt: skip
            if problem:
                show.problem(problem)
            elif request is not None:
                estimate(request)
        if clicked and request is not None and prepared is not None:
            self.start(request, prepared)
        job: Job | None = getattr(session, self.name)
        with right:
            if job is None or job.request.family != family:
                st.info(self.before, icon=self.icon)
            elif job.active:
                st.fragment(self.live, run_every=POLL)(job)
            else:
                self.finished(job)

    def hold(self, job: Job) -> None:
        """Keep a job as the last one of its kind."""
        setattr(session, self.name, job)

    def collect(self) -> None:
        """Say how the last one ended, once; what it found stays."""
        job: Job | None = getattr(session, self.name)
        so_far = (job.snapshot().partial if job else None) or ()
        tracked.collect(self.slot, cancelled=self.left.format(count=len(so_far)))


def estimated(text: str, merges: int, seconds: Sequence[float], more: str = "") -> None:
    """What so many merges take, by the last of those of their kind (`seconds`)."""
    if seconds:
        whole = merges * seconds[-1]
        text += f", about {whole:.0f} s" if whole < 90 else f", about {whole / 60:.0f} min"
    st.caption(f"{text}{more}. Other merges go first; this page need not stay open.")


def clicked(answers: Sequence[Any], job: int, last: str, key: str, good: Container[int]) -> None:
    """A point of a picture that has just been clicked becomes the chosen one, under `key`; `last`
    names the session's last click."""
    for answer in answers:
        points = answer["selection"]["points"] if answer else []
        places = [p["customdata"] for p in points if p.get("customdata") is not None]
        if not places:
            continue
        place = int(places[0][0] if isinstance(places[0], list) else places[0])
        if getattr(session, last) != (job, place) and place in good:
            setattr(session, last, (job, place))
            state.put(key, place)


def use(recipe: Recipe, key: str, help: str) -> None:
    """A press that opens Merge with a recipe's settings."""
    if st.button("Use these settings", type="primary", icon=":material/merge:", key=key, help=help):
        runs.want(recipe)
