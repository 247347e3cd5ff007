"""docs/performance.md and its plot, from the results; the sentences are in `readings.py`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mats_core.checkpoints import write_atomically

from .base import Line
from .readings import HEAD, READINGS, TAIL
from .results import ROOT, load
from .rows import ROWS

PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "performance" / "ratios.svg"
COUNTED = ("gpu-counts",)  # nothing of which is a time
APART = ("scaling", "estimate", "wide")  # rows with a table of their own


def write() -> None:
    """Write the page and the plot."""
    kept = load()
    PLOT.parent.mkdir(exist_ok=True)
    plot(PLOT, kept)
    write_atomically(PAGE, page(kept).encode())


def page(kept: Mapping[str, Any]) -> str:
    known = [row for row in ROWS if row.name in kept]
    parts = [HEAD, machines(kept.values()), "## Against other ways to the same answer", table(kept)]
    parts += ["![Ratios and goals](performance/ratios.svg)"]
    for row in known:
        found = kept[row.name]
        parts.append(f"### {row.work}\n\nAgainst {row.against}. Alone: "
                     f"`python -m benchmarks.performance run {row.name}` "
                     f"({duration(found['seconds'])}, commit {found['commit']}"
                     f"{stolen_in(found)}).")  # fmt: skip
        parts.append(READINGS.get(row.name, ""))
        if found.get("cannot"):
            parts.append(f"*Not measured: {found['cannot']}.*")
        elif found["lines"]:
            parts.append(details([Line(**line) for line in found["lines"]]))
    missing = [row.name for row in ROWS if row.name not in kept]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    parts.append(TAIL)
    return "\n\n".join(part for part in parts if part) + "\n"


def machines(found: Iterable[Mapping[str, Any]]) -> str:
    """The machine in words; where rows were measured on several, all of them."""
    said = []
    for row in found:
        machine = row["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        words = f"{machine['processor']}, {machine['cores']} cores, {machine['device']}; {versions}"
        if words not in said:
            said.append(words)
    loads = [row["machine"]["load"] for row in found]
    stolen = [row["machine"].get("stolen", 0) for row in found]
    spread = f"Load average when a row ended: {min(loads):g} to {max(loads):g}." if loads else ""
    if any(stolen):
        spread += (
            f" Processor time that other virtual machines took: {min(stolen):.0%} to "
            f"{max(stolen):.0%} of a row's, median {statistics.median(stolen):.0%}."
        )
    return f"Measured on: {' · '.join(said)}. {spread}".strip()


def stolen_in(found: Mapping[str, Any]) -> str:
    """A tenth and more of the processors' time slows everything that waits for another thread."""
    share = found["machine"].get("stolen", 0)
    return f", {share:.0%} of the time taken by other virtual machines" if share >= 0.1 else ""


def table(kept: Mapping[str, Any]) -> str:
    """One row a case that has something to compare with."""
    lines = [
        "| work | case | ours | theirs | ratio | goal | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS:
        if row.name in APART or row.name not in kept:
            continue
        for line in map(_line, kept[row.name]["lines"]):
            if line.ratio is None:
                continue
            lines.append(
                f"| {row.work} | {line.case} | {number(line.ours)} {line.unit} "
                f"| {number(line.theirs)} {line.unit} | **{number(line.ratio)}×**{least(line)} "
                f"| {goal(line)} | {verdict(line)} |"
            )
        if kept[row.name].get("cannot"):
            lines.append(
                f"| {row.work} | {kept[row.name]['cannot']} | – | – | – | | not measured |"
            )
    return "\n".join(lines)


def _line(content: Mapping[str, Any]) -> Line:
    return Line(**content)


def goal(line: Line) -> str:
    if line.goal is None:
        return "–"
    return f"{'≤' if line.at_most else '≥'} {line.goal:g}×"


def least(line: Line) -> str:
    return "" if line.least is None else f" (smallest {number(line.least)}×)"


def verdict(line: Line) -> str:
    return {True: "met", False: "**missed**", None: ""}[line.met]


def details(lines: Sequence[Line]) -> str:
    """Every case with its checks: a table for each run of cases that have some in common."""
    tables: list[list[Line]] = []
    known: set[str] = set()
    for line in lines:
        names = set(line.checks)
        alike = bool(tables) and tables[-1][0].unit == line.unit
        if alike and (names <= known or known <= names):
            tables[-1].append(line)
            known |= names
        else:
            tables.append([line])
            known = names
    notes = dict.fromkeys(line.note for line in lines if line.note)
    return "\n\n".join([*map(cells, tables), *notes])


def cells(lines: Sequence[Line]) -> str:
    """A table of cases, with a column for every check that one of them has."""
    names = list(dict.fromkeys(name for line in lines for name in line.checks))
    compared = any(line.ratio is not None for line in lines)
    head = ["case", *(["ours", "theirs", "ratio", ""] if compared else ["measured"]), *names]
    rows = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for line in lines:
        row = [line.case, f"{number(line.ours)} {line.unit}"]
        if compared:
            theirs = "–" if line.theirs is None else f"{number(line.theirs)} {line.unit}"
            ratio = "–" if line.ratio is None else f"{number(line.ratio)}×"
            row += [theirs, ratio, verdict(line)]
        row += [number(line.checks[name]) if name in line.checks else "" for name in names]
        rows.append("| " + " | ".join(row) + " |")
    return "\n".join(rows)


def number(value: float | None) -> str:
    """Three digits, without an exponent where one can do without."""
    if value is None or math.isnan(value):
        return "–"
    if value == 0 or 1e-2 <= abs(value) < 1e5:
        return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{value:.1e}"


def duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def plot(file: Path, kept: Mapping[str, Any]) -> None:
    """Ratios of all compared cases on a logarithmic axis, with their goals."""
    from benchmarks.study.plots import OKABE_ITO, plt  # matplotlib, which only the page needs

    cases = [
        (f"{row.name}: {line.case}", line)
        for row in ROWS
        if row.name in kept and row.name not in (*APART, *COUNTED)
        for line in map(_line, kept[row.name]["lines"])
        if line.ratio is not None and not line.at_most
    ]
    figure, axes = plt.subplots(figsize=(8.5, 0.26 * len(cases) + 1.1))
    for place, (_, line) in enumerate(reversed(cases)):
        colour = OKABE_ITO[1] if line.met is False else OKABE_ITO[0]
        axes.barh(place, line.ratio - 1, left=1, color=colour, height=0.6)
        if line.goal is not None:
            axes.plot([line.goal] * 2, [place - 0.42, place + 0.42], color="black", linewidth=1.5)
    axes.set_yticks(range(len(cases)), [name for name, _ in reversed(cases)], fontsize=7)
    axes.set_xscale("log")
    ticks = (0.5, 1, 2, 5, 10, 20)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="y")
    axes.margins(y=0.01)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel("theirs / ours (black: the goal; orange: missed, on some layer at least)")
    figure.savefig(file, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
