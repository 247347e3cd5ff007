"""Ticked runs beside each other: accuracy with intervals, a parallel plot, settings."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.errors import listing
from mats_core.evaluation import Comparison, Difference, compare
from mats_core.figures import ALL_TASKS
from mats_core.recipes import TRIED

from ..frame import show
from ..work import Run, runs

BETTER = "background-color: rgba(0, 114, 178, 0.26); font-weight: 600"
WORSE = "background-color: rgba(230, 159, 0, 0.34); font-weight: 600"
SHARES, DIFFERENCES = "Share of the expert", "Difference to the baseline"


def accuracy(compared: list[Run], baseline: Run) -> None:
    """Table of tasks × runs, and the same as lines."""
    tested = [run for run in compared if run.report.tasks]
    if not tested:
        st.info("The experts of this family name no tasks, so its merges were not evaluated.")
        return
    if baseline not in tested:
        baseline = tested[0]
    split = baseline.report.split
    apart = [run for run in tested if run.report.split != split]
    _table(
        [baseline, *(run for run in tested if run is not baseline)],
        {run.id: against(run, baseline) for run in tested if run is not baseline},
    )
    tested = [run for run in tested if run not in apart]
    others = {run.id: against(run, baseline) for run in tested if run is not baseline}
    _note(baseline, others)
    if apart:
        show.warnings([elsewhere(apart, split)])
    looks = dict(zip((r.label for r in tested), map(figures.look, range(len(tested))), strict=True))
    view = SHARES
    if others:
        view = st.segmented_control(
            "Lines", [SHARES, DIFFERENCES], default=SHARES, required=True, key="compare lines",
            persist_state="session", label_visibility="collapsed",
        )  # fmt: skip
    key = f"compare {view} {baseline.id} " + " ".join(run.id for run in tested)
    if view == SHARES:
        shares = {run.label: run.report.tasks for run in tested}
        drawn = figures.run_lines(shares, looks, baseline.label, baseline.report.split)
        show.figure(drawn, key)
    else:
        found = {run.label: others[run.id] for run in tested if run is not baseline}
        show.figure(figures.difference_lines(found, looks, baseline.label), key)


def against(run: Run, baseline: Run) -> Comparison:
    """A run minus the baseline, answer by answer; nothing where their splits differ."""
    if run.report.split != baseline.report.split:
        return Comparison({}, None)
    return compare(run.report.tasks, baseline.report.tasks, same_examples=True)


def elsewhere(apart: Sequence[Run], split: str) -> str:
    """Why runs are not compared, in a sentence."""
    names = listing((run.label for run in apart), 3)
    theirs = listing(dict.fromkeys(run.report.split for run in apart))
    return (
        f"Not compared: {names}, tested on {theirs} examples instead of {split} ones. Merge again "
        f"with these settings to ask {TRIED.split} examples"
    )


def _table(ordered: list[Run], others: dict[str, Comparison]) -> None:
    names = list(dict.fromkeys(r.name for run in ordered for r in run.report.tasks))
    cells: dict[str, list[str]] = {}
    marks: dict[str, list[str]] = {}
    for place, run in enumerate(ordered):
        column = run.label + (" (baseline)" if place == 0 else "")
        if run.report.split != ordered[0].report.split:
            column += f" ({run.report.split} examples)"
        found = {r.name: r.merged.value for r in run.report.tasks}
        own = others.get(run.id)
        parts = [own.tasks.get(name) if own else None for name in names]
        values = [found.get(name) for name in names]
        mean = figures.headline(run.report)["normalised"]
        parts, values = [*parts, own.mean if own else None], [*values, mean]
        cells[column] = [_cell(v, p) for v, p in zip(values, parts, strict=True)]
        marks[column] = [_mark(part) for part in parts]
    index = [*names, f"{ALL_TASKS}, normalised"]
    styles = pd.DataFrame(marks, index=index)
    st.dataframe(
        pd.DataFrame(cells, index=index).style.apply(lambda _: styles, axis=None),
        alt=f"Accuracy of {len(ordered)} runs on {len(names)} tasks, with differences.",
        height="content",
    )


def _cell(value: float | None, part: Difference | None) -> str:
    """`91.3  ▲ +2.1 (+0.4 to +3.8)`: percent, and the difference in points."""
    if value is None:
        return "–"
    text = f"{100 * value:.1f}"
    if part is None:
        return text
    arrow = "" if not part.clear else "▲ " if part.value > 0 else "▼ "
    low, high = 100 * part.low, 100 * part.high
    delta = f"{100 * part.value:+.1f} ({low:+.1f} to {high:+.1f})".replace("-", "−")
    return f"{text}   {arrow}{delta}"


def _mark(part: Difference | None) -> str:
    if part is None or not part.clear:
        return ""
    return BETTER if part.value > 0 else WORSE


def _note(baseline: Run, others: dict[str, Comparison]) -> None:
    pinned = runs.pinned(baseline.family) == baseline.id
    which = "the pinned run" if pinned else "the first run that is ticked; pin another to change it"
    split = baseline.report.split
    asked = sum(result.merged.examples for result in baseline.report.tasks)
    text = (
        f"Accuracy in percent, on {split} examples. The baseline is {baseline.label} "
        f"({asked:,} of them): {which}."
    )
    if not others:
        text += " Tick another run to see by how much they differ."
    else:
        parts = [part for own in others.values() for part in own.tasks.values()]
        paired = all(part.paired for part in parts)
        how = (
            f"the same {split} examples, answer by answer" if paired
            else f"{split} examples taken as independent"
        )  # fmt: skip
        text += (
            f" Behind each accuracy: the difference in points with its 95 % interval, from {how}. "
            f"▲ blue and ▼ orange exclude zero: {figures.count_clear(parts)}."
        )
    st.markdown(f":small[{show.plain(text)}]")


def settings(compared: list[Run], baseline: Run) -> None:
    """All settings of the ticked runs, or those in which they differ."""
    ordered = [baseline, *(run for run in compared if run is not baseline)]
    only = len(ordered) > 1 and st.toggle(
        "Only what differs", True, key="compare only", persist_state="session"
    )
    own = {run.id: runs.settings(run) for run in ordered}
    names = list(dict.fromkeys(name for found in own.values() for name in found))
    if only:
        names = [name for name in names if _differs(name, ordered)]
    if not names:
        st.write("Nothing differs: these runs have the same settings.")
        return
    columns = {
        run.label + (" (baseline)" if run is baseline else ""): [
            own[run.id].get(name, "–") for name in names
        ]
        for run in ordered
    }
    st.dataframe(pd.DataFrame(columns, index=names), alt="Settings of each run.")
    if any("–" in column for column in columns.values()):
        st.caption("–: the method has no such setting.")


def _differs(name: str, compared: list[Run]) -> bool:
    """Whether a setting sets runs apart; one that a method lacks counts as its default."""
    values = {runs.settings(run).get(name) for run in compared} - {None}
    missing = any(name not in runs.settings(run) for run in compared)
    usual = {runs.defaults(run)[name] for run in compared if name in runs.defaults(run)}
    return len(values | (usual if missing else set())) > 1
