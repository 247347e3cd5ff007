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

from ..controls import search as controls
from ..frame import Slot, keys, session, show, state, tracked
from ..work import Job, Prepared, Run, SearchRequest, journal, run_search
from . import runs

VIEW = "Search"  # the tab on Compare
POLL = 1.5  # seconds between two looks at a search that runs


def section(collection: FamilyFile, kept: list[Run], prepared: Prepared | None) -> None:
    """Controls on the left, what was found on the right."""
    left, right = st.columns([4, 9], gap="large")
    with left:
        request, problem = controls.controls(collection, kept, prepared)
        begun = request is not None and journal(request).is_file()
        st.button(
            "Go on" if begun else "Search", type="primary", icon=":material/travel_explore:",
            key="search start", disabled=request is None or prepared is None,
            on_click=_start, args=(request, prepared),
        )  # fmt: skip
        if problem:
            show.problem(problem)
        elif request is not None:
            if begun:
                st.caption("A search of these settings was begun; its trials count.")
            controls.estimate(request, kept)
    job = session.search
    with right:
        if job is None or job.request.family != collection.name:
            st.info(
                "Choose what may be turned, and press Search. The first merge is the one to begin "
                "with; ten are drawn at random, and then each goes where those before it say that "
                "the best lie. Every merge is tested on validation examples, in the background, "
                "and kept in a journal: a search that was stopped goes on.",
                icon=":material/travel_explore:",
            )
        elif job.active:
            st.fragment(_live, run_every=POLL)(job)
        else:
            _finished(job)


def _start(request: SearchRequest | None, prepared: Prepared | None) -> None:
    """A callback: hand the search to the worker."""
    if request is None or prepared is None:
        return
    todo = partial(run_search, request, prepared)
    job = Job(request, "Searching", todo, background=True, lasting=True)
    session.search = tracked.pressed(Slot.SEARCHING, job)


def collect() -> None:
    """Say how a search ended, once; its pictures stay."""
    so_far = session.search.snapshot().partial if session.search else ()
    cancelled = f"The search was stopped after {len(so_far or ())} trials, which are kept."
    tracked.collect(Slot.SEARCHING, cancelled=cancelled)


def _live(job: Job) -> None:
    """The history as far as it is known."""
    _history(job.request, job.snapshot().partial or (), "search live")


def _history(request: SearchRequest, trials: Sequence[SearchTrial], key: str, **more: Any) -> Any:
    drawn = figures.search_history(
        trials, request.objectives, request.titles, examples=request.examples
    )
    return None if drawn is None else show.figure(drawn, key, **more)


def _finished(job: Job) -> None:
    """History, front and importance, and what can be done with a trial."""
    request, now = job.request, job.snapshot()
    result: Searched | None = now.result
    trials: tuple[SearchTrial, ...] = result.trials if result else now.partial or ()
    good = {trial.number: trial for trial in trials if trial.accuracy is not None}
    if not good:
        st.info("No trial of this search was finished.")
        return
    st.markdown(f"**{show.plain(METHODS[request.recipe.method].title)}**, every trial in its turn")
    clicks = {"on_select": "rerun", "selection_mode": "points"}
    answers = [_history(request, trials, f"search {id(job)}", **clicks)]
    front = figures.search_front(trials, request.objectives, request.titles)
    if front is not None:
        st.subheader("What none beats", anchor=False)
        answers.append(show.figure(front, f"search front {id(job)}", **clicks))
    for answer in answers:
        _clicked(answer, id(job), good)
    _choice(job, trials, good)
    drawn = result and figures.search_importance(result.importance, request.titles)
    if drawn:
        st.subheader("What decides", anchor=False)
        show.figure(drawn, f"search importance {id(job)}")


def _choice(job: Job, trials: Sequence[SearchTrial], good: dict[int, SearchTrial]) -> None:
    """One of the trials, and its recipe."""
    request = job.request
    best = pareto(trials, request.objectives)
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
        request.recipe, request.knobs, request.objectives, tuple(trials), examples=request.examples
    )
    recipe = found.recipe_of(good[chosen])
    with st.container(horizontal=True):
        if st.button(
            "Use these settings", type="primary", icon=":material/merge:", key="search use",
            help="Opens Merge with this trial's settings. What it merges says how it was chosen.",
        ):  # fmt: skip
            runs.want(recipe)
        st.download_button(
            "Recipe", dump_recipe(recipe, absolute=True), "searched.yaml", "application/yaml",
            icon=":material/download:", key="search recipe",
        )  # fmt: skip


def _clicked(answer: Any, job: int, good: dict[int, SearchTrial]) -> None:
    """A trial that has just been clicked becomes the chosen one."""
    points = answer["selection"]["points"] if answer else []
    places = [p["customdata"] for p in points if p.get("customdata") is not None]
    if not places:
        return
    number = int(places[0][0] if isinstance(places[0], list) else places[0])
    if session.search_click != (job, number) and number in good:
        session.search_click = (job, number)
        state.put(keys.search_trial(job), number)


def _name(trial: SearchTrial, request: SearchRequest) -> str:
    shown = {name: value for name, value in trial.values.items() if value is not False}
    values = ", ".join(f"{request.titles[n]} {_text(v)}" for n, v in shown.items())
    return f"{figures.percent(trial.accuracy or 0)} · trial {trial.number}: {values}"


def _text(value: Any) -> str:
    if value is None:
        return "by default"
    return "on" if value is True else f"{value:g}" if isinstance(value, int | float) else str(value)
