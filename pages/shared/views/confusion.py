"""Confusion matrices of one task: a part of the Inside page."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from mats_core import figures

from ..frame import Slot, keys, show, state, tracked
from ..work import Answers, Job, Run, Shelf, confusion
from . import examples
from .answers import AFTER, GROUPS, Before, Compared, compared, story

SIDES, DIFFERENCE = "Side by side", "Difference"


def section(
    shelf: Shelf, run: Run, task: str, who: Before, preparing: Job, other: Run | None = None
) -> None:
    """What became of a task's images, as soon as the worker knows it; beside another run, where
    one is given."""
    result = next((r for r in run.report.tasks if r.name == task), None)
    if result is not None and result.merged.metric == "likelihood":
        st.info("A language task has no classes: there is nothing to take for something else.")
        return
    answers = _known(shelf, run, task)
    beside = _known(shelf, other, task) if other is not None else None
    if answers is not None and (other is None or beside is not None):
        _check(run, answers)
        view(answers, who, run, beside.merged if beside is not None else None)
        return
    asked = other if answers is not None and other is not None else run
    _ask(shelf, asked, task, preparing)
    if not tracked.ended_badly(Slot.LOOKING):
        st.info(
            "The merge is made again from its recipe, and asked about every validation example."
        )


def _known(shelf: Shelf, run: Run, task: str) -> Answers | None:
    looked = shelf.get(run)
    return looked.answers.get(task) if looked else None


def _ask(shelf: Shelf, run: Run, task: str, preparing: Job) -> None:
    """Have the worker look at this task, and at the others when nobody waits for anything."""
    wanted = (run.id, task)
    job = state.job(Slot.LOOKING)
    if job is not None and job.request == wanted and job.snapshot().state != "done":
        return
    everything = [r.name for r in run.report.tasks if r.merged.metric != "likelihood"]
    slots = ((Slot.LOOKING, [task], False), (Slot.LOOKING_AHEAD, everything, True))
    for slot, names, background in slots:
        todo = partial(confusion.look, shelf, run, names, preparing.outcome)
        title = "Looking inside the merge"
        tracked.start(slot, wanted, title, todo, background=background, after=preparing)


def _check(run: Run, answers: Answers) -> None:
    differ = confusion.disagreements(run, answers)
    if differ > 0.01 * len(answers.labels):
        st.warning(
            f"Made again, this merge answers {differ} of {len(answers.labels)} {answers.noun}s "
            "otherwise "
            "than when it was first tested: its statistics or this machine differ since then."
        )


@st.fragment
def view(answers: Answers, who: Before, run: Run, other: np.ndarray | None = None) -> None:
    """Numbers, matrices, images; a fragment, so that looking around does not rerun the page."""
    found = compared(answers, who, other, run.family)
    numbers(found)
    st.markdown(show.plain(story(found)))
    choice_key = keys.examples(run.id, answers.name, who)
    matrices(found, choice_key)
    examples.images(found, choice_key)
    examples.pinned(found)


def numbers(found: Compared) -> None:
    total = len(found.labels)
    right = {found.who: int((found.before == found.labels).sum())}
    right[AFTER] = int((found.after == found.labels).sum())
    with st.container(horizontal=True, gap="medium"):
        for name, count in right.items():
            st.metric(
                f"{name[:1].upper()}{name[1:]}", figures.percent(count / total), width="content",
                help=f"{count} of {total} validation {found.answers.noun}s are right.",
            )  # fmt: skip
        for name in ("lost", "won"):
            st.metric(
                name.capitalize(), f"{len(getattr(found.changes, name))}", width="content",
                help=f"{GROUPS[name]}. Before: the {found.who}; after: the merge.",
            )  # fmt: skip


def matrices(found: Compared, choice_key: str) -> None:
    """Both matrices or their difference; a click on a cell chooses its images."""
    st.header("What is taken for what", anchor=False)
    look = st.segmented_control(
        "Matrices", [SIDES, DIFFERENCE], default=SIDES, required=True, key="inside matrices",
        persist_state="session", label_visibility="collapsed",
    )  # fmt: skip
    st.caption(f"Click a cell to see its {found.answers.noun}s below.")
    classes = found.answers.classes
    before, after = found.confusion(found.who), found.confusion(AFTER)
    chosen = state.value(choice_key)
    cell = chosen if isinstance(chosen, tuple) else ("", -1, -1)
    if look == DIFFERENCE:
        drawn = figures.confusion_change(
            before, after, classes, who=(found.who, AFTER), chosen=cell[1:]
        )
        with st.columns([3, 2])[0]:
            _clickable(drawn, f"{choice_key} difference", choice_key, AFTER, found)
        return
    shown = figures.worth_showing(before + after)
    most = max(figures.largest_mistake(before), figures.largest_mistake(after))
    for column, counts, name in zip(
        st.columns(2, gap="medium"), (before, after), (found.who, AFTER), strict=True
    ):
        with column:
            drawn = figures.confusion(
                counts, classes, who=name, shown=shown, most=most,
                chosen=cell[1:] if cell[0] == name else None,
            )  # fmt: skip
            _clickable(drawn, f"{choice_key} {name}", choice_key, name, found)


def _clickable(drawn: figures.Figure, key: str, choice_key: str, who: str, found: Compared) -> None:
    def click() -> None:
        points = state.value(key)["selection"]["points"]
        if points:
            true, taken = (int(i) for i in points[0]["customdata"])
            there = len(found.rows((who, true, taken)))
            # Of a difference: a cell that is empty now was the other's.
            state.put(choice_key, (who if there else found.who, true, taken))

    show.figure(drawn, key, on_select=click, selection_mode="points")
