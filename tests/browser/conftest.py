"""The app and a browser, once for all journeys.

Nothing may be asked of any other machine on the way, and the console stays free of our errors.
With `MATS_SCREENSHOTS=folder` the journeys leave pictures there.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAMILY = ROOT / "sample_models" / "drawn"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 180_000  # milliseconds: the first start measures statistics
SHIPPED = re.compile("^(Shipped with the family, and checked|This machine's own)")  # both are right
OURS = re.compile(r"^(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|^(data|blob|about):")


def missing(what: str) -> None:
    """Without a browser there is nothing to see: a failure where tests are kept honest."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="session")
def chromium() -> str:
    named = os.environ.get("CHROMIUM")
    found = named or next((p for p in map(shutil.which, BROWSERS) if p), None)
    if found is None:
        missing("a Chromium (Debian's package 'chromium', or its path in CHROMIUM)")
    pytest.importorskip("playwright")
    return str(found)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on a free port."""
    if not (FAMILY / "family.yaml").is_file():
        missing("the sample family")
    with served(tmp_path_factory.mktemp("app") / "log") as address:
        yield address


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, tiny_family: Path) -> Iterator[str]:
    """The app on the tiny family, whose merges take no time."""
    log = tmp_path_factory.mktemp("tiny") / "log"
    results = str(tmp_path_factory.mktemp("tiny results"))
    with served(log, MATS_FAMILIES=str(tiny_family), MATS_RESULTS=results) as address:
        yield address


@contextlib.contextmanager
def served(log: Path, **variables: str) -> Iterator[str]:
    """The address of the app, started with these environment variables."""
    with started(log, **variables) as (address, _):
        yield address
    assert "Traceback" not in log.read_text(), log.read_text()


@contextlib.contextmanager
def started(
    log: Path, folder: Path = ROOT, /, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """The same with the app's process, whatever its log says; started in a folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "MATS_FAMILIES"}
    with log.open("w") as stream:
        app = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", os.path.relpath(ROOT / "app.py", folder),
             "--server.headless", "true", "--server.port", str(port)],
            cwd=folder, env=environment | variables, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", log)
        yield f"http://127.0.0.1:{port}", app
    finally:
        app.terminate()
        app.wait(20)


def _wait(health: str, log: Path) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(health, timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the app did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield browser
        browser.close()


# Spinners and transitions, drawn without a GPU, take a seventh of a browser's time of a processor.
STILL = """document.addEventListener('DOMContentLoaded', () => {
  const style = document.createElement('style');
  style.textContent = '*, *::before, *::after {animation: none !important; '
    + 'transition: none !important}';
  document.head.append(style);
})"""


@functools.cache
def _tabs(browser: Any) -> Any:
    """Where visitors have their tabs: they share what the browser keeps of Streamlit's scripts."""
    tabs = browser.new_context()
    tabs.add_init_script(STILL)
    return tabs


class Visitor:
    """A tab with the app that remembers what was asked outside, and what the console said.

    `alone`: in a browser that has not been here before.
    """

    def __init__(
        self,
        browser: Any,
        address: str,
        width: int = 1360,
        scheme: str = "light",
        *,
        alone: bool = False,
    ) -> None:
        self.page = browser.new_page() if alone else _tabs(browser).new_page()
        self.page.set_viewport_size({"width": width, "height": 1000 if width > 600 else 844})
        self.page.emulate_media(color_scheme=scheme)
        self.address, self.name, self.narrow = address, f"{scheme}-{width}", width < 600
        self.page.set_default_timeout(PATIENCE)
        self.outside: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", self._asked)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))

    def _asked(self, request: Any) -> None:
        if not OURS.match(request.url):
            self.outside.append(request.url)

    def _said(self, message: Any) -> None:
        # Streamlit looks for its server below an inner address first, and takes a picture away with
        # the run that showed it, while a slow browser may still ask for it: both say so.
        said = f"{message.text} {(message.location or {}).get('url', '')}".strip()
        if message.type == "error" and "/_stcore/" not in said and "/media/" not in said:
            self.complaints.append(said)

    def go(self, title: str) -> None:
        """To another page by the navigation; on a phone that waits behind a button."""
        if self.narrow:
            self.page.get_by_test_id("stExpandSidebarButton").click()
        self.page.get_by_role("link", name=title, exact=True).first.click()
        self.page.get_by_role("heading", name=title, level=1, exact=True).wait_for()
        if self.narrow:  # it stays open over the page
            self.page.get_by_test_id("stSidebarCollapseButton").get_by_role("button").click()

    def merge(self) -> None:
        self.page.get_by_test_id("stButton").get_by_role("button", name="Merge", exact=True).click()

    def picture(self, name: str) -> None:
        """Check what every state of a page has to hold, and keep a picture if one is wanted."""
        self.page.wait_for_timeout(400)
        for broken in ("stException", "stAlertContentError"):
            found = self.page.get_by_test_id(broken)
            assert found.count() == 0, f"{name}: {found.first.inner_text()}"
        wide = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        assert wide <= 0, f"{name} is {wide} px wider than the window"
        folder = os.environ.get("MATS_SCREENSHOTS")
        if folder:
            self.page.wait_for_timeout(1500)
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f"{folder}/{self.name}-{name}.png", full_page=True)

    def leave(self) -> None:
        self.page.close()
        assert self.outside == []
        assert self.complaints == []


def opened(page: Any) -> None:
    """Wait for the page Merge: for merges that came with the family, or what there is to gain."""
    gain = page.get_by_role("heading", name="What there is to gain")
    gain.or_(page.get_by_test_id("stMetric").first).first.wait_for()
    settle(page)


def choose(page: Any, label: str, what: int | str) -> None:
    """Choose from a list by place or by name.

    A run of the page closes a list that is open, and draws its options anew.
    """
    from playwright.sync_api import TimeoutError as Late

    box, options = page.get_by_role("combobox", name=label, exact=True), page.get_by_role("option")
    for _ in range(20):
        if box.get_attribute("aria-expanded") != "true":
            box.click()
            if isinstance(what, str):
                box.press_sequentially(what)  # a long list shows a part of it
        page.wait_for_timeout(500)
        place = options.nth(what) if isinstance(what, int) else _named(options, what)
        if place.count():
            with contextlib.suppress(Late):
                place.first.click(timeout=3000)
                return
    raise AssertionError(f"'{label}' stays closed")


def _named(options: Any, name: str) -> Any:
    """The options of a name, else those whose names contain it: TIES beside Consensus TIES."""
    whole = options.get_by_text(name, exact=True)
    return whole if whole.count() else options.filter(has_text=name)


def settle(page: Any) -> None:
    """Wait until Streamlit is at rest."""
    page.wait_for_timeout(250)
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState"
        " === 'notRunning' && !document.querySelector('[data-testid=stSkeleton]')"
        " && !document.querySelector('[data-testid=stProgress]')"
        " && !document.querySelector('[data-stale=true]')",
        polling=100,  # milliseconds; asked at every frame, the page would draw without need
    )
    page.wait_for_timeout(250)
