"""A grid over two settings: start it, watch it fill, take a point over to Merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import Cell, best
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile, Recipe, dump_recipe

from ..controls import grid
from ..frame import Slot, keys, session, show, state, tracked
from ..work import Job, Prepared, Run, SweepRequest, run_sweep
from . import trials

VIEW = "Sweep two settings"  # the tab on Compare
LINK = "sweep"  # the query parameter that names one


def section(collection: FamilyFile, kept: list[Run], prepared: Prepared | None) -> None:
    """Controls on the left, the grid on the right."""
    controls = partial(grid.controls, collection, kept, prepared)

    def estimate(request: SweepRequest) -> None:
        points, took = _points(request), grid.seconds_of(request.recipe, kept)
        trials.estimated(f"{points} merges", points, took)

    FRAME.section(collection.name, controls, estimate, lambda request: "Sweep", prepared)


def _points(request: SweepRequest) -> int:
    return len(request.x.values) * len(request.y.values)


def start(request: SweepRequest, prepared: Prepared) -> None:
    like = request.like.id if request.like else ""
    asked = (dump_recipe(request.recipe), request.x, request.y, request.examples, like)
    name = tracked.named(LINK, tracked.name(prepared, *map(str, asked)))
    todo = partial(run_sweep, request, prepared)
    tracked.press(
        Slot.SWEEPING, request, "Sweeping", todo, background=True, keep=FRAME.hold, name=name
    )


def linked(family: str) -> Mapping[str, str | None]:
    """What the address says of the last sweep; one that it names is opened."""
    session.sweep = tracked.of_address(Slot.SWEEPING, LINK, session.sweep)
    return tracked.in_address(LINK, session.sweep)


def _live(job: Job) -> None:
    """The grid as far as it is known."""
    cells = job.snapshot().partial or ()
    show.figure(_drawn(job.request, cells), "sweep live")


def _drawn(request: SweepRequest, cells: Sequence[Cell]) -> figures.Figure:
    return figures.sweep_map(request.x, request.y, cells, request.titles, examples=request.examples)


def _finished(job: Job) -> None:
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
    good = [i for i, cell in enumerate(cells) if cell.accuracy is not None]
    if not good:
        st.warning(f"No point could be merged. {show.plain(cells[0].reason)}")
        return
    top = best(cells)
    key = keys.sweep_point(id(job))
    trials.clicked([answer], id(job), "sweep_click", key, good)
    if not state.is_set(key) and top is not None:
        state.put(key, cells.index(top))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.selectbox(
            "Point (or click one above)",
            sorted(good, key=lambda i: -(cells[i].accuracy or 0)),
            format_func=lambda i: _name(cells[i], request), key=key, width=380,
        )  # fmt: skip
        trials.use(
            taken(request, cells[chosen]), "sweep use", "Opens Merge with this point's settings."
        )


def _name(cell: Cell, request: SweepRequest) -> str:
    values = ", ".join(f"{request.titles[n]} {grid.text_of(v)}" for n, v in cell.options.items())
    return f"{figures.percent(cell.accuracy or 0)} · {values}"


def taken(request: SweepRequest, cell: Cell) -> Recipe:
    """The recipe of one point."""
    options = {**request.recipe.options, **cell.options}
    return request.recipe.model_copy(update={"options": options})


FRAME: trials.Frame[SweepRequest] = trials.Frame(
    "sweep", Slot.SWEEPING, ":material/grid_on:",
    "Choose a method and two of its settings, and press Sweep. Every pair of values is merged and "
    "tested on validation examples, in the background; nothing is kept until you take a point over "
    "to Merge.",
    start, _live, _finished,
    "The sweep was stopped after {count} points.",
)  # fmt: skip
collect = FRAME.collect
