"""Every layer of a run in numbers: a table to sort, whose rows open their layer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from mats_core import figures
from mats_core.analysis import LayerRow
from mats_core.methods import METHODS
from mats_core.recipes import FeatureErrors

from ..frame import Slot, session, show, state, tracked
from ..work import Prepared, Run, Shelf, tabulate
from . import spectra, stepping, survey


@st.fragment
def section(shelf: Shelf, run: Run, task: str, prepared: Prepared) -> None:
    """The press, the map and the table, and the layer that is opened, stage by stage; a fragment,
    so that to open a layer does not draw the page again."""
    st.header("All layers in numbers", anchor=False)
    name = tracked.of_run(prepared, run, "layers")
    rows: tuple[LayerRow, ...] | None = tracked.found(Slot.TABULATING, name)
    if rows:
        _map(run, rows)
        _open_row(prepared, run, _table(run, rows, task))
    else:
        _ask(shelf, run, prepared, name)
    stepping.section(shelf, run, prepared)


def _ask(shelf: Shelf, run: Run, prepared: Prepared, name: str) -> None:
    st.write(
        "How far did the merge move each layer, along whose changes, and which share of what "
        "each expert changes in its outputs does it keep?"
    )
    if st.button(
        "Tabulate the layers", icon=":material/table_rows:", key="tabulate",
        disabled=tracked.active(Slot.TABULATING) is not None,
    ):  # fmt: skip
        todo = partial(tabulate, shelf, run, lambda: prepared)
        tracked.press(Slot.TABULATING, run.id, "Looking at every layer", todo, name=name)


def _open_row(prepared: Prepared, run: Run, chosen: str | None) -> None:
    """Open the layer of the row that is chosen: once, so that a later choice is kept."""
    if chosen is None:
        return
    if session.opened_row != (run.id, chosen):
        session.opened_row = (run.id, chosen)
        stepping.open_layer(chosen)
    _layer(prepared, chosen)


def _map(run: Run, rows: Sequence[LayerRow]) -> None:
    """What is kept by layer and task, as a picture whose cells open their layer."""
    drawn = figures.layer_map(rows, session.stepped_layer)
    if drawn is None:
        return
    # The key holds the choice: a cell that was clicked before can be clicked again.
    key = f"layer map {run.id} {session.stepped_layer}"
    st.caption("Click a cell to open its layer, step by step below.")
    show.figure(drawn, key, on_select=partial(_follow, key), selection_mode="points")


def _follow(key: str) -> None:
    """A click on a cell: its layer and its expert are opened."""
    if picked := survey.clicked(state.value(key)):
        stepping.open_layer(*picked)


def collect() -> None:
    """Say how a table ended that is not kept."""
    tracked.collect(Slot.TABULATING, cancelled="The table was cancelled.")


def _table(run: Run, rows: Sequence[LayerRow], task: str) -> str | None:
    """The table; returns the weight whose row is chosen."""
    titles = figures.short_names([row.name for row in rows])
    residuals = {la.name: la.residuals[-1] for la in run.report.layers if la.residuals}
    table = pd.DataFrame(
        {
            "layer": titles[row.name],
            "moved": 100 * row.moved,
            "to experts": row.to_experts,
            "stable rank": row.stable_rank,
            "along": row.along,
            "between": row.between,
            "kept": 100 * row.mean_kept,
            f"kept of {task}": 100 * row.kept.get(task, float("nan")),
            "residual": residuals.get(row.name),
        }
        for row in rows
    ).dropna(axis=1, how="all")
    answer: Any = st.dataframe(
        table, key=f"layers {run.id} {task}", on_select="rerun", selection_mode="single-row",
        hide_index=True, column_config=_columns(task),
        alt=f"Table of {len(rows)} layers: distance, rank, cosines, share kept, residual.",
    )  # fmt: skip
    st.markdown(f":small[{show.plain(_said(run, rows, titles))}]")
    picked = [row for row in answer["selection"]["rows"] if row < len(rows)]
    return rows[picked[0]].name if picked else None


def _columns(task: str) -> dict[str, Any]:
    number = st.column_config.NumberColumn
    kept = (
        "Of what the expert changes in this layer's outputs, on its own inputs, the share that the "
        "merge has too: 100 % the expert, 0 % the base, below 0 worse than the base."
    )
    return {
        "moved": number(format="%.1f %%", help="‖W − W₀‖ / ‖W₀‖"),
        "to experts": number(
            format="%.2f", help="Distance to the experts: 1 as far as the base, 0 at all of them."
        ),
        "stable rank": number(format="%.1f", help="Of W − W₀: ‖·‖²_F / ‖·‖²₂."),
        "along": number(format="%+.2f", help="Mean cosine of W − W₀ with the task vectors."),
        "between": number(format="%+.2f", help="Mean cosine of two task vectors."),
        "kept": number(format="%.0f %%", help=f"{kept} Mean over the tasks."),
        f"kept of {task}": number(format="%.0f %%", help=kept),
        "residual": number(format="%.1e", help="Relative residual at which the solve ended."),
    }


def _said(run: Run, rows: Sequence[LayerRow], titles: dict[str, str]) -> str:
    """Where most and least is kept, in the numbers of this run; where the statistics are from."""
    known = [row for row in rows if row.mean_kept == row.mean_kept]
    text = "Choose a row to open its layer, step by step below; a click on a column's head sorts."
    if METHODS[run.recipe.method].calibrates:
        errors = FeatureErrors.recorded(run.report)
        far = figures.percent(errors.means[-1], 0) if errors else ""
        far = far and f", from which they are {far} away behind the last block"
        return (
            f"{text} What is kept is not told here: the layers of this merge are matched on the "
            f"inputs that they get in it, and not on those of the experts{far}."
        )
    if not known:
        return f"{text} What is kept needs input Grams, and no expert here has any."
    best, worst = (f(known, key=lambda row: row.mean_kept) for f in (max, min))
    return (
        f"{text} On average over the tasks most is kept in {titles[best.name]} "
        f"({figures.percent(best.mean_kept, 0)}), least in {titles[worst.name]} "
        f"({figures.percent(worst.mean_kept, 0)}). Measured on the inputs of the statistics, "
        "training examples of each task."
    )


def _layer(prepared: Prepared, layer: str) -> None:
    """The spectra of the chosen layer, and the way to all that Subspaces has of it."""
    title = figures.short_names([layer])[layer]
    st.subheader(show.plain(title), anchor=False)
    shown = spectra.plot(prepared.inputs, layer, "inside layer")
    if shown:
        spectra.energies(prepared.inputs, layer, shown, "inside layer")
    session.subspaces_layer = layer
    st.page_link(
        "pages/subspaces.py", label="Overlap, interference and protected directions of this layer",
        icon=":material/area_chart:",
    )  # fmt: skip
