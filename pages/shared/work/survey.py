"""What the worker does to look at a family without merging it.  No Streamlit here."""

from __future__ import annotations

from mats_core.analysis import Survey, survey
from mats_core.figures import short_names
from mats_core.merging import Inputs
from mats_core.statistics import Statistics

from .jobs import Tell


def look_around(
    inputs: Inputs, statistics: dict[str, Statistics], names: list[str], tell: Tell
) -> Survey:
    """Survey every layer and task; tells what it has after each layer."""
    tasks = tuple(expert.name for expert in inputs.family.experts)
    titles, so_far = short_names(names), Survey(tasks, ())

    def on_step(fraction: float, name: str) -> None:
        tell(fraction, f"Looking at every layer of every task: {titles[name]}", so_far)

    for layer in survey(inputs.family, statistics, names, on_step=on_step):
        so_far = Survey(tasks, (*so_far.layers, layer))
    return so_far
