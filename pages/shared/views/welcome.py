"""What stands in the place of a result before the first merge."""

from __future__ import annotations

import streamlit as st

from mats_core import figures
from mats_core.recipes import TRIED, FamilyFile

from ..frame import show
from ..work import Prepared
from . import results


def section(collection: FamilyFile, prepared: Prepared | None) -> None:
    """What there is to gain, what to do, and the merges of an earlier day."""
    st.markdown(
        "**Press Merge.** The experts become one model; you see at once how much of each "
        "expert's skill it keeps, and why."
    )
    if prepared and prepared.baselines:
        st.header("What there is to gain", anchor=False)
        looks = figures.looks(e.name for e in prepared.inputs.family.experts)
        show.figure(figures.baseline_bars(prepared.baselines, looks, TRIED.split), "baselines")
    if prepared:
        show.warnings(prepared.notes)
    results.earlier(collection.name)
