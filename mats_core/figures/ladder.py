"""A ladder of merges: what every step of a method adds, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ..analysis import Stand, steps
from ..errors import listing
from ..evaluation import Comparison, normalised_accuracy, share
from .comparison import ALL_TASKS
from .kept import MEAN, mean_line, task_lines
from .style import Figure, Look, laid_out, percent, safe
from .why import points


def ladder_lines(
    stands: Sequence[Stand], looks: Mapping[str, Look], *, examples: int | None, of: int
) -> Figure | None:
    """The share of the expert's accuracy that each task keeps at every step, and their mean with
    its 95 % interval; None before a step is finished.

    examples  at most so many validation examples a task
    of        the number of steps, of which some may not be finished yet
    """
    there = [stand for stand in stands if stand.results]
    if not there:
        return None
    places = [safe(stand.rung.title) for stand in there]
    figure = go.Figure()
    row = [stand.results for stand in there]
    task_lines(figure, looks, places, row, "%{x}")
    bold = {"name": f"<b>{ALL_TASKS}</b>", "line_width": 5, "marker_size": 11}
    mean_line(figure, MEAN, places, row, "mean, %{x}: %{y:.1%}", **bold)
    laid_out(figure, 440)
    figure.update_xaxes(type="category", categoryorder="array", categoryarray=places)
    figure.update_yaxes(tickformat=".0%", title="share of the expert's accuracy")
    caption = _caption(stands, examples, of)
    alt = f"Accuracy of each task at every step. {caption}"
    return Figure(figure, alt, caption, _rows(there, examples))


def _rows(stands: Sequence[Stand], examples: int | None) -> list[dict[str, Any]]:
    return [
        {
            "step": stand.rung.title, "task": r.name, "share": share(r), "value": r.merged.value,
            "low": r.merged.interval[0], "high": r.merged.interval[1],
            "examples": r.merged.examples, "split": "validation",
        }
        for stand in stands
        for r in stand.results
    ]  # fmt: skip


def _caption(stands: Sequence[Stand], examples: int | None, of: int) -> str:
    there = [stand for stand in stands if stand.results]
    first, last = there[0], there[-1]
    text = "" if len(stands) == of else f"{len(stands)} of {of} steps so far. "
    text += (
        f"On average over the tasks {first.rung.title} keeps "
        f"{percent(normalised_accuracy(first.results))} of the experts' accuracy, "
        f"{last.rung.title} {percent(normalised_accuracy(last.results))}. "
    )
    added = [
        (stand.rung.title, step)
        for stand, step in zip(stands, steps(stands), strict=True)
        if step is not None
    ]
    text += _steps_said(added) if added else ""
    failed = [stand for stand in stands if stand.reason]
    if failed:
        text += f"{failed[0].rung.title} could not be merged: {failed[0].reason} "
    size = "all" if examples is None else f"at most {examples}"
    text += "Whiskers: 95 % intervals of the mean. "
    return f"{text}Measured on {size} validation examples a task."


def _steps_said(added: Sequence[tuple[str, Comparison]]) -> str:
    """Which steps add something, against the step before, and which may be chance."""
    means = [(title, step.mean) for title, step in added if step.mean is not None]
    up = [f"{title} ({points(m)})" for title, m in means if m.low > 0]
    down = [f"{title} ({points(m)})" for title, m in means if m.high < 0]
    rest = [title for title, m in means if not m.clear]
    text = f"Clearly better than the step before: {listing(up, len(up)) if up else 'none'}"
    text += f"; clearly worse: {listing(down, len(down))}" if down else ""
    return text + (f"; may be chance: {listing(rest, len(rest))}. " if rest else ". ")
