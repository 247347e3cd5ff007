"""A grid over two settings: start it, watch it fill, take a point over to Merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import Cell, best
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile, Recipe, dump_recipe

from ..controls import grid
from ..frame import Slot, keys, session, show, state, tracked
from ..work import Job, Prepared, Run, SweepRequest, run_sweep
from . import runs

VIEW = "Sweep two settings"  # the tab on Compare
POLL = 1.5  # seconds between two looks at a sweep that runs
LINK = "sweep"  # the query parameter that names one


def section(collection: FamilyFile, kept: list[Run], prepared: Prepared | None) -> None:
    """Controls on the left, the grid on the right."""
    left, right = st.columns([4, 9], gap="large")
    with left:
        request, problem = grid.controls(collection, kept, prepared)
        clicked = st.button(
            "Sweep", type="primary", icon=":material/grid_on:", key="sweep start",
            disabled=request is None or prepared is None,
        )  # fmt: skip
        if problem:
            show.problem(problem)
        elif request is not None:
            grid.estimate(request, kept)
    if clicked and request is not None and prepared is not None:
        start(request, prepared)
    job = session.sweep
    with right:
        if job is None or job.request.family != collection.name:
            st.info(
                "Choose a method and two of its settings, and press Sweep. Every pair of values is "
                "merged and tested on validation examples, in the background; nothing is kept "
                "until you take a point over to Merge.",
                icon=":material/grid_on:",
            )
        elif job.active:
            st.fragment(_live, run_every=POLL)(job)
        else:
            _finished(job, kept)


def start(request: SweepRequest, prepared: Prepared) -> None:
    like = request.like.id if request.like else ""
    asked = (dump_recipe(request.recipe), request.x, request.y, request.examples, like)
    name = tracked.named(LINK, tracked.name(prepared, *map(str, asked)))
    todo = partial(run_sweep, request, prepared)
    keep = partial(setattr, session, "sweep")
    tracked.press(Slot.SWEEPING, request, "Sweeping", todo, background=True, keep=keep, name=name)


def linked(family: str) -> Mapping[str, str | None]:
    """What the address says of the last sweep; one that it names is opened."""
    session.sweep = tracked.of_address(Slot.SWEEPING, LINK, session.sweep)
    return tracked.in_address(LINK, session.sweep)


def collect() -> None:
    """Say how a sweep ended, once; its picture stays."""
    so_far = session.sweep.snapshot().partial if session.sweep else ()
    cancelled = f"The sweep was stopped after {len(so_far or ())} points."
    tracked.collect(Slot.SWEEPING, cancelled=cancelled)


def _live(job: Job) -> None:
    """The grid as far as it is known."""
    cells = job.snapshot().partial or ()
    show.figure(_drawn(job.request, cells), "sweep live")


def _drawn(request: SweepRequest, cells: Sequence[Cell]) -> figures.Figure:
    return figures.sweep_map(request.x, request.y, cells, request.titles, examples=request.examples)


def _finished(job: Job, kept: list[Run]) -> None:
    """The grid, and what can be done with a point of it."""
    request, now = job.request, job.snapshot()
    cells: tuple[Cell, ...] = now.result or now.partial or ()
    if not cells:
        st.info("No point of this sweep was finished.")
        return
    st.markdown(f"**{show.plain(METHODS[request.recipe.method].title)}**, mean normalised accuracy")
    answer = show.figure(
        _drawn(request, cells), f"sweep {id(job)}", on_select="rerun", selection_mode="points"
    )
    _clicked(answer, id(job), cells)
    good = [i for i, cell in enumerate(cells) if cell.accuracy is not None]
    if not good:
        st.warning(f"No point could be merged. {show.plain(cells[0].reason)}")
        return
    top = best(cells)
    key = keys.sweep_point(id(job))
    if not state.is_set(key) and top is not None:
        state.put(key, cells.index(top))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Point (or click one above)",
            sorted(good, key=lambda i: -(cells[i].accuracy or 0)),
            format_func=lambda i: _name(cells[i], request), key=key, width=380,
        )  # fmt: skip
        if st.button(
            "Use these settings", type="primary", icon=":material/merge:", key="sweep use",
            help="Opens Merge with this point's settings.",
        ):  # fmt: skip
            runs.want(taken(request, cells[chosen]))


def _clicked(answer: Any, job: int, cells: Sequence[Cell]) -> None:
    """A point that has just been clicked becomes the chosen one."""
    points = [p for p in answer["selection"]["points"] if p.get("customdata") is not None]
    if not points:
        return
    place = points[0]["customdata"]
    place = int(place[0] if isinstance(place, list) else place)
    if session.sweep_click != (job, place) and cells[place].accuracy is not None:
        session.sweep_click = (job, place)
        state.put(keys.sweep_point(job), place)


def _name(cell: Cell, request: SweepRequest) -> str:
    values = ", ".join(f"{request.titles[n]} {grid.text_of(v)}" for n, v in cell.options.items())
    return f"{figures.percent(cell.accuracy or 0)} · {values}"


def taken(request: SweepRequest, cell: Cell) -> Recipe:
    """The recipe of one point."""
    options = {**request.recipe.options, **cell.options}
    return request.recipe.model_copy(update={"options": options})
