"""Pairs of tasks in one layer: a matrix over all pairs, and the angles of one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import plotly.graph_objects as go
from torch import Tensor

from ..analysis import others_mean
from .style import (
    AROUND,
    BLUE,
    GREY,
    NAMED,
    UPWARDS,
    Figure,
    Look,
    curve,
    handles,
    heatmap,
    laid_out,
    laid_out_cells,
    percent,
    safe,
)

Pairs = Literal["overlap", "cosine"]


def pair_matrix(
    pairs: Tensor, tasks: Sequence[str], what: Pairs, *, chance: float = 0.0
) -> Figure | None:
    """The overlap or cosine of every two tasks in one layer; None for fewer than two tasks.

    `chance` is what unrelated tasks would have.  A task beside itself says nothing and is left out.
    Points on the cells carry both tasks as `customdata`, as in `family_heatmap`.
    """
    if len(tasks) < 2:
        return None
    names, rows = [safe(task) for task in tasks], pairs.tolist()
    for i, row in enumerate(rows):
        row[i] = None
    numbers = [[_number(v, what) for v in row] for row in rows]
    # Fixed ends, so that two layers can be compared by their colours.
    scale = (
        {"colorscale": UPWARDS, "zmin": 0, "zmax": 1}
        if what == "overlap"
        else {"colorscale": AROUND, "zmid": 0, "zmin": -0.5, "zmax": 0.5}
    )
    figure, labelled = go.Figure(), len(tasks) <= 12
    heatmap(figure, names, names, rows, labelled, text=numbers, **scale)
    couples = [(i, j) for i in range(len(tasks)) for j in range(len(tasks)) if i != j]
    x, y = [names[j] for _, j in couples], [names[i] for i, _ in couples]
    data, texts = [[tasks[i], tasks[j]] for i, j in couples], [numbers[i][j] for i, j in couples]
    handles(figure, x, y, "%{y} and %{x}: %{text}", customdata=data, text=texts)
    laid_out_cells(figure, max(260, 70 + 38 * len(tasks)), len(tasks), len(tasks))
    caption = _pairs_caption(pairs, tasks, what, chance)
    return Figure(figure, f"Matrix of the {what} of every two tasks. {caption}", caption)


def _number(value: float | None, what: Pairs) -> str:
    if value is None or not math.isfinite(value):
        return ""
    return f"{100 * value:.0f} %" if what == "overlap" else f"{value:+.2f}"


def _pairs_caption(pairs: Tensor, tasks: Sequence[str], what: Pairs, chance: float) -> str:
    couples = [(i, j) for i in range(len(tasks)) for j in range(i)]
    value = {c: float(pairs[c]) for c in couples}
    near, far = max(couples, key=lambda c: value[c]), min(couples, key=lambda c: value[c])
    mean = float(others_mean(pairs).mean())
    told = [f"{tasks[j]} and {tasks[i]} ({_number(value[i, j], what)})" for i, j in (near, far)]
    if what == "overlap":
        beside = (
            f"on average {percent(mean)}, where unrelated tasks would share {percent(chance)}. "
            "What two tasks share is where a merge has to please both."
        )
        return f"{told[0]} share most of their directions, {told[1]} least; {beside}"
    beside = "0 is a right angle" + (
        ": on the whole these changes neither help nor oppose each other."
        if max(abs(v) for v in value.values()) < 0.1
        else "; below it two tasks pull the weight apart."
    )
    return f"{told[0]} point most alike, {told[1]} least; on average {mean:+.2f}. {beside}"


def angle_curves(
    angles: Tensor, unrelated: Tensor, pair: tuple[str, str], size: int
) -> Figure | None:
    """Principal angles (radians) of two tasks' subspaces, beside those of two random ones.

    `size` is d, the dimension of the space of both; None without a direction.
    """
    if not len(angles):
        return None
    figure = go.Figure()
    names = f"{safe(pair[0])} and {safe(pair[1])}"
    for values, name, look in (
        (unrelated, "two random subspaces", Look(GREY, "dash", "square")),
        (angles, names, Look(BLUE, "solid", "circle")),
    ):
        x, y = list(range(1, len(values) + 1)), values.rad2deg().tolist()
        hover = "angle no. %{x}: %{y:.0f}°" + NAMED
        curve(figure, look, x, y, hover, name=name, marker_size=6, marker_maxdisplayed=30)
    laid_out(figure, 340)
    figure.update_xaxes(title="principal angle, smallest first")
    figure.update_yaxes(title="degrees", range=[-3, 93], tickvals=[0, 15, 30, 45, 60, 75, 90])
    shared, chance = (int((a.rad2deg() < 30).sum()) for a in (angles, unrelated))
    caption = (
        f"0° is a direction that both tasks use, 90° one that the other never touches. Of their "
        f"{len(angles)} directions in {size} dimensions, {pair[0]} and {pair[1]} share {shared} "
        f"almost fully (under 30°); two random subspaces share {chance}. The smallest angle is "
        f"{float(angles[0].rad2deg()):.0f}°, by chance {float(unrelated[0].rad2deg()):.0f}°."
    )
    return Figure(figure, f"Principal angles of {pair[0]} and {pair[1]}. {caption}", caption)
