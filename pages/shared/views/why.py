"""Why one run is better than another: measured by task, predicted by layer, and whether the one
explains the other."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import Why
from mats_core.figures import Look

from ..frame import Slot, browser, keys, session, show, state, tracked
from ..work import Job, Prepared, Run, Shelf, why
from .comparison import against

VIEW = "Why"  # the tab on Compare


def go(run: Run, other: Run) -> None:
    """Open Compare on these two."""
    session.explained = (run.id, other.id)
    session.compared = [other.id, run.id]
    state.put(keys.COMPARE_VIEW, VIEW)
    browser.go("compare")


def question(run: Run, other: Run, name: str) -> str:
    """What there is to ask of two runs: why the one is better, or worse, or whether it is."""
    mean = against(run, other).mean
    if mean is None or not mean.clear:
        return f"Is {name} better than {other.label}?"
    return f"Why is {name} {'better' if mean.low > 0 else 'worse'} than {other.label}?"


def section(
    compared: list[Run], baseline: Run, prepared: Prepared | None, looks: dict[str, Look]
) -> None:
    """Which two, then the three figures; the prediction is begun as soon as the tab is opened."""
    split = baseline.report.split
    tested = [run for run in compared if run.report.tasks and run.report.split == split]
    if len(tested) < 2:
        st.info(
            f"Tick two runs in the list above that were tested on {split} examples to see why one "
            "is better."
        )
        return
    first, second = _pair(tested, baseline)
    found, names = against(first, second), (first.label, second.label)
    st.header(show.plain(question(first, second, names[0])), anchor=False)
    asked = figures.asked_of_both(first.report.tasks, second.report.tasks, first.report.split)
    key = f"{first.id} {second.id}"
    left, right = show.halves("why")
    with left:
        st.subheader("Measured, by task", anchor=False)
        show.figure(figures.why_tasks(found, looks, names, asked), f"why tasks {key}")
    reasons = _reasons(first, second, prepared)
    if reasons is None:
        return
    by_layer = figures.why_layers(reasons, names)
    by_both = figures.why_explained(reasons, found, looks, names, asked)
    if by_layer is None or by_both is None:
        right.info("The prediction by layer needs statistics, and no expert here has both Grams.")
        return
    with left:
        st.subheader("Does the prediction explain the tasks?", anchor=False)
        show.figure(by_both, f"why both {key}")
    with right:
        st.subheader("Predicted, by layer", anchor=False)
        show.figure(by_layer, f"why layers {key}")


def _pair(tested: list[Run], baseline: Run) -> tuple[Run, Run]:
    """The two that are explained: those that were asked for, else the best and the baseline."""
    there = {run.id: run for run in tested}
    wanted = session.explained
    if wanted is None or not set(wanted) <= set(there):
        second = baseline if baseline.id in there else tested[0]
        others = [run for run in tested if run is not second]
        first = max(others, key=lambda run: run.report.normalised_accuracy or 0.0)
        wanted = (first.id, second.id)
    if len(tested) > 2:
        wanted = _choose(there, wanted)
    session.explained = wanted
    return there[wanted[0]], there[wanted[1]]


def _choose(there: dict[str, Run], wanted: tuple[str, str]) -> tuple[str, str]:
    ids = list(reversed(there))
    label = lambda id: there[id].label  # noqa: E731
    with st.container(horizontal=True, vertical_alignment="bottom"):
        key = f"why {' '.join(ids)}"
        first = st.selectbox(
            "Why is", ids, index=ids.index(wanted[0]), format_func=label, width=320,
            key=f"{key} first",
        )  # fmt: skip
        rest = [id for id in ids if id != first]
        place = rest.index(wanted[1]) if wanted[1] in rest else 0
        second = st.selectbox(
            "better than", rest, index=place, format_func=label, width=320, key=f"{key} {first}"
        )
    return first, second


def _reasons(first: Run, second: Run, prepared: Prepared | None) -> Why | None:
    """The prediction of both, where the worker has made it; else it is begun, once."""
    if prepared is None:
        st.caption("What the statistics predict by layer follows when the family is prepared.")
        return None
    name = tracked.of_run(prepared, first, "why", second.id)
    found = tracked.found(Slot.EXPLAINING, name)
    job = tracked.active(Slot.EXPLAINING)
    if found is None and (job is None or job.request != (first.id, second.id)):
        _start(first, second, prepared, name)
    return found


def _start(first: Run, second: Run, prepared: Prepared, name: str) -> None:
    pair = (first.id, second.id)
    if session.unexplained == pair:  # it failed or was cancelled: not again by itself
        if st.button("Predict by layer", icon=":material/online_prediction:", key="why start"):
            session.unexplained = None
            st.rerun()
        return
    session.unexplained = pair
    shelf = session.inside_shelf = session.inside_shelf or Shelf()
    todo = partial(why.explain, shelf, first, second, prepared)
    tracked.put(Slot.EXPLAINING, Job(pair, "Predicting both", todo, name=name, shared=True))
    st.rerun()


def collect() -> None:
    """Say how a prediction ended that is not kept."""
    tracked.collect(Slot.EXPLAINING, cancelled="The prediction by layer was cancelled.")
