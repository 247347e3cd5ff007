"""Layers × tasks: what a merge keeps of each expert in each layer, as a heatmap to click at."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from ..analysis import LayerRow
from .style import (
    AROUND,
    VERMILLION,
    Figure,
    handles,
    heatmap,
    laid_out_cells,
    percent,
    safe,
    short_names,
)

MOST_LABELLED = 60  # layers: more of them, and the numbers in the cells become unreadable
ROW, AROUND_ROWS, MOST_HEIGHT = 23, 60, 1500  # pixels


def layer_map(rows: Sequence[LayerRow], chosen: str | None = None) -> Figure | None:
    """The share of each task's output shifts that a merge has, layers × tasks; None where no expert
    has input Grams.

    A point of no size lies on each cell and carries (layer, task) as `customdata`; the row of the
    layer that is `chosen` is framed.
    """
    tasks = list(dict.fromkeys(task for row in rows for task in row.kept))
    table = [[row.kept.get(task, math.nan) for task in tasks] for row in rows]
    known = [value for line in table for value in line if math.isfinite(value)]
    if not known:
        return None
    titles = short_names([row.name for row in rows])
    names, columns = [safe(titles[row.name]) for row in rows], [safe(task) for task in tasks]
    figure, far = go.Figure(), max(map(abs, known))
    heatmap(
        figure, columns, names, [[v if math.isfinite(v) else None for v in line] for line in table],
        len(rows) <= MOST_LABELLED, colorscale=AROUND, zmid=0, zmin=-far, zmax=far,
        text=[[_cell(v) for v in line] for line in table],
    )  # fmt: skip
    said = [percent(v, 0) if math.isfinite(v) else "not measured" for line in table for v in line]
    data = [[row.name, task] for row in rows for task in tasks]
    y = [name for name in names for _ in columns]
    handles(figure, columns * len(rows), y, "%{y}<br>%{x}: %{text}", customdata=data, text=said)
    at = next((index for index, row in enumerate(rows) if row.name == chosen), None)
    if at is not None:
        line = {"color": VERMILLION, "width": 2.5}
        ends = {"x0": -0.5, "x1": len(columns) - 0.5, "y0": at - 0.5, "y1": at + 0.5}
        figure.add_shape(type="rect", line=line, **ends)
    height = min(MOST_HEIGHT, AROUND_ROWS + ROW * len(rows))
    laid_out_cells(figure, height, len(columns), len(rows))
    caption = _caption(rows, tasks, titles)
    plain = [
        {"layer": row.name, "task": task, "kept": row.kept.get(task)}
        for row in rows
        for task in tasks
    ]
    return Figure(figure, f"Heatmap of layers by tasks: share kept. {caption}", caption, plain)


def _cell(value: float) -> str:
    """As short as a cell on a phone: percent, from a thousand on in thousands."""
    if not math.isfinite(value):
        return ""
    shown = round(100 * value)
    return f"{shown}" if abs(shown) < 1000 else f"{shown / 1000:.0f}k"


def _caption(rows: Sequence[LayerRow], tasks: Sequence[str], titles: dict[str, str]) -> str:
    """What is counted, and where most and least is kept, in the numbers of this run."""
    cells = [(row.kept[task], row.name, task) for row in rows for task in tasks if task in row.kept]
    cells = [cell for cell in cells if math.isfinite(cell[0])]
    best, worst = max(cells), min(cells)
    thousands = " (k: thousands)" if abs(worst[0]) >= 10 or abs(best[0]) >= 10 else ""
    where = [f"{task} in {titles[name]} ({percent(v, 0)})" for v, name, task in (best, worst)]
    return (
        f"Percentage{thousands} of what each expert changes in a layer's outputs, on its inputs, "
        "that the merge has too; below 0 it is further from the expert than the base is. Most: "
        f"{where[0]}. "
        f"Least: {where[1]}."
    )
