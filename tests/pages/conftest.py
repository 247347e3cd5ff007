"""The app on the tiny family, driven without a browser."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from pages.shared.frame import caches
from pages.shared.work.jobs import Job
from tests.pages.driving import PATIENCE

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", autouse=True)
def components_looked_for_once() -> Iterator[None]:
    """Every new AppTest reads what all installed packages say of themselves; it is the same."""
    once = functools.cache(manifest_scanner.scan_component_manifests)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", once)
        yield


@pytest.fixture
def open_app(
    tiny_family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., AppTest]]:
    """`open_app(page, family=...)`: a fresh session on a page, not yet run."""
    opened: list[AppTest] = []
    caches._worker()._shared.clear()  # what an earlier test has measured on the same files

    def start(page: str = "merge", family: Path = tiny_family) -> AppTest:
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the worker then keeps the session's one thread
        monkeypatch.setenv("MATS_FAMILIES", str(family))
        monkeypatch.setenv("MATS_RESULTS", str(tmp_path / "results"))
        monkeypatch.setattr("pages.shared.policy.SAMPLES", family / "no samples")
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
