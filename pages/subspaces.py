"""Subspaces: looking at a family's layers and tasks without merging anything."""

from __future__ import annotations

import streamlit as st

from mats_core.analysis import Survey
from pages.shared.controls import less
from pages.shared.frame import Slot, families, progress, show, surveys
from pages.shared.learn import guide
from pages.shared.views import conflict, one_layer, survey

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
    layer, task = one_layer.choose(prepared.inputs)
    less.link(collection, layer, task)
    known = found if isinstance(found, Survey) else None
    one_layer.detail(collection, prepared, known, layer, task)
