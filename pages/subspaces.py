"""Subspaces: the spectra of a layer, without merging anything."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from pages.shared import families, show, spectra

collection = families.header(
    "Subspaces",
    "In each layer a task uses few directions: of its inputs (A), of its output gradients (B), of "
    "what fine-tuning changed (Δ), and of how that moves the outputs (ESD). Methods differ in "
    "which of these they protect.",
)
preparing = families.preparation(collection)
show.progress([preparing])
prepared = families.prepared(preparing)
if prepared is None:
    st.info("The spectra appear here as soon as the statistics are measured.")
    st.stop()
if prepared.problem:
    st.warning(show.plain(f"Without statistics: {prepared.problem}"))
inputs = prepared.inputs
layer, found = spectra.view(inputs, "subspaces")
if found:
    looks = figures.looks(expert.name for expert in inputs.family.experts)
    d_out = inputs.family.base.tensors[layer].shape[0]
    share = max(1, d_out // len(inputs.family.experts))
    most = len(next(iter(found.values())).values)
    st.subheader("What a few directions keep", anchor=False)
    rank = st.slider(
        "Directions a task", 1, most, min(share, most), key=f"subspaces rank {most} {share}",
        persist_state="session",
        help=f"With {len(inputs.family.experts)} tasks in {d_out} output dimensions each has room "
        f"for {share} (d_out / T): that is what Essential Subspace Merging and TSV-M keep.",
    )  # fmt: skip
    left, right = st.columns([3, 2], gap="large")
    with left:
        show.figure(figures.energy_curves(found, looks, rank), f"energy {layer} {rank}")
    with right:
        spectra.ranks(found, rank)
