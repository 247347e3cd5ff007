"""Which directions each subspace protects, of one task in one layer."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from mats_core.analysis import SUBSPACES, Subspace
from mats_core.errors import InputError
from mats_core.recipes import Inputs

from ..frame import caches, show


def view(inputs: Inputs, layer: str, task: str) -> None:
    """Two subspaces side by side, and what all of them cost along the expert's own change."""
    st.markdown(
        "A merge moves every expert's weight. Each method has a price list for that: expensive "
        "directions are protected, cheap ones are given to the other tasks."
    )
    try:
        found = caches.protection(inputs, layer, task)
    except InputError as error:
        show.problem(str(error))
        return
    if len(found) < 2:
        st.info(
            "Without statistics of this task only the identity is known, and it protects all "
            "directions alike."
        )
        return
    left, right = _choose(list(found))
    pair = [found[name] for name in dict.fromkeys((left, right))]
    show.figure(figures.protection_maps(pair, task), f"maps {layer} {task} {left} {right}")
    d_out = inputs.family.shape(layer)[0]
    room = max(1, d_out // len(inputs.family.experts))
    st.subheader("Along what the expert learnt", anchor=False)
    drawn = figures.protection_along(list(found.values()), task, room)
    show.figure(drawn, f"along {layer} {task}")
    st.subheader("How many directions each subspace needs", anchor=False)
    show.figure(figures.concentration(found), f"concentration {layer} {task}")


def _choose(names: list[Subspace]) -> tuple[Subspace, Subspace]:
    """The two that stand side by side; at first the diagonal Fisher and K-FAC."""
    wanted: tuple[Subspace, Subspace] = ("diagonal Fisher", "K-FAC")
    chosen: list[Subspace] = []
    titles = {n: f"{n[:1].upper()}{n[1:]} · {SUBSPACES[n]}" for n in names}
    with st.container(horizontal=True):
        for label, first, fallback in zip(
            ("Left", "Right"), wanted, (names[0], names[-1]), strict=True
        ):
            default = first if first in names else fallback
            picked: Subspace = st.selectbox(
                label, names, index=names.index(default), format_func=lambda n: titles[n],
                key=f"protected {label} {len(names)}", persist_state="session", width="stretch",
            )  # fmt: skip
            chosen.append(picked)
    return chosen[0], chosen[1]
