"""The way between two models: loss and accuracy from the base over each expert to a merge."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import Between

from ..frame import Slot, show, tracked
from ..work import EXAMPLES, Prepared, Run, Shelf, walk


def section(shelf: Shelf, run: Run, prepared: Prepared) -> None:
    """The press, and both figures."""
    st.header("The way between", anchor=False)
    name = tracked.of_run(prepared, run, "way between")
    found: Between | None = tracked.found(Slot.WALKING, name)
    if found is None:
        st.write(
            "Is there a barrier between an expert and the merge? The weights move in a straight "
            "line from the base to each expert and on to the merge, and the expert's task is asked "
            f"on the way: 9 places, up to {EXAMPLES} validation examples each."
        )
        if st.button(
            "Walk the way", icon=":material/route:", key="between start",
            disabled=tracked.active(Slot.WALKING) is not None,
        ):  # fmt: skip
            todo = partial(walk, shelf, run, lambda: prepared)
            said = "Walking the way"
            tracked.press(Slot.WALKING, run.id, said, todo, background=True, name=name)
        return
    looks = figures.looks(expert.name for expert in prepared.inputs.family.experts)
    height: Any = st.segmented_control(
        "Height", ["loss", "accuracy"], default="loss", required=True, key="between height",
        persist_state="session", label_visibility="collapsed",
    )  # fmt: skip
    show.figure(figures.way_between(found, looks, height), f"between {run.id} {height}")


def collect() -> None:
    """Say how a walk ended that is not kept."""
    tracked.collect(Slot.WALKING, cancelled="The walk was cancelled; nothing was kept of it.")
