"""The list of finished runs: tick what is compared, pin a baseline, go back, delete."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.evaluation import normalised_interval
from mats_core.methods import METHODS
from mats_core.recipes import Recipe

from ..frame import Wanted, browser, session, show, shown
from ..work import Run, runs, shipped

FIRST = 4  # so many runs are ticked for somebody who has ticked none yet
ROLE = "role"  # of the pinned run
NOTE = "name and note"
TESTED, FINAL, SIZE = "tested on", "final figure", "size"
FEW = 6  # so many runs need no filter


def pick(family: str, kept: list[Run]) -> tuple[list[Run], Run | None]:
    """The runs to compare, oldest first, with the baseline among them; None where none is ticked.

    The baseline is the pinned run, else the first that is ticked.
    """
    newest = _filtered(list(reversed(kept)))
    if not newest:
        st.info("No run fits this filter.")
        return [], None
    chosen = {newest[row].id for row in _table(newest)}
    hidden = set(session.compared or ()) - {run.id for run in newest}
    session.compared = [*chosen, *hidden]
    _actions(family, newest, chosen)
    pinned = shown.baseline(family)
    compared = [run for run in kept if run.id in chosen]
    if not compared:
        return [], None
    if pinned is not None and pinned.id not in chosen:
        compared = [pinned, *compared]
    return compared, pinned or compared[0]


def _filtered(newest: list[Run]) -> list[Run]:
    """The runs that have the words which were typed, drafts only where they are wanted."""
    drafts = sum(run.draft for run in newest)
    if len(newest) < FEW and not drafts:
        return newest
    with st.container(horizontal=True, vertical_alignment="bottom"):
        typed = st.text_input(
            "Filter", key="compare filter", persist_state="session", width=320,
            placeholder="Method, setting, name or note",
        )  # fmt: skip
        with_drafts = drafts and st.toggle(
            f"{drafts} drafts", key="compare drafts", persist_state="session",
            help="Runs that Live has made: the last ones are kept until you press Merge.",
        )  # fmt: skip
    words = (typed or "").lower().split()
    shown = [run for run in newest if with_drafts or not run.draft or run.id == session.shown_run]
    return [run for run in shown if all(word in _text(run) for word in words)]


def _text(run: Run) -> str:
    """Everything that a filter finds a run by."""
    method = METHODS[run.recipe.method].title
    return " ".join([run.label, method, changed(run), run.note]).lower()


def _table(newest: list[Run]) -> list[int]:
    """The list itself; returns the ticked rows."""
    remembered = session.compared
    if remembered is None:  # with the run that a link named
        shown_too = (session.shown_run, *(session.explained or ()))
        remembered = [*(run.id for run in newest[:FIRST]), *shown_too]
    rows = [i for i, run in enumerate(newest) if run.id in remembered]
    # Rows are ticked by their place: another list of runs is another widget.
    pinned = runs.pinned(newest[0].family)
    drawn = "".join(run.id for run in newest) + str(pinned)
    table = pd.DataFrame([_row(run, pinned) for run in newest])
    if not any(run.id == pinned for run in newest):
        table = table.drop(columns=ROLE)
    if not any(run.title or run.note for run in newest):
        table = table.drop(columns=NOTE)
    if not any(run.report.routed for run in newest):
        table = table.drop(columns=SIZE)
    if not any(run.final for run in newest):
        table = table.drop(columns=FINAL)
    answer: Any = st.dataframe(
        table,
        key=f"compare list {hashlib.sha256(drawn.encode()).hexdigest()[:12]}",
        on_select="rerun",
        selection_mode="multi-row",
        selection_default={"selection": {"rows": rows}},
        hide_index=True,
        column_config=_columns(),
        placeholder="–",
        alt=f"List of {len(newest)} finished merges with settings and accuracy, newest first.",
    )
    return [row for row in answer["selection"]["rows"] if row < len(newest)]


def _columns() -> dict[str, Any]:
    config = st.column_config
    return {
        "run": config.NumberColumn(width=50, format="%d"),
        ROLE: config.TextColumn(" ", width=80),
        "normalised": config.NumberColumn(
            format="%.1f %%", help="Mean over the tasks of merged / expert accuracy."
        ),
        "95 % interval": config.TextColumn(
            help="Where the normalised accuracy would lie with many more examples."
        ),
        "gap": config.NumberColumn(
            "gap recovered", format="%.1f %%", help="0 %: the pre-trained encoder; 100 %: experts."
        ),
        FINAL: config.NumberColumn(
            format="%.1f %%",
            help="Normalised accuracy on test examples, which were asked once, by a press.",
        ),
        SIZE: config.NumberColumn(
            format="%.2f ×", help="Of a routed merge with its branches; every other one is 1 ×."
        ),
        "time": config.NumberColumn(format="%.1f s"),
        "when": config.DatetimeColumn(format="distance"),
    }


def _row(run: Run, pinned: str | None) -> dict[str, Any]:
    numbers = figures.headline(run.report)
    low, high = normalised_interval(run.report.tasks) if run.report.tasks else (None, None)
    return {
        "run": run.number,
        ROLE: "baseline" if run.id == pinned else "",
        "method": _method(run),
        SIZE: run.report.size if run.report.routed else None,
        "settings changed": changed(run),
        NOTE: " · ".join(filter(None, [run.title, run.note])),
        "normalised": _hundred(numbers["normalised"]),
        "95 % interval": None if low is None else f"{_hundred(low):.1f} – {_hundred(high):.1f}",
        "gap": _hundred(numbers["gap"]),
        TESTED: _tested(run),
        FINAL: _hundred(figures.headline(run.final_report)["normalised"])
        if run.final_report
        else None,
        "time": None if shipped.of_another_machine(run) else run.report.seconds,
        "when": datetime.fromisoformat(run.created) if run.created else None,
    }


def _method(run: Run) -> str:
    """Its title, and what the merge went on to be."""
    routed = ", routed" if run.report.routed else ""
    trained = ", trained" if run.report.trained else ""
    return f"{METHODS[run.recipe.method].title}{routed}{trained}"


def _tested(run: Run) -> str | None:
    """`4,000 validation`: the examples that were asked, and their split."""
    asked = sum(result.merged.examples for result in run.report.tasks)
    return f"{asked:,} {run.report.split}" if asked else None


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100 * value


def changed(run: Run) -> str:
    """`scaling 1, layer power 0`: what is not at its default."""
    defaults = runs.defaults(run)
    found = [
        f"{name} {value}"
        for name, value in runs.settings(run).items()
        if name in defaults and value != defaults[name]
    ]
    if len(run.recipe.experts) < run.family_size:
        found.append(f"{len(run.recipe.experts)} experts")
    if len({entry.weight for entry in run.recipe.experts}) > 1:
        found.append("own weights")
    if run.recipe.seed:
        found.append(f"seed {run.recipe.seed}")
    return ", ".join(found) or "none"


def _actions(family: str, newest: list[Run], chosen: set[str]) -> None:
    """What can be done with one run."""
    labels = {run.id: run.label for run in newest}
    first = next((i for i, run in enumerate(newest) if run.id in chosen), 0)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        picked = st.selectbox(
            "With run", list(labels), index=first, format_func=lambda id: labels[id],
            key=f"compare one {newest[first].id} {len(newest)}", width=320,
        )  # fmt: skip
        run = next(run for run in newest if run.id == picked)
        pinned = runs.pinned(family) == run.id
        st.button(
            "Unpin" if pinned else "Pin as baseline", icon=":material/keep:",
            on_click=_pin, args=(family, None if pinned else run.id), key="compare pin",
            help="The run that all others are measured against, here and on the Merge page.",
        )  # fmt: skip
        if st.button(
            "Back to these settings", icon=":material/undo:", key="compare back",
            help="Opens Merge with every knob as it was for this run.",
        ):  # fmt: skip
            want(run.recipe)
        with st.popover("Name", icon=":material/edit_note:"):
            _naming(run)
        with st.popover("Delete", icon=":material/delete:"):
            _deletion(family, run, newest, chosen)


def _naming(run: Run) -> None:
    """Fields for a name and a note of a run."""
    with st.form(f"compare name {run.id}", border=False):
        title = st.text_input("Name", run.title, max_chars=80, placeholder=run.name)
        note = st.text_area("Note", run.note, max_chars=2000)
        if st.form_submit_button("Save", icon=":material/save:"):
            runs.change(run, title=title.strip(), note=note.strip(), draft=False)
            st.rerun()


def _deletion(family: str, run: Run, newest: list[Run], chosen: set[str]) -> None:
    """What can be deleted: one run, those that are ticked, all drafts."""
    drafts = [one.id for one in newest if one.draft]
    st.markdown(f"Forget **{show.plain(run.label)}** for good, or several runs?")
    st.button(
        "Delete this run", type="primary", on_click=shown.delete, args=(family, run.id),
        key="compare delete",
    )  # fmt: skip
    for label, ids in ((f"Delete the {len(chosen)} ticked runs", sorted(chosen)),
                       (f"Delete all {len(drafts)} drafts", drafts)):  # fmt: skip
        if len(ids) > 1:
            st.button(label, on_click=shown.delete, args=(family, *ids))


def _pin(family: str, id: str | None) -> None:
    """Pin a run, which stands beside the one that Merge shows from now on."""
    runs.pin(family, id)
    session.beside_run = id


def want(recipe: Recipe) -> None:
    """Go to the Merge page with the settings of a recipe."""
    session.wanted = Wanted.of(recipe)
    browser.go("merge")
