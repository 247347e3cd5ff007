"""One journey in a real browser, on the sample family: open, choose, turn a knob, merge, read.

Nothing may be asked of any other machine on the way, and the console stays free of our errors.
"""

from __future__ import annotations

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
OURS = re.compile(r"^(https?|wss?)://(127\.0\.0\.1|localhost)[:/]|^(data|blob|about):")

pytestmark = pytest.mark.browser


def missing(what: str) -> None:
    """Without a browser there is nothing to see: a failure where tests are kept honest."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is missing")


@pytest.fixture(scope="module")
def chromium() -> str:
    named = os.environ.get("CHROMIUM")
    found = named or next((p for p in map(shutil.which, BROWSERS) if p), None)
    if found is None:
        missing("a Chromium (Debian's package 'chromium', or its path in CHROMIUM)")
    pytest.importorskip("playwright")
    return str(found)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app on a free port."""
    if not (FAMILY / "family.yaml").is_file():
        missing("the sample family")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("app") / "log"
    environment = {key: value for key, value in os.environ.items() if key != "MATS_FAMILIES"}
    with log.open("w") as stream:
        app = subprocess.Popen(
            [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true",
             "--server.port", str(port)],
            cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", log)
        yield f"http://127.0.0.1:{port}"
    finally:
        app.terminate()
        app.wait(20)
    assert "Traceback" not in log.read_text(), log.read_text()


def _wait(health: str, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(health, timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"the app did not start: {log.read_text()}")


def test_from_opening_the_app_to_reading_the_accuracy_of_a_merge(chromium: str, address: str):
    from playwright.sync_api import expect, sync_playwright

    outside: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1360, "height": 1000})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda r: None if OURS.match(r.url) else outside.append(r.url))
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: complaints.append(str(e)))
        page.goto(address)

        # Open: the sample family is there, with the gap that a merge has to close.
        page.get_by_text("Before any merge").wait_for()
        expect(page.get_by_test_id("stException")).to_have_count(0)

        # Choose Essential Subspace Merging, by hand.
        method = page.get_by_role("combobox", name="Method", exact=True)
        method.click()
        page.get_by_role("option", name="Essential Subspace Merging").click()

        # Move the third level of polarized scaling from 2 to 1.
        level = page.get_by_role("slider", name="Level 3: layers")
        level.focus()
        for _ in range(4):
            level.press("ArrowLeft")
        expect(level).to_have_value("1")

        # Merge, and read the accuracy.
        page.get_by_test_id("stButton").get_by_role("button", name="Merge").click()
        tile = page.get_by_test_id("stMetric").filter(has_text="Normalised accuracy")
        tile.wait_for()
        shown = re.search(r"(\d+\.\d) %", tile.inner_text())
        assert shown, tile.inner_text()
        assert 30 < float(shown[1]) <= 130
        page.get_by_text("On average the merged model keeps").wait_for()
        chart = page.locator(".js-plotly-plot").first
        expect(chart.get_by_text("1 · ESM · layer power 1.0")).to_be_visible()

        # What each level did, and the other pages.
        page.get_by_role("tab", name="Polarized scaling").click()
        page.get_by_text("How loud each task speaks").wait_for()
        page.get_by_role("link", name="Subspaces").click()
        page.get_by_text("What a few directions keep").wait_for()
        page.get_by_role("link", name="Family").click()
        page.get_by_text("The gap that a merge has to close").wait_for()
        expect(page.get_by_test_id("stException")).to_have_count(0)
        expect(page.get_by_test_id("stAlertContentError")).to_have_count(0)
        browser.close()
    assert outside == []
    assert complaints == []
