"""Driving the app without a browser: waiting for its jobs, pressing its buttons, reading it."""

from __future__ import annotations

import time

from streamlit.testing.v1 import AppTest

from pages.shared.work.runs import Run, everything

PATIENCE = 120.0  # seconds: the first script run imports torch, on any machine


def settle(app: AppTest, *jobs: str) -> AppTest:
    """Run the page again until none of the session's jobs is active: AppTest does not poll."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        app.run()
        there = [app.session_state[name] for name in jobs if name in app.session_state]
        if not any(job is not None and job.active for job in there):
            return app.run()
        time.sleep(0.1)
    raise AssertionError(f"jobs {jobs} did not end in {PATIENCE} s")


def press(app: AppTest, label: str) -> AppTest:
    """Click the button of this label."""
    return next(b for b in app.button if b.label == label).click().run()


def sentences(app: AppTest) -> str:
    """All errors on the page; an exception is a failure of its own."""
    assert not app.exception, [e.value for e in app.exception]
    return " ".join(e.value.replace("\\", "") for e in app.error)


def kept(family: str = "Tiny three") -> list[Run]:
    """The runs on disk, oldest first."""
    return everything(family)
