"""What the worker does to look at a family without merging it.  No Streamlit here."""

from __future__ import annotations

from dataclasses import replace

from mats_core.analysis import Survey, Surveyed, surveying
from mats_core.figures import short_names
from mats_core.recipes import Inputs
from mats_core.statistics import Statistics
from mats_core.system import changed

from .following import told
from .jobs import Tell


def look_around(
    inputs: Inputs, statistics: dict[str, Statistics], names: list[str], tell: Tell
) -> Survey:
    """Survey every layer and task; tells what it has after each layer."""
    tasks = tuple(expert.name for expert in inputs.family.experts)
    titles = short_names(names)

    def in_short(event: Surveyed) -> Surveyed:
        return replace(event, text=event.text.replace(event.name, titles[event.name]))

    events = changed(surveying(inputs.family, statistics, names), in_short)
    return told(events, tell, lambda event: Survey(tasks, event.layers))
