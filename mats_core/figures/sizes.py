"""Accuracy against size: what branches beside a static merge buy, up to all experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ..analysis import Sized
from ..errors import listing
from ..evaluation import gap_recovered, normalised_accuracy, share
from .comparison import ALL_TASKS
from .kept import MEAN, mean_line, task_lines
from .style import Figure, Look, laid_out, percent, safe

NEARLY = 0.99  # of the gap


def accuracy_by_size(
    points: Sequence[Sized], looks: Mapping[str, Look], *, examples: int | None
) -> Figure | None:
    """The share of the expert's accuracy that each task keeps at every size, and their mean with
    its 95 % interval; None before anything is tested.

    examples  at most so many validation examples a task
    """
    there = sorted((point for point in points if point.results), key=lambda point: point.size)
    if not there:
        return None
    sizes = [point.size for point in there]
    figure = go.Figure()
    row = [point.results for point in there]
    task_lines(figure, looks, sizes, row, "%{x:.2f} × the base")
    bold = {"name": f"<b>{ALL_TASKS}</b>", "line_width": 5, "marker_size": 11}
    titles = [safe(point.title) for point in there]
    hover = "%{customdata}, %{x:.2f} × the base: %{y:.1%}"
    mean_line(figure, MEAN, sizes, row, hover, customdata=titles, **bold)
    laid_out(figure, 440)
    figure.update_xaxes(type="log", title="size, as a multiple of the base", tickvals=sizes)
    figure.update_xaxes(ticktext=[f"{size:.2f} ×" for size in sizes])
    figure.update_yaxes(tickformat=".0%", title="share of the expert's accuracy")
    caption = _caption(points, there, examples)
    rows = [
        {
            "model": point.title, "size": point.size, "task": r.name, "share": share(r),
            "value": r.merged.value, "low": r.merged.interval[0], "high": r.merged.interval[1],
            "examples": r.merged.examples, "split": "validation",
        }
        for point in there
        for r in point.results
    ]  # fmt: skip
    return Figure(figure, f"Accuracy of each task at every size. {caption}", caption, rows)


def _caption(points: Sequence[Sized], there: Sequence[Sized], examples: int | None) -> str:
    said = [
        f"{point.title} at {point.size:.2f} × the base keeps "
        f"{percent(normalised_accuracy(point.results))}"
        for point in there
    ]
    text = f"Of the experts' accuracy, on average over the tasks, {listing(said, len(said))}. "
    routed = [point for point in there if point.rank is not None]
    gaps = [(point, gap) for point in routed if (gap := gap_recovered(point.results)) is not None]
    if gaps:
        whole = [point for point, gap in gaps if gap >= NEARLY]
        best, gap = max(gaps, key=lambda one: one[1])
        text += (
            f"{whole[0].title.capitalize()} closes {percent(NEARLY)} of the gap to the experts. "
            if whole
            else f"None closes {percent(NEARLY)} of the gap to the experts: {best.title} closes "
            f"{percent(gap)}. "
        )
    failed = [point for point in points if point.reason]
    if failed:
        text += f"{failed[0].title.capitalize()} could not be merged: {failed[0].reason} "
    size = "all" if examples is None else f"at most {examples}"
    text += "Whiskers: 95 % intervals of the mean. "
    return f"{text}Measured on {size} validation examples a task."
