"""Runs beside each other: a parallel plot, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ..errors import listing
from ..evaluation import Comparison, Difference, TaskResult, normalised_accuracy, share
from .style import GREY, Figure, Look, laid_out, percent, safe

ALL_TASKS = "all tasks"


def run_lines(
    runs: Mapping[str, Sequence[TaskResult]], looks: Mapping[str, Look], baseline: str
) -> Figure:
    """A parallel plot: an axis for each task and one for their mean, a line for each run."""
    names = list(dict.fromkeys(r.name for results in runs.values() for r in results))
    figure = go.Figure()
    for label, results in runs.items():
        found = {r.name: share(r) for r in results}
        values = [found.get(name) for name in names] + [normalised_accuracy(results)]
        _line(figure, label, [*names, ALL_TASKS], values, looks[label], label == baseline)
    figure.add_hline(y=1, line={"color": GREY, "width": 1, "dash": "dot"})
    _axes(figure, names)
    figure.update_yaxes(tickformat=".0%", title="share of the expert's accuracy")
    means = {label: normalised_accuracy(results) for label, results in runs.items()}
    top = max(means, key=lambda label: means[label])
    spread = {name: _spread([r for rs in runs.values() for r in rs], name) for name in names}
    widest = max(spread, key=lambda name: spread[name])
    caption = f"On average over the tasks {top} keeps most ({percent(means[top])}). "
    if len(runs) > 1:
        caption += (
            f"The runs differ most on {widest}: by {100 * spread[widest]:.1f} points. Lines that "
            "cross mean that no run is best for every task."
        )
    return Figure(figure, f"A line for each run over the tasks. {caption}", caption)


def _spread(results: Sequence[TaskResult], name: str) -> float:
    values = [share(r) for r in results if r.name == name]
    return max(values) - min(values)


def _line(
    figure: go.Figure,
    label: str,
    names: Sequence[str],
    values: Sequence[float | None],
    look: Look,
    thick: bool,
    **more: Any,
) -> None:
    figure.add_scatter(
        x=more.pop("x", list(range(len(names)))),
        y=values,
        name=safe(label + (" (baseline)" if thick else "")),
        mode="lines+markers",
        line={"color": look.colour, "dash": look.dash, "width": 4 if thick else 2},
        marker={"symbol": look.marker, "size": 10 if thick else 8},
        customdata=[safe(name) for name in names],
        connectgaps=False,
        hovertemplate=f"{safe(label)}<br>%{{customdata}}: %{{y:.1%}}<extra></extra>",
        **more,
    )


def _axes(figure: go.Figure, names: Sequence[str]) -> None:
    """An upright line for every task: the axes of a parallel plot."""
    places = len(names) + 1
    laid_out(figure, 400)
    figure.update_xaxes(
        tickvals=list(range(places)),
        ticktext=[*(safe(name) for name in names), f"<b>{ALL_TASKS}</b>"],
        range=[-0.4, places - 0.6],
        showgrid=True,
        zeroline=False,
    )


def difference_lines(
    found: Mapping[str, Comparison], looks: Mapping[str, Look], baseline: str
) -> Figure:
    """Differences of every run from the baseline by task and in the mean, with 95 % intervals."""
    names = list(dict.fromkeys(name for own in found.values() for name in own.tasks))
    figure = go.Figure()
    figure.add_hline(y=0, line={"color": GREY, "width": 2})
    for place, (label, own) in enumerate(found.items()):
        parts = [own.tasks.get(name) for name in names] + [own.mean]
        aside = (place - (len(found) - 1) / 2) * min(0.12, 0.6 / len(found))
        error = {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 3,
            "array": [p.high - p.value if p else None for p in parts],
            "arrayminus": [p.value - p.low if p else None for p in parts],
        }  # fmt: skip
        values = [p.value if p else None for p in parts]
        places = [i + aside for i in range(len(parts))]
        _line(
            figure, label, [*names, ALL_TASKS], values, looks[label], False, x=places, error_y=error
        )
        figure.data[-1].update(mode="markers")
    _axes(figure, names)
    figure.update_yaxes(tickformat="+.0%", title="difference to the baseline")
    parts = [p for own in found.values() for p in own.tasks.values()]
    caption = (
        f"Each run minus {baseline}, with 95 % intervals: {count_clear(parts)}. "
        f"At '{ALL_TASKS}' it is the difference in mean normalised accuracy: {_means(found)}."
    )
    return Figure(figure, f"Differences by task. {caption}", caption)


def count_clear(parts: Sequence[Difference]) -> str:
    """Words such as `of 16 differences 5 are clearly above zero and 2 below (…)`."""
    above = sum(part.low > 0 for part in parts)
    below = sum(part.high < 0 for part in parts)
    chance = max(1, round(0.05 * len(parts)))
    return (
        f"of {len(parts)} differences {above} are clearly above zero and {below} clearly below "
        f"(about {chance} would be by chance alone)"
    )


def _means(found: Mapping[str, Comparison]) -> str:
    texts = [
        f"{label} {100 * own.mean.value:+.1f} points ({100 * own.mean.low:+.1f} to "
        f"{100 * own.mean.high:+.1f})"
        for label, own in found.items()
        if own.mean
    ]
    return listing(texts, 3) or "none"
