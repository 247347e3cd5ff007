"""Examples under base, experts and merge in one plane, with a slider from the base to the merge."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from ..analysis import NEAREST, FeatureMap
from ..errors import cut
from .style import GREY, PLAIN, Figure, Look, laid_out, look, percent, safe

By = Literal["task", "class"]
TEXT = 70  # characters of a text under the pointer
HEIGHT, SLIDER = 560, 110  # pixels, without the legend
LINE, IN_A_LINE = 20, 3  # of the legend, on a phone
FAINT = 0.12  # of what was not searched for
MOVING, AT_BASE, AT_EXPERT = "circle", "x-thin-open", "diamond-open"


def feature_map(
    found: FeatureMap,
    looks: Mapping[str, Look],
    *,
    by: By = "task",
    task: str = "",
    shown: np.ndarray | None = None,
    chosen: int | None = None,
) -> Figure:
    """The map: circles travel with the slider, crosses stand for the base, diamonds for experts.

    by, task   coloured by task, or by class within one task
    shown      (n,) bool: the examples that were searched for; the others are faint
    chosen     an example with a ring around it

    Every point carries its number on the map as `customdata`.
    """
    groups = _groups(found, looks, by, task)
    seen = np.ones(len(found.task), bool) if shown is None else shown
    figure, moving = go.Figure(), [*range(len(groups))]
    last = list(found.stations).index(1)
    for name, colour, rows in groups:
        _points(figure, found, rows, found.way[last], seen, name, MOVING, colour, legend=True)
    for name, colour, rows in groups:
        _points(figure, found, rows, found.expert, seen, name, AT_EXPERT, colour)
    _points(
        figure, found, np.arange(len(found.task)), found.way[list(found.stations).index(0)],
        seen, "base", AT_BASE, GREY,
    )  # fmt: skip
    travelling = [rows for _, _, rows in groups]
    if chosen is not None:
        _ring(figure, found.way[last][chosen])
        travelling.append(np.array([chosen]))
        moving.append(2 * len(groups) + 1)  # after circles, diamonds and crosses
    _travel(figure, found, travelling, moving)
    everything = np.concatenate([*found.way, found.expert])
    low, high = everything.min(0), everything.max(0)
    pad = 0.05 * (high - low)
    # The legend lies below the slider, in as many lines as it has on a phone.
    lines = LINE * math.ceil((len(groups) + 1) / IN_A_LINE)
    laid_out(figure, HEIGHT + lines, dragmode="pan")
    figure.update_layout(margin={"b": SLIDER + lines})
    for update, axis in ((figure.update_xaxes, 0), (figure.update_yaxes, 1)):
        title = f"component {axis + 1}: {percent(found.explained[axis], 0)} of the variance"
        update(title=title, range=[low[axis] - pad[axis], high[axis] + pad[axis]])
    caption = _caption(found)
    return Figure(figure, f"Map of examples by their features. {caption}", caption, _rows(found))


def _groups(
    found: FeatureMap, looks: Mapping[str, Look], by: By, task: str
) -> list[tuple[str, str, np.ndarray]]:
    """(name, colour, examples) of every trace."""
    if by == "task" or task not in found.tasks:
        return [
            (name, looks[name].colour, np.flatnonzero(found.task == index))
            for index, name in enumerate(found.tasks)
        ]
    index = found.tasks.index(task)
    others = np.flatnonzero(found.task != index)
    groups = [
        (one, look(number).colour, np.flatnonzero((found.task == index) & (found.label == number)))
        for number, one in enumerate(found.classes[index])
    ]
    return [*groups, ("other tasks", GREY, others)] if len(others) else groups


def _points(
    figure: go.Figure,
    found: FeatureMap,
    rows: np.ndarray,
    places: np.ndarray,
    seen: np.ndarray,
    name: str,
    symbol: str,
    colour: str,
    *,
    legend: bool = False,
) -> None:
    under = {MOVING: "on the way", AT_BASE: "base", AT_EXPERT: "expert"}[symbol]
    strength = {MOVING: 0.85, AT_BASE: 0.35, AT_EXPERT: 0.4}[symbol]
    said = [
        f"{safe(found.tasks[found.task[i]])}: {safe(found.class_of(i))}"
        + (f"<br>{safe(cut(found.text(i), TEXT))}" if found.text(i) != found.class_of(i) else "")
        for i in rows
    ]
    marker = {
        "symbol": symbol, "size": 8 if symbol == MOVING else 6, "color": colour,
        "opacity": [strength if seen[i] else FAINT * strength for i in rows],
        "line": {"width": 1, "color": colour},
    }  # fmt: skip
    figure.add_scatter(
        x=places[rows, 0], y=places[rows, 1], mode="markers", name=safe(name), marker=marker,
        text=said, customdata=rows.tolist(), hovertemplate=f"%{{text}}<br>{under}{PLAIN}",
        showlegend=legend or symbol == AT_BASE, legendgroup=safe(name),
        # A chosen point is ringed; the others stay as they are.
        unselected={"marker": {"opacity": 0.85}},
    )  # fmt: skip


def _ring(figure: go.Figure, place: np.ndarray) -> None:
    marker = {"symbol": "circle-open", "size": 18, "color": GREY, "line": {"width": 3}}
    figure.add_scatter(
        x=[place[0]], y=[place[1]], mode="markers", marker=marker, name="chosen",
        showlegend=False, hoverinfo="skip",
    )  # fmt: skip


def _travel(
    figure: go.Figure,
    found: FeatureMap,
    groups: Sequence[np.ndarray],
    moving: Sequence[int],
) -> None:
    """A frame a station, and the slider between them: no server is asked."""
    frames, steps = [], []
    for station, places in zip(found.stations, found.way, strict=True):
        name = found.named(station)
        data = [{"type": "scatter", "x": places[r, 0], "y": places[r, 1]} for r in groups]
        frames.append(go.Frame(name=name, data=data, traces=list(moving)))
        how = {"mode": "immediate", "frame": {"duration": 300}, "transition": {"duration": 300}}
        steps.append({"label": name, "method": "animate", "args": [[name], how]})
    figure.frames = frames
    slider = {
        "active": list(found.stations).index(1), "steps": steps, "pad": {"t": 45},
        "currentvalue": {"prefix": _prefix(found)},
    }  # fmt: skip
    figure.update_layout(sliders=[slider])


def _prefix(found: FeatureMap) -> str:
    """What the slider moves."""
    if found.scaling is None:
        return "base 0, merge 1: "
    return f"scaling (merge {found.named(1)}, base 0): "


def _caption(found: FeatureMap) -> str:
    """How much of the truth the plane shows, and how classes hold together, in numbers."""
    both = sum(found.explained)
    before, after = found.purity(found.base), found.purity(found.merge)
    return (
        "Circles travel with the slider, crosses lie under the base, diamonds under each example's "
        f"expert. {len(found.task)} validation examples of {len(found.tasks)} tasks; the plane "
        f"shows {percent(both, 0)} of the variance of their features. Of the {NEAREST} nearest "
        f"neighbours within its task {percent(before, 0)} have an example's class under the base "
        f"and {percent(after, 0)} under the merge."
    )


def _rows(found: FeatureMap) -> list[dict[str, object]]:
    whole = [
        (f"{'s' if found.scaling is None else 'scaling'} = {found.named(s)}", places)
        for s, places in zip(found.stations, found.way, strict=True)
    ]
    return [
        {
            "example": place, "task": found.tasks[found.task[place]],
            "class": found.class_of(place), "model": model, "x": float(x), "y": float(y),
        }
        for model, places in [*whole, ("expert", found.expert)]
        for place, (x, y) in enumerate(places)
    ]  # fmt: skip
