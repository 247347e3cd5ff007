"""One layer of a family and one of its tasks, in four views, of which the open one is computed."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core import figures
from mats_core.analysis import Survey
from mats_core.recipes import FamilyFile, Inputs

from ..frame import keys, surveys, tabs
from ..work import Prepared
from . import conflict, overlap, protection, spectra


def choose(inputs: Inputs) -> tuple[str, str]:
    """Layer and task of the detail; a click on the heatmap sets the same two."""
    names = surveys.matrices(inputs)
    titles = figures.short_names(names)
    left, right = st.columns(2, gap="medium")
    layer = left.selectbox(
        "Layer", names, format_func=lambda n: titles[n], key=keys.LAYER,
        persist_state="session",
    )  # fmt: skip
    task = right.selectbox(
        "Task", [expert.name for expert in inputs.family.experts], key=keys.TASK,
        persist_state="session",
    )  # fmt: skip
    return layer, task


def detail(
    collection: FamilyFile, prepared: Prepared, found: Survey | None, layer: str, task: str
) -> None:
    """One layer, in four views; only the open one is computed."""
    inputs = prepared.inputs

    def spectrum() -> None:
        if drawn := spectra.plot(inputs, layer, "subspaces"):
            spectra.energies(inputs, layer, drawn, "subspaces")

    def interference() -> None:
        overlap.interference(inputs, found, layer)
        conflict.section(collection, prepared)

    views = [
        tabs.Tab("Spectra", spectrum),
        tabs.Tab("Overlap", partial(overlap.overlap, inputs, layer, task)),
        tabs.Tab("Interference", interference),
        tabs.Tab("Protected directions", partial(protection.view, inputs, layer, task)),
    ]
    tabs.show(views, keys.SUBSPACES_VIEW)
