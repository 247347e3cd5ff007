"""The two-parameter merge: what each method costs, what each iteration brings, before and after."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..analysis import Essential, Merged, Point, Walk
from .style import BLUE, GREY, ORANGE, Figure, Look, laid_out, percent, safe

TITLES = {"average": "average", "Fisher": "diagonal Fisher", "full": "full curvature"}
NEAR = 0.005  # of a loss: below it two numbers are shown as the same
ROUND = [2 * math.pi * i / 90 for i in range(91)]


def toy_losses(found: Sequence[Merged], tasks: Mapping[str, Look]) -> Figure:
    """The loss of every task under every way to merge, stacked to the sum."""
    figure = go.Figure()
    titles = [one.name for one in found]
    for index, (name, how) in enumerate(tasks.items()):
        y = [one.losses[index] for one in found]
        _bars(figure, index, how.colour, titles, y, f"task {safe(name)}", ", %{x}: %{y:.2f}")
    laid_out(figure, 240, barmode="stack")
    figure.update_layout(legend={"traceorder": "normal"})
    figure.update_xaxes(tickangle=0)
    figure.update_yaxes(title="loss", rangemode="tozero")
    worst, best = (choose(found, key=lambda one: one.total) for choose in (max, min))
    if worst.total - best.total < NEAR:
        caption = (
            f"All of them land in the same place, at a summed loss of {best.total:.2f}: for "
            "these ellipses the curvature makes no difference."
        )
    else:
        parts = [f"{TITLES.get(one.name, one.name)} {one.total:.2f}" for one in found]
        less = percent(1 - best.total / worst.total, 0)
        caption = (
            f"Summed loss: {', '.join(parts)}. The best has {less} less than the worst; what is "
            "left is where the two tasks really disagree."
        )
    return Figure(figure, f"Stacked bars of the tasks' losses. {caption}", caption)


def _bars(
    figure: go.Figure, index: int, colour: str, x: Any, y: Any, name: str, hover: str, **more: Any
) -> None:
    """The bars of one task; those of the first are plain, others hatched."""
    marker = {"color": colour, "pattern": {"shape": "/" if index else ""}}
    hover = f"{name}{hover}<extra></extra>"
    figure.add_bar(x=x, y=y, name=name, marker=marker, hovertemplate=hover, **more)


def toy_progress(walk: Walk, best: Merged) -> Figure:
    """The share of the loss that is gained after each iteration, and of the distance covered.

    Both are relative to `best`, the minimum of the summed loss.
    """
    gain = walk.losses[0] - best.total
    way = math.dist(walk.points[0], best.point)
    figure = go.Figure()
    if gain < NEAR:
        laid_out(figure, 220)
        caption = "The start is the solution already: there is nothing to gain. Drag it away."
        return Figure(figure, caption, caption)
    gained = [(walk.losses[0] - loss) / gain for loss in walk.losses]
    gone = [distance / way for distance in walk.distances]
    labels = ["start", *(f"iteration {i}" for i in range(1, len(gained)))]
    hover = " after %{x}: %{y:.0%}"
    _bars(figure, 0, BLUE, labels, gained, "loss gained", hover)
    _bars(figure, 1, ORANGE, labels, gone, "distance from the start", hover)
    laid_out(figure, 260)
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    if len(gained) == 1:
        caption = "No iteration yet: the merge is its start. Give it one."
    else:
        caption = (
            f"The first iteration gains {percent(gained[1], 0)} of what can be gained and ends "
            f"{percent(gone[1], 0)} of the distance to the minimum away from the start."
        )
    if len(gained) > 2:
        more, far = gained[2] - gained[1], gone[2]
        caption += (
            f" The second adds {percent(more, 0)} and ends at {percent(far, 0)} of it: it "
            "follows the flat direction, where a little noise in the curvature moves the solution "
            "far."
        )
    return Figure(figure, f"Bars of loss gained and distance covered. {caption}", caption)


def toy_polar(step: Essential, tasks: Mapping[str, Look]) -> Figure:
    """The essential directions of two tasks before and after the polar step.

    The outline is what becomes of the unit circle of coordinates: an ellipse amplifies some moves
    and mutes others, a circle treats all alike.
    """
    figure = make_subplots(1, 2, subplot_titles=("before", "after"), horizontal_spacing=0.08)
    for column, arrows in ((1, step.directions), (2, step.freed)):
        first, second = arrows
        figure.add_scatter(
            x=[math.cos(t) * first[0] + math.sin(t) * second[0] for t in ROUND],
            y=[math.cos(t) * first[1] + math.sin(t) * second[1] for t in ROUND],
            mode="lines", line={"color": GREY, "width": 2}, hoverinfo="skip",
            showlegend=False, row=1, col=column,
        )  # fmt: skip
        for (name, how), arrow in zip(tasks.items(), arrows, strict=True):
            _arrow(figure, arrow, name, how, column)
    laid_out(figure, 230, showlegend=False)
    figure.update_layout(margin={"t": 30})
    figure.update_xaxes(range=[-1.5, 1.5], visible=False)
    figure.update_yaxes(range=[-1.5, 1.5], visible=False, scaleanchor="x")
    figure.update_yaxes(scaleanchor="x2", col=2)
    large, small = step.spread[0], step.spread[-1]
    angle = _between(*step.directions)
    if angle is None:
        caption = "A task that has not moved has no direction: the polar step has nothing to turn."
    else:
        caption = (
            f"The two directions are {angle:.0f}° apart. As they are, a move that both share "
            f"counts × {large:.2f} and one that tells them apart × {small:.2f}; after the polar "
            f"step they are at right angles and everything counts × {sum(step.spread) / 2:.2f}."
            if small > 1e-9
            else "Both tasks use one and the same direction: there is nothing to tell apart, and "
            "the polar step averages their moves."
        )
    return Figure(figure, f"Two directions before and after the polar step. {caption}", caption)


def _arrow(figure: go.Figure, arrow: Point, name: str, how: Look, column: int) -> None:
    figure.add_scatter(
        x=[0, arrow[0]], y=[0, arrow[1]], mode="lines+markers+text", name=f"task {safe(name)}",
        text=["", safe(name)], textposition="bottom right", textfont={"size": 15},
        line={"color": how.colour, "width": 4},
        marker={"color": how.colour, "symbol": ["circle", "arrow"], "size": [1, 16], "opacity": 1,
                "angleref": "previous"},
        row=1, col=column,
        hovertemplate=f"task {safe(name)}: %{{x:.2f}}, %{{y:.2f}}<extra></extra>",
    )  # fmt: skip


def _between(first: Point, second: Point) -> float | None:
    """Degrees between two unit vectors; None where one is zero."""
    if math.hypot(*first) * math.hypot(*second) < 0.5:
        return None
    cross = first[0] * second[1] - first[1] * second[0]
    dot = first[0] * second[0] + first[1] * second[1]
    return math.degrees(math.atan2(abs(cross), dot))


def toy_scaling(step: Essential, tasks: Mapping[str, Look], power: float) -> Figure:
    """The length of each task's move before and after the weight of polarized scaling, level 1."""
    before = [math.hypot(*update) for update in step.updates]
    after = [length * weight for length, weight in zip(before, step.weights, strict=True)]
    figure, hover = go.Figure(), ", %{x}: %{y:.2f}"
    for index, (name, how) in enumerate(tasks.items()):
        x, y, title = ["before", "after"], [before[index], after[index]], f"task {safe(name)}"
        style = {"text": ["", f"× {step.weights[index]:.2f}"], "textposition": "outside"}
        _bars(figure, index, how.colour, x, y, title, hover, cliponaxis=False, **style)
    laid_out(figure, 280)
    figure.update_yaxes(title="length of the move", rangemode="tozero")
    names = list(tasks)
    loud = max(range(len(before)), key=lambda i: before[i])
    if not sum(before) > 0:
        caption = "No task has moved: there is nothing to weigh."
    elif max(before) - min(before) < NEAR or not power:
        reason = "Power 0 switches it off" if not power else "Both moved equally far"
        caption = f"{reason}: every task keeps its weight of 1."
    else:
        caption = (
            f"Task {names[loud]} moved furthest, and speaks with "
            f"{percent(before[loud] / sum(before), 0)} of the summed length; at power {power:g} "
            f"with {percent(after[loud] / sum(after), 0)}. Its weight is × "
            f"{step.weights[loud]:.2f}."
        )
    return Figure(figure, f"Bars of move lengths before and after. {caption}", caption)
