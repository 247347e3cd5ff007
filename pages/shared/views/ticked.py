"""The tabs on Compare about the finished merges that are ticked in its list."""

from __future__ import annotations

from functools import partial

import streamlit as st

from mats_core.figures import Look

from ..frame import tabs
from ..work import Prepared, Run
from . import comparison, predicted_loss, why

ACCURACY, SETTINGS, PREDICTED = "Accuracy", "Settings", "Predicted loss"
HEADINGS = {
    ACCURACY: "What each task keeps",
    why.VIEW: "",  # it asks a question of its own
    SETTINGS: "What was set",
    PREDICTED: "Which tasks a merge hurts",
}


def views(
    compared: list[Run], baseline: Run | None, prepared: Prepared | None, looks: dict[str, Look]
) -> list[tabs.Tab]:
    """What each task keeps, why, which settings, and what was predicted; with a word in place of
    all of it where no run is ticked."""
    if baseline is None:
        return [tabs.Tab(name, _none, heading) for name, heading in HEADINGS.items()]
    draw = {
        ACCURACY: partial(comparison.accuracy, compared, baseline),
        why.VIEW: partial(why.section, compared, baseline, prepared, looks),
        SETTINGS: partial(comparison.settings, compared, baseline),
        PREDICTED: partial(predicted_loss.section, compared, prepared, looks),
    }
    return [tabs.Tab(name, draw[name], heading) for name, heading in HEADINGS.items()]


def _none() -> None:
    st.info("Tick at least one run in the list above.")
