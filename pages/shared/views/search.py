"""A search beyond a grid: start it, watch it, go on with it, take a trial over to Merge."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import streamlit as st

from mats_core import figures
from mats_core.analysis import Searched, SearchTrial, pareto
from mats_core.methods import METHODS
from mats_core.recipes import FamilyFile, dump_recipe

from ..controls import grid
from ..controls import search as controlling
from ..frame import Slot, keys, show, state, tracked
from ..work import Job, Prepared, Run, SearchRequest, journal, run_search
from . import trials

VIEW = "Search"  # the tab on Compare


def section(collection: FamilyFile, kept: list[Run], prepared: Prepared | None) -> None:
    """Controls on the left, what was found on the right."""
    controls = partial(controlling.controls, collection, kept, prepared)

    def estimate(request: SearchRequest) -> None:
        if _begun(request):
            st.caption("A search of these settings was begun; its trials count.")
        took = grid.seconds_of(request.recipe, kept)
        more = f", and {request.minutes:g} min at most" if request.minutes is not None else ""
        trials.estimated(f"Up to {request.trials} merges", request.trials, took, more)

    FRAME.section(collection.name, controls, estimate, _label, prepared)


def _begun(request: SearchRequest) -> bool:
    return journal(request).is_file()


def _label(request: SearchRequest | None) -> str:
    return "Go on" if request is not None and _begun(request) else "Search"


def _start(request: SearchRequest, prepared: Prepared) -> None:
    todo = partial(run_search, request, prepared)
    job = Job(request, "Searching", todo, background=True, lasting=True)
    FRAME.hold(tracked.pressed(Slot.SEARCHING, job))
    st.rerun()


def _live(job: Job) -> None:
    """The history as far as it is known."""
    _history(job.request, job.snapshot().partial or (), "search live")


def _history(request: SearchRequest, tried: Sequence[SearchTrial], key: str, **more: Any) -> Any:
    drawn = figures.search_history(
        tried, request.objectives, request.titles, examples=request.examples
    )
    return None if drawn is None else show.figure(drawn, key, **more)


def _finished(job: Job) -> None:
    """History, front and importance, and what can be done with a trial."""
    request, now = job.request, job.snapshot()
    result: Searched | None = now.result
    tried: tuple[SearchTrial, ...] = result.trials if result else now.partial or ()
    good = {trial.number: trial for trial in tried if trial.accuracy is not None}
    if not good:
        st.info("No trial of this search was finished.")
        return
    st.markdown(f"**{show.plain(METHODS[request.recipe.method].title)}**, every trial in its turn")
    clicks = {"on_select": "rerun", "selection_mode": "points"}
    answers = [_history(request, tried, f"search {id(job)}", **clicks)]
    front = figures.search_front(tried, request.objectives, request.titles)
    if front is not None:
        st.subheader("What none beats", anchor=False)
        answers.append(show.figure(front, f"search front {id(job)}", **clicks))
    trials.clicked(answers, id(job), "search_click", keys.search_trial(id(job)), good)
    _choice(job, tried, good)
    drawn = result and figures.search_importance(result.importance, request.titles)
    if drawn:
        st.subheader("What decides", anchor=False)
        show.figure(drawn, f"search importance {id(job)}")


def _choice(job: Job, tried: Sequence[SearchTrial], good: dict[int, SearchTrial]) -> None:
    """One of the trials, and its recipe."""
    request = job.request
    best = pareto(tried, request.objectives)
    key = keys.search_trial(id(job))
    if not state.is_set(key):
        state.put(key, best[0].number)
    first = [trial.number for trial in best]
    order = [*first, *sorted(set(good) - set(first), key=lambda n: -(good[n].accuracy or 0))]
    chosen = st.selectbox(
        "Trial (or click one above)", order, key=key,
        format_func=lambda number: _name(good[number], request),
    )  # fmt: skip
    found = Searched(
        request.recipe, request.knobs, request.objectives, tuple(tried), examples=request.examples
    )
    recipe = found.recipe_of(good[chosen])
    with st.container(horizontal=True):
        trials.use(
            recipe, "search use",
            "Opens Merge with this trial's settings. What it merges says how it was chosen.",
        )  # fmt: skip
        st.download_button(
            "Recipe", dump_recipe(recipe, absolute=True), "searched.yaml", "application/yaml",
            icon=":material/download:", key="search recipe",
        )  # fmt: skip


def _name(trial: SearchTrial, request: SearchRequest) -> str:
    shown = {name: value for name, value in trial.values.items() if value is not False}
    values = ", ".join(f"{request.titles[n]} {_text(v)}" for n, v in shown.items())
    return f"{figures.percent(trial.accuracy or 0)} · trial {trial.number}: {values}"


def _text(value: Any) -> str:
    if value is None:
        return "by default"
    return "on" if value is True else f"{value:g}" if isinstance(value, int | float) else str(value)


FRAME: trials.Frame[SearchRequest] = trials.Frame(
    "search", Slot.SEARCHING, ":material/travel_explore:",
    "Choose what may be turned, and press Search. The first merge is the one to begin with; ten "
    "are drawn at random, and then each goes where those before it say that the best lie. Every "
    "merge is tested on validation examples, in the background, and kept in a journal: a search "
    "that was stopped goes on.",
    _start, _live, _finished,
    "The search was stopped after {count} trials, which are kept.",
)  # fmt: skip
collect = FRAME.collect
