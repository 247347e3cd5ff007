"""Tasks against each other: overlap of their subspaces in one layer, conflict by layer."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import Quantity, Survey, overlaps, principal_angles
from mats_core.recipes import Inputs

from ..frame import caches, keys, session, show
from . import spectra, survey

BY_LAYER: dict[Quantity, str] = {
    "sign conflict": "Sign conflict",
    "relative norm": "Norm",
    "cosine": "Cosine",
    "overlap": "Overlap",
}


def overlap(inputs: Inputs, layer: str, task: str) -> None:
    """Overlap of every two tasks, and the principal angles of one pair."""
    st.markdown(
        "Two tasks that use the same directions must agree on them; two that use different ones "
        "can live side by side in one model."
    )
    kind = spectra.pick_kind("overlap")
    bases = caches.subspaces(inputs, layer, kind)
    if len(bases) < 2:
        st.info("This needs two tasks with statistics of this layer; choose the task matrices Δ.")
        return
    size, most = next(iter(bases.values())).shape
    room = max(1, inputs.family.shape(layer)[0] // len(inputs.family.experts))
    rank = st.slider(
        "Directions a task", 1, most, min(room, most), key=f"overlap rank {most} {room}",
        persist_state="session", help=f"d_out / T is {room} here.",
    )  # fmt: skip
    pair = (task, _other(list(bases), task))
    drawn = figures.pair_matrix(overlaps(bases, rank), list(bases), "overlap", chance=rank / size)
    if drawn:
        key = f"overlap {layer} {kind} {rank} {pair}"
        follow = partial(survey.follow, key, (keys.TASK, keys.OTHER))
        show.figure(drawn, key, on_select=follow, selection_mode="points")
    if task not in bases:
        st.info(show.plain(f"There are no statistics of {task} in this layer."))
        return
    st.selectbox(
        f"Principal angles of {show.label(task)} with", [name for name in bases if name != task],
        key=keys.OTHER, persist_state="session", help="Or click a cell of the matrix.",
    )  # fmt: skip
    angles = principal_angles(*(bases[name][:, :rank] for name in pair))
    curves = figures.angle_curves(angles, caches.chance_angles(size, rank), pair, size)
    if curves:
        show.figure(curves, f"angles {layer} {kind} {rank} {pair}")


def _other(names: list[str], task: str) -> str:
    """The second task of the pair; at first the one after the chosen task."""
    others = [name for name in names if name != task]
    other = session.overlap_with
    if other not in others:
        following = names.index(task) if task in names else 0
        session.overlap_with = other = others[following % len(others)]
    return str(other)


def interference(inputs: Inputs, found: Survey | None, layer: str) -> None:
    """Sign conflict, norm, cosine and overlap by layer; the cosines of the chosen layer."""
    st.markdown(
        "Before anything is merged: do the tasks push the same numbers in opposite ways, does one "
        "push harder than the others, do they push in the same direction?"
    )
    if found is None:
        st.info("This appears as soon as every layer has been looked at.")
        return
    looks = figures.looks(expert.name for expert in inputs.family.experts)
    quantity: Quantity | None = st.segmented_control(
        "By layer", list(BY_LAYER), default="sign conflict", required=True,
        format_func=lambda q: BY_LAYER[q], key="interference quantity", persist_state="session",
    )  # fmt: skip
    drawn = figures.layer_profile(found, quantity or "sign conflict", looks, layer)
    if drawn is None:
        st.info("This needs statistics, and no task of this family has any.")
    else:
        show.figure(drawn, f"profile {quantity} {layer}")
    st.subheader("Cosine between the task vectors of the chosen layer", anchor=False)
    own = next((la for la in found.layers if la.name == layer), None)
    matrix = figures.pair_matrix(own.cosines, found.tasks, "cosine") if own else None
    if matrix is None:
        st.info("One task alone has nothing to disagree with.")
    else:
        show.figure(matrix, f"cosine {layer}")
