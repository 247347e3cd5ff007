"""Before a merge: whether the experts fit, what becomes of every tensor, and what it will cost."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from mats_core import models
from mats_core.checkpoints import Checkpoint
from mats_core.errors import InputError, duration, size
from mats_core.estimating import Estimate, fits, require
from mats_core.families import Expert, Fit, compare
from mats_core.methods import METHODS, PROPOSED
from mats_core.recipes import FamilyFile
from mats_core.system import memory

from ..frame import caches, show
from ..work import Prepared

TREATMENTS = {
    "merged": "by the method's own mathematics",
    "averaged": "by the mean of the experts",
    "head": "kept apart, one for each task",
    "copied": "taken from the base: not numbers to merge",
    "tied": "following another tensor",
}
MOST = 200  # rows of a table of what does not fit


def compatibility(collection: FamilyFile, *, checked: bool) -> None:
    """A row for each expert; `checked`: every number of every file was read and is finite."""
    try:
        rows = _compared(collection)
    except InputError:  # a file is missing or broken, which the error above the table says
        return
    bad = [mismatch for row in rows for mismatch in row.mismatches]
    if bad:
        good = sum(row.fits for row in rows)
        st.markdown(
            f"**Of {len(rows)} experts, {len(rows) - good} cannot be merged with the base as they "
            "are.** These tensors are in the way:"
        )
        table = [(m.expert, m.tensor, m.theirs or "missing", m.ours or "missing") for m in bad]
        st.dataframe(
            pd.DataFrame(table[:MOST], columns=["expert", "tensor", "its own", "the base's"]),
            hide_index=True,
        )
    st.dataframe(_table(rows, checked=checked), hide_index=True)


def _compared(collection: FamilyFile) -> list[Fit]:
    experts = [
        Expert(entry.name, collection.open(collection.model_path(entry.model)), entry.task or "")
        for entry in collection.experts
    ]
    base = Checkpoint.open(collection.model_path(collection.base))
    return compare(base, experts, heads=collection.heads, anatomy=models.anatomy)


def _table(rows: list[Fit], *, checked: bool) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "expert": row.expert,
            "fits": "yes" if row.fits else "no",
            "tensors": _tensors(row),
            "head": f"{row.head} tensors" + (f", {row.classes} classes" if row.classes else ""),
            "numbers": row.dtype + (", all finite" if checked else ""),
            "architecture": row.architecture or "unknown",
            "other settings": ", ".join(f"{k} {a}, not {b}" for k, a, b in row.settings) or "none",
        }
        for row in rows
    )


def _tensors(row: Fit) -> str:
    counts = (
        (row.matching, "as in the base"),
        (row.reshaped, "of another shape"),
        (row.missing, "missing"),
        (row.surplus, "that the base lacks"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def view(prepared: Prepared) -> None:
    """Coverage of one method, and the cost of all."""
    found = caches.estimates(prepared)
    st.header("What every method takes", anchor=False)
    st.markdown(
        "What every method would take with its default settings, counted from the shapes of the "
        "layers and from the speed of this machine, before anything runs. A second merge is "
        "quicker where the first one's work can be used again."
    )
    st.dataframe(_costs(found), hide_index=True, column_config=_columns(), height="content")
    free = memory.available_memory()
    st.caption(
        "Memory is what a merge takes beyond what the app holds already"
        + (f"; {size(free)} are free here now." if free is not None else ".")
    )
    method = st.selectbox(
        "What becomes of the tensors with", list(METHODS), key="family method",
        format_func=lambda name: METHODS[name].title, index=list(METHODS).index(PROPOSED),
        persist_state="session",
    )  # fmt: skip
    _coverage(method, found[method])


def _costs(found: dict[str, Estimate | str]) -> pd.DataFrame:
    rows = []
    for name, cost in found.items():
        known = not isinstance(cost, str)
        rows.append(
            {
                "method": METHODS[name].title,
                "merging": duration(cost.parts["merging"]) if known else "–",
                "testing": duration(cost.parts["testing"]) if known else "–",
                "memory": size(cost.memory_bytes) if known else "–",
                "fits": ("yes" if fits(cost) else "no") if known else "cannot run",
                "needs": METHODS[name].group,
            }
        )
    return pd.DataFrame(rows)


def _columns() -> dict[str, Any]:
    text = st.column_config.TextColumn
    return {
        "merging": text(help="Seconds of merging, nothing else running, nothing remembered."),
        "testing": text(help="Seconds of testing the result on every example of every task."),
        "memory": text(help="The most that is held at one moment, beyond what is held already."),
        "fits": text(help="Whether that much memory is free now."),
    }


def _coverage(method: str, cost: Estimate | str) -> None:
    if isinstance(cost, str):
        st.info(show.plain(cost), icon=":material/info:")
        return
    counts = {name: count for name, count in cost.coverage.items() if count}
    st.markdown(
        f"**{METHODS[method].title}** treats all {sum(counts.values())} tensors: "
        + ", ".join(f"**{count}** {TREATMENTS[name]}" for name, count in counts.items())
        + f". {show.plain(cost.sentence)}; the layer that needs most is "
        + f"{show.plain(cost.largest)}."
    )
    try:
        require(cost)
    except InputError as error:
        show.problem(str(error))
