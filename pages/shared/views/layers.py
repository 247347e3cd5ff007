"""Layer by layer: what became of every tensor, and how loud polarized scaling lets it speak."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.recipes import Report

from ..frame import show
from ..work import Run


def polarized(run: Run) -> None:
    names = [entry.name for entry in run.recipe.experts]
    drawn = figures.task_weights(run.report, names)
    if drawn:
        show.figure(drawn, f"weights {run.id}")
    found = {la.name: la for la in run.report.layers if la.details.get("dimension_weights")}
    titles = figures.short_names(list(found))
    st.subheader("Level 2: the input dimensions of one layer", anchor=False)
    chosen = st.selectbox(
        "Layer", list(found), format_func=lambda n: titles[n], key="dimension layer",
        persist_state="session",
    )  # fmt: skip
    drawn = figures.dimension_weights(found[chosen])
    if drawn:
        show.figure(drawn, f"dimensions {run.id} {chosen}")


def table(report: Report) -> None:
    """What happened to every tensor; the counts add up to the checkpoint."""
    counts = ", ".join(f"{count} {name}" for name, count in report.coverage.items() if count)
    st.markdown(show.plain(f"{len(report.layers)} tensors: {counts}."))
    rows = [
        {
            "tensor": layer.name,
            "treatment": layer.treatment,
            "method": layer.method,
            "status": layer.status,
            "iterations": layer.iterations or None,
            "residual": layer.residuals[-1] if layer.residuals else None,
            "layer weight": layer.details.get("layer_weight"),
            "ms": 1000 * layer.seconds,
        }
        for layer in report.layers
    ]
    shown = pd.DataFrame(rows).dropna(axis=1, how="all")
    st.dataframe(
        shown,
        hide_index=True,
        placeholder="–",
        column_config={
            "residual": st.column_config.NumberColumn(format="%.1e"),
            "layer weight": st.column_config.NumberColumn(format="%.2f"),
            "ms": st.column_config.NumberColumn(format="%.1f"),
        },
        alt="Table of all tensors with treatment, method and status.",
    )
