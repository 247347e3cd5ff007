"""The app on the tiny family, driven without a browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from pages.shared.work.jobs import Job
from pages.shared.work.runs import Run, everything

ROOT = Path(__file__).resolve().parents[2]
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


def sentences(app: AppTest) -> str:
    """All errors on the page; an exception is a failure of its own."""
    assert not app.exception, [e.value for e in app.exception]
    return " ".join(e.value.replace("\\", "") for e in app.error)


def kept(family: str = "Tiny three") -> list[Run]:
    """The runs on disk, oldest first."""
    return everything(family)


@pytest.fixture
def open_app(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., AppTest]]:
    """`open_app(page, family=...)`: a fresh session on a page, not yet run."""
    opened: list[AppTest] = []

    def start(page: str = "merge", family: Path = tiny_family) -> AppTest:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the worker then keeps the session's one thread
        monkeypatch.setenv("MATS_FAMILIES", str(family))
        monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
        monkeypatch.setattr("pages.shared.frame.families.SAMPLES", family / "no samples")
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=PATIENCE)
        app.run()
        if page != "merge":
            app.switch_page(f"pages/{page}.py")
        opened.append(app)
        return app

    yield start
    for app in opened:
        for value in app.session_state._state.filtered_state.values():
            if isinstance(value, Job):
                value.cancel()
