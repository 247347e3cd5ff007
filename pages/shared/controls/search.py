"""What to search beyond a grid: a method, what is turned, what is looked for, and the budget."""

from __future__ import annotations

import hashlib
from typing import Any

import streamlit as st

from mats_core.analysis import Objective, Space, knobs_of
from mats_core.errors import InputError
from mats_core.methods import METHODS, PROPOSED, STEPS, describe
from mats_core.recipes import FamilyFile, dump_recipe

from ..frame import show
from ..work import Prepared, Run, SearchRequest
from . import grid

WEIGHTS, DEPTHS = "Experts' weights", "Weights by depth"
PARTS = 2  # of the depth
LOOK_FOR: dict[Objective, str] = {"mean": "The mean", "worst": "The worst task", "size": "The size"}
TRIALS = 30


def controls(
    collection: FamilyFile, kept: list[Run], prepared: Prepared | None
) -> tuple[SearchRequest | None, str]:
    """What to search, or what is wrong with it."""
    newest = kept[-1].recipe.method if kept else ""
    methods = list(METHODS)
    method = st.selectbox(
        "Method", methods, index=methods.index(newest if newest in methods else PROPOSED),
        format_func=lambda m: METHODS[m].title, key="search method", persist_state="session",
    )  # fmt: skip
    like = _like(method, kept)
    space = _space(method, like)
    offered: list[Objective] = [one for one in LOOK_FOR if one != "size" or space.rank]
    wanted = st.pills(
        "Look for", offered, selection_mode="multi", default=["mean"], persist_state="session",
        format_func=lambda one: LOOK_FOR[one], key=f"search objectives {len(offered)}",
        help="With several, every trial stands that no other one beats in all of them.",
    )  # fmt: skip
    left, right = st.columns(2)
    trials = left.number_input(
        "Trials", 1, 2000, TRIALS, 10, key="search trials", persist_state="session",
        help="Merges. More than before goes on where the search was.",
    )  # fmt: skip
    minutes = right.number_input(
        "Minutes", 0.0, 1440.0, 0.0, 5.0, key="search minutes", persist_state="session",
        format="%g", help="After which no trial begins; 0: as long as the trials take.",
    )  # fmt: skip
    asked = grid.examples("search")
    seed = st.number_input("Seed", 0, key="search seed", persist_state="session")
    if prepared is None:
        return None, ""
    try:
        recipe = like.recipe if like else collection.recipe(method, statistics=prepared.files)
        knobs = knobs_of(recipe, prepared.inputs, space)
        if not wanted or set(wanted) == {"size"}:
            raise InputError("search", expected="something to look for", found="nothing")
    except InputError as error:
        return None, str(error)
    objectives: tuple[Objective, ...] = tuple(one for one in offered if one in wanted)
    titles = {knob.name: knob.title for knob in knobs}
    told = (dump_recipe(recipe), str(space), objectives, asked, int(seed or 0),
            sorted(prepared.inputs.family.fingerprints.items()))  # fmt: skip
    name = hashlib.sha256(repr(told).encode()).hexdigest()[:20]
    budget = int(trials), float(minutes) or None
    return SearchRequest(
        collection.name, recipe, space, objectives, knobs, titles, *budget, asked, int(seed or 0),
        name, like,
    ), ""  # fmt: skip


def _like(method: str, kept: list[Run]) -> Run | None:
    """The run that the search begins with, where one is wanted."""
    same = [run for run in reversed(kept) if run.recipe.method == method]
    if not same:
        return None
    labels = {run.id: run.label for run in same}
    like: Any = st.selectbox(
        "Begin with", [None, *labels], key=f"search like {method} {len(same)}",
        format_func=lambda i: "its defaults" if i is None else labels[i],
        help="Trial 1 has these settings; what is not searched keeps them.",
    )  # fmt: skip
    return next((run for run in same if run.id == like), None)


def _space(method: str, like: Run | None) -> Space:
    """What is turned."""
    fields = {one.name: one for one in describe(method) if one.kind != "text" or one.checkpoint}
    first = [name for name, one in fields.items() if not one.more and one.default is not None]
    options = st.multiselect(
        "Options", list(fields), default=first, key=f"search options {method}", wrap=True,
        format_func=lambda name: fields[name].title, persist_state="session",
        placeholder="None" if fields else "It has none",
        help="Every stop of their sliders and every choice is tried.",
    )  # fmt: skip
    mine = METHODS[method]
    others = [WEIGHTS] if mine.weighted else []
    others += [DEPTHS] if mine.weighted or not mine.calibrates else []
    steps = {} if mine.calibrates else {step.title: name for name, step in STEPS.items()}
    there = [name for step in (like.recipe.after if like else ()) for name in step]
    steps = {title: name for title, name in steps.items() if name not in there}
    besides = st.pills(
        "Besides", [*others, *steps], selection_mode="multi", key=f"search besides {method}",
        persist_state="session", format_func=show.label,
        help="Weights of each expert, a factor for each half of the depth, steps after the merge.",
    )  # fmt: skip
    sized = like is not None and (like.recipe.routed is not None or like.recipe.lora is not None)
    return Space(
        options=tuple(options), weights=WEIGHTS in besides, depths=PARTS * (DEPTHS in besides),
        after=tuple(name for title, name in steps.items() if title in besides), rank=sized,
    )  # fmt: skip
