"""A map of examples under base, experts and merge: search, colours, and a point's neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.analysis import FeatureMap

from ..frame import Slot, show, state, tracked
from ..work import Job, Prepared, Run, Shelf, clipped, draw_map, finish_map, picture

BASE, MERGE = "base", "merge"


def section(shelf: Shelf, run: Run, task: str, prepared: Prepared) -> None:
    """The press, then the map."""
    st.header("A map", anchor=False)
    first, whole = (tracked.of_run(prepared, run, which) for which in ("map", "whole map"))
    found: FeatureMap | None = tracked.found(Slot.MAPPING, first)
    if found is None:
        st.write(
            "Where do the examples lie under the base, under their experts and under the merge? "
            "Their features before the head, in one plane; a slider moves the weights from the "
            "base to the merge and beyond."
        )
        if st.button(
            "Draw the map", icon=":material/scatter_plot:", key="map start",
            disabled=tracked.active(Slot.MAPPING) is not None,
        ):  # fmt: skip
            todo = partial(draw_map, shelf, run, lambda: prepared)
            tracked.press(Slot.MAPPING, run.id, "Drawing the map", todo, name=first)
        return
    _map(run, _finished(shelf, run, found, prepared, whole) or found, task, prepared)


def _finished(
    shelf: Shelf, run: Run, found: FeatureMap, prepared: Prepared, name: str
) -> FeatureMap | None:
    """The whole map; its rest is begun once: the first picture does not wait for it."""
    job, known = state.job(Slot.TRAVELLING), tracked.found(Slot.TRAVELLING, name)
    if known is None and (job is None or job.request != run.id):
        todo = partial(finish_map, shelf, run, found, lambda: prepared)
        title = "Moving the weights, and asking every expert"
        rest = Job(run.id, title, todo, background=True, name=name, shared=True)
        tracked.put(Slot.TRAVELLING, rest)
    return known


def collect() -> None:
    """Say how a map ended that is not on the shelf."""
    tracked.collect(Slot.MAPPING, cancelled="The map was cancelled.")
    job = state.job(Slot.TRAVELLING)
    if job is not None and (problem := job.snapshot().error):
        show.problem(problem)


@st.fragment
def _map(run: Run, found: FeatureMap, task: str, prepared: Prepared) -> None:
    looks = figures.looks(expert.name for expert in prepared.inputs.family.experts)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        words = st.text_input(
            "Search the map", key="map search", placeholder="task, class or text",
            persist_state="session", width=260,
        )  # fmt: skip
        by: Any = st.segmented_control(
            "Colour by", ["task", "class"], default="task", required=True, key="map colour",
            persist_state="session", help=f"Classes are those of {task}, the task chosen above.",
        )  # fmt: skip
    shown = found.search(words)
    if words:
        st.markdown(show.plain(f"{int(shown.sum())} of {len(shown)} examples match."))
    chosen_key = f"map example {run.id}"
    chosen = state.value(chosen_key)
    matching = [i for i in range(len(shown)) if shown[i] or i == chosen]
    drawn = figures.feature_map(found, looks, by=by, task=task, shown=shown, chosen=chosen)
    key = f"map {run.id}"

    def click() -> None:
        points = state.value(key)["selection"]["points"]
        if points and "customdata" in points[0]:
            state.put(chosen_key, _number(points[0]["customdata"]))

    show.figure(drawn, key, on_select=click, selection_mode="points")
    st.selectbox(
        "Neighbours of", matching, index=None, key=chosen_key,
        format_func=lambda place: _name(found, place),
        placeholder="Click a point, or choose an example",
    )  # fmt: skip
    if chosen is not None:
        _neighbours(found, chosen)


def _number(said: Any) -> int:
    return int(said[0] if isinstance(said, list | tuple) else said)


def _name(found: FeatureMap, place: int) -> str:
    split, row = found.example(place)
    text = "" if split.form.kind == "image" else f": {clipped(split.text(row), 60)}"
    return f"{place + 1} · {found.tasks[found.task[place]]} · {found.class_of(place)}{text}"


def _neighbours(found: FeatureMap, place: int) -> None:
    """The nearest examples under one model, their ranks under all, and what the merge changes."""
    near = {one: found.nearest(place, one) for one in (MERGE, BASE, *found.experts)}
    st.markdown(show.plain(_said(found, place, near)))
    under: Any = st.selectbox(
        "Nearest under", list(near), key="map under", persist_state="session", width=260,
        format_func=lambda one: f"the {one}" if one in (BASE, MERGE) else one,
        help="Whose nearest neighbours are listed; their ranks under all the others stand beside.",
    )  # fmt: skip
    ranks = {one: found.ranks(place, one) for one in near}
    rows = [
        {
            "example": _name(found, other),
            "task": found.tasks[found.task[other]],
            **{f"under {one}": int(ranks[one][other]) for one in near},
        }
        for other in near[under]
    ]
    st.dataframe(
        pd.DataFrame(rows), hide_index=True,
        column_config={
            f"under {one}": st.column_config.NumberColumn(
                help="Its rank among the nearest by the distance of the features, 1 the nearest."
            )
            for one in near
        },
        alt=f"Table of {len(rows)} neighbours with their task and their ranks.",
    )  # fmt: skip
    pictured = [i for i in (place, *near[under]) if _is_image(found, i)]
    with st.container(horizontal=True, gap="small"):
        for number in pictured:
            split, row = found.example(number)
            with st.container(width=112, gap="xxsmall"):
                alt = f"An image of {found.class_of(number)}"
                st.image(picture(split.inputs[row]), width=96, alt=alt)
                whose = "chosen" if number == place else found.tasks[found.task[number]]
                st.markdown(f":small[{show.plain(f'{whose}: {found.class_of(number)}')}]")


def _said(found: FeatureMap, place: int, near: Mapping[str, Sequence[int]]) -> str:
    """What the merge and the experts change among the nearest, in numbers."""
    same = found.task[place], found.label[place]
    alike = {
        one: sum((found.task[i], found.label[i]) == same for i in places)
        for one, places in near.items()
    }
    kept = len({*near[BASE]} & {*near[MERGE]})
    text = (
        f"{kept} of its {len(near[BASE])} nearest neighbours under the base are still among the "
        f"nearest under the merge. Of its own class and task are {alike[BASE]} under the base and "
        f"{alike[MERGE]} under the merge"
    )
    own = found.tasks[found.task[place]]
    if own not in alike:
        return f"{text}."
    others = [count for one, count in alike.items() if one not in (BASE, MERGE, own)]
    more = f", {min(others)} to {max(others)} under the other experts" if others else ""
    return f"{text}, {alike[own]} under its expert {own}{more}."


def _is_image(found: FeatureMap, place: int) -> bool:
    return found.example(place)[0].form.kind == "image"
