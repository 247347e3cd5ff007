"""Layer by layer: the merged parts are swapped into the base, a part of the Inside page."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import GRAINS, ORDERINGS, THREE, Loading, loading

from ..frame import Slot, show, tracked
from ..work import EXAMPLES, Prepared, Run, Shelf, load

ALL = "all tasks"


def section(shelf: Shelf, run: Run, task: str, prepared: Prepared) -> None:
    """What it is, the controls, the curves."""
    st.header("Layer by layer", anchor=False)
    st.write(
        "Where in the network does the merge gain? Start from the pre-trained encoder and swap in "
        "the merged parts one after another, by several orderings; after each swap the encoder is "
        "tested on every task."
    )
    name = tracked.of_run(prepared, run, "parts")
    found: Loading | None = tracked.found(Slot.LOADING_PARTS, name)
    _controls(shelf, run, prepared, name)
    if found is not None:
        _curves(run, found, task)


def _controls(shelf: Shelf, run: Run, prepared: Prepared, name: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        grain: Any = st.segmented_control(
            "Swap in", list(GRAINS), default="half", required=True, key="inside grain",
            format_func=lambda g: GRAINS[g], persist_state="session",
        )  # fmt: skip
        orderings: Any = st.pills(
            "Orderings", list(ORDERINGS), default=list(THREE), selection_mode="multi",
            key="inside orderings", persist_state="session",
        )  # fmt: skip
    count = len(loading.parts(prepared.inputs.family, grain))
    states = loading.states(count, len(orderings))
    with st.container(horizontal=True, vertical_alignment="center"):
        clicked = st.button(
            "Load the parts one by one", icon=":material/layers:",
            disabled=not orderings or tracked.active(Slot.LOADING_PARTS) is not None,
        )  # fmt: skip
        st.caption(
            f"{count} parts, at most {states} states to test on up to {EXAMPLES} validation "
            f"examples a task{_duration(shelf, run, states)}."
            if orderings
            else "Choose at least one ordering."
        )
    if clicked:
        chosen: Any = tuple(o for o in ORDERINGS if o in orderings)
        todo = partial(load, shelf, run, grain, chosen, lambda: prepared)
        title = "Loading the parts one by one"
        tracked.press(Slot.LOADING_PARTS, run.id, title, todo, name=name)


def _duration(shelf: Shelf, run: Run, states: int) -> str:
    """From the time that the last answers took."""
    if shelf.pace is None:
        return ""
    seconds = states * len(run.report.tasks) * EXAMPLES * shelf.pace
    return f", about {max(1, round(seconds))} s" if seconds < 100 else f", {seconds / 60:.0f} min"


def collect() -> None:
    """Say how a loading ended that is not kept."""
    cancelled = "The loading was cancelled; nothing was kept of it."
    tracked.collect(Slot.LOADING_PARTS, cancelled=cancelled)


@st.fragment
def _curves(run: Run, found: Loading, task: str) -> None:
    whose = st.segmented_control(
        "Accuracy of", [ALL, task], default=ALL, required=True, key=f"inside curves {task}",
        label_visibility="collapsed",
    )  # fmt: skip
    only = None if whose == ALL else task
    key = f"{run.id} {len(found.parts)} {len(found.curves)} {whose}"
    left, right = show.halves("loading", [11, 8])
    with left:
        show.figure(figures.loading_curves(found, only), f"loading {key}")
    with right:
        show.figure(figures.loading_steps(found, only), f"loading steps {key}")
