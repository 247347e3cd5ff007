"""Runs beside each other: a parallel plot, and differences with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from ..errors import listing
from ..evaluation import Comparison, Difference, TaskResult, normalised_accuracy, share
from .rows import merged
from .style import GREY, Figure, Look, curve, laid_out, percent, safe, whiskers

ALL_TASKS = "all tasks"


def run_lines(
    runs: Mapping[str, Sequence[TaskResult]],
    looks: Mapping[str, Look],
    baseline: str,
    split: str = "test",
) -> Figure:
    """A parallel plot: an axis for each task and one for their mean, a line for each run.

    `split`: which one all were tested on.
    """
    names = list(dict.fromkeys(r.name for results in runs.values() for r in results))
    figure, x, said = go.Figure(), list(range(len(names) + 1)), _places(names)
    for label, results in runs.items():
        found = {r.name: share(r) for r in results}
        values = [found.get(name) for name in names] + [normalised_accuracy(results)]
        style = {"name": safe(label), "marker_size": 8}
        if label == baseline:
            style = {"name": f"{safe(label)} (baseline)", "marker_size": 10, "line_width": 4}
        curve(figure, looks[label], x, values, _hover(label), customdata=said, **style)
    figure.add_hline(y=1, line={"color": GREY, "width": 1, "dash": "dot"})
    _axes(figure, said)
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
    rows = [row for label, results in runs.items() for row in merged(results, label, split)]
    return Figure(figure, f"A line for each run over the tasks. {caption}", caption, rows)


def _spread(results: Sequence[TaskResult], name: str) -> float:
    values = [share(r) for r in results if r.name == name]
    return max(values) - min(values)


def _places(names: Sequence[str]) -> list[str]:
    return [safe(name) for name in (*names, ALL_TASKS)]


def _hover(label: str) -> str:
    return f"{safe(label)}<br>%{{customdata}}: %{{y:.1%}}"


def _axes(figure: go.Figure, places: Sequence[str]) -> None:
    """An upright line for every task: the axes of a parallel plot."""
    laid_out(figure, 400)
    names = [*places[:-1], f"<b>{places[-1]}</b>"]
    figure.update_xaxes(tickvals=list(range(len(names))), ticktext=names, showgrid=True)
    figure.update_xaxes(range=[-0.4, len(names) - 0.6], zeroline=False)


def difference_lines(
    found: Mapping[str, Comparison], looks: Mapping[str, Look], baseline: str
) -> Figure:
    """Differences of every run from the baseline by task and in the mean, with 95 % intervals."""
    names = list(dict.fromkeys(name for own in found.values() for name in own.tasks))
    figure, said = go.Figure(), _places(names)
    figure.add_hline(y=0, line={"color": GREY, "width": 2})
    for place, (label, own) in enumerate(found.items()):
        parts = [own.tasks.get(name) for name in names] + [own.mean]
        aside = (place - (len(found) - 1) / 2) * min(0.12, 0.6 / len(found))
        above = [p.high - p.value if p else None for p in parts]
        below = [p.value - p.low if p else None for p in parts]
        x, y = [i + aside for i in range(len(parts))], [p.value if p else None for p in parts]
        style = {"name": safe(label), "mode": "markers", "marker_size": 8, "customdata": said}
        style["error_y"] = whiskers(above, below)
        curve(figure, looks[label], x, y, _hover(label), **style)
    _axes(figure, said)
    figure.update_yaxes(tickformat="+.0%", title="difference to the baseline")
    parts = [p for own in found.values() for p in own.tasks.values()]
    caption = (
        f"Each run minus {baseline}, with 95 % intervals: {count_clear(parts)}. "
        f"At '{ALL_TASKS}' it is the difference in mean normalised accuracy: {_means(found)}."
    )
    rows = [
        {"task": name, "model": label, "baseline": baseline, "metric": "difference",
         "value": part.value, "low": part.low, "high": part.high, "paired": part.paired}
        for label, own in found.items()
        for name, part in (*own.tasks.items(), (ALL_TASKS, own.mean))
        if part is not None
    ]  # fmt: skip
    return Figure(figure, f"Differences by task. {caption}", caption, rows)


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
