"""Jobs in slots: started once, collected once, and nothing that ends is missed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from mats_core.errors import InputError
from pages.shared.frame import Slot, caches, progress, session, show, shown, state, tracked
from pages.shared.work.jobs import Job, Tell
from pages.shared.work.worker import Desk, Worker
from tests.pages.driving import kept, press, sentences, settle
from tests.pages.work.test_jobs import ended, until

Open = Callable[..., AppTest]
SLOT = Slot.TRACING


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty session without an app, with a worker."""
    desk = Desk(Worker())
    monkeypatch.setattr("streamlit.session_state", {})
    monkeypatch.setattr(caches, "worker", lambda: desk)


def start(work: Callable[[Tell], Any]) -> Job:
    return tracked.start(SLOT, "request", "This", work)


def gate() -> tuple[threading.Event, Callable[[Tell], str]]:
    opened = threading.Event()

    def work(tell: Tell) -> str:
        while not opened.wait(0.005):
            tell(0.5, "working")
        return "result"

    return opened, work


def refuse(tell: Tell) -> None:
    raise InputError("scaling", expected="a number", found="none")


@pytest.mark.usefixtures("alone")
def test_a_result_is_handed_over_once():
    taken: list[Any] = []
    opened, work = gate()
    job = start(work)
    tracked.collect(SLOT, taken.append)
    assert taken == []
    assert tracked.active(Slot.MERGING, SLOT) is job
    opened.set()
    ended(job)
    tracked.collect(SLOT, taken.append)
    tracked.collect(SLOT, taken.append)
    assert [one.outcome() for one in taken] == ["result"]
    assert state.job(SLOT) is None
    assert session.notice is None


@pytest.mark.usefixtures("alone")
def test_a_failure_and_a_cancelled_job_are_sentences():
    ended(start(refuse))
    tracked.collect(SLOT, lambda job: pytest.fail("there is no result"))
    assert session.notice == ("error", "scaling: expected a number, found none")
    show.forget()
    _, work = gate()
    job = start(work)
    job.cancel()
    ended(job)
    tracked.collect(SLOT, cancelled="It was cancelled.")
    assert session.notice == ("info", "It was cancelled.")


@pytest.mark.usefixtures("alone")
def test_starting_cancels_the_one_before_and_says_nothing_of_it():
    _, work = gate()
    first = start(work)
    second = start(lambda tell: 2)
    assert ended(first).snapshot().state == "cancelled"
    ended(second)
    tracked.collect(SLOT, cancelled="said")
    assert session.notice is None


@pytest.mark.usefixtures("alone")
def test_what_ends_while_a_page_is_drawn_is_news_until_it_is_drawn_again():
    opened, work = gate()
    job = start(work)
    tracked.begin()
    assert not tracked.news([job])
    tracked.collect(SLOT)  # the page looks: it still runs
    opened.set()
    ended(job)  # and ends behind the page's back
    assert tracked.news([job])
    tracked.begin()
    assert not tracked.news([job]), "the page knows it now: drawn again for ever otherwise"


@pytest.mark.usefixtures("alone")
def test_a_job_that_begins_and_ends_within_one_drawing_is_news():
    tracked.begin()
    job = ended(start(lambda tell: 1))
    assert tracked.news([job])


@pytest.mark.usefixtures("alone")
def test_a_trace_is_kept_for_its_run_whichever_is_shown():
    from pages.shared.views import convergence

    session.shown_run = "another"
    ended(tracked.start(Slot.TRACING, "abc", "Tracing", lambda tell: {"undamped": "curve"}))
    convergence.collect()
    assert session.trajectories == {"abc": {"undamped": "curve"}}
    for number in range(shown.MOST_TRACED):
        shown.trace(str(number), {})
    assert len(session.trajectories) == shown.MOST_TRACED
    assert "abc" not in session.trajectories, "the oldest goes"


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """After how many seconds the bars that are drawn look at their jobs again."""
    after: list[float | None] = []
    fragment = st.fragment

    def noted(function: Any, *, run_every: float | None = None) -> Any:
        after.append(run_every)
        return fragment(function, run_every=run_every)

    monkeypatch.setattr("pages.shared.frame.progress.st.fragment", noted)
    return after


def test_a_merge_that_ends_between_the_look_at_it_and_the_bar_is_seen(
    open_app: Open, monkeypatch: pytest.MonkeyPatch, polls: list[float | None]
):
    app = settle(open_app(), "preparation")
    assert polls[-1] is None, "nothing to wait for"
    notices = show.notices

    def slowly() -> None:
        """The page is here after it has collected and before it draws the bar."""
        if (job := state.job(Slot.MERGING)) is not None:
            until(lambda: not job.active, "the merge did not end")
        notices()

    monkeypatch.setattr(show, "notices", slowly)
    press(app, "Merge")
    assert len(kept()) == 1, "the worker keeps it"
    assert not app.metric
    assert polls[-1] == progress.POLL, "the page looks once more, and is drawn again"
    app.run()  # as the poll does
    assert sentences(app) == ""
    assert [metric.label for metric in app.metric][:1] == ["Normalised accuracy"]
    assert polls[-1] is None
