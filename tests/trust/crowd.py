"""Ten browsers on one shared server, with clicks drawn from a seed, and what each of them sees.

    python -m tests.trust.crowd --browsers 10 --minutes 10 --seed 1
    python -m tests.trust.crowd --measure

Every browser merges, cancels, reloads, deletes runs, asks an example of its own, closes its tab and
comes back, and follows the link of another one's run.  After each it checks what it sees: a run
that is shown is one that it asked for itself or one that came with the family, its method is the
one that was pressed and its accuracy what the library gives for it; no error stands on the page;
nothing was asked of another machine.  The log of the server holds no traceback, and its memory
stays within `GROWTH` of what it was after a third of the time.

`--measure` opens 1, 2, 5 and 10 browsers and tells what each takes of the server (docs/deploy.md).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.async_api import TimeoutError as Late

from mats_core import merge
from mats_core.evaluation import QUICK
from mats_core.methods import METHODS
from mats_core.recipes import TRIED, FamilyFile, load_family
from pages.shared.work import runs
from tests.browser.conftest import ARGUMENTS, BROWSERS, FAMILY, OURS, started

from .table import write_table

POOL = ("average", "task_arithmetic", "ties", "regmean")  # by which browsers merge
ACTIONS = {
    "merge": 8, "cancel": 3, "reload": 2, "delete": 2, "upload": 2, "close": 2, "link": 1,
    "wander": 3,
}  # fmt: skip
PLACES = ("Compare", "Inside", "Subspaces", "Family", "Learn", "Export")
GROUPS = {"weights": "Weights", "task vectors": "Task vectors", "statistics": "Statistics"}
GROWTH = 300e6  # bytes by which the server may grow after the first third of the time
PATIENCE = 600_000  # milliseconds: ten browsers may share two cores with others
SECOND_LOOK = 10_000  # milliseconds until what differs is wrong
QUIET = 3  # looks, half a second apart, at which a page has to be at rest
AT_REST = """() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState
 === 'notRunning' && !document.querySelector('[data-testid=stSkeleton]')
 && !document.querySelector('[data-testid=stProgress]')
 && !document.querySelector('[data-stale=true]')"""
BROKEN = ("stException", "stAlertContentError")


@dataclass(frozen=True)
class Known:
    """What the library gives for a method: the name of its run, and its accuracy on the first
    examples and on all, as they are shown."""

    method: str
    name: str
    accuracy: frozenset[str]


def known(methods: tuple[str, ...]) -> dict[str, Known]:
    """A run's id → what the library gives for it, with the settings that the page begins with."""
    family = load_family(FAMILY)
    found = {}
    for method in methods:
        said, names = set(), ("", "")
        for precision in (QUICK, None):
            evaluate = TRIED.model_copy(update={"precision": precision})
            recipe = _recipe(family, method, evaluate)
            report = merge(recipe).report
            assert report.normalised_accuracy is not None
            said.add(f"{100 * report.normalised_accuracy:.1f}")
            run = runs.Run("", 0, family.name, len(family.experts), recipe, report)
            names = runs.identity(recipe, report.fingerprints), run.name
        found[names[0]] = Known(method, names[1], frozenset(said))
    return found


def _recipe(family: FamilyFile, method: str, evaluate: Any) -> Any:
    options = dict(METHODS[method].exploring)
    files = measured(family) if METHODS[method].group == "statistics" else None
    experts = tuple(expert.name for expert in family.experts)
    return family.recipe(
        method, options, statistics=files, experts=experts, weights={}, evaluate=evaluate
    )


def measured(family: FamilyFile) -> dict[str, Path]:
    """The statistics of a family, in the cache that the server reads too."""
    from mats_core.recipes import measure_all

    return measure_all(family)


# The server ---------------------------------------------------------------------------------------


