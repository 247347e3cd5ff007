"""What a row of merges keeps: a line a task, and their mean with its 95 % interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ..evaluation import TaskResult, normalised_accuracy, normalised_interval, share
from .style import GREY, Look, curve, safe, whiskers

Row = Sequence[Sequence[TaskResult]]  # the results of each merge
MEAN = Look(GREY, "solid", "diamond")


def task_lines(
    figure: go.Figure, looks: Mapping[str, Look], places: Sequence[Any], row: Row, at: str,
    opacity: float = 0.75,
) -> None:  # fmt: skip
    """Draw the share of the expert's accuracy that each task keeps; `at`: the place, on hover."""
    for name in (result.name for result in row[0]):
        y = [share(r) for results in row for r in results if r.name == name]
        hover = f"{safe(name)}, {at}: %{{y:.1%}}"
        curve(figure, looks[name], places, y, hover, name=safe(name), opacity=opacity)


def mean_line(
    figure: go.Figure, look: Look, places: Sequence[Any], row: Row, hover: str, **more: Any
) -> None:
    """Draw the mean over the tasks with whiskers; `more` are plotly's own names."""
    means = [normalised_accuracy(results) for results in row]
    ends = [normalised_interval(results) for results in row]
    error = whiskers(
        [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
        [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
    )
    curve(figure, look, places, means, hover, **more, error_y=error)
