"""From a changed knob to the new result: `python -m benchmarks.latency [--write]`.

The sample family, statistics measured, the app's own work function (merge and evaluation of all
tasks).  For every method one knob is turned back and forth; each setting is new to the memo as long
as there are new ones.  Reported are medians of wall and CPU seconds for the first answer (half the
interval at most 3 points) and for all test examples, and what the very first merge cost, before
anything was remembered.  Page switches are script runs of every page in a prepared session.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from mats_core.system import set_waiting

set_waiting()  # as app.py does

import torch

from mats_core.evaluation import half_width
from mats_core.methods import METHODS
from mats_core.recipes import load_family
from pages.shared.controls import settings
from pages.shared.work import merge, prepare

from .performance.results import processor

ROOT = Path(__file__).resolve().parents[1]
TURNS = 5
# The knob of each method that a person would turn, and how: new values all the time.
KNOBS: dict[str, Callable[[int], dict[str, float]]] = {
    "average": lambda i: {},
    "task_arithmetic": lambda i: {"scaling": 0.2 + 0.02 * i},
    "ties": lambda i: {"density": 0.1 + 0.05 * i},
    "dare": lambda i: {"scaling": 0.2 + 0.02 * i},
    "fisher": lambda i: {"floor": 0.01 * (i + 1)},
    "regmean": lambda i: {"damping": 0.01 * (i + 1)},
    "kfac": lambda i: {"damping": 0.05 + 0.01 * i, "iterations": 50},
    "tsv_m": lambda i: {"scaling": 1 + 0.05 * i},
    "iso_c": lambda i: {"scaling": 1 + 0.05 * i},
    "iso_cts": lambda i: {"scaling": 1 + 0.05 * i},
    "essential": lambda i: {"scaling": 1 + 0.05 * i},
    "gradient_matching": lambda i: {"scaling": 0.5 + 0.05 * i},
}
MORE: dict[str, tuple[str, Callable[[int], dict[str, float]]]] = {
    "essential, level 1": ("essential", lambda i: {"task_power": 0.25 * (i + 1)}),
    "essential, level 3": ("essential", lambda i: {"layer_power": 0.25 * i}),
    "essential, rank": ("essential", lambda i: {"rank": 8 + i}),
    "kfac, iterations": ("kfac", lambda i: {"iterations": 50 - i}),
}
GOALS = {"kfac": 2.0, "essential": 3.0}  # seconds; one for every closed form


def silent(fraction: float, text: str, partial: object = None) -> None:
    """Nobody watches."""


def timed(request: merge.Request, prepared: prepare.Prepared) -> tuple[float, float, merge.Outcome]:
    wall, cpu = time.perf_counter(), time.process_time()
    outcome = merge.merge(request, lambda: prepared, silent, carried=True)
    return time.perf_counter() - wall, time.process_time() - cpu, outcome


def row(
    label: str, method: str, knob: Callable[[int], dict[str, float]], prepared: prepare.Prepared
) -> str:
    names = tuple(expert.name for expert in prepared.collection.experts)
    request = partial(merge.Request, prepared.collection, method, experts=names)

    def ask(turn: int, **how: Any) -> merge.Request:
        """What the page asks, whose widgets begin with the method's own beginning."""
        return request(options={**METHODS[method].exploring, **knob(turn)}, **how)

    first = timed(ask(0, precision=settings.QUICK), prepared)
    turned = [timed(ask(i, precision=settings.QUICK), prepared) for i in range(1, TURNS + 1)]
    whole = [timed(ask(i), prepared) for i in range(1, 3)]
    wall = statistics.median(t[0] for t in turned)
    cpu = statistics.median(t[1] for t in turned)
    outcome = turned[-1][2]
    goal = GOALS.get(method, 1.0)
    width = statistics.median(half_width(t[2].report.tasks) for t in turned)
    return (
        f"| {label} | {first[0]:.2f} | **{wall:.2f}** | {goal:g} | {cpu:.2f} "
        f"| ± {100 * width:.1f} | {sum(t.merged.examples for t in outcome.report.tasks):,} "
        f"| {statistics.median(t[0] for t in whole):.2f} |"
    )


