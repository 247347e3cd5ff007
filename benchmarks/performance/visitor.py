"""What a visitor sees of a server that rests: in a browser, from the address to the first number
and until nothing moves, and what the server works meanwhile.

Seconds on the wall are a browser's, which shares the cores; goals are in the server's CPU seconds.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .base import CannotRun, Line, Row

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
TURNS = 3
COLD, WARM = 6.0, 2.0  # goals, CPU seconds of the server until the page is at rest
QUIET = 1.5  # seconds without a change
IDLE = 0.04  # CPU seconds of one second in which a server rests
PATIENCE = 300.0
# When the first number is read on the page, the first metric, and since when nothing has moved.
WATCH = """(() => { window.came = {}; setInterval(() => {
  const now = performance.now(), all = (what) => [...document.querySelectorAll(what)];
  const metric = all('[data-testid=stMetricValue]').some((one) => one.innerText.trim());
  const number = metric || all('[data-testid=stCaptionContainer]')
    .some((one) => /\\d\\.\\d %/.test(one.innerText));
  if (number) window.came.number ??= now;
  if (metric) window.came.metric ??= now;
  const app = document.querySelector('[data-testid=stApp]');
  const moves = app?.dataset.testScriptState !== 'notRunning' || !metric
    || all('[data-testid=stSkeleton],[data-testid=stProgress],[data-stale=true]').length > 0;
  window.came.rest = moves ? null : window.came.rest ?? now;
}, 20); })()"""


@dataclass(frozen=True)
class Visit:
    """Seconds from the address until the first number, the first metric and rest, the server's CPU
    seconds until it rests again, and its bytes in memory then."""

    number: float
    metric: float
    rest: float
    cpu: float
    held: int


class Server:
    """A running app: where it is, and what its process has taken."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.address, self._proc = address, Path(f"/proc/{process.pid}")

    @property
    def cpu(self) -> float:
        """User and system seconds so far, ended children's included."""
        parts = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return sum(map(int, parts[11:15])) / TICKS

    @property
    def held(self) -> int:
        """Bytes of its resident set."""
        lines = (self._proc / "status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    def rest(self) -> None:
        """Return when it has done nothing for a second; raises `TimeoutError`."""
        until, before = time.monotonic() + PATIENCE, self.cpu
        while time.monotonic() < until:
            time.sleep(1)
            now = self.cpu
            if now - before < IDLE:
                return
            before = now
        raise TimeoutError("the server did not come to rest")


@contextlib.contextmanager
def served(kept: Path) -> Iterator[Server]:
    """The app on a free port, at rest; caches and runs lie in `kept`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key != "MATS_FAMILIES"}
    environment |= {"MATS_CACHE": str(kept / "cache"), "MATS_RESULTS": str(kept / "results")}
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", "app.py", "--server.headless", "true",
         "--server.port", str(port)],
        cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        server = Server(process, f"http://127.0.0.1:{port}")
        _answers(server.address)
        server.rest()
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _answers(address: str) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the server did not start")


def visit(browser: Any, server: Server) -> Visit:
    """Open the page in a new tab, and wait until page and server are at rest."""
    page = browser.new_page()
    page.add_init_script(WATCH)
    begun = server.cpu
    page.goto(server.address, wait_until="commit")
    page.wait_for_function(
        f"() => window.came.rest && performance.now() - window.came.rest > {1000 * QUIET}",
        timeout=1000 * PATIENCE, polling=100,
    )  # fmt: skip
    came: Mapping[str, float] = page.evaluate("window.came")
    page.close()
    # The tab's end cancels what was under way for it; what lasts goes on.
    server.rest()
    number, metric, rest = (came[name] / 1000 for name in ("number", "metric", "rest"))
    return Visit(number, metric, rest, server.cpu - begun, server.held)


def visits() -> Sequence[Line]:
    """The first visitor of a machine, of a server, and the second one of it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise CannotRun("playwright is not installed") from error
    named = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if named is None or not Path("/proc/self/stat").is_file():
        raise CannotRun("no Chromium, or no /proc")
    first, second, resting = [], [], []
    with tempfile.TemporaryDirectory() as kept, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=named, args=ARGUMENTS)
        context = browser.new_context()  # what it keeps of Streamlit's scripts stays
        with served(Path(kept)) as server:
            cold = visit(context, server)
        for _ in range(TURNS):
            with served(Path(kept)) as server:
                resting.append(server.held)
                first.append(visit(context, server))
                second.append(visit(context, server))
        browser.close()
    return [
        _line("nothing is known of the family; its shipped merges are checked", [cold], COLD),
        _line("first visitor of a server, the family was opened before", first, WARM),
        _line("second visitor of it", second, WARM),
        Line("memory of the server before its first visitor",
             statistics.median(resting) / 1e6, None, "MB"),
    ]  # fmt: skip


def _line(case: str, found: Sequence[Visit], goal: float) -> Line:
    def median(name: str) -> float:
        return statistics.median(getattr(one, name) for one in found)

    checks = {"first number, s": median("number"), "first metric, s": median("metric"),
              "at rest, s": median("rest"), "memory then, MB": median("held") / 1e6}  # fmt: skip
    return Line(case, median("cpu"), goal, unit="CPU s", goal=1.0, at_most=True, checks=checks)


ROWS = (
    Row("visitor", "The page in a browser, from the address to its first number and until rest",
        "the goals in CPU seconds of the server", visits, minutes=3, needs="playwright"),
)  # fmt: skip
