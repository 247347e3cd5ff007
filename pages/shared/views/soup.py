"""A greedy soup: which experts an average should have, tried one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.analysis import Ingredient
from mats_core.recipes import FamilyFile

from ..controls import grid
from ..frame import Slot, browser, show, shown, state, tracked
from ..work import Job, Prepared, Run, Souped, SoupRequest, run_soup
from . import trials

VIEW = "Greedy soup"  # the tab on Compare
BEFORE = (
    "The plain average of all experts is seldom the best one. A greedy soup begins with the expert "
    "that does best on all tasks alone, adds the others one after the other, and keeps each that "
    "does not lower the mean validation accuracy (arXiv 2203.05482). It is tried in the "
    "background, and what comes out is kept among the finished merges."
)


def section(collection: FamilyFile, kept: list[Run], prepared: Prepared | None) -> None:
    """Controls on the left, the steps on the right."""

    def estimate(request: SoupRequest) -> None:
        plain = [run.report.seconds for run in kept if run.recipe.method == "average"]
        trials.estimated(f"{request.merges} averages", request.merges, plain)

    controls = partial(_controls, collection, prepared)
    FRAME.section(collection.name, controls, estimate, lambda request: "Choose experts", prepared)


def _controls(collection: FamilyFile, prepared: Prepared | None) -> tuple[SoupRequest | None, str]:
    names = [expert.name for expert in collection.experts]
    key = f"soup experts {collection.name}"
    picked = st.pills(
        "Experts to choose from", names, selection_mode="multi", key=key,
        default=None if state.is_set(key) else names, persist_state="session",
        format_func=show.label,
    )  # fmt: skip
    examples = grid.examples("soup")
    experts = tuple(name for name in names if name in picked)
    if len(experts) < 2:
        return None, "A soup is chosen from two experts or more."
    if not any(expert.task for expert in collection.experts if expert.name in experts):
        return None, "A soup is chosen on validation data, and none of these experts names a task."
    if prepared is None:
        return None, ""
    recipe = collection.recipe("average", experts=experts)
    return SoupRequest(collection, recipe, examples), ""


def _start(request: SoupRequest, prepared: Prepared) -> None:
    todo = partial(run_soup, request, prepared)
    job = Job(request, VIEW, todo, background=True, lasting=True)
    FRAME.hold(tracked.pressed(Slot.SOUPING, job))
    st.rerun()


def _live(job: Job) -> None:
    """The experts that were tried so far."""
    _steps(job.snapshot().partial or (), job.request, "soup live")


def _finished(job: Job) -> None:
    """Every step, and the run that came out."""
    now = job.snapshot()
    result: Souped | None = now.result
    tried: Sequence[Ingredient] = result.soup.ingredients if result else now.partial or ()
    if not tried:
        st.info("No expert of this soup was tried to its end.")
        return
    _steps(tried, job.request, f"soup {id(job)}")
    if result is None:
        return
    members = [one.name for one in tried if one.kept]
    st.markdown(
        f"**{len(members)} of {len(tried)} experts stay.** Their average is among the finished "
        f"merges as {show.plain(result.run.label)}, tested on the tasks of its own experts; the "
        "figures here are over all tasks."
    )
    if st.button("Show it on Merge", type="primary", icon=":material/merge:", key="soup show"):
        shown.show(result.run)
        browser.go("merge")


def _steps(tried: Sequence[Ingredient], request: SoupRequest, key: str) -> None:
    """A picture and a table of the experts in the order in which they were tried."""
    drawn = figures.soup_steps(tried, examples=request.examples)
    if drawn is None:
        return
    show.figure(drawn, key)
    rows = [
        {
            "expert": show.plain(one.name),
            "alone": figures.percent(one.alone),
            "average with it": figures.percent(one.together),
            "": "stays" if one.kept else "is left out",
        }
        for one in tried
    ]
    st.table(pd.DataFrame(rows).set_index("expert"))


FRAME: trials.Frame[SoupRequest] = trials.Frame(
    "soup",
    Slot.SOUPING,
    ":material/soup_kitchen:",
    BEFORE,
    _start,
    _live,
    _finished,
    "The soup was left after {count} experts; nothing was kept.",
)
collect = FRAME.collect
