"""Who conflicts with whom: merges of pairs, or with one left out, beside what was predicted."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import WAYS, conflict
from mats_core.merging import FamilyFile
from mats_core.methods import METHODS

from ..frame import Slot, session, show, shown, tracked
from ..work import ConflictRequest, Job, Prepared, measure_conflicts

OFFERED = ("average", "task_arithmetic", "regmean", "kfac", "essential")
MOST = 8  # results that a session keeps


def section(collection: FamilyFile, prepared: Prepared) -> None:
    """Method and way, the press, and both matrices."""
    st.header("Who conflicts with whom, measured", anchor=False)
    names = [expert.name for expert in collection.experts if expert.task]
    if len(names) < 3:
        st.info("This needs at least three experts with tasks.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = st.selectbox(
            "Merged by", OFFERED, format_func=lambda m: METHODS[m].title, key="conflict method",
            persist_state="session", width=260,
        )  # fmt: skip
        way: Any = st.segmented_control(
            "Compare", list(WAYS), default="pairs", required=True, key="conflict way",
            persist_state="session", format_func=lambda w: WAYS[w],
        )  # fmt: skip
        request = ConflictRequest(collection, method, way)
        found = session.conflicts.get(_key(request))
        clicked = found is None and st.button(
            f"Measure: {conflict.merges(len(names), way)} merges", type="primary",
            icon=":material/compare_arrows:", key="conflict start",
            disabled=tracked.active(Slot.CONFLICTING) is not None,
        )  # fmt: skip
    if clicked:
        todo = partial(measure_conflicts, request, prepared)
        tracked.press(Slot.CONFLICTING, request, "Measuring conflicts", todo, background=True)
    if found is None:
        st.markdown(
            "Cosines and overlaps above are what could be in the way. Here the tasks are really "
            "merged and tested on validation examples, and the same merges are predicted from the "
            "statistics. It goes on in the background."
        )
        return
    for side, title in figures.SIDES.items():
        drawn = figures.conflict_matrix(found, side)
        if drawn is not None:
            st.subheader(title, anchor=False)
            show.figure(drawn, f"conflict {side} {method} {way}")
        else:
            st.info("The prediction needs statistics of the experts, and there are none.")


def _key(request: ConflictRequest) -> tuple[str, str, str]:
    return str(request.collection.folder), request.method, request.way


def collect() -> None:
    """Keep what was measured; say how it ended otherwise."""
    cancelled = "The conflicts were not measured to the end; nothing was kept."
    tracked.collect(Slot.CONFLICTING, _keep, cancelled=cancelled)


def _keep(job: Job) -> None:
    found = {**session.conflicts, _key(job.request): job.outcome()}
    session.conflicts = shown.newest(found, MOST)