@dataclass
class Server:
    """What the process of the app takes, and what its log says."""

    pid: int
    address: str
    log: Path
    seen: list[float] = field(default_factory=list)

    def memory(self) -> float:
        """Bytes that it holds now."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return 1024.0 * int(line.split()[1])
        return 0.0

    def seconds(self) -> float:
        """CPU seconds that it has used."""
        told = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def server(folder: Path) -> Iterator[Server]:
    """A shared server, in a folder that holds all that it keeps."""
    kept = {"MATS_DEMO": "1", "MATS_RESULTS": str(folder / "results"), "TMPDIR": str(folder)}
    with started(folder / "log", **kept) as (address, process):
        yield Server(process.pid, address, folder / "log")


# A browser ----------------------------------------------------------------------------------------


@dataclass
class Guest:
    """One browser: its clicks, what it asked for, and what was wrong."""

    number: int
    context: Any
    server: Server
    expected: Mapping[str, Known]
    rng: random.Random
    page: Any = None
    asked: set[str] = field(default_factory=set)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    checked: int = 0
    console: list[str] = field(default_factory=list)  # errors that the browser has logged

    async def open(self, query: str = "") -> None:
        """A new session: what was merged before is forgotten."""
        self.asked = set()
        if self.page is None:
            self.page = await self.context.new_page()
            self.page.set_default_timeout(PATIENCE)
            self.page.on("request", self._request)
            self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
            self.page.on("console", self._console)
        await self.page.goto(f"{self.server.address}/{query}")
        await self.page.get_by_test_id("stMetric").first.wait_for()
        await self.rest()

    def _request(self, request: Any) -> None:
        if not OURS.match(request.url):
            self.wrong.append(f"asked outside: {request.url}")

    def _console(self, message: Any) -> None:
        if message.type == "error":
            self.console.append(message.text[:300])

    async def _told(self) -> str:
        """What stands on the page, and what the browser has logged last."""
        stood = "nothing that answers"
        with contextlib.suppress(Exception):
            stood = await self.page.inner_text("body", timeout=5_000)
            stood += "; ".join(await self.page.get_by_role("dialog").all_inner_texts())
        return f"; on the page: …{stood[-600:]!r}; logged: {self.console[-3:]}"

    async def rest(self) -> None:
        """Wait until nothing of this session is under way, for a while: between the end of a job
        and the page that shows it there is a moment of rest too."""
        quiet, until = 0, time.monotonic() + PATIENCE / 1000
        while quiet < QUIET:
            await self.page.wait_for_timeout(500)
            # Asked from here: of pages that it does not draw a browser runs no animation frames,
            # in which `wait_for_function` would look.
            quiet = quiet + 1 if await self.page.evaluate(f"({AT_REST})()") else 0
            if time.monotonic() > until:
                raise Late(f"not at rest after {PATIENCE / 1000:.0f} s")

    async def act(self, name: str, others: list[Guest]) -> None:
        """One click of the list, and a look at what came of it."""
        try:
            await getattr(self, name)(others)
            await self.look(name)
        except Exception as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
            self.wrong[-1] += await self._told()
            with contextlib.suppress(Exception):
                await self.close(others)
        self.done[name] += 1

    async def look(self, after: str) -> None:
        """Check what stands on the page against what this browser has asked for."""
        await self.rest()
        for broken in BROKEN:
            box = self.page.get_by_test_id(broken)
            if await box.count():
                self.wrong.append(f"after {after}: {(await box.first.inner_text())[:300]}")
        wrong = await self._differs()
        if wrong:  # a busy machine may take its time between two runs of a page
            await self.page.wait_for_timeout(SECOND_LOOK)
            await self.rest()
            wrong = await self._differs()
        self.wrong += [f"after {after}: {said}" for said in wrong]
        if wrong:
            self.wrong[-1] += await self._told()

    async def _differs(self) -> list[str]:
        """What of the run that the address names is not what this browser has asked for."""
        shown = re.search(r"[?&]run=([0-9a-f]{10})", self.page.url)
        title = await self.page.get_by_role("heading", level=1).first.inner_text()
        if shown is None or shown[1] not in self.expected or title != "Merge":
            return []
        known, wrong = self.expected[shown[1]], []
        if await self.page.get_by_text("not made in this session").count():
            return []
        text = " ".join(await self.page.get_by_role("heading", level=2).all_inner_texts())
        tile = self.page.get_by_test_id("stMetric").filter(has_text="Normalised accuracy").first
        found = re.search(r"(\d+\.\d) %", await tile.inner_text())
        estimated = await self.page.get_by_text("Estimated from the run before").count()
        self.checked += 1
        if shown[1] not in self.asked and known.method != "average":  # which came with the family
            wrong.append(f"{known.method} was not asked for here")
        if known.name not in text:
            wrong.append(f"{text!r} where {known.name!r} was merged")
        if not estimated and (found is None or found[1] not in known.accuracy):
            said = found and found[1]
            wrong.append(f"{said} % by {known.method}: {set(known.accuracy)}")
        return wrong

    async def go(self, title: str) -> None:
        await self.page.get_by_role("link", name=title, exact=True).first.click()
        await self.page.get_by_role("heading", name=title, level=1, exact=True).wait_for()
        await self.rest()

    async def choose(self, label: str, name: str) -> None:
        """Choose from a list by name: a run of the page closes a list that is open, and draws its
        options anew."""
        box = self.page.get_by_role("combobox", name=label, exact=True)
        option = self.page.get_by_role("option", name=name, exact=True)
        for _ in range(20):
            if await box.get_attribute("aria-expanded") != "true":
                await box.click()
            await self.page.wait_for_timeout(500)
            if await option.count():
                with contextlib.suppress(Late):
                    await option.click(timeout=10_000)
                    return
        raise AssertionError(f"'{label}' stays closed")

    async def press_merge(self) -> None:
        """Choose a method of the pool and press Merge."""
        await self.go("Merge")
        id = self.rng.choice(list(self.expected))
        method = METHODS[self.expected[id].method]
        group = self.page.get_by_test_id("stButtonGroup")
        await group.get_by_text(GROUPS[method.group], exact=True).first.click()
        await self.rest()
        await self.choose("Method", method.title)
        await self.rest()
        button = self.page.get_by_test_id("stButton")
        await button.get_by_role("button", name="Merge", exact=True).click()
        self.asked.add(id)
        await self.page.wait_for_timeout(300)

    async def merge(self, others: list[Guest]) -> None:
        await self.press_merge()

    async def cancel(self, others: list[Guest]) -> None:
        await self.press_merge()
        button = self.page.get_by_role("button", name="Cancel")
        with contextlib.suppress(Exception):  # a merge may be quicker
            await button.click(timeout=1500)

    async def reload(self, others: list[Guest]) -> None:
        self.asked = set()
        await self.page.reload()
        await self.page.get_by_role("heading", level=1).first.wait_for()

    async def delete(self, others: list[Guest]) -> None:
        await self.go("Compare")
        button = self.page.get_by_role("button", name="Delete")
        if await button.count():
            await button.first.click()
            await self.page.get_by_role("button", name="Delete this run").click()

    async def upload(self, others: list[Guest]) -> None:
        await self.go("Inside")
        drop = self.page.get_by_test_id("stFileUploaderDropzoneInput")
        if not await drop.count():
            return
        pixels = np.random.default_rng(self.rng.randrange(1 << 30)).integers(0, 255, (24, 24, 3))
        data = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(data, "PNG")
        file = {"name": "own.png", "mimeType": "image/png", "buffer": data.getvalue()}
        await drop.first.set_input_files(files=[file])
        await self.page.get_by_text("own.png").first.wait_for()
        await self.rest()
        await self.page.get_by_role("button", name="Ask all models").click()

    async def close(self, others: list[Guest]) -> None:
        await self.page.close()
        self.page = None
        await self.open()

    async def link(self, others: list[Guest]) -> None:
        """The link of a run that another browser has made, in a session of its own."""
        theirs = [id for other in others for id in other.asked if other is not self]
        theirs = [id for id in theirs if self.expected[id].method != "average"]
        await self.open(f"?run={self.rng.choice(theirs)}" if theirs else "")
        if theirs and not await self.page.get_by_text("not made in this session").count():
            self.wrong.append("link: a run of another session was opened")

    async def wander(self, others: list[Guest]) -> None:
        await self.go(self.rng.choice(PLACES))


# The crowd ----------------------------------------------------------------------------------------


@dataclass
class Found:
    """What came of a crowd: clicks by kind, runs that were checked, bytes of the server after a
    third of the time and the most afterwards, and what was wrong."""

    done: Counter[str]
    checked: int
    settled: float
    most: float
    wrong: list[str]


def crowd(
    folder: Path, browsers: int, seconds: float, seed: int, methods: tuple[str, ...] = POOL
) -> Found:
    """So many browsers on one server for so long.  What is kept lies in `folder`."""
    expected = known(methods)
    with server(folder) as app:
        found = asyncio.run(_crowd(app, browsers, seconds, seed, expected))
    said = app.log.read_text("utf-8")
    if "Traceback" in said:
        found.wrong.append(f"the server's log: {said[said.index('Traceback') :][:800]}")
    if list(folder.glob(".mats-*")):  # it was ended at work: the next start removes that
        with server(folder):
            pass
    if left := [file.name for file in folder.glob(".mats-*")]:
        found.wrong.append(f"left behind: {left}")
    return found


async def _crowd(
    app: Server, browsers: int, seconds: float, seed: int, expected: Mapping[str, Known]
) -> Found:
    async with _chromium() as browser:
        guests = [
            Guest(n, await browser.new_context(), app, expected, random.Random(f"{seed} {n}"))
            for n in range(browsers)
        ]
        await asyncio.gather(*(guest.open() for guest in guests))
        begun = time.monotonic()
        memory: list[tuple[float, float]] = []

        async def watch() -> None:
            while time.monotonic() - begun < seconds:
                memory.append((time.monotonic() - begun, app.memory()))
                await asyncio.sleep(1)

        async def clicks(guest: Guest) -> None:
            while time.monotonic() - begun < seconds:
                name = guest.rng.choices(list(ACTIONS), list(ACTIONS.values()))[0]
                await guest.act(name, guests)

        await asyncio.gather(watch(), *map(clicks, guests))
        early = [held for at, held in memory if seconds / 4 <= at <= seconds / 3]
        late = [held for at, held in memory if at > seconds / 3]
        settled, most = statistics.median(early), max(late)
        wrong = [f"browser {one.number}, {said}" for one in guests for said in one.wrong]
        if most > settled + GROWTH:
            wrong.append(f"memory grew from {settled / 1e6:.0f} to {most / 1e6:.0f} MB")
        done = sum((one.done for one in guests), Counter[str]())
        return Found(done, sum(one.checked for one in guests), settled, most, wrong)


@contextlib.asynccontextmanager
async def _chromium() -> AsyncIterator[Any]:
    from playwright.async_api import async_playwright

    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        await browser.close()


def measure(folder: Path, counts: tuple[int, ...] = (1, 2, 5, 10)) -> list[str]:
    """A table: what so many browsers take of one server, in memory and CPU seconds."""
    expected = known(POOL)
    with server(folder) as app:
        return asyncio.run(_measure(app, counts, expected))


async def _measure(
    app: Server, counts: tuple[int, ...], expected: Mapping[str, Known]
) -> list[str]:
    lines = [
        "| browsers open | memory of the server | CPU seconds of an opening | of a merge |",
        "| --- | --- | --- | --- |",
    ]
    async with _chromium() as browser:
        guests: list[Guest] = []
        for count in counts:
            before, new = app.seconds(), count - len(guests)
            while len(guests) < count:
                number = len(guests)
                context, rng = await browser.new_context(), random.Random(number)
                guests.append(Guest(number, context, app, expected, rng))
                await guests[-1].open()
            opening, before = (app.seconds() - before) / new, app.seconds()
            for guest in guests[-new:]:
                await guest.press_merge()
                await guest.look("merge")
            merging = (app.seconds() - before) / new
            held = app.memory() / 1e6
            lines.append(f"| {count} | {held:,.0f} MB | {opening:.1f} | {merging:.1f} |")
        wrong = [said for guest in guests for said in guest.wrong]
    assert not wrong, wrong
    return lines


def main() -> int:
    """Print what was wrong; 1 where something was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=POOL, default=POOL)
    parser.add_argument("--measure", action="store_true", help="what a browser takes")
    parser.add_argument("--write", action="store_true", help="the table of docs/trust.md")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["MATS_RESULTS"] = f"{place}/results"
        os.environ.setdefault("MATS_CACHE", f"{place}/cache")
        if asked.measure:
            print("\n".join(measure(folder)))
            return 0
        methods = tuple(asked.methods)
        found = crowd(folder, asked.browsers, 60 * asked.minutes, asked.seed, methods)
    clicks = ", ".join(f"{count} {name}" for name, count in sorted(found.done.items()))
    lines = [
        "| browsers | minutes | seed | clicks | runs checked | memory settled, most | faults |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| {asked.browsers} | {asked.minutes:g} | {asked.seed} | {clicks} | {found.checked} | "
        f"{found.settled / 1e6:,.0f} MB, {found.most / 1e6:,.0f} MB | {len(found.wrong)} |",
    ]
    print("\n".join([*found.wrong, *lines]))
    if asked.write:
        write_table("crowd", lines)
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