def pages() -> list[str]:
    """Script runs of every page, after a merge, in a session of its own."""
    from streamlit.testing.v1 import AppTest

    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=300).run()
    while app.session_state["preparation"].active:
        time.sleep(0.2)
    app.run()
    rows = []
    for file in sorted((ROOT / "pages").glob("*.py")):
        if file.stem == "__init__":
            continue
        app.switch_page(f"pages/{file.name}").run()
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            app.switch_page(f"pages/{file.name}").run()
            seconds.append(time.perf_counter() - begun)
        rows.append(f"| {file.stem} | {statistics.median(seconds):.2f} |")
    return rows


def table() -> str:
    torch.set_num_threads(min(2, os.cpu_count() or 2))
    collection = load_family(ROOT / "sample_models" / "drawn")
    begun = time.perf_counter()
    prepared = prepare.prepare(collection, "benchmark", silent)
    opened = time.perf_counter() - begun
    cases = {name: (name, knob) for name, knob in KNOBS.items()} | MORE
    load = os.getloadavg()[0]
    rows = [row(label, method, knob, prepared) for label, (method, knob) in cases.items()]
    return "\n".join(
        [
            "# Latency of the explorer",
            "",
            "Written by `python -m benchmarks.latency --write`: the sample family (eight experts, "
            "192 wide, four layers), from a changed knob to the new result, evaluation of all "
            f"eight tasks included. Medians of {TURNS} turns, in seconds.",
            "",
            f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
            f"torch {torch.__version__}, load average {load:.1f} at the start and "
            f"{os.getloadavg()[0]:.1f} at the end. Opening the family took {opened:.1f} s.",
            "",
            "| method | first merge | new setting | goal | CPU s | first answer | examples "
            "| all 4,000 examples |",
            "| --- | --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
            "*First merge*: nothing remembered yet. *New setting*: the first answer, as soon as "
            f"half the 95 % interval is at most {100 * settings.QUICK:g} points; the remaining "
            "examples are asked in the background. *All examples*: a setting tested on everything "
            "at once.",
            "",
            "| page | script run |",
            "| --- | --- |",
            *pages(),
            "",
        ]
    )


def seconds_of(page: str) -> dict[str, tuple[float, float]]:
    """Seconds of the first merge and of a new setting, by method, as a page of ours has them."""
    cells = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    return {cs[0]: (float(cs[1]), float(cs[2])) for cs in cells if len(cs) == 8 and _number(cs[1])}


def _number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def against(before: str, after: str) -> str:
    """What both pages have, beside each other."""
    old, new = seconds_of(before), seconds_of(after)
    rows = [
        f"| {name} | {old[name][0]:.2f} | {new[name][0]:.2f} | {old[name][0] / new[name][0]:.2g}× "
        f"| {old[name][1]:.2f} | **{new[name][1]:.2f}** | {old[name][1] / new[name][1]:.2g}× |"
        for name in new
        if name in old
    ]
    return "\n".join(
        [
            "## Before and after",
            "",
            "The same table of an earlier commit, measured on the same machine one after the "
            "other.",
            "",
            "| method | first merge, before | after | | new setting, before | after | |",
            "| --- | --- | --- | --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write docs/latency.md")
    parser.add_argument(
        "--before", type=Path, metavar="PAGE", help="an earlier commit's, for a comparison"
    )
    arguments = parser.parse_args()
    text = table()
    if arguments.before:
        text += "\n" + against(arguments.before.read_text("utf-8"), text)
    print(text)
    if arguments.write:
        (ROOT / "docs" / "latency.md").write_text(text, "utf-8")


if __name__ == "__main__":
    main()
