"""From a layer in which a task disturbs others to Merge, with that task counting less there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from glob import escape
from typing import Any

import streamlit as st

from mats_core.methods import METHODS, WITHOUT_DATA
from mats_core.recipes import FamilyFile

from ..frame import families, session, show
from ..work import merge
from . import settings

LESS = 0.5  # of what the task counted in the layer


def link(collection: FamilyFile, layer: str, task: str) -> None:
    """A link to Merge as it stands, with a further rule by which the task counts half in the layer.

    The address holds all of the settings, so that it can be handed on.
    """
    standing = _standing(collection)
    if task not in standing.experts:
        st.caption(show.plain(f"{task} is not among the experts that Merge has chosen."))
        return
    asked = METHODS[standing.method]
    request = standing
    if not asked.weighted:
        request = replace(request, method=WITHOUT_DATA, options={}, rounds=1, by=())
    request = replace(request, by=with_less(request.by, layer, task))
    title = show.plain(METHODS[request.method].title)
    why = "" if asked.weighted else f" ({show.plain(asked.title)} lets all experts count alike)"
    st.page_link(
        "pages/merge.py", label=f"Give this layer less of {show.label(task)} on Merge",
        icon=":material/stacked_line_chart:",
        query_params={
            **({families.LINK: session.followed_family} if session.followed_family else {}),
            settings.SETTINGS: settings.handing(request),
        },
        help=f"{title}{why} with a rule for this layer, in which {show.plain(task)} counts "
        f"{LESS:g} times what it counts now. Nothing is merged yet.",
    )  # fmt: skip


def with_less(
    by: tuple[Mapping[str, Any], ...], layer: str, task: str
) -> tuple[Mapping[str, Any], ...]:
    """Rules with one more, which halves what a task counts in a layer: a second time to a
    quarter."""
    mine, others = {"match": escape(layer)}, []
    weights: dict[str, float] = {}
    for rule in by:
        weight = rule.get("weight")
        if isinstance(weight, Mapping) and rule == {**mine, "weight": weight}:
            weights |= weight
        else:
            others.append(rule)
    weights[task] = LESS * weights.get(task, 1.0)
    return (*others, {**mine, "weight": weights})


def _standing(collection: FamilyFile) -> merge.Request:
    """What stood on Merge when it was drawn last; the beginning where it was not yet."""
    found = session.standing
    if found is not None and found.collection.name == collection.name:
        return found
    experts = tuple(expert.name for expert in collection.experts)
    return merge.Request(collection, WITHOUT_DATA, {}, experts)
