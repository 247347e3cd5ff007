"""Driving the app without a browser: waiting for its jobs, pressing its buttons, reading it."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from streamlit.runtime.scriptrunner import ScriptRunContext
from streamlit.testing.v1 import AppTest

from pages.shared.frame import caches, tracked
from pages.shared.work.jobs import Job
from pages.shared.work.runs import Run, everything

PATIENCE = 120.0  # seconds: the first script run imports torch, on any machine


def settle(app: AppTest, *jobs: str) -> AppTest:
    """Run the page again until none of the session's jobs is active: AppTest does not poll."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        app.run()
        there = [app.session_state[name] for name in jobs if name in app.session_state]
        under_way = [job for job in there if job is not None]
        if not any(job.active for job in under_way):
            return app.run()
        # Not by more runs, which the work would have to share its core with.
        while any(job.active for job in under_way) and time.monotonic() < until:
            time.sleep(0.02)
    raise AssertionError(f"jobs {jobs} did not end in {PATIENCE} s")


def go_back(app: AppTest, **names: str) -> AppTest:
    """Run the page as for a browser that has gone back to an address with these names."""
    reset = ScriptRunContext.reset

    def of_history(*given: Any, **named: Any) -> None:
        reset(*given, **{**named, "is_history_navigation": True})

    for name, value in names.items():
        app.query_params[name] = value
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptRunContext, "reset", of_history)
        return app.run()


def press(app: AppTest, label: str) -> AppTest:
    """Click the button of this label."""
    return button(app, label).click().run()


def button(app: AppTest, label: str) -> Any:
    """The button with this label."""
    return next(b for b in app.button if b.label == label)


def texts_of(app: AppTest) -> str:
    """All plain text on the page."""
    return " ".join(m.value.replace("\\", "") for m in app.markdown)


def sentences(app: AppTest) -> str:
    """All errors on the page; an exception is a failure of its own."""
    assert not app.exception, [e.value for e in app.exception]
    return " ".join(e.value.replace("\\", "") for e in app.error)


def kept(family: str = "Tiny three") -> list[Run]:
    """The runs on disk, oldest first."""
    return everything(family)


def measured(app: AppTest, run: Run, *what: str) -> Any:
    """What any window finds of what was measured on a run."""
    prepared = app.session_state["preparation"].outcome()
    return shared(tracked.of_run(prepared, run, *what))


def shared(name: str) -> Any:
    """What any window finds by this name."""
    job = caches._worker().finished(name)
    return None if job is None else job.outcome()


def labelled(app: AppTest, label: str) -> Any:
    """The widget with this label, of whichever kind."""
    kinds = (app.slider, app.select_slider, app.selectbox, app.number_input, app.toggle)
    return next(w for kind in kinds for w in kind if w.label == label)


def spec(app: AppTest, index: int = 0) -> dict[str, Any]:
    """A chart of the page, as its browser gets it."""
    return json.loads(app.get("plotly_chart")[index].proto.spec)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """The worker does nothing else meanwhile: what is asked of it waits."""
    gate = threading.Event()

    def waiting(tell: Any) -> None:
        gate.wait(60)  # without a word, for one that tells how far it is lets shorter ones pass

    caches._worker().submit(Job(0, "held", waiting))
    try:
        yield
    finally:
        gate.set()


def merge(app: AppTest) -> AppTest:
    """Merge with the settings of the page, to the end."""
    return settle(press(app, "Merge"), "preparation", "merging")
