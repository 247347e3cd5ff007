"""A search: its history, what its knobs decide, and what none of its trials beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import plotly.graph_objects as go

from ..analysis import OBJECTIVES, Objective, SearchTrial, pareto
from .style import BLUE, GREY, ORANGE, PLAIN, VERMILLION, Figure, laid_out, percent, safe

Titles = Mapping[str, str]  # name of a knob → what a page calls it
AXES: dict[Objective, str] = {
    "mean": "mean normalised accuracy", "worst": "of the worst task", "size": "size × the base",
}  # fmt: skip
FRONT = {"symbol": "star", "size": 13, "color": VERMILLION}


def search_history(
    trials: Sequence[SearchTrial],
    objectives: Sequence[Objective],
    titles: Titles,
    *,
    examples: int | None = None,
) -> Figure | None:
    """The first objective of every trial in their order, and the best so far; None before a trial
    was merged.

    The points of the first trace can be clicked; their `customdata` is the number of the trial.
    """
    there = [trial for trial in trials if trial.accuracy is not None]
    if not there:
        return None
    objective = objectives[0]
    values = [trial.value(objective) or 0.0 for trial in there]
    numbers = [trial.number for trial in there]
    figure = go.Figure()
    figure.add_scatter(
        x=numbers, y=values, mode="markers", name="trial", customdata=numbers,
        marker={"size": 8, "color": BLUE}, hovertext=[safe(_said(one, titles)) for one in there],
        hovertemplate=f"trial %{{x}}: %{{y:{_format(objective)}}}<br>%{{hovertext}}{PLAIN}",
    )  # fmt: skip
    best = list(accumulate(values, min if objective == "size" else max))
    figure.add_scatter(
        x=numbers, y=best, mode="lines", name="best so far", hoverinfo="skip",
        line={"color": ORANGE, "width": 3, "shape": "hv"},
    )  # fmt: skip
    laid_out(figure, 360)
    last = max(numbers)
    figure.update_xaxes(title="trial", range=[0.5, last + 0.5], dtick=max(1, round(last / 8)))
    figure.update_yaxes(tickformat=_format(objective), title=AXES[objective])
    caption = _history(trials, there, objectives, titles, examples)
    return Figure(figure, f"History of a search. {caption}", caption, _rows(trials, examples))


def search_front(
    trials: Sequence[SearchTrial], objectives: Sequence[Objective], titles: Titles
) -> Figure | None:
    """Two objectives of every trial, and those that none beats in all; None with one objective, and
    before a trial was merged.

    Points can be clicked; their `customdata` is the number of the trial.
    """
    there = [trial for trial in trials if trial.accuracy is not None]
    if len(objectives) < 2 or not there:
        return None
    first, other = objectives[0], objectives[-1]
    best = pareto(trials, objectives)
    figure = go.Figure()
    for name, some, marker in (
        ("trial", [trial for trial in there if trial not in best], {"size": 8, "color": GREY}),
        ("beaten by none", list(best), FRONT),
    ):
        figure.add_scatter(
            x=[trial.value(other) for trial in some], y=[trial.value(first) for trial in some],
            mode="markers", name=name, marker=marker, customdata=[one.number for one in some],
            hovertext=[safe(_said(one, titles)) for one in some],
            hovertemplate="trial %{customdata}: %{hovertext}" + PLAIN,
        )  # fmt: skip
    laid_out(figure, 360)
    figure.update_yaxes(tickformat=_format(first), title=AXES[first])
    figure.update_xaxes(tickformat=_format(other), title=AXES[other])
    ends = " to ".join(dict.fromkeys(_value(one, first) for one in (best[0], best[-1])))
    count = "One trial is" if len(best) == 1 else f"{len(best)} trials are"
    caption = (
        f"{count} beaten by no other one in {_listed(objectives)} together: {AXES[first]} {ends}."
    )
    return Figure(figure, f"Trials of a search by two objectives. {caption}", caption)


def search_importance(importance: Mapping[str, float], titles: Titles) -> Figure | None:
    """How much each knob decides on the first objective; None where that is not known."""
    if not importance:
        return None
    names = sorted(importance, key=lambda name: importance[name])
    figure = go.Figure()
    figure.add_bar(
        x=[importance[name] for name in names], y=[safe(titles.get(n, n)) for n in names],
        orientation="h", marker_color=BLUE, text=[percent(importance[n], 0) for n in names],
        textposition="outside", cliponaxis=False, hoverinfo="skip",
    )  # fmt: skip
    laid_out(figure, 110 + 30 * len(names), showlegend=False)
    figure.update_xaxes(tickformat=".0%", range=[0, 1.12 * max(importance.values())])
    first = names[-1]
    caption = (
        f"{titles.get(first, first)} decides most, {percent(importance[first], 0)} of the "
        "differences that a forest of trees over the trials explains (fANOVA). A knob that the "
        "search kept at one value is rated by few trials; those inside of a step are left out."
    )
    rows = [{"knob": name, "share": importance[name]} for name in reversed(names)]
    return Figure(figure, f"Importance of the knobs of a search. {caption}", caption, rows)


def _history(
    trials: Sequence[SearchTrial],
    there: Sequence[SearchTrial],
    objectives: Sequence[Objective],
    titles: Titles,
    examples: int | None,
) -> str:
    first, top = there[0], pareto(trials, objectives)[0]
    count = "The one trial" if len(trials) == 1 else f"Best of {len(trials)} trials"
    text = f"{count} is number {top.number}, {_value(top, objectives[0])}"
    if objectives[0] == "mean":
        text += f" (95 % interval {percent(top.low)} to {percent(top.high)})"
    text += f": {_said(top, titles)}. "
    if first.number == 1 and first is not top:
        text += f"The recipe as it was, trial 1, has {_value(first, objectives[0])}. "
    failed = [trial for trial in trials if trial.reason]
    if failed:
        text += f"{len(failed)} could not be merged; first reason: {failed[0].reason} "
    size = "all" if examples is None else f"at most {examples}"
    return f"{text}Chosen on {size} validation examples a task, which flatters it."


def _value(trial: SearchTrial, objective: Objective) -> str:
    value = trial.value(objective) or 0.0
    if objective == "size":
        return f"{value:.2f} × the base"
    return percent(value) + (f" on {trial.task}" if objective == "worst" else "")


def _format(objective: Objective) -> str:
    return ".2f" if objective == "size" else ".1%"


def _said(trial: SearchTrial, titles: Titles) -> str:
    """Its knobs in words."""
    turned = [f"{titles.get(name, name)} {_text(value)}" for name, value in trial.values.items()]
    return ", ".join(turned)


def _text(value: Any) -> str:
    if value is None:
        return "by default"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, int | float) else str(value).replace("_", " ")


def _listed(objectives: Sequence[Objective]) -> str:
    return " and ".join(OBJECTIVES[one] for one in objectives)


def _rows(trials: Sequence[SearchTrial], examples: int | None) -> list[dict[str, Any]]:
    return [
        {
            "trial": trial.number, "mean": trial.accuracy, "low": trial.low, "high": trial.high,
            "worst": trial.worst, "worst task": trial.task, "size": trial.size,
            "knobs": ", ".join(f"{name} {_text(v)}" for name, v in trial.values.items()),
            "reason": trial.reason, "examples a task": examples, "split": "validation",
        }
        for trial in trials
    ]  # fmt: skip
