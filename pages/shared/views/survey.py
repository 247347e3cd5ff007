"""The whole family, layers × tasks: a survey in the background, and a heatmap to click at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import KINDS, OF_A_KIND, Kind, Quantity, Survey
from mats_core.merging import Inputs

from ..frame import caches, show
from ..work import Job, look_around
from .spectra import TITLES, matrices

LAYER, TASK = "subspaces layer", "subspaces task"
POLL = 1.5  # seconds between two drawings of a heatmap that grows
NEED_STATISTICS: tuple[Quantity, ...] = ("overlap", "cost of averaging")


def survey(inputs: Inputs) -> Job | Survey:
    """The finished survey, or the job that makes it (started when it is first asked for)."""
    known = caches.survey(inputs)
    if known is not None:
        return known
    key = caches.identity(inputs)
    job: Job | None = st.session_state.get("surveying")
    if job is None or job.request != key:
        if job is not None:
            job.cancel()
        todo = partial(look_around, inputs, caches.by_task(inputs), matrices(inputs))
        job = Job(key, "Looking at every layer", todo, background=True)
        st.session_state["surveying"] = caches.worker().submit(job)
    now = job.snapshot()
    if now.state == "done":
        caches.keep_survey(inputs, now.result)
        return now.result
    return job


def choice(inputs: Inputs) -> tuple[str, str]:
    """The chosen layer and task; at first the middle layer and the first task."""
    names, tasks = matrices(inputs), [expert.name for expert in inputs.family.experts]
    for key, offered, first in ((LAYER, names, len(names) // 2), (TASK, tasks, 0)):
        if st.session_state.get(key) not in offered:
            st.session_state[key] = offered[first]
    return st.session_state[LAYER], st.session_state[TASK]


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
        shapes = [inputs.family.shape(name) for name in matrices(inputs)]
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
    names = matrices(inputs)
    if isinstance(found, Survey):
        chosen = choice(inputs)
        drawn = figures.family_heatmap(found, names, quantity, kind=kind, rank=rank, chosen=chosen)
        if drawn is None:
            st.info("None of the tasks has the statistics for this; choose another quantity.")
            return
        # The key holds the choice: a cell that was clicked before can be clicked again.
        key = f"family {quantity} {chosen}"
        st.caption("Click a cell to open its layer and task.")
        show.figure(
            drawn, key, on_select=partial(follow, key, (LAYER, TASK)), selection_mode="points"
        )
        return
    grow(found, names, quantity, kind, rank)


def grow(job: Job, names: Sequence[str], quantity: Quantity, kind: Kind, rank: int) -> None:
    """The job's progress with the rows that it has; its failure as a sentence."""
    now = job.snapshot()
    if now.state in ("failed", "cancelled"):
        show.problem(now.error or "Looking at the layers was cancelled.")
        if st.button("Look again", icon=":material/refresh:"):
            del st.session_state["surveying"]
            st.rerun()
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
    for target, value in zip(targets, clicked(st.session_state.get(key)), strict=False):
        st.session_state[target] = value


def clicked(event: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The two names of the selected cell; nothing where nothing (or no cell) is selected."""
    points = (event or {}).get("selection", {}).get("points", [])
    data = points[0].get("customdata") if points else None
    return tuple(data) if isinstance(data, list | tuple) and len(data) == 2 else ()
