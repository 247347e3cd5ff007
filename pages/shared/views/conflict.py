"""Who conflicts with whom: a forecast of pairs, or with one left out, beside what is measured."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import WAYS, Conflicts, Forecast, Way, merges
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile

from ..frame import Slot, browser, keys, show, shown, state, tracked
from ..work import ConflictRequest, Prepared, Run, forecast_conflicts, measure_conflicts

OFFERED = ("average", "task_arithmetic", "regmean", "kfac", "essential")
VIEW = "Interference"  # the tab on Subspaces


def section(collection: FamilyFile, prepared: Prepared) -> None:
    """Method and way, both presses, and both matrices."""
    st.header("Who conflicts with whom", anchor=False)
    names = [expert.name for expert in collection.experts if expert.task]
    if len(names) < 3:
        st.info("This needs at least three experts with tasks.")
        return
    with st.container(horizontal=True, vertical_alignment="bottom"):
        run = shown.run(collection.name)
        offered = [*([run] if run else []), *OFFERED]
        by: Any = st.selectbox(
            "Merged by", offered, format_func=_title, width=320, persist_state="session",
            key=f"conflict method {run.id if run else ''}",
        )  # fmt: skip
        key = keys.CONFLICT_WAY
        way: Any = st.segmented_control(
            "Compare", list(WAYS), default=None if state.is_set(key) else "pairs", required=True,
            key=key, persist_state="session", format_func=lambda w: WAYS[w],
        )  # fmt: skip
        request = _request(collection, by, way)
        name = tracked.name(prepared, *_key(request))
        # Of a forecast neither method nor options decide.
        early = tracked.name(prepared, str(collection.folder), "forecast", way)
        found: Conflicts | None = tracked.found(Slot.CONFLICTING, name)
        expected: Forecast | None = tracked.found(Slot.CONFLICTING, early)
        busy = tracked.active(Slot.CONFLICTING) is not None
        forecast = expected is None and st.button(
            "Forecast", icon=":material/online_prediction:", key="conflict forecast", disabled=busy,
            help="Merges the same experts by TSV-M and asks 64 inputs a task, without labels.",
        )  # fmt: skip
        measured = found is None and st.button(
            f"Measure: {merges(len(names), way)} merges", type="primary",
            icon=":material/compare_arrows:", key="conflict start", disabled=busy,
        )  # fmt: skip
    if forecast:
        todo = partial(forecast_conflicts, request, prepared)
        tracked.press(
            Slot.CONFLICTING, request, "Forecasting conflicts", todo, background=True, name=early
        )
    if measured:
        todo = partial(measure_conflicts, request, prepared)
        tracked.press(
            Slot.CONFLICTING, request, "Measuring conflicts", todo, background=True, name=name
        )
    if found is None or expected is None:
        st.markdown(
            "Cosines and overlaps above are what could be in the way; by themselves they hardly "
            "rank pairs by what merging costs them. The forecast does better: how many of an "
            "expert's answers a merge of the same experts from weights alone moves, before a "
            "method is chosen. Measured means really merged by the method, and tested on "
            "validation examples. Both go on in the background."
        )
    if expected is not None:
        st.subheader("Forecast", anchor=False)
        drawn = figures.forecast_matrix(expected, found)
        show.figure(drawn, f"conflict forecast {collection.folder} {way} {found is None}")
    if found is not None:
        st.subheader("Measured", anchor=False)
        drawn = figures.conflict_matrix(found)
        show.figure(drawn, f"conflict measured {' '.join(_key(request))}")


def go(way: Way) -> None:
    """Open Subspaces on this."""
    state.put(keys.SUBSPACES_VIEW, VIEW)
    state.put(keys.CONFLICT_WAY, way)
    browser.go("subspaces")


def _title(by: Run | str) -> str:
    """A run stands for its settings, a method for its defaults."""
    return METHODS[by].title if isinstance(by, str) else f"As in {by.label}"


def _request(collection: FamilyFile, by: Run | str, way: Way) -> ConflictRequest:
    if isinstance(by, str):
        return ConflictRequest(collection, by, way)
    return ConflictRequest(collection, by.recipe.method, way, by.recipe.options, by.id)


def _key(request: ConflictRequest) -> tuple[str, str, str]:
    return str(request.collection.folder), request.run or request.method, request.way


def collect() -> None:
    """Say how a measurement ended that is not kept."""
    cancelled = "That was not done to the end; nothing was kept."
    tracked.collect(Slot.CONFLICTING, cancelled=cancelled)
