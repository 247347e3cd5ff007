"""Subspaces: looking at a family's layers and tasks without merging anything."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from mats_core.analysis import Survey
from mats_core.recipes import FamilyFile, Inputs
from pages.shared.frame import Slot, families, keys, progress, show, surveys
from pages.shared.learn import guide
from pages.shared.views import conflict, overlap, protection, spectra, survey
from pages.shared.work import Prepared

VIEWS = ("Spectra", "Overlap", "Interference", "Protected directions")


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
    views = st.tabs(list(VIEWS), key=keys.SUBSPACES_VIEW, on_change="rerun")
    for name, view in zip(VIEWS, views, strict=True):
        if not view.open:
            continue
        with view:
            if name == "Spectra":
                shown = spectra.plot(inputs, layer, "subspaces")
                if shown:
                    spectra.energies(inputs, layer, shown, "subspaces")
            elif name == "Overlap":
                overlap.overlap(inputs, layer, task)
            elif name == "Interference":
                overlap.interference(inputs, found, layer)
                conflict.section(collection, prepared)
            else:
                protection.view(inputs, layer, task)


collection = families.header(
    "Subspaces",
    "In each layer a task uses few directions: of its inputs (A), of its output gradients (B), of "
    "what fine-tuning changed (Δ), and of how that moves the outputs (ESD). Methods differ in "
    "which of these they protect. Nothing is merged until you have conflicts measured.",
)
guide.collect()
guide.banner("Subspaces")
preparing = families.preparation(collection)
conflict.collect()
show.notices()
mine = (Slot.LESSON, Slot.CONFLICTING)
progress.bar(Slot.PREPARATION, *mine, cancel=mine)
prepared = families.prepared(preparing)
if prepared is None:
    st.info("The layers appear here as soon as the statistics are measured.")
    st.stop()
if prepared.problem:
    show.warnings([f"Without statistics: {prepared.problem}"])
if not surveys.matrices(prepared.inputs):
    st.info("No tensor of this family is the weight of a linear layer: there is nothing to show.")
    st.stop()
found = surveys.survey(prepared.inputs)
survey.choice(prepared.inputs)  # before anything reads or shows it
whole, one = show.halves("layers", [5, 6])
with whole:
    st.header("All layers, all tasks", anchor=False)
    survey.heatmap(prepared.inputs, found)
with one:
    st.header("One layer", anchor=False)
    layer, task = choose(prepared.inputs)
    known = found if isinstance(found, Survey) else None
    detail(collection, prepared, known, layer, task)
