"""Accuracy of a merge, task by task, against expert and base."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from ..evaluation import (
    TaskResult,
    gap_recovered,
    normalised_accuracy,
    on_same_examples,
    share,
)
from ..recipes import Report
from .rows import merged, tidy
from .style import GREY, Figure, Look, laid_out, pale, percent, safe, whiskers


def accuracy_bars(
    results: Sequence[TaskResult],
    tasks: Mapping[str, Look],
    *,
    label: str = "merged",
    beside: Sequence[TaskResult] = (),
    beside_label: str = "beside",
    split: str = "test",
) -> Figure:
    """A bar for each task that fills the expert's pale one; a second, hatched, for another run.

    Bars carry their 95 % interval; a diamond is the pre-trained encoder with the expert's head.
    `split`: which one all were tested on.
    """
    figure = go.Figure()
    _experts(figure, results, tasks)
    width = WIDTH / 2 - 0.05 if beside else WIDTH - 0.16
    places = [r.name for r in results]
    _bars(figure, results, places, tasks, label, -width if beside else -width / 2, width)
    if beside:
        _bars(figure, beside, places, tasks, beside_label, 0.0, width, hatched=True)
    _pretrained(figure, results)
    ours = normalised_accuracy(results)
    worst, best = min(results, key=share), max(results, key=share)
    caption = (
        f"On average the merged model keeps {percent(ours)} of each expert's accuracy: "
        f"most on {best.name} ({percent(share(best))}), least on {worst.name} "
        f"({percent(share(worst))}). "
    )
    if (shared := on_same_examples(results, beside)) is not None:
        difference = 100 * (normalised_accuracy(shared[0]) - normalised_accuracy(shared[1]))
        count = len(shared[0])
        some = "" if count == len(results) else f", on the {count} tasks that both have"
        caption += f"That is {difference:+.1f} points against {beside_label} (hatched){some}. "
    asked = sum(result.merged.examples for result in results)
    caption += f"Whiskers are 95 % intervals, from {asked:,} {split} examples."
    alt = (
        f"Bars of accuracy by task. {label}: {percent(ours)} of the experts' accuracy on average, "
        f"from {percent(share(worst))} on {worst.name} to {percent(share(best))} on {best.name}."
    )
    runs = [(label, results), *([(beside_label, beside)] if beside else [])]
    rows = [
        *(row for name, tested in runs for row in merged(tested, name, split)),
        *_references(results, split),
    ]
    return Figure(figure, alt, caption, rows)


def _references(results: Sequence[TaskResult], split: str) -> list[dict[str, Any]]:
    return [
        tidy(r.name, model, score, split)
        for r in results
        for model, score in (("expert", r.finetuned), ("pre-trained", r.pretrained))
    ]


def baseline_bars(
    results: Sequence[TaskResult], tasks: Mapping[str, Look], split: str = "test"
) -> Figure:
    """Bars of the experts against the pre-trained encoder: the gap that a merge can close.

    `split`: which one all were tested on.
    """
    figure = go.Figure()
    _experts(figure, results, tasks)
    _pretrained(figure, results)
    tuned = statistics.mean(r.finetuned.value for r in results)
    base = statistics.mean(r.pretrained.value for r in results)
    text = (
        f"Before any merge: the experts reach {percent(tuned)} on average, each on its own task; "
        f"the pre-trained encoder with their heads {percent(base)}. "
    )
    if tuned > base:
        text += (
            f"A merge has to close this gap of {100 * (tuned - base):.1f} points with one encoder "
            f"for all {len(results)} tasks."
        )
    else:
        text += "There is no gap to close: these experts are no better than their base."
    asked = sum(r.finetuned.examples for r in results)
    text += f" Measured on {asked:,} {split} examples."
    rows = _references(results, split)
    return Figure(figure, f"Bars of accuracy by task. {text}", text, rows)


WIDTH = 0.84  # of a task's place on the axis


def _experts(figure: go.Figure, results: Sequence[TaskResult], tasks: Mapping[str, Look]) -> None:
    """The expert's accuracy: a pale bar over the whole width of its task."""
    colours = [tasks[r.name].colour for r in results]
    figure.add_bar(
        x=list(range(len(results))),
        y=[r.finetuned.value for r in results],
        width=WIDTH,
        marker={"color": [pale(c) for c in colours], "line": {"color": colours, "width": 1}},
        customdata=[safe(r.name) for r in results],
        hovertemplate="%{customdata}: expert %{y:.1%}<extra></extra>",
        showlegend=False,
    )
    _key(figure, "expert", symbol="square", color=pale(GREY), line={"color": GREY, "width": 1})


