"""The whole family, layers × tasks: a survey in the background, and a heatmap to click at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import KINDS, OF_A_KIND, Kind, Quantity, Survey
from mats_core.recipes import Inputs

from ..frame import Slot, keys, session, show, state, surveys, tracked
from ..work import Job
from .spectra import TITLES

POLL = 1.5  # seconds between two drawings of a heatmap that grows
NEED_STATISTICS: tuple[Quantity, ...] = ("overlap", "cost of averaging")


def choice(inputs: Inputs) -> tuple[str, str]:
    """The chosen layer and task; at first the middle layer and the first task."""
    names, tasks = surveys.matrices(inputs), [expert.name for expert in inputs.family.experts]
    layer, task = session.subspaces_layer, session.subspaces_task
    if layer not in names:
        session.subspaces_layer = layer = names[len(names) // 2]
    if task not in tasks:
        session.subspaces_task = task = tasks[0]
    return str(layer), str(task)


def controls(inputs: Inputs) -> tuple[Quantity, Kind, int]:
    """What the heatmap shows."""
    measured = any(own is not None for own in inputs.statistics)
    offered: list[Quantity] = [
        q for q in figures.QUANTITIES if measured or q not in NEED_STATISTICS
    ]
    row = st.container(horizontal=True)
    quantity: Quantity = row.selectbox(
        "Show", offered, format_func=lambda q: figures.QUANTITIES[q].title,
        key="subspaces quantity", persist_state="session",
    )  # fmt: skip
    kind: Kind = "essential" if measured else "task matrix"
    rank = 1
    if quantity in OF_A_KIND:
        kinds: list[Kind] = [k for k in KINDS if measured or k == "task matrix"]
        kind = row.selectbox(
            "Spectrum of", kinds, index=kinds.index(kind), format_func=lambda k: TITLES[k],
            key="subspaces family kind", persist_state="session",
        )  # fmt: skip
    if quantity == "energy":
        shapes = [inputs.family.shape(name) for name in surveys.matrices(inputs)]
        most = max(min(shape) for shape in shapes)
        room = max(1, min(shape[0] for shape in shapes) // len(inputs.family.experts))
        rank = st.slider(
            "Directions kept, r", 1, most, min(room, most), key="subspaces family rank",
            persist_state="session",
        )  # fmt: skip
    return quantity, kind, rank


def heatmap(inputs: Inputs, found: Job | Survey) -> None:
    """Controls and heatmap; while the survey runs, as many rows as there are."""
    quantity, kind, rank = controls(inputs)
    names = surveys.matrices(inputs)
    if isinstance(found, Survey):
        chosen = choice(inputs)
        drawn = figures.family_heatmap(found, names, quantity, kind=kind, rank=rank, chosen=chosen)
        if drawn is None:
            st.info("None of the tasks has the statistics for this; choose another quantity.")
            return
        # The key holds the choice: a cell that was clicked before can be clicked again.
        key = f"family {quantity} {chosen}"
        st.caption("Click a cell to open its layer and task.")
        on_select = partial(follow, key, (keys.LAYER, keys.TASK))
        show.figure(drawn, key, on_select=on_select, selection_mode="points")
        return
    grow(found, names, quantity, kind, rank)


def grow(job: Job, names: Sequence[str], quantity: Quantity, kind: Kind, rank: int) -> None:
    """The job's progress with the rows that it has; its failure as a sentence."""
    cancelled = "Looking at the layers was cancelled."
    if tracked.ended_badly(Slot.SURVEYING, cancelled=cancelled, again="Look again"):
        return

    def poll() -> None:
        if not job.active:
            st.rerun()
        now = job.snapshot()
        with st.container(horizontal=True, vertical_alignment="center"):
            st.progress(now.fraction, text=show.plain(now.text))
            st.button("Cancel", on_click=job.cancel, icon=":material/close:", key="stop survey")
        so_far: Survey | None = now.partial
        if so_far is not None and so_far.layers:
            drawn = figures.family_heatmap(so_far, names, quantity, kind=kind, rank=rank)
            if drawn is not None:
                show.figure(drawn, "family growing")

    st.fragment(poll, run_every=POLL)()


def follow(key: str, targets: tuple[str, str]) -> None:
    """A click on a cell: its two names become the choice of the widgets `targets`."""
    for target, name in zip(targets, clicked(state.value(key)), strict=False):
        state.put(target, name)


def clicked(event: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The two names of the selected cell; nothing where nothing (or no cell) is selected."""
    points = (event or {}).get("selection", {}).get("points", [])
    data = points[0].get("customdata") if points else None
    return tuple(data) if isinstance(data, list | tuple) and len(data) == 2 else ()
