"""Spectra of one layer, all tasks in one plot: a part of two pages."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.analysis import KINDS, Kind, Spectrum
from mats_core.recipes import Inputs

from ..frame import caches, keys, show, surveys

TITLES: dict[Kind, str] = {
    "input": "A · inputs",
    "output gradient": "B · output gradients",
    "essential": "ESD · output shifts",
    "task matrix": "Δ · task matrices",
}


def pick_layer(inputs: Inputs, key: str) -> str:
    """A layer's weight, by its short name."""
    names = surveys.matrices(inputs)
    titles = figures.short_names(names)
    return st.selectbox(
        "Layer", names, index=len(names) // 2, format_func=lambda n: titles[n],
        key=f"{key} layer", persist_state="session",
    )  # fmt: skip


def pick_kind(key: str) -> Kind:
    kind: Kind | None = st.segmented_control(
        "Spectrum of", list(KINDS), default="essential", required=True,
        format_func=lambda k: TITLES[k], key=keys.spectrum_kind(key), persist_state="session",
    )  # fmt: skip
    return kind or "essential"


def view(inputs: Inputs, key: str) -> tuple[str, dict[str, Spectrum]]:
    """Controls and plot; returns what was chosen."""
    layer = pick_layer(inputs, key)
    return layer, plot(inputs, layer, key)


def plot(inputs: Inputs, layer: str, key: str) -> dict[str, Spectrum]:
    """The spectra of one layer, all tasks in one plot; returns them."""
    kind = pick_kind(key)
    found = caches.spectra(inputs, layer, kind)
    looks = figures.looks(expert.name for expert in inputs.family.experts)
    drawn = figures.spectra(found, kind, looks)
    if drawn is None:
        st.info("There are no statistics of this layer; choose the task matrices Δ.")
        return {}
    show.figure(drawn, f"{key} {layer} {kind}")
    return found


def energies(inputs: Inputs, layer: str, found: dict[str, Spectrum], key: str) -> None:
    """What a few directions keep: a slider, the curves, and the ranks beside them."""
    looks = figures.looks(expert.name for expert in inputs.family.experts)
    d_out = inputs.family.shape(layer)[0]
    share = max(1, d_out // len(inputs.family.experts))
    most = len(next(iter(found.values())).values)
    st.subheader("What a few directions keep", anchor=False)
    rank = st.slider(
        "Directions a task", 1, most, min(share, most), key=f"{key} rank {most} {share}",
        persist_state="session",
        help=f"With {len(inputs.family.experts)} tasks in {d_out} output dimensions each has room "
        f"for {share} (d_out / T): that is what Essential Subspace Merging and TSV-M keep.",
    )  # fmt: skip
    show.figure(figures.energy_curves(found, looks, rank), f"{key} energy {layer} {rank}")
    ranks(found, rank)


def ranks(found: dict[str, Spectrum], rank: int) -> None:
    """Stable and effective rank, and the energy at `rank`, task by task."""
    rows = [
        {
            "task": name,
            "directions": len(own.values),
            "stable rank": own.stable_rank,
            "effective rank": own.effective_rank,
            f"energy at {rank}": 100 * own.energy(rank),
        }
        for name, own in found.items()
    ]
    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        column_config={
            "stable rank": number(format="%.1f", help="The sum over the largest value."),
            "effective rank": number(
                format="%.1f", help="The exponential of the spectrum's entropy."
            ),
            f"energy at {rank}": number(format="%.1f %%"),
        },
        alt="Ranks of each task in this layer.",
    )