def _bars(
    figure: go.Figure,
    results: Sequence[TaskResult],
    places: Sequence[str],
    tasks: Mapping[str, Look],
    label: str,
    offset: float,
    width: float,
    *,
    hatched: bool = False,
) -> None:
    x, y = [places.index(r.name) for r in results], [r.merged.value for r in results]
    colours = [tasks[r.name].colour for r in results]
    marker: dict[str, Any] = {"color": colours}
    if hatched:
        pattern = {"shape": "/", "fgcolor": colours, "size": 6, "solidity": 0.3}
        line = {"color": colours, "width": 1.5}
        marker = {"color": [pale(c) for c in colours], "line": line, "pattern": pattern}
    figure.add_bar(
        x=x,
        y=y,
        offset=offset,
        width=width,
        customdata=[[safe(r.name), share(r)] for r in results],
        marker=marker,
        showlegend=False,
        hovertemplate=f"{safe(label)}<br>%{{customdata[0]}}: %{{y:.1%}}, "
        "%{customdata[1]:.1%} of the expert<extra></extra>",
    )
    # Whiskers as a trace of their own: error bars of shifted bars are not drawn at their middle.
    above = [r.merged.interval[1] - r.merged.value for r in results]
    below = [r.merged.value - r.merged.interval[0] for r in results]
    figure.add_scatter(
        x=[place + offset + width / 2 for place in x],
        y=y,
        mode="markers",
        marker={"opacity": 0, "size": 1},
        error_y=whiskers(above, below, color=GREY),
        hoverinfo="skip",
        showlegend=False,
    )
    _key(figure, safe(label), symbol="square-open" if hatched else "square", color=GREY)


def _key(figure: go.Figure, name: str, **marker: Any) -> None:
    """An entry of the legend alone."""
    marker = {"size": 12, **marker}
    figure.add_scatter(x=[None], y=[None], mode="markers", name=name, marker=marker)


def _pretrained(figure: go.Figure, results: Sequence[TaskResult]) -> None:
    """The base with the expert's head, over the bars; and the axes."""
    line = {"width": 2, "color": "#4A5561"}
    marker = {"symbol": "diamond", "size": 10, "color": "#FFFFFF", "line": line}
    figure.add_scatter(
        x=list(range(len(results))),
        y=[r.pretrained.value for r in results],
        mode="markers",
        name="pre-trained encoder",
        marker=marker,
        customdata=[safe(r.name) for r in results],
        hovertemplate="%{customdata}: pre-trained %{y:.1%}<extra></extra>",
    )
    laid_out(figure, barmode="overlay")
    # A task's name, and its metric where that is not accuracy.
    names = [
        safe(r.name) + ("" if r.merged.metric == "accuracy" else f"<br>({r.merged.metric})")
        for r in results
    ]
    ticks = {"tickvals": list(range(len(results))), "ticktext": names}
    figure.update_xaxes(**ticks, range=[-0.6, len(results) - 0.4], showgrid=False, zeroline=False)
    lowest = min(s.value for r in results for s in (r.merged, r.finetuned, r.pretrained))
    start = 1.04 * lowest if lowest < 0 else 0  # Matthews correlation can be below it
    figure.update_yaxes(range=[start, 1.04], tickformat=".0%", title="accuracy")


def headline(report: Report) -> dict[str, float | None]:
    """The numbers above a result by name; None where nothing was evaluated."""
    return _numbers(report.tasks)


def _numbers(results: Sequence[TaskResult]) -> dict[str, float | None]:
    if not results:
        return {"normalised": None, "gap": None, "accuracy": None}
    return {
        "normalised": normalised_accuracy(results),
        "gap": gap_recovered(results),
        "accuracy": statistics.mean(r.merged.value for r in results),
    }


def headline_changes(report: Report, other: Report) -> dict[str, float]:
    """By how much the numbers above a result differ from another's, on the same examples.

    Empty where the two were tested on other tasks or another split: there is nothing to compare.
    """
    names = [[result.name for result in one.tasks] for one in (report, other)]
    if sorted(names[0]) != sorted(names[1]) or report.split != other.split:
        return {}
    shared = on_same_examples(report.tasks, other.tasks)
    now, then = map(_numbers, shared or ((), ()))
    return {
        name: value - before
        for name, value in now.items()
        if value is not None and (before := then[name]) is not None
    }
